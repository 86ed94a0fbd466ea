"""The benchmark: operations counted by hand, what may be quoted, and a run cut to seconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import benchmark
from benchmarks.flops import Flops, network_flops
from benchmarks.growth import exponent, sizes
from benchmarks.job import shares
from benchmarks.kernels import kernels
from benchmarks.measure import Block, comparison, in_turns, ratio, steps_of, summary
from benchmarks.problem import Disagreement, Problem, block_order, require_same
from benchmarks.table import table
from benchmarks.workloads import WORKLOADS, config_of, series_of

from gridcast.config import config_from_dict
from gridcast.errors import DataError
from gridcast.models.window import Sizes


def sizes_of(grid: tuple[int, int], **changed: int) -> Sizes:
    counts = {"channels": 4, "ahead": 3, "inputs": 2, "leads": 1, "outputs": 1} | changed
    return Sizes(**counts, grid=grid, whole=False, wraps=False)


def model_of(**settings: Any) -> Any:
    splits = {"train": [1950, 1960], "validation": [1961, 1962], "test": [1963, 1964]}
    data = {"path": "(in memory)"}
    return config_from_dict({"data": data, "splits": splits, "model": settings}).model


def test_the_operations_of_w1_are_those_that_were_published_for_it():
    # 132.6 GFLOP with a head of 1 x 1, of which ours has 3 x 3.
    config = config_of(WORKLOADS["W1"])
    found = network_flops(config.model, sizes_of((45, 90), inputs=12), 4)
    head = 3 * 2 * 9 * 32 * 45 * 90 * 4
    assert found.training - head == pytest.approx(132.6e9, rel=5e-4)


def test_operations_of_a_conv_lstm_by_hand():
    # 2 x 3 cells, each 2 x 2 of the grid; 4 * 4 + 5 channels in, 4 * 5 gates; head 5 to 3 * 4.
    model = model_of(name="conv_lstm", hidden=[5], kernel=3, downsample=2)
    found = network_flops(model, sizes_of((4, 6), leads=3), batch=2)
    cells = 2 * 3 * 2
    cell, head = 2 * 9 * 21 * 20 * cells * 2, 2 * 9 * 5 * 12 * cells
    # No gradient of the 16 channels that are data.
    data = 2 * 9 * 16 * 20 * cells * 2
    assert found == Flops(cell + head, 3 * (cell + head) - data)


def test_operations_of_a_decoder_that_is_fed_its_own_forecasts():
    model = model_of(name="conv_seq2seq", hidden=[5], kernel=3, downsample=2)
    found = network_flops(model, sizes_of((4, 6), leads=3), batch=1)
    read, decoded, head = 21 * 20 * 2, (4 + 12 + 5) * 20 * 3, 5 * 4 * 3
    data = 16 * 20 * 2 + 12 * 20 * 3
    each = 2 * 9 * 6
    forward = each * (read + decoded + head)
    assert found == Flops(forward, 3 * forward - each * data)


def test_operations_of_a_cnn_lstm_by_hand():
    model = model_of(
        name="cnn_lstm", channels=[6, 8], kernel=3, latent=10, hidden=[12], norm="none"
    )
    found = network_flops(model, sizes_of((8, 4)), batch=1)
    frames = 2
    encoder = 2 * 9 * (4 * 6 * 32 + 6 * 8 * 8) * frames + 2 * 16 * 10 * frames
    lstm = 2 * 22 * 48 * frames
    decoder = 2 * 12 * 16 + 2 * 9 * (16 * 6 * 2 + 12 * 4 * 8 + 8 * 1 * 32)
    data = 2 * 9 * (4 * 6 * 32 * frames + 4 * 32)
    forward = encoder + lstm + decoder
    assert found == Flops(forward, 3 * forward - data)


def test_medians_and_ratios_are_of_the_same_rounds():
    ours = summary([Block(1.0, 1.9), Block(2.0, 1.9), Block(9.0, 1.9)], 2)
    fast = summary([Block(3.0, 1.8), Block(1.0, 1.8), Block(9.0, 1.8)], 2)
    slow = summary([Block(8.0, 2.0)] * 3, 2)
    found = comparison(ours, {"slow": slow, "fast": fast})
    assert (ours["seconds"], fast["seconds"]) == (2.0, 3.0)
    assert (found["best_peer"], found["ratio"], found["range"]) == ("fast", 1.5, [0.5, 3.0])
    assert found["quoted"]
    assert found["all"]["slow"]["ratio"] == 4.0
    assert comparison(ours, {}) == {}


@pytest.mark.parametrize(
    ("cpu", "cores", "busy"),
    [(1.49, 2, True), (1.51, 2, False), (0.7, 1, True), (0.9, 1, False), (0.1, None, False)],
)
def test_a_run_that_had_too_little_of_the_cores_is_not_quoted(cpu, cores, busy):
    # One disturbed block among quiet ones is what a median is for.
    disturbed = summary([Block(1.0, cpu), Block(1.0, cpu), Block(1.0, 2.0 - cpu)], cores)
    quiet = summary([Block(1.0, 2.0)] * 3, cores)
    assert disturbed["busy"] == busy
    assert ratio(quiet, disturbed)["quoted"] == (not busy)
    assert ratio(disturbed, quiet)["quoted"] == (not busy)


def test_runners_take_turns_and_blocks_are_long_enough():
    order: list[tuple[str, int]] = []

    def runner(name: str):
        return lambda steps: (order.append((name, steps)), Block(1.0, 2.0))[1]

    blocks = in_turns({"a": runner("a"), "b": runner("b")}, {"a": 0.1, "b": 7.0}, 3)
    assert order == [("a", 10), ("b", 3), ("b", 3), ("a", 10), ("a", 10), ("b", 3)]
    assert [len(found) for found in blocks.values()] == [3, 3]
    assert steps_of(0.3) == 4


def test_the_share_of_steps_leaves_the_first_call_and_its_compilation_out():
    # Began at 100; the first call takes 12 s of which 8 steps are 4; then 4 s of steps in 5 s.
    further = [(122.0, 124.0, 4), (125.0, 127.0, 4)]
    found = shares((110.0, 122.0, 8), further, batch=10, began=100.0)
    assert found["compile"] == pytest.approx(8.0)
    assert found["steps_share"] == pytest.approx(0.8)
    assert found["samples_per_second"] == pytest.approx(80 / 5)
    assert found["samples_per_second_from_file"] == pytest.approx(160 / 27)


def test_another_result_is_no_peer():
    one = np.array([1.0, -2.0, 0.5])
    assert require_same("outputs", one, one + 1e-5) == pytest.approx(5e-6, rel=1e-3)
    for wrong in (one + 1e-3, one * np.nan):
        with pytest.raises(Disagreement, match="outputs differ by"):
            require_same("outputs", wrong, one)
    with pytest.raises(Disagreement, match="shape"):
        require_same("outputs", one[:2], one)


def test_channels_of_blocks_in_the_order_of_torch():
    # (row, column, channel) of 2 x 2 blocks with 3 channels.
    x = np.arange(12).reshape(2, 2, 3)
    order = block_order(2, 2, 3)
    assert np.array_equal(x.reshape(-1)[order], x.transpose(2, 0, 1).reshape(-1))


def runner(seconds: float, cpu: float = 1.9) -> dict[str, Any]:
    return summary([Block(seconds, cpu)] * 3, 2)


def entry(peer_cpu: float = 1.9, **changed: Any) -> dict[str, Any]:
    """The results of one workload, with made-up numbers."""
    ours, peers = runner(0.2), {"torch": runner(0.3, peer_cpu), "keras-jax": runner(4.0)}
    work = {
        "runners": {"gridcast": ours, **peers},
        "against": comparison(ours, peers),
        "flops_per_second": 5e10,
        "matrix_share": 0.5,
    }
    about = {
        "first_seconds": {"training": 2.0},
        "memory": {"training": 3 * 2**20, "device": None},
        "seconds": {"compile": 6.0},
    }
    sizes = {"batch": 4, "inputs": 12, "leads": 1, "grid": [45, 90], "channels": 4}
    return {
        "title": "ConvLSTM",
        "date": "2001-02-03",
        "quick": False,
        "threads": "all",
        "training": work,
        "inference": work,
        "rates": {"jax": 9e10, "torch": 1e11, "memory": 2e10},
        "about": {
            "gridcast": {**about, **sizes, "device": "cpu"},
            "torch": about,
            "keras-jax": about,
        },
        "notes": [],
    } | changed


def results_of(**entries: Any) -> dict[str, Any]:
    machine = {"processor": "Fast", "cores": 2, "memory_GiB": 8.0}
    return {"machine": machine, "versions": {"jax": "1.2"}, "entries": entries, "skipped": {}}


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[1:]]


def test_the_table_quotes_quiet_runs_only():
    quiet, busy = entry(), entry(peer_cpu=1.2, threads="1")
    text = table(results_of(W1={"all": quiet, "1": busy}))
    training, inference, disturbed, _ = rows(text)
    assert training == [
        "ConvLSTM, batch 4, 12 frames 45 x 90 x 4: training",
        "200 (1.90)",
        "torch 300 (1.90)",
        "1.50 (1.50 to 1.50)",
        "50 %",
        "8.0 / 2.0",
        "3 / 3",
    ]
    assert inference[0] == "inference"
    assert disturbed[0].endswith("one thread")
    assert disturbed[2:4] == ["torch busy", "busy"]
    assert "training torch 1.50, keras-jax 20.00; inference torch 1.50, keras-jax 20.00." in text
    assert "2 cores of Fast, 8.0 GiB; matrix 100 GFLOP/s, memory 20 GB/s; jax 1.2" in text


def test_ensemble_job_and_what_was_skipped_are_said():
    times = {"members": 8, "times": {"ratio": 7.5, "range": [7.0, 8.0], "quoted": True}}
    results = results_of(ensemble={"all": {"date": "2001-02-03", **times}})
    results["skipped"]["W4"] = "its data were not found"
    text = table(results)
    assert "8 members of W1 takes 7.50 (7.00 to 8.00) times as long" in text
    assert "W4 was skipped: its data were not found." in text
    results["entries"]["ensemble"]["all"]["times"]["quoted"] = False
    assert "7.50" not in table(results)


def test_the_exponent_of_a_power_law_and_what_varies_in_it():
    times = {"10": {"seconds": 0.5}, "20": {"seconds": 2.0}, "40": {"seconds": 8.0}}
    assert exponent(times) == pytest.approx(2.0)
    for name, sized in sizes(WORKLOADS["W1"]).items():
        small, middle, large = sized
        assert (small * 2, large) == (middle, middle * 2), name
        assert sized[middle] == WORKLOADS["W1"]
    cells = sizes(WORKLOADS["W1"])["cells"]
    assert [one.grid[0] * one.grid[1] for one in cells.values()] == list(cells)


def test_kernels_are_counted_in_the_body_of_each_loop_and_not_inside_fusions():
    hlo = """
