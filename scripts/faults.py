"""Try what can go wrong, class by class, and say what became of it.

    python scripts/faults.py                  # every class
    python scripts/faults.py files content    # some of them
    python scripts/faults.py --broken         # break the code on purpose: each class has to notice
    python scripts/faults.py --readme         # the table into README.md as well, of either

Exits with 1 if a fault was answered wrongly, a control failed or a break was not noticed. The
classes are the modules of scripts/fault_suite that have a NAME and a function
`run(folder) -> Outcome`.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import fault_suite
from fault_suite.breaking import attempts, noticed
from fault_suite.breaks import BREAKS, Break
from fault_suite.outcome import Outcome
from readme_tables import between_markers

from gridcast.drafts import write_text

README = Path(__file__).parents[1] / "README.md"
SHOWN = 20  # wrong answers of a class that are printed


def main(argv: Sequence[str] | None = None) -> int:
    classes = find_classes()
    parser = argparse.ArgumentParser(description="Try what can go wrong, class by class.")
    parser.add_argument("classes", metavar="CLASS", nargs="*", help=f"of {', '.join(classes)}")
    parser.add_argument("--broken", action="store_true", help="try code that is broken on purpose")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.classes if name not in classes]:
        parser.error(f"no class {', '.join(unknown)}; known here: {', '.join(classes)}")
    began = time.perf_counter()
    chosen = {name: classes[name] for name in arguments.classes or classes}
    if arguments.broken:
        shown, well = broken(list(chosen))
    else:
        shown, well = whole(chosen)
    print(shown)
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    if arguments.readme:
        name = "broken" if arguments.broken else "faults"
        write_text(README, between_markers(README.read_text(), shown, name))
    return 0 if well else 1


def whole(classes: dict[str, Callable[[Path], Outcome]]) -> tuple[str, bool]:
    """The table of the classes, and whether all went well."""
    outcomes: dict[str, Outcome] = {}
    for name, run in classes.items():
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix=f"faults-{name.replace(' ', '-')}-") as folder:
            outcomes[name] = run(Path(folder))
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        for line in told(outcomes[name]):
            print(f"  {line}", file=sys.stderr)
    return table(outcomes), all(outcome.passed for outcome in outcomes.values())


def broken(classes: Sequence[str]) -> tuple[str, bool]:
    """The table of the breaks for these classes, and whether each was noticed."""
    found: list[tuple[Break, Outcome | str]] = []
    for one, outcome in attempts([one for one in BREAKS if one.fault in classes]):
        found.append((one, outcome))
        said = outcome if isinstance(outcome, str) else "; ".join(outcome.wrong[:2])
        how = "noticed" if noticed(outcome) else "NOT NOTICED"
        print(f"{one.fault}, {one.words}: {how}\n  {said[:500]}", file=sys.stderr, flush=True)
    return broken_table(found), all(noticed(outcome) for _, outcome in found)


def find_classes() -> dict[str, Callable[[Path], Outcome]]:
    """The function of each class by its name, in the order of the modules' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(fault_suite.__path__))
    modules = [importlib.import_module(f"fault_suite.{name}") for name in names]
    return {module.NAME: module.run for module in modules if hasattr(module, "NAME")}


def told(outcome: Outcome) -> list[str]:
    """What was wrong, a line each."""
    lines = [] if outcome.control else ["the control failed: nothing is shown by the rest"]
    more = len(outcome.wrong) - SHOWN
    return lines + outcome.wrong[:SHOWN] + ([f"and {more} more"] if more > 0 else [])


def table(outcomes: dict[str, Outcome]) -> str:
    """Markdown: cases tried, survived and wrong of each class."""
    lines = ["| fault class | cases tried | survived | wrong |", "|---|---|---|---|"]
    for name, outcome in outcomes.items():
        wrong = str(outcome.cases - outcome.survived) + ("" if outcome.control else ", no control")
        lines.append(f"| {name} | {outcome.cases} | {outcome.survived} | {wrong} |")
    return "\n".join(lines)


def broken_table(found: Sequence[tuple[Break, Outcome | str]]) -> str:
    """Markdown: what was broken, and how many cases of how many were answered wrongly then."""
    lines = ["| fault class | broken on purpose | cases tried | wrong |", "|---|---|---|---|"]
    for one, outcome in found:
        cases, wrong = "-", "-"
        if isinstance(outcome, Outcome):
            cases, wrong = str(outcome.cases), str(outcome.cases - outcome.survived)
        wrong += "" if noticed(outcome) else ", not noticed"
        lines.append(f"| {one.fault} | {one.words} | {cases} | {wrong} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
