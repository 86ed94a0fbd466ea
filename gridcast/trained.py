"""The jobs of a trained run: forecast with it, judge it, write what it is worth."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr

from gridcast.opening import Data
from gridcast.run import Run
from gridcast.sources.netcdf import write_netcdf, write_zarr
from gridcast.stages import stage, timed
from gridcast.timeaxis import label
from gridcast.verification.tables import table, verdict, write_csv

_log = logging.getLogger("gridcast")


def run_forecast(
    directory: str,
    data: list[str] | None,
    leads: int | None,
    start: str | None,
    output: str | None,
) -> Path:
    """Forecast with a trained run and write NetCDF, or a name.zarr; returns its path."""
    with timed() as times:
        run = Run.load(directory)
        forecast = run.forecast(data, leads=leads, start=start)
        date = label(forecast["forecast_reference_time"].values[-1])
        path = Path(output) if output else run.directory / f"forecast_{date}.nc"
        with stage("writing"):
            (write_zarr if path.suffix == ".zarr" else write_netcdf)(forecast, path)
    _log.info("%s", times)
    return path


def run_evaluation(
    directory: str, data: list[str] | None, others: Mapping[str, str], regrid: bool
) -> str:
    """Judge a trained run, write its scores, return the tables; as `judged`."""
    return said(judged(directory, data, others, regrid))


def judged(
    directory: str, data: list[str] | None, others: Mapping[str, str], regrid: bool
) -> list[xr.Dataset]:
    """Judge a trained run, write its scores and return them.

    With forecasts of others they are in `comparison`: other dates than those of `scores`.
    """
    with timed() as times:
        run = Run.load(directory)
        scores, _ = run.verify(data, others, regrid=regrid)
        write_scores(scores, run.directory, "comparison" if others else "scores")
    _log.info("%s", times)
    return scores


def said(scores: Sequence[xr.Dataset]) -> str:
    """The tables and verdicts of all targets."""
    return "\n".join(f"{table(one)}\n{verdict(one)}" for one in scores)


@stage("writing")
def write_scores(scores: Sequence[xr.Dataset], directory: Path, name: str = "scores") -> None:
    """scores.nc, .csv and .png; further targets have their number in the name."""
    from gridcast.plots import plot_reliability, plot_scores  # matplotlib

    for number, one in enumerate(scores, 1):
        stem = name if number == 1 else f"{name}_{number}"
        write_netcdf(one, directory / f"{stem}.nc")
        write_csv(one, directory / f"{stem}.csv")
        plot_scores(one, directory / f"{stem}.png")
        reliability = directory / f"{stem}_reliability.png"
        reliability.unlink(missing_ok=True)  # of an earlier comparison, perhaps
        if "category" in one.dims:
            plot_reliability(one, reliability)


def evaluate(run: Run | str | Path, data: Data | None = None) -> xr.Dataset:
    """Scores of a run on its test dates, beside the references; see `Run.evaluate`.

    Example, with the run and the data of the example of `train`:
      >>> import gridcast
      >>> scores = gridcast.evaluate(run, sst)
      >>> scores["rmse"].sizes["lead"], scores["forecast"].values.tolist()
      (3, ['model', 'climatology', 'persistence', 'damped_persistence', 'lim'])
    """
    return (run if isinstance(run, Run) else Run.load(run)).evaluate(data)
