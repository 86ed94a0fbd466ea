"""Several devices learn what one learns, and send each other no more than that takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
import yaml
from conftest import STEPS, Trained, small_config
from on_devices import CASES

from gridcast.cli import main
from gridcast.errors import ConfigError
from gridcast.training.checkpoints import load_newest, saved
from gridcast.training.parallel import Layout, layout_of

SCRIPT = Path(__file__).with_name("on_devices.py")
WHOLE = list(CASES)
SHARED = [name for name in WHOLE if not name.endswith("1x1x1")]


def on_devices(*command: str) -> str:
    """What a Python process with 8 devices writes to standard output."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def outcomes(names: list[str]) -> dict[str, dict[str, Any]]:
    return json.loads(on_devices(str(SCRIPT), *names).splitlines()[-1])


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """The small experiment of all tests, batches of 8 shared by 3 devices."""
    return outcomes([])["small"]


@pytest.fixture(scope="module")
def whole() -> dict[str, dict[str, Any]]:
    return outcomes(WHOLE)


def require_same(found: dict[str, dict[str, Any]], name: str) -> None:
    """The losses of 20 steps, and of validation before and after, are those of one device."""
    alone, shared = found[f"{name.split()[0]} 1x1x1"], found[name]
    assert alone["devices"] == 1
    assert shared["devices"] == np.prod([int(n) for n in name.split()[1].split("x")])
    np.testing.assert_allclose(shared["losses"], alone["losses"], atol=1e-5)
    np.testing.assert_allclose(shared["validation"], alone["validation"], atol=1e-5)
    # The control: there is something to be equal to, and it changes from step to step.
    assert len(set(alone["losses"])) == len(alone["losses"]) == 20


@pytest.mark.family
def test_a_batch_that_devices_do_not_share_evenly_gives_the_losses_of_one(small, bench):
    state = bench.stepper.start(jax.tree.map(jnp.copy, bench.weights))
    _, log = bench.stepper.run(state, bench.series, jnp.asarray(bench.setup.epoch(0)), 0, STEPS)
    assert small["devices"] == 3
    np.testing.assert_allclose(small["losses"], np.asarray(log)[:, 0], atol=1e-5)


def test_devices_send_each_other_gradients_and_gather_nothing(small):
    assert set(small["sent"]) == {"all-reduce"}
    assert max(small["sent"]["all-reduce"]) == small["largest weight"]


@pytest.mark.family
@pytest.mark.parametrize("name", SHARED)
def test_shared_training_gives_the_losses_of_one_device(whole, name):
    require_same(whole, name)


@pytest.mark.family
@pytest.mark.parametrize("name", SHARED)
def test_no_field_of_a_batch_is_gathered(whole, name):
    alone, found = whole[f"{name.split()[0]} 1x1x1"], whole[name]
    assert alone["sent"] == {}
    sent = found["sent"]
    gathered = [size for kind in ("all-gather", "all-to-all") for size in sent.pop(kind, [])]
    if name.startswith("cnn") and "x1x1" not in name:
        # Each device has the gradients of dense layers for its own cells.
        assert max(gathered, default=0) <= found["largest weight"]
    else:
        assert gathered == []
    assert set(sent) <= {"all-reduce", "collective-permute"}
    assert sent["all-reduce"]


@pytest.mark.family
def test_longitudes_that_wrap_take_two_messages_for_each_convolution(whole):
    """Five convolutions: the first, those in both loops, the head, the gradients of each."""
    found = whole["conv 1x1x4"]
    assert found["wraps"]
    assert len(found["sent"]["collective-permute"]) == 10


@pytest.mark.family
def test_members_apart_send_each_other_no_gradients(whole):
    assert max(whole["members 4x1x1"]["sent"]["all-reduce"]) <= 4 * 20
    assert whole["members 4x1x1"]["losses"] == whole["members 1x1x1"]["losses"]


