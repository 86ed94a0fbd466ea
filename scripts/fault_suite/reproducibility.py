"""Reproducibility: the same seed gives the same bits, and a run says what it was made with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import xarray as xr

from fault_suite import small
from fault_suite.outcome import Outcome
from fault_suite.tally import Tally

NAME = "reproducibility"
CNN = {"name": "cnn_lstm", "channels": [3, 4], "latent": 4, "hidden": [5], "dropout": 0.2}
KINDS = {
    "ConvLSTM": {},
    "CNN-LSTM, dropout": {"model": CNN},
    "members, averaged, with deviations": {
        "train": {"members": 2, "average": 0.9, "loss": "crps", "bootstrap": 3}
    },
}


def run(folder: Path, kinds: Iterable[str] = KINDS) -> Outcome:
    """Train twice in processes of their own; and once with another seed, which must differ."""
    tally = Tally()
    for number, kind in enumerate(kinds):
        sections = KINDS[kind]
        sections = sections | {"train": sections.get("train", {}) | {"epochs": 2}}
        config = small.write_experiment(folder / f"experiment{number}", **sections)
        runs = {}
        for name, options in (("one", []), ("two", []), ("other", ["train.seed=1"])):
            at = folder / f"{name}{number}"
            code, said = small.ended(small.start(config, at, *options))
            runs[name] = at
            if code:
                tally.case(f"{kind}, {name}", said[-300:])
                return tally.outcome
        tally.case(f"{kind}, results", small.differs(runs["one"], runs["two"]))
        tally.case(f"{kind}, weights", _weights(runs["one"], runs["two"]))
        moved = _weights(runs["one"], runs["other"]) is not None
        tally.control(None if moved else f"{kind}: another seed gives the same weights")
        tally.check(
            f"{kind}, what it says", lambda at=runs["one"], config=config: _said(at, config)
        )
    return tally.outcome


def _weights(one: Path, two: Path) -> str | None:
    from gridcast.training.checkpoints import load_newest

    ours, theirs = (load_newest(path / "checkpoints") for path in (one, two))
    for group in ours.arrays:
        for name, array in ours.arrays[group].items():
            if array.tobytes() != theirs.arrays[group][name].tobytes():
                return f"{group}{name} differs"
    return None


def _said(directory: Path, config: Path) -> str | None:
    from gridcast.sources.netcdf import open_frames
    from gridcast.training.checkpoints import load_newest

    with xr.open_dataset(directory / "forecast.nc") as forecast:
        history = forecast.attrs["history"]
    if history != "2000-01-01T00:00:00Z gridcast":
        return f"SOURCE_DATE_EPOCH is not the time of writing: {history}"
    about = load_newest(directory / "checkpoints").about
    missing = {"config", "versions", "revision", "data_sha256", "seed"} - about.keys()
    if missing:
        return f"the run does not say: {sorted(missing)}"
    # By another route: the sums of the series as it is read now.
    series = open_frames(config.with_name("ocean.nc"))
    sums = hashlib.sha256(" ".join(map(str, series["time"].values)).encode())
    sums.update(series.values.tobytes())
    if about["data_sha256"] != {series.name: sums.hexdigest()}:
        return f"other sums of the data: {json.dumps(about['data_sha256'])}"
    return None