%fused (p: f32[4]) -> f32[4] {
  %c = f32[4]{0} copy(%p)
}
%inner.1 (t: f32[4]) -> f32[4] {
  %d = f32[4]{0} dot(%t, %t), metadata={op_name="while/fusion(x)"}
}
%outer (t: f32[4]) -> f32[4] {
  %f = f32[4]{0} fusion(%t), kind=kLoop, calls=%fused
  %g = f32[4]{0} get-tuple-element(%f), index=0
  %v = f32[4]{0} convolution(%g, %g)
  ROOT %w = f32[4]{0} while(%v), condition=%c, body=%inner.1
}
ENTRY %main (t: f32[4]) -> f32[4] {
  %k = f32[4]{0} copy(%t)
  ROOT %w = f32[4]{0} while(%k), condition=%c, body=%outer
}
"""
    assert kernels(hlo) == [2, 1]


def test_growth_is_told_and_not_quoted_of_a_busy_machine():
    told = {n: {"seconds": 0.1, "cpu_over_wall": 1.9, "busy": n == "20"} for n in ("10", "20")}
    found = {"cells": {"steps": told, "exponent": 1.02}}
    results = results_of(growth={"all": {"date": "2001-02-03", "by": found}})
    assert "| cells | 10: 100 (1.90), 20: 100 (1.90) | busy |" in table(results)
    told["20"]["busy"] = False
    assert "| 1.02 |" in table(results)


def test_the_table_goes_between_its_own_markers(tmp_path, capsys):
    readme, out = tmp_path / "README.md", tmp_path / "benchmark.json"
    out.write_text(json.dumps(results_of(W1={"all": entry()})))
    marked = "a\n<!-- benchmark:begin -->\nold\n<!-- benchmark:end -->\nb\n"
    readme.write_text(marked)
    command = ["--table", "--out", str(out), "--readme", str(readme)]
    assert benchmark.main(command) == 0
    text = readme.read_text()
    assert text.startswith("a\n<!-- benchmark:begin -->\n| | gridcast")
    assert "old" not in text
    readme.write_text(marked.replace("benchmark", "results"))
    assert benchmark.main(command) == 2
    assert "one line <!-- benchmark:begin -->" in capsys.readouterr().err


def test_results_of_another_machine_are_not_mixed(tmp_path):
    out = tmp_path / "benchmark.json"
    out.write_text(json.dumps(results_of()))
    with pytest.raises(DataError, match="another machine"):
        benchmark.before(out)


def test_the_made_up_sea_is_all_ocean_and_does_not_wrap():
    for name in ("W1", "W2", "W3"):
        config = config_of(WORKLOADS[name])
        sea = series_of(WORKLOADS[name], config)
        assert sea is not None
        assert sea.shape[1:] == WORKLOADS[name].grid
        assert np.isfinite(sea.values).all()
        assert float(sea["lon"][-1] - sea["lon"][0]) < 180


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> dict[str, Any]:
    """W1 cut to seconds, without peers."""
    out = tmp_path_factory.mktemp("benchmark") / "results.json"
    command = ["--quick", "--workloads", "W1", "--peers", "--out", str(out)]
    assert benchmark.main(command) == 0
    return json.loads(out.read_text())


@pytest.mark.family
def test_a_quick_run_writes_all_that_the_table_needs(quick):
    found = quick["entries"]["W1"]["all"]
    ours = found["about"]["gridcast"]
    assert (ours["channels"], ours["grid"], ours["batch"]) == (4, [6, 8], 2)
    assert max(ours["agreement"].values()) < 1e-4
    assert ours["first_seconds"]["training"] > 0
    assert found["training"]["flops_per_second"] > 0
    assert set(found["rates"]) == {"jax", "numpy", "memory"}
    assert "cut sizes, no measurement" in table(quick)


@pytest.mark.parametrize("name", ["W1", "W2", "W3"])
def test_torch_computes_the_same_network(name, tmp_path):
    pytest.importorskip("torch")
    from benchmarks.ours import Gridcast
    from benchmarks.torch_peers import TorchPeer

    ours = Gridcast(name, quick=True, batch_times=1, members=1)
    ours.build()
    ours.begin()
    ours.export(tmp_path)
    for kind in ("torch", "torch-channels-last"):
        peer = TorchPeer(kind, Problem.load(tmp_path))
        peer.build()
        peer.begin()
        assert max(peer.agreement().values()) < 1e-4
        # A control: another weight is another network.
        peer.problem.weights["head.bias" if name != "W2" else "decoder.head.bias"] += 0.01
        with pytest.raises(Disagreement, match="outputs"):
            peer.agreement()