@pytest.mark.family
def test_a_series_read_from_a_store_is_shared_as_one_in_memory(trained: Trained, tmp_path):
    settings = yaml.safe_load(trained.config.read_text())
    settings["data"]["path"], store = str(trained.data), str(tmp_path / "small.zarr")
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(settings))
    assert main(["data", "prepare", str(config), "--output", store]) == 0
    asked = [f"data.path={store}", "frames.storage=stream", f"output.directory={tmp_path / 'run'}"]
    on_devices("-c", CLI, "train", str(config), *asked)
    weights = load_newest(tmp_path / "run" / "checkpoints").arrays["weights"]
    one = load_newest(trained.directory / "checkpoints").arrays["weights"]
    for name, leaf in one.items():
        np.testing.assert_allclose(weights[name], leaf, rtol=0, atol=1e-4)


@pytest.mark.family
def test_a_run_of_8_devices_is_gone_on_from_and_forecasts_on_one(trained: Trained, tmp_path):
    """The same experiment as the run of one device: the last epoch is trained once more on one."""
    settings = yaml.safe_load(trained.config.read_text())
    settings["output"]["directory"] = str(tmp_path / "run")
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(settings))
    on_devices("-c", CLI, "train", str(config))
    folder = tmp_path / "run" / "checkpoints"
    eight = load_newest(folder)
    one = load_newest(trained.directory / "checkpoints")
    close = {"rtol": 0, "atol": 1e-4}
    for name, leaf in one.arrays["weights"].items():
        np.testing.assert_allclose(eight.arrays["weights"][name], leaf, **close)
    shutil.rmtree(saved(folder)[-1])
    assert main(["train", str(config), "--resume", "parallel.data=1"]) == 0
    again = load_newest(folder)
    assert again.step == eight.step
    for name, leaf in eight.arrays["weights"].items():
        np.testing.assert_allclose(again.arrays["weights"][name], leaf, **close)
    with (
        xr.open_dataset(tmp_path / "run" / "forecast.nc") as found,
        xr.open_dataset(trained.directory / "forecast.nc") as expected,
    ):
        for name in expected.data_vars:
            if found[name].dtype.kind == "f":
                np.testing.assert_allclose(found[name], expected[name], atol=1e-3)


CLI = "import sys; from gridcast.cli import main; sys.exit(main(sys.argv[1:]))"
GLOBE = (16, 32)
BATCH_NORM = {"model": {"name": "cnn_lstm", "norm": "batch"}, "parallel": {"data": 3}}


def layout(
    grid: tuple[int, int] = GLOBE, step: int = 2, windows: int = 8, **sections: Any
) -> Layout:
    return layout_of(small_config(**sections), grid, step, windows, whole=False)


def test_one_device_has_no_mesh(bench):
    assert layout() == bench.stepper.layout == Layout(mesh=None)


@pytest.mark.parametrize(
    ("devices", "grid", "sections", "reason"),
    [
        (1, GLOBE, {"parallel": {"data": 2}}, "2 devices, found 1\n  fix: parallel.data: 1"),
        (1, GLOBE, {"parallel": {"lat": 2}}, "2 devices, found 1\n  fix: parallel.lat: 1 and"),
        (8, (16, 36), {"parallel": {"lon": 4}}, "fix: parallel.lon: 3, or a data.region with 32"),
        (8, (16, 4), {"parallel": {"lon": 4}}, "fix: parallel.lon: 2, or a data.region with 8"),
        (8, (4, 8), {"parallel": {"lat": 2}, "model": {"kernel": 7}}, "fix: parallel.lat: 1, or a"),
        (16, GLOBE, {"parallel": {"data": 9}}, "fix: parallel.data: 8, or a larger"),
        (8, GLOBE, BATCH_NORM, "fix: parallel.data: 2, or train.batch_size: 9"),
    ],
)
def test_devices_and_parts_that_do_not_come_out_are_refused(
    devices, grid, sections, reason, monkeypatch
):
    monkeypatch.setattr(jax, "devices", lambda: [None] * devices)
    with pytest.raises(ConfigError) as error:
        layout(grid, **sections)
    assert reason in str(error.value)
