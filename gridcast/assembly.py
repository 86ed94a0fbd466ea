"""From a config and fitted arrays to a model, its patches, and from a trained one its predictor."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float

from gridcast.config import Config
from gridcast.config.models import ReferenceConfig, ReferenceModelConfig
from gridcast.errors import ConfigError
from gridcast.forecasting import Predictor, Tiling
from gridcast.frames.fields import AMOUNTS, Fields, variables
from gridcast.frames.known import known_names
from gridcast.frames.places import random_place
from gridcast.grid import Grid
from gridcast.models import ForecastModel, build_model, without_network
from gridcast.models.heads import ClassHead, Head, NormalHead, RainHead, ValueHead
from gridcast.references import BASE_ARRAYS, REFERENCES
from gridcast.training.state import Weights


def head_of(arrays: dict[str, np.ndarray]) -> Head:
    """The head that these arrays belong to."""
    if "climate" in arrays:
        return RainHead(arrays["climate"])
    base = {name: arrays[name] for name in BASE_ARRAYS if name in arrays}
    if "odds" in arrays:
        return ClassHead(base or None, arrays.get("deviation"), arrays["edges"], arrays["odds"])
    if "deviation" in arrays:
        return NormalHead(base, arrays["deviation"], arrays.get("calibration"))
    return ValueHead(base)


def model_of(
    config: Config,
    fields: Fields,
    layers: Float[np.ndarray, "lat lon layer"],
    head: dict[str, np.ndarray],
    network: Callable[..., nnx.Module] | None = None,
    weights: bool = True,
) -> ForecastModel:
    """The configured model with its first weights; without `weights` with their shapes alone."""
    grid = fields.inputs[0].grid
    patches = config.frames.patches
    return build_model(
        config.model,
        head_of(head),
        variables=len(fields.inputs),
        known=len(known_names(config.frames.known)),
        layers=layers,
        mask=grid.mask,
        target_mask=fields.target_mask,
        inputs=config.frames.inputs,
        leads=config.frames.leads,
        patch=None if patches is None else patches.size,
        gaps=config.frames.missing == "mask",
        whole=fields.whole,
        wraps=grid.wraps,
        seed=config.train.seed,
        precision=config.train.precision,
        remat=config.train.remat,
        network=network,
        weights=weights,
    )


def coarsening(config: Config) -> int:
    """Cells of the grid to one of the network: patches begin at multiples of it."""
    model = config.model
    return getattr(model, "downsample", 2 ** len(getattr(model, "channels", ())))


def places_of(config: Config, grid: Grid) -> Callable[..., Any] | None:
    """How patches, rolls and flips are drawn, if the config asks for any."""
    frames = config.frames
    augment = frames.augment
    if augment.roll and not grid.wraps:
        raise ConfigError(
            f"frames.augment.roll needs a grid that goes round the globe, found {grid}\n"
            "  fix: frames.augment.roll: false"
        )
    if frames.patches is None and not augment.roll and not augment.flip:
        return None
    size = None if frames.patches is None else frames.patches.size
    if size is not None:
        _require_patches(config, grid, size)
    return functools.partial(
        random_place,
        grid=grid.shape,
        size=size,
        step=coarsening(config),
        wraps=grid.wraps,
        roll=augment.roll,
        flip=tuple(augment.flip),
        vectors=tuple(variable.vector for variable in variables(config)),
    )


def _require_patches(config: Config, grid: Grid, size: tuple[int, int]) -> None:
    step = coarsening(config)
    if any(side > whole or side % step for side, whole in zip(size, grid.shape, strict=True)):
        raise ConfigError(
            f"frames.patches.size: {list(size)} does not fit\n"
            f"  expected: multiples of {step}, at most {list(grid.shape)}"
        )


def predictor_of(
    config: Config, fields: Fields, model: ForecastModel, members: Weights | None
) -> Predictor:
    """What forecasts with a trained model.

    Args:
      members: the stacked weights of an ensemble; None: those of `model`.
    """
    patches, grid, tiling = config.frames.patches, fields.inputs[0].grid, None
    if patches is not None:
        step = coarsening(config)
        tiling = Tiling(grid.shape, patches.size, patches.overlap, step, grid.wraps)
    return Predictor.of(
        model,
        members,
        inputs=config.frames.inputs,
        leads=config.frames.leads,
        variables=len(fields.inputs),
        batch_size=config.train.batch_size,
        tiling=tiling,
    )


def base_predictor_of(config: Config, fields: Fields, model: ForecastModel) -> Predictor | None:
    """What forecasts with the reference that the network corrects.

    None where it is one of those that every hindcast has, or where there is no such network.
    """
    if isinstance(config.model, ReferenceModelConfig) or config.train.loss == AMOUNTS:
        return None
    plain = config.model.base in REFERENCES and config.model.reference == ReferenceConfig()
    if plain and config.frames.trailing is None:
        return None
    return predictor_of(config, fields, without_network(model), None)
