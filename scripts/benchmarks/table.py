"""README's table of speed, made of the results as they stand in the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from results_tables import number

Entry = Mapping[str, Any]
_HEAD = (
    "| | gridcast, ms | best peer, ms | ratio (range) | of the matrix rate | first step, s "
    "| memory, MiB |"
)


def table(results: Mapping[str, Any]) -> str:
    """Markdown: the workloads, all ratios, the ensemble, the whole job, the machine."""
    entries = results["entries"]
    of_workloads = [
        e for name in sorted(entries) if name[:1] == "W" for e in entries[name].values()
    ]
    parts = []
    if of_workloads:
        rows = [row for entry in of_workloads for row in rows_of(entry)]
        parts.append("\n".join([_HEAD, "|---" * 7 + "|", *rows]))
        parts.append(_LEGEND)
        parts += [text for entry in of_workloads if (text := all_ratios(entry))]
    parts += [ensemble_text(entry) for entry in entries.get("ensemble", {}).values()]
    parts += [growth_text(entry) for entry in entries.get("growth", {}).values()]
    parts += [job_text(entry) for entry in entries.get("job", {}).values()]
    parts += [f"{name} was skipped: {why}." for name, why in results.get("skipped", {}).items()]
    parts.append(machine_text(results, of_workloads))
    return "\n\n".join(parts)


_LEGEND = (
    "A training step is forward, weighted squared error, backward, clipping and AdamW; inference "
    "is the forecast of a batch, in host memory. Beside the times stands CPU time over wall time; "
    "`busy`: it says that something else ran. Ratio: the best peer's time over gridcast's, "
    "medians and the range over the rounds; above 1 gridcast is faster. Matrix rate: useful FLOP/s "
    "over those of a float32 matrix product in the same run. The first step comes "
    "with compilation. Memory: the peak in training beyond what imports and data take. The last "
    "two of gridcast / the best peer. gridcast also gathers windows and makes the reference; "
    "peers are given both."
)


def rows_of(entry: Entry) -> list[str]:
    """Of one workload: training, and inference."""
    about = entry["about"]["gridcast"]
    grid = " x ".join(map(str, about["grid"]))
    size = f"batch {about['batch']}, {about['inputs']} frames {grid} x {about['channels']}"
    if about["leads"] > 1:
        size += f", {about['leads']} leads"
    mark = " (cut sizes, no measurement)" if entry["quick"] else ""
    rows = []
    for work in ("training", "inference"):
        label = f"{entry['title']}, {size}: {work}" if work == "training" else work
        if entry["threads"] == "1":
            label += ", one thread"
        rows.append(f"| {label}{mark} | " + " | ".join(_cells(entry, work)) + " |")
    return rows


def _cells(entry: Entry, work: str) -> list[str]:
    done, against = entry[work], entry[work]["against"]
    ours = done["runners"]["gridcast"]
    peer = against.get("best_peer")
    if ours["busy"]:
        return ["busy", "", "", "", "", ""]
    cells = [_took(ours), "", "", f"{100 * done['matrix_share']:.0f} %"]
    if peer is not None:
        theirs = done["runners"][peer]
        cells[1] = f"{peer} " + ("busy" if theirs["busy"] else _took(theirs))
        cells[2] = _ratio(against)
    if work == "inference":
        return [*cells, "", ""]
    pair = [entry["about"][name] for name in ("gridcast", peer) if name is not None]
    first = [f"{one['first_seconds']['training']:.1f}" for one in pair]
    memory = [f"{_memory(one) / 2**20:.0f}" for one in pair]
    # gridcast's programs are compiled before its first step.
    first[0] = f"{pair[0]['seconds']['compile'] + pair[0]['first_seconds']['training']:.1f}"
    return [*cells, " / ".join(first), " / ".join(memory)]


def _memory(about: Entry) -> int:
    memory = about["memory"]
    return memory["training"] if memory["device"] is None else memory["device"]


def _took(summary: Entry) -> str:
    """Milliseconds, and CPU time over wall time."""
    time = 1000 * summary["seconds"]
    return f"{time:.{1 if time < 100 else 0}f} ({summary['cpu_over_wall']:.2f})"


def _ratio(found: Entry) -> str:
    if not found["quoted"]:
        return "busy"
    low, high = found["range"]
    return f"{_short(found['ratio'])} ({_short(low)} to {_short(high)})"


def _short(value: float) -> str:
    """Two places: `.85`, `1.04`."""
    return number(value)[:-1]


def all_ratios(entry: Entry) -> str:
    """The ratios to every peer, in training and inference; empty without peers."""
    lines = []
    for work in ("training", "inference"):
        found = entry[work]["against"].get("all", {})
        shown = [f"{peer} {_short(one['ratio'])}" for peer, one in found.items() if one["quoted"]]
        if shown:
            lines.append(f"{work} {', '.join(shown)}")
    if not lines:
        return ""
    thread = ", one thread" if entry["threads"] == "1" else ""
    notes = "".join(f" ({note})" for note in entry["notes"] if note.startswith("of the peers"))
    return f"{entry['title']}{thread}, times of peers over gridcast's: {'; '.join(lines)}{notes}."


def ensemble_text(entry: Entry) -> str:
    """How much longer a step of all members takes than one of a single network."""
    if not entry["times"]["quoted"]:
        return f"A step of {entry['members']} members of W1: the machine was busy."
    return (
        f"A step of {entry['members']} members of W1 takes {_ratio(entry['times'])} times as long "
        "as that of one."
    )


def growth_text(entry: Entry) -> str:
    """How the time of a step grows with what varies."""
    rows = ["| W1, a training step by | ms | exponent |", "|---|---|---|"]
    for name, found in entry["by"].items():
        told = found["steps"]
        times = ", ".join(f"{size}: {_took(one)}" for size, one in told.items())
        busy = any(one["busy"] for one in told.values())
        rows.append(f"| {name} | {times} | {'busy' if busy else _short(found['exponent'])} |")
    return "\n".join(rows)


def job_text(entry: Entry) -> str:
    """Where the time of a whole training goes."""
    cold, warm = entry["cold"], entry["warm"]
    at = cold["seconds"]
    return (
        f"`{entry['config']}`, {entry['epochs']} epochs from the NetCDF file: imports "
        f"{at['imported']:.1f} s, reading {at['loaded'] - at['imported']:.1f} s, preparing "
        f"{at['prepared'] - at['loaded']:.1f} s, until the first step "
        f"{at['first_step_begins'] - at['prepared']:.1f} s more, compiling the step "
        f"{cold['compile']:.1f} s ({warm['compile']:.1f} s from the cache). Then "
        f"{100 * cold['steps_share']:.0f} % of the time to the last step are steps, "
        f"{cold['samples_per_second']:.0f} samples/s; from the start of the process on "
        f"{cold['samples_per_second_from_file']:.0f} samples/s."
    )


def machine_text(results: Mapping[str, Any], entries: list[Any]) -> str:
    """Where, when and with what."""
    machine, versions = results["machine"], results["versions"]
    text = f"{machine['cores']} cores of {machine['processor']}, {machine['memory_GiB']} GiB"
    devices = dict.fromkeys(entry["about"]["gridcast"]["device"] for entry in entries)
    text += "".join(f", device {device}" for device in devices if device != "cpu")
    if entries:
        rates = [entry["rates"] for entry in entries]
        best = max(rate for one in rates for key, rate in one.items() if key != "memory")
        memory = max(one["memory"] for one in rates)
        text += f"; matrix {best / 1e9:.0f} GFLOP/s, memory {memory / 1e9:.0f} GB/s"
    every = [e for group in results["entries"].values() for e in group.values()]
    dates = sorted({entry["date"] for entry in every})
    known = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"Measured {' and '.join(dates)} on {text}; {known}; `scripts/benchmark.py`."
