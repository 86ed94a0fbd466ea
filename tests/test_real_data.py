"""Real data, found through GRIDCAST_DATA: sets open, references score as published, runs work."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import gridcast
from gridcast.cli import main
from gridcast.config.bounds import Region
from gridcast.config.data import VariableConfig
from gridcast.config.frames import FramesConfig
from gridcast.config.schema import SplitsConfig
from gridcast.frames.climatology import Climatology
from gridcast.frames.splits import Splits
from gridcast.frames.transform import FrameTransform
from gridcast.frames.windows import hindcast_windows, positions_at
from gridcast.references import REFERENCES, TrainingSeries
from gridcast.sources import catalog
from gridcast.sources.netcdf import open_frames
from gridcast.timeaxis import TimeAxis
from gridcast.verification.hindcast import same_dates
from gridcast.verification.metrics import Pairs, acc, rmse

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not os.environ.get("GRIDCAST_DATA"), reason="GRIDCAST_DATA names no directory with real data"
)


def files(pattern: str) -> list[Path]:
    found = [p for d in catalog.search_path() for p in sorted(d.glob(pattern))]
    if not found:
        pytest.skip(f"no {pattern} in GRIDCAST_DATA")
    return found


# Published scores of reference forecasts on these data and dates: RMSE in K and ACC by lead.
# Climatology: mean and three annual harmonics of the day of the year, per cell, fitted on the
# training years. LIM: 20 EOFs and a locally damped residual.
TROPICAL_PACIFIC = {
    "leads": (1, 2, 3, 6, 9, 12, 18),
    "climatology": ((0.604,) * 7, None),
    "persistence": (
        (0.298, 0.424, 0.506, 0.642, 0.690, 0.699, 0.720),
        (0.878, 0.754, 0.650, 0.433, 0.345, 0.332, 0.291),
    ),
    "damped_persistence": (
        (0.293, 0.404, 0.469, 0.555, 0.574, 0.581, 0.595),
        (0.877, 0.747, 0.632, 0.395, 0.318, 0.305, 0.174),
    ),
    "lim": (
        (0.291, 0.397, 0.458, 0.555, 0.586, 0.598, 0.610),
        (0.878, 0.754, 0.652, 0.407, 0.268, 0.182, 0.039),
    ),
}
TASMAN = {
    "leads": (1, 2, 3, 5, 7, 10),
    "climatology": ((0.983,) * 6, None),
    "persistence": (
        (0.268, 0.422, 0.514, 0.620, 0.683, 0.752),
        (0.963, 0.908, 0.864, 0.802, 0.759, 0.709),
    ),
    "damped_persistence": (
        (0.265, 0.412, 0.495, 0.587, 0.640, 0.694),
        (0.963, 0.908, 0.864, 0.803, 0.760, 0.711),
    ),
    "lim": (
        (0.264, 0.410, 0.494, 0.586, 0.637, 0.689),
        (0.963, 0.909, 0.865, 0.803, 0.762, 0.714),
    ),
}


def reference_scores(
    series: xr.DataArray, splits: SplitsConfig, leads: tuple[int, ...], *, by_day: bool
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """RMSE and ACC of every reference at `leads`; the season counts days, or steps of the data."""
    axis = TimeAxis.of(series["time"].values)
    cut = Splits.by_date(axis, splits)
    variable = VariableConfig(name="ersst-v5")
    transform = FrameTransform.fit(series, axis, cut.train, FramesConfig(), variable)
    if by_day:
        seasonal = Climatology.fit(
            series.values[cut.train], axis.times[cut.train], transform.grid.mask, unit="day"
        )
        transform = replace(transform, climatology=seasonal)
    frames, longest = transform.frames(series), max(leads)
    initial = hindcast_windows(axis, cut.test, 1, longest)
    verifying = positions_at(axis, initial, np.arange(1, longest + 1))
    verified = same_dates(verifying, cut.test)
    assert (verified.sum(axis=0) == cut.test.sum()).all()
    deviation = transform.scaler.deviation
    training = TrainingSeries.of(frames, axis, cut.train, transform.grid.weight[..., None])
    observed, chosen = frames[verifying][..., 0] * deviation, np.array(leads) - 1
    found = {}
    for name, fit in REFERENCES.items():
        forecast = fit(training, longest)(frames[initial][:, None])[..., 0] * deviation
        pairs = Pairs(
            forecast[:, chosen], observed[:, chosen], verified[:, chosen], transform.grid.weight
        )
        found[name] = rmse(pairs), acc(pairs)
    return found


def assert_as_published(found: dict, published: dict, tolerance: float) -> None:
    for name in REFERENCES:
        for ours, theirs in zip(found[name], published[name], strict=True):
            if theirs is None:
                assert np.isnan(ours).all()
            else:
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def pacific() -> xr.DataArray:
    """ERSSTv5 within 30S-30N, 120E-70W."""
    paths = files("sst_ersstv5_*.nc")
    return open_frames(paths, region=Region(lat=(-30, 30), lon=(120, 290)))


SPLITS = SplitsConfig.model_validate(
    {"train": [1950, 1994], "validation": [1995, 2000], "test": [2001, 2012]}
)


def test_references_on_the_tropical_pacific_score_as_published(pacific):
    leads = TROPICAL_PACIFIC["leads"]
    found = reference_scores(pacific, SPLITS, leads, by_day=True)
    assert_as_published(found, TROPICAL_PACIFIC, 0.002)


def test_a_season_of_months_in_place_of_days_hardly_changes_these_scores(pacific):
    """What `gridcast train` uses on monthly data; the LIM's ACC at 12 months differs most."""
    leads = TROPICAL_PACIFIC["leads"]
    found = reference_scores(pacific, SPLITS, leads, by_day=False)
    assert_as_published(found, TROPICAL_PACIFIC, 0.0041)
    assert_as_published(
        {name: tuple(s[:4] for s in scores) for name, scores in found.items()},
        {name: tuple(s and s[:4] for s in TROPICAL_PACIFIC[name]) for name in REFERENCES},
        0.0015,
    )


