"""A run's forecast as one compiled program: physical units in, physical units out, for any batch.

What comes before and after the model is float64, as in `FrameTransform`, and traced with 64 bits;
the model is the one that the run forecasts with.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float, Int

from gridcast.accelerator import jit
from gridcast.exporting.dates import Seasons
from gridcast.frames.fields import AMOUNTS, Fields
from gridcast.frames.known import known_fields
from gridcast.frames.skew import Skew
from gridcast.frames.trailing import steps_of
from gridcast.frames.transform import FrameTransform
from gridcast.frames.windows import Trailing
from gridcast.models import Inputs
from gridcast.models.members import joint_outputs
from gridcast.run import Run
from gridcast.timeaxis import season_fields

PLATFORMS = ("cpu", "cuda", "tpu")


def history(run: Run, seasons: Seasons) -> int:
    """How many frames up to the initial date the forecast depends on."""
    frames = run.config.frames
    return max(frames.inputs, steps_of(frames.trailing, seasons.axis) if frames.trailing else 0)


def export_program(run: Run, seasons: Seasons) -> export.Exported:
    """The forecast from `values` and `date`, for PLATFORMS.

    values: float32 [batch, frame, lat, lon, variable] the frames up to the initial date, in
      physical units; NaN off the mask and, for a run that masks gaps, where nothing was observed.
    date: int32 [batch, 3] year, month and day of the initial date.

    Returns:
      A function of both that gives float32 fields by name, [batch, lead, lat, lon] or, of classes,
      [batch, lead, category, lat, lon]; NaN off the mask, and everywhere if there is no such date.
    """
    predictor, grid, size = run.predictor, run.fields.inputs[0].grid, run.predictor.batch_size
    frames = (history(run, seasons), *grid.shape, len(run.fields.inputs))
    # Of a distribution of amounts the mean is forecast.
    numbers = 1 if run.config.train.loss == AMOUNTS else run.model.head.width
    made = (predictor.leads, *grid.shape, numbers * len(run.fields.targets))
    with jax.enable_x64(True):
        before = _exported(
            partial(_before, run, seasons), _shape(size, *frames), _shape(size, 3, dtype=np.int32)
        )
        after = _exported(
            partial(_after, run.fields, seasons),
            _shape(size, *made),
            _shape(size, 3, dtype=np.int32),
        )

    def block(values: Array, date: Array) -> Any:
        # Nothing is computed across the barriers: each part rounds as it does by itself.
        frames, known, month, trailing = _apart(before.call(values, date))
        last = frames[:, -1, :, :, : predictor.targets]
        means = None
        if trailing is not None:
            means = Trailing(trailing, trailing[..., : predictor.targets])
        inputs = Inputs(frames, known, month, last, trailing=means)
        weights, fixed = _apart((predictor.weights, predictor.fixed))
        outputs, head = joint_outputs(predictor.graph, fixed, weights, inputs, predictor.count)
        return after.call(_apart(head.forecast(outputs)), date)

    def forecast(values: Array, date: Array) -> dict[str, Array]:
        # In blocks of the run's batch size, the last one filled up, as the run forecasts.
        batch = values.shape[0]

        def rows(first: Array) -> dict[str, Array]:
            taken = jnp.minimum(first + jnp.arange(size), batch - 1)
            return block(values[taken], date[taken])

        found = jax.lax.map(rows, size * jnp.arange((batch + size - 1) // size))
        each = jnp.arange(batch)
        return jax.tree.map(lambda field: field[each // size, each % size], found)

    (batch,) = export.symbolic_shape("batch")
    return _exported(forecast, _shape(batch, *frames), _shape(batch, 3, dtype=np.int32))


def _shape(*sizes: Any, dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def _exported(function: Any, *shapes: jax.ShapeDtypeStruct) -> export.Exported:
    return export.export(jit(function), platforms=PLATFORMS)(*shapes)


def _apart(tree: Any) -> Any:
    return jax.lax.optimization_barrier(tree)


def _before(
    run: Run, seasons: Seasons, values: Float[Array, "batch frame lat lon variable"], date: Array
) -> tuple[Array, Array, Array, Array | None]:
    """Frames, what is known in advance, months of the leads and trailing means, for the model."""
    config, fields = run.config.frames, run.fields
    frames = values.shape[1]
    season, year = seasons.after(date, np.arange(1 - frames, config.leads + 1))
    past = season[:, :frames], year[:, :frames]
    scaled = jnp.stack(
        [
            _scaled(transform, seasons, values[..., i], *past)
            for i, transform in enumerate(fields.inputs)
        ],
        axis=-1,
    )
    around = season[:, frames - config.inputs :]
    first = fields.inputs[0]
    table = known_fields(config.known, seasons.dates, seasons.unit, first.grid.lat)
    known = _constant(table)[around]
    month = _constant(seasons.months.astype(np.int32))[season[:, frames:]]
    trailing = None
    if config.trailing is not None:
        steps = steps_of(config.trailing, seasons.axis)
        counted = scaled[:, frames - steps :].astype(jnp.float64)
        if config.missing == "mask":
            counted = jnp.nan_to_num(counted)
        trailing = (counted.sum(axis=1) / steps).astype(jnp.float32)
    return scaled[:, frames - config.inputs :], known, month, trailing


def _after(
    fields: Fields,
    seasons: Seasons,
    outputs: Float[Array, "batch lead lat lon output"],
    date: Array,
) -> dict[str, Array]:
    """What the model forecasts, in physical units."""
    leads, count = outputs.shape[1], len(fields.targets)
    season, year = seasons.after(date, np.arange(1, leads + 1))
    known = seasons.exists(date)[:, None, None, None]
    each = outputs.reshape(*outputs.shape[:-1], count, -1)
    found = {}
    for i, target in enumerate(fields.targets):
        inside = _constant(target.grid.mask) & known
        number = each[..., i, :]
        if fields.classes is not None:
            chances = jnp.where(inside[..., None], number, jnp.nan)
            found[f"{target.variable}_probability"] = jnp.moveaxis(chances, -1, 2)
            continue
        value = number[..., 0].astype(jnp.float64)
        if fields.config.train.loss != AMOUNTS:
            moved = value * _constant(target.scaler.deviation)
            value = _inverse(target.skew, moved + _normal(target, seasons, season, year))
        if target.lowest is not None:
            value = jnp.maximum(value, target.lowest)
        found[target.variable] = jnp.where(inside, value, jnp.nan).astype(jnp.float32)
        if fields.normal:
            spread = number[..., 1] * _constant(target.scaler.deviation)
            spread = jnp.where(inside, spread, jnp.nan).astype(jnp.float32)
            found[f"{target.variable}_standard_deviation"] = spread
    return found


def _scaled(
    transform: FrameTransform, seasons: Seasons, values: Array, season: Array, year: Array
) -> Float[Array, "batch frame lat lon"]:
    """As `FrameTransform.frames`."""
    moved = _forward(transform.skew, values).astype(jnp.float64)
    anomaly = moved - _normal(transform, seasons, season, year)
    scaled = anomaly / _constant(transform.scaler.deviation)
    return jnp.where(_constant(transform.grid.mask), scaled, 0.0).astype(jnp.float32)


def _normal(
    transform: FrameTransform,
    seasons: Seasons,
    season: Int[Array, "batch date"],
    year: Int[Array, "batch date"],
) -> Float[Array, "batch date lat lon"]:
    """As `Climatology.at`: its terms from a table, added in the order of a matrix product."""
    climatology = transform.climatology
    terms = _constant(climatology.terms(seasons.dates))[season]
    if climatology.trend:
        phase = season_fields(seasons.dates, climatology.unit)[0]
        since = year + _constant(phase)[season] - climatology.middle
        terms = jnp.concatenate([terms[..., :-1], since[..., None]], axis=-1)
    coefficients = _constant(climatology.coefficients)

    def add(k: Array, total: Array) -> Array:
        return total + terms[..., k, None, None] * coefficients[k]

    nothing = jnp.zeros((*terms.shape[:2], *transform.grid.shape))
    return jax.lax.fori_loop(0, len(climatology.coefficients), add, nothing)


def _forward(skew: Skew, values: Array) -> Array:
    """As `Skew.forward`; NaN where that would refuse."""
    if skew.kind == "none":
        return values
    wide = values.astype(jnp.float64)
    if skew.kind == "cube_root":
        return jnp.cbrt(wide).astype(values.dtype)
    moved = jnp.log1p(wide / float(skew.fitted["scale"]))
    return jnp.where(values < 0, jnp.nan, moved).astype(values.dtype)


def _inverse(skew: Skew, moved: Array) -> Array:
    """As `Skew.inverse`."""
    if skew.kind == "none":
        return moved
    return moved**3 if skew.kind == "cube_root" else jnp.expm1(moved) * float(skew.fitted["scale"])


def _constant(array: np.ndarray) -> Array:
    """An array of the program that the compiler may not compute with beforehand."""
    return _apart(jnp.asarray(array))
