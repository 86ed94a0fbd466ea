"""What each member of an ensemble forecasts of the indices that a report shows: `indices.nc`."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float

from gridcast.cf import of_file
from gridcast.labelling import physical_values
from gridcast.matching import matching_series
from gridcast.opening import Data
from gridcast.report.cases import shown_patterns
from gridcast.run import Run
from gridcast.stages import stage
from gridcast.verification.indices import Pattern, index_series


@stage("members")
def member_indices(run: Run, data: Data | None, hindcast: xr.Dataset) -> xr.Dataset | None:
    """The indices of the report as each member forecasts them by itself.

    Of a member that forecasts a distribution its mean.

    Args:
      data: as `Run.verify`.
      hindcast: as `Run.hindcast` returns: of its initial dates.

    Returns:
      VARIABLE over (index, realization, forecast_reference_time, forecast_period): anomalies
      against the training climatology in units of the series. None of one network, and of classes.
    """
    fields, config = run.fields, run.config
    if config.train.members == 1 or fields.classes is not None:
        return None
    series, axis = matching_series(config, fields, data)
    after = axis.times_at(axis.steps[-1] + np.arange(1, config.frames.leads + 1))
    arrays = fields.arrays_of(series, axis, after)
    initial = series[0].indexes["time"].get_indexer(hindcast["forecast_reference_time"].values)
    patterns = [
        shown_patterns(t.grid, config.verification.boxes, t.variable) for t in fields.targets
    ]
    times, step = hindcast["time"].values, run.predictor.batch_size
    made: list[list[np.ndarray]] = [[] for _ in fields.targets]
    for first in range(0, initial.size, step):
        some = slice(first, first + step)
        each = run.predictor.members(arrays, initial[some])
        for i, one in enumerate(patterns):
            made[i].append(_of_members(run, i, each, times[some], list(one.values())))
    found = {}
    for target, parts, one in zip(fields.targets, made, patterns, strict=True):
        coords = {"index": list(one), "realization": np.arange(run.predictor.count, dtype=np.int32)}
        values = np.concatenate(parts, axis=2)
        about = {
            "units": target.units,
            "long_name": f"anomaly of {target.variable} as each member forecasts it",
        }
        found[target.variable] = xr.DataArray(values, coords, _DIMS, attrs=about)
    kept = ("forecast_reference_time", "forecast_period", "time")
    together = xr.Dataset(found).assign_coords({name: hindcast[name].variable for name in kept})
    together["realization"].attrs = {"standard_name": "realization", "units": "1"}
    together["index"].attrs = {"long_name": "mean over a box"}
    return together.assign_attrs(of_file(run.attributes))


_DIMS = ("index", "realization", "forecast_reference_time", "forecast_period")


def _of_members(
    run: Run,
    i: int,
    each: Float[np.ndarray, "member window lead lat lon output"],
    times: np.ndarray,
    patterns: list[Pattern],
) -> Float[np.ndarray, "index member window lead"]:
    """Of target `i`, where its indices are the sums of pattern * anomaly."""
    climatology = run.fields.targets[i].climatology.at(times.ravel())
    normal = climatology.reshape(*times.shape, *climatology.shape[1:])
    anomalies = [physical_values(run.fields, one, times)[i] - normal for one in each]
    return np.stack([[index_series(one, pattern) for one in anomalies] for pattern in patterns])
