"""Scores as labelled data, as a table for people, and as CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float

from gridcast.errors import DataError
from gridcast.forecasting import of_file
from gridcast.frames.transform import FrameTransform
from gridcast.sources.units import family
from gridcast.verification.hindcast import MODEL, Hindcast
from gridcast.verification.metrics import METRICS, Pairs, squared_error

TITLES = {
    MODEL: "model",
    "climatology": "climatology",
    "persistence": "anomaly persistence",
    "damped_persistence": "damped persistence",
    "lim": "linear inverse model",
}

_LEAD = "lead in steps of: "
_LONG_NAMES = {
    "rmse": "root mean square error, pooled over dates and area",
    "mae": "mean absolute error",
    "bias": "mean of forecast minus observed",
    "acc": "anomaly correlation, uncentred, pooled over dates and area",
}


def score(
    hindcast: Hindcast,
    frames: Float[np.ndarray, "time lat lon channel"],
    transform: FrameTransform,
    attributes: dict[str, str],
) -> xr.Dataset:
    """RMSE, MAE, bias, ACC and skill of every forecast, by lead, with maps.

    Returns:
      Over (forecast, lead): rmse, mae, bias in the units of the series, acc, and `skill`
      [reference, lead] = 1 - MSE of the model / MSE of the reference (Murphy 1988).
      Over (forecast, lead, lat, lon): rmse_map; over (reference, lead, lat, lon): skill_map,
      NaN off the mask.
    """
    if not hindcast.verified.any():
        raise DataError(
            "no date can be verified at every lead\n"
            "  fix: a longer splits.test, or fewer frames.leads"
        )
    grid, deviation = transform.grid, transform.scaler.deviation
    observed = frames[hindcast.verifying][..., 0] * deviation
    pairs = {
        name: Pairs(scaled[..., 0] * deviation, observed, hindcast.verified, grid.weight)
        for name, scaled in hindcast.forecasts.items()
    }
    names = list(pairs)
    references = [name for name in names if name != MODEL]
    leads = np.arange(1, observed.shape[1] + 1)
    square = np.stack([squared_error(p) for p in pairs.values()])
    pooled = np.stack([p.area_mean(s) for p, s in zip(pairs.values(), square, strict=True)])
    off = ~grid.mask
    units = {"units": transform.units}
    if family(transform.units) == "temperature":
        units["units_metadata"] = "temperature: difference"
    by_lead = {
        metric: (
            ("forecast", "lead"),
            np.stack([function(p) for p in pairs.values()]),
            {**({"units": "1"} if metric == "acc" else units), "long_name": _LONG_NAMES[metric]},
        )
        for metric, function in METRICS.items()
    }
    over = ("reference", "lead")
    with np.errstate(invalid="ignore", divide="ignore"):  # a reference without any error
        skill = 1 - pooled[:1] / pooled[1:]
        skill_map = np.where(off, np.nan, 1 - square[:1] / square[1:])
    one = {"units": "1", "long_name": "1 - MSE of the model / MSE of the reference"}
    return xr.Dataset(
        {
            **by_lead,
            "skill": (over, skill, one),
            "dates": (
                "lead",
                hindcast.verified.sum(axis=0),
                {"units": "1", "long_name": "number of verification dates"},
            ),
            "rmse_map": (
                ("forecast", "lead", "lat", "lon"),
                np.where(off, np.nan, np.sqrt(square)).astype(np.float32),
                {**units, "long_name": "root mean square error over dates, of each cell"},
            ),
            "skill_map": ((*over, "lat", "lon"), skill_map.astype(np.float32), one),
        },
        coords={
            "forecast": ("forecast", names, {"long_name": "which forecast is judged"}),
            "reference": ("reference", references, {"long_name": "which forecast is to be beaten"}),
            "lead": (
                "lead",
                leads,
                {"units": "1", "long_name": f"{_LEAD}{transform.step}"},
            ),
            "lat": ("lat", grid.lat, {"units": "degrees_north", "standard_name": "latitude"}),
            "lon": ("lon", grid.lon, {"units": "degrees_east", "standard_name": "longitude"}),
        },
        attrs=of_file(attributes | {"title": f"scores of forecasts of {transform.variable}"}),
    )


def table(scores: xr.Dataset, most: int = 12) -> str:
    """RMSE and ACC of each forecast by lead, as lines of text."""
    leads = _spread(scores["lead"].values, most)
    step = scores["lead"].attrs["long_name"].removeprefix(_LEAD)
    lines = []
    for metric, unit in (("rmse", scores["rmse"].attrs["units"]), ("acc", "")):
        chosen = scores[metric].sel(lead=leads)
        head = f"{metric.upper()} {unit}".strip()
        lines.append(f"{head:<22}" + "".join(f"{lead:>8d}" for lead in leads) + f"  x {step}")
        for name in scores["forecast"].values:
            row = chosen.sel(forecast=name).values
            cells = "".join(f"{'-' if np.isnan(v) else f'{v:.3f}':>8}" for v in row)
            lines.append(f"{TITLES[str(name)]:<22}{cells}")
    dates = int(scores["dates"].values[0])
    lines.append(f"{scores.attrs['source']}; {dates} verification dates, the same at each lead")
    return "\n".join(lines)


def verdict(scores: xr.Dataset) -> str:
    """One sentence: at which leads the model beats every reference, and which it does not beat."""
    rmse, leads = scores["rmse"], scores["lead"].values
    ours = rmse.sel(forecast=MODEL).values
    beaten = {
        str(name): ours < rmse.sel(forecast=name).values for name in scores["reference"].values
    }
    wins = np.all(list(beaten.values()), axis=0)
    if wins.all():
        return f"The model's RMSE is below every reference at all {leads.size} leads."
    unbeaten = [
        f"{TITLES[name]} at {', '.join(map(str, leads[~below]))}"
        for name, below in beaten.items()
        if not below.all()
    ]
    return (
        f"The model's RMSE is below every reference at {int(wins.sum())} of {leads.size} leads; "
        f"not below {'; '.join(unbeaten)}."
    )


def write_csv(scores: xr.Dataset, path: Path) -> None:
    """One line for each forecast and lead; the first line names the columns."""
    columns = scores[[*METRICS]].to_dataframe().reset_index()
    skill = scores["skill"].to_dataframe().reset_index()
    wide = skill.pivot(index="lead", columns="reference", values="skill").add_prefix("skill_vs_")
    joined = columns.merge(wide.reset_index().assign(forecast=MODEL), how="left")
    joined["source"] = scores.attrs["source"]
    draft = path.with_name(f".{path.name}.tmp")
    joined.to_csv(draft, index=False, float_format="%.6g")
    draft.replace(path)


def _spread(leads: np.ndarray, most: int) -> list[int]:
    if leads.size <= most:
        return leads.tolist()
    return sorted({int(leads[round(i)]) for i in np.linspace(0, leads.size - 1, most)})
