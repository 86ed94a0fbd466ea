"""Type checks of the whole package, and a small ocean that the tests share."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook

PROGRAMS = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_configure(config: pytest.Config) -> None:
    """Compile fast rather than well: the quick tests compile many small programs and run each once.

    XLA reads this when it is first used. The slow tests train, and are compiled as users' runs are.
    """
    if "slow" not in config.option.markexpr.replace("not slow", ""):
        flags = [os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=1"]
        # Half the time to compile. An unknown flag would end the process: only where it is known.
        if tuple(map(int, version("jaxlib").split(".")[:2])) <= (0, 12):
            flags.append("--xla_cpu_use_fusion_emitters=false")
        os.environ["XLA_FLAGS"] = " ".join(flags).strip()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """The processes of one test run hand each other what they compile: half of it is the same."""
    stash = node.config.stash
    if PROGRAMS not in stash:
        stash[PROGRAMS] = tempfile.TemporaryDirectory()
    node.workerinput["programs"] = stash[PROGRAMS].name


def pytest_unconfigure(config: pytest.Config) -> None:
    if PROGRAMS in config.stash:
        config.stash[PROGRAMS].cleanup()


# Shapes and dtypes in annotations are checked at every call. This must come before the first
# import of gridcast.
install_import_hook("gridcast", "beartype.beartype")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import xarray as xr  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from gridcast.cli import main  # noqa: E402
from gridcast.config import Config, config_from_dict  # noqa: E402
from gridcast.config.training import TrainConfig  # noqa: E402
from gridcast.fitting import compile_setup  # noqa: E402
from gridcast.opening import open_source  # noqa: E402
from gridcast.preparation import Setup, prepare  # noqa: E402
from gridcast.sources.simulated import simulated_series, write_simulation  # noqa: E402
from gridcast.training import loop  # noqa: E402
from gridcast.training.step import DeviceSeries, Stepper, Weights  # noqa: E402


def pytest_sessionstart(session: pytest.Session) -> None:
    if folder := getattr(session.config, "workerinput", {}).get("programs"):
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


# One epoch of 13 steps: two stretches of the compiled loop, the second shorter.
SMALL = {
    "data": {"path": "(in memory)"},
    "frames": {"inputs": 3, "leads": 2, "climatology": {"harmonics": 2}},
    "splits": {"train": [1950, 1958], "validation": [1959, 1960], "test": [1961, 1963]},
    "model": {"name": "conv_lstm", "hidden": [4], "downsample": 2},
    "train": {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "patience": 3},
}
STEPS = 13


def small_config(**sections: dict[str, Any]) -> Config:
    """The small experiment with some settings replaced."""
    settings = {k: dict(v) for k, v in SMALL.items()}
    for name, values in sections.items():
        kept = settings.get(name, {})
        if name == "model" and values.get("name", kept["name"]) != kept["name"]:
            kept = {}  # another network has other settings
        settings[name] = kept | values
    return config_from_dict(settings)


@dataclass(frozen=True)
class Bench:
    """A prepared experiment with its compiled functions, first weights and frozen ones."""

    setup: Setup
    stepper: Stepper
    series: DeviceSeries
    weights: Weights
    frozen: Any
    validate: Callable[[Weights], float]

    @classmethod
    def of(cls, series: xr.DataArray, config: Config) -> Bench:
        setup = prepare(config, open_source(config, series))
        stepper, on_device, weights, frozen = compile_setup(setup)
        validate = loop.validator(
            stepper, on_device, setup.validation_windows, config.train.batch_size
        )
        return cls(setup, stepper, on_device, weights, frozen, validate)

    def fit(
        self,
        metrics: Path,
        *,
        begin: loop.Fit | None = None,
        save: Callable[[loop.Fit], Any] = lambda _: None,
        validate: Callable[[Weights], float] | None = None,
        series: DeviceSeries | None = None,
        stepper: Stepper | None = None,
        **train: Any,
    ) -> loop.Fit:
        """`loop.fit` with settings of this bench unless others are given."""
        validate = validate or self.validate
        return loop.fit(
            stepper or self.stepper,
            series or self.series,
            self.setup.member_windows,
            validate,
            begin or loop.start(self.stepper, self.weights, validate),
            TrainConfig(**(self.setup.config.train.model_dump() | train)),
            save=save,
            metrics=metrics,
        )

    def with_run(self, run: Callable[..., Any]) -> Stepper:
        """The stepper with another function in place of its compiled training steps."""
        stepper = copy.copy(self.stepper)
        object.__setattr__(stepper, "run", run)
        return stepper


def same_bits(a: Any, b: Any) -> bool:
    """Whether two trees hold the same arrays, bit for bit."""
    ours, theirs = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(ours) == len(theirs) and all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(ours, theirs, strict=True)
    )


@pytest.fixture(scope="session")
def ocean() -> xr.DataArray:
    """A simulated ocean, 1950 to 1963, with land; never to be changed in place."""
    series, _ = simulated_series("ocean", years=14, shape=(9, 18), seed=3)
    series.values.flags.writeable = False
    return series


@pytest.fixture(scope="module")
def no_pictures() -> Iterator[None]:
    """Empty files in place of pictures, which take longer than the training of a small network."""

    def leave_empty(_: Figure, path: Path | io.BytesIO, **__: Any) -> None:
        if isinstance(path, Path):
            path.write_bytes(b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", leave_empty)
        yield


@pytest.fixture(scope="session")
def bench(ocean: xr.DataArray) -> Bench:
    """The small experiment on the small ocean, compiled once for all tests."""
    return Bench.of(ocean, small_config())


@dataclass(frozen=True)
class Trained:
    """A small run made by the command line, and what it was made from.

    Attributes:
      directory: of the run.
      data: the simulated series it was trained on, as a file.
      config: the file that the command was given.
      said: what the command wrote to standard error.
    """

    directory: Path
    data: Path
    config: Path
    said: str


TRAINED = """\
data: {{path: {data}}}
frames: {{inputs: 3, leads: 3}}
splits: {{train: [1950, 1958], validation: [1959, 1960], test: [1961, 1964]}}
model: {{name: conv_lstm, hidden: [4], base: climatology}}
train: {{epochs: 2, learning_rate: 1.0e-2}}
output: {{directory: {directory}}}
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One run of `gridcast train`, to be read only."""
    folder = tmp_path_factory.mktemp("trained")
    data, config, directory = folder / "sea.nc", folder / "small.yaml", folder / "run"
    write_simulation(data, kind="ocean", years=15, shape=(9, 18), seed=1)
    config.write_text(TRAINED.format(data=data, directory=directory))
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert main(["train", str(config)]) == 0, said.getvalue()
    return Trained(directory, data, config, said.getvalue())