def test_references_on_the_daily_tasman_sea_score_as_published():
    series = open_frames(files("sst_oisstv2_tasman_*.nc"))
    splits = SplitsConfig.model_validate(
        {"train": [1982, 2007], "validation": [2008, 2009], "test": [2010, 2012]}
    )
    found = reference_scores(series, splits, TASMAN["leads"], by_day=False)
    assert_as_published(found, TASMAN, 0.0015)


def test_every_series_opens_in_canonical_form():
    names = {p.name for p in [*files("sst*.nc"), *files("ss[ht]*.nc"), *files("precip*.nc")]}
    for path in sorted(p for name in names for p in files(name)):
        series = open_frames(path)
        assert series.dims == ("time", "lat", "lon")
        assert series.dtype == np.float32
        assert (np.diff(series["lat"]) > 0).all()
        assert (np.diff(series["lon"]) > 0).all()
        axis = TimeAxis.of(series["time"].values)
        assert not axis.gaps
        assert axis.frequency == ("day" if "daily" in path.name else "month")
        present = np.isfinite(series.values)
        # Missing on land only: a cell has all its values, or none.
        assert (present.any(axis=0) == present.all(axis=0)).all(), path.name
        assert series.attrs["units"] in ("degC", "K", "m", "mm", "mm/day")


def test_the_two_halves_of_ersst_join_without_a_gap():
    paths = files("sst_ersstv5_*.nc")
    whole = open_frames(list(reversed(paths)))
    axis = TimeAxis.of(whole["time"].values)
    assert (axis.times.size, axis.frequency, axis.gaps) == (133 * 12, "month", [])
    assert axis.dates[0].tolist() == [1880, 1, 1]
    assert axis.dates[-1].tolist() == [2012, 12, 1]
    by_name = open_frames(catalog.locate("ersst-v5"))
    assert whole.values.tobytes() == by_name.values.tobytes()


@pytest.mark.family
def test_the_main_experiment_runs_on_a_part_of_the_real_ocean(tmp_path, capsys):
    files("sst_ersstv5_*.nc")
    directory = tmp_path / "run"
    code = main(
        [
            "train",
            str(ROOT / "configs" / "sst.yaml"),
            "data.region={lat: [-10, 10], lon: [180, 240]}",
            "train.epochs=1",
            f"output.directory={directory}",
        ]
    )
    said = capsys.readouterr().err
    assert code == 0, said
    assert "SIMULATED" not in said
    run = gridcast.load_run(directory)
    assert "ERSST" in run.origin or "Extended Reconstructed" in run.origin
    with xr.open_dataset(directory / "scores.nc") as scores:
        assert scores["dates"].values.tolist() == [144] * run.config.frames.leads
        assert np.isfinite(scores["rmse"]).all()
        assert np.isfinite(scores["acc"].sel(forecast="model")).all()
        assert float(scores["rmse"].sel(forecast="model", lead=1)) < 0.6
        assert "simulated" not in scores.attrs["source"]
    forecast = run.forecast(leads=3)
    assert forecast["time"].dt.strftime("%Y-%m").values.tolist() == [
        ["2013-01", "2013-02", "2013-03"]
    ]
    assert 15 < float(forecast["sst"].min()) < float(forecast["sst"].max()) < 35


# Monthly rain is hardly predictable: these configs are asked to run and to be scored.
RAIN = ("rain_gpcp", "rain_chirps")


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_config_beats_damped_persistence_at_every_lead(path, tmp_path):
    overrides = [f"output.directory={tmp_path / 'run'}", "data.offline=error"]
    run = gridcast.train(gridcast.load_config(path, overrides))
    with xr.open_dataset(run.directory / "scores.nc") as scores:
        metric = scores[scores.attrs["headline"].split()[0]]
        ours, damped = (
            metric.sel(forecast=name).values for name in ("model", "damped_persistence")
        )
    print(path.stem, metric.name, np.round(ours, 3), np.round(damped, 3))
    assert np.isfinite(ours).all()
    assert path.stem in RAIN or (ours < damped).all()
