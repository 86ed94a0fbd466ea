"""Forecasts: direct leads, rolled out beyond them, of the whole grid or tile by tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from gridcast.accelerator import jit
from gridcast.errors import DataError
from gridcast.frames.places import place_at
from gridcast.frames.tiles import blend, blend_weights, tiles
from gridcast.frames.windows import FrameSeries, Trailing
from gridcast.models import ForecastModel, Inputs
from gridcast.models.heads import ValueHead
from gridcast.models.members import joint_outputs, member_of


@dataclass(frozen=True)
class Tiling:
    """How a grid is covered by overlapping tiles.

    Attributes:
      size, overlap: as in `frames.patches`; step: tiles begin at multiples of it.
    """

    grid: tuple[int, int]
    size: tuple[int, int]
    overlap: int
    step: int
    wraps: bool

    @cached_property
    def starts(self) -> list[tuple[int, int]]:
        return tiles(self.grid, self.size, self.overlap, self.step, self.wraps)

    @cached_property
    def weights(self) -> Float[np.ndarray, "tile height width"]:
        return blend_weights(self.grid, self.starts, self.size, self.overlap, self.wraps)


@dataclass(frozen=True)
class Predictor:
    """A model with its weights, compiled once for batches of one size.

    Several members are one model here: what it forecasts is their combination.

    Attributes:
      fixed: what the model carries beside its weights.
      weights: the states that were trained; of several members, stacked.
      count: of members.
      inputs, leads: frames that the model takes, and leads that it gives at once.
      targets: how many variables are forecast.
      once: why the model cannot take its own forecasts for inputs, or None.
    """

    graph: nnx.GraphDef
    fixed: Any
    weights: Any
    count: int
    inputs: int
    leads: int
    targets: int
    batch_size: int
    once: str | None
    tiling: Tiling | None = None

    @classmethod
    def of(
        cls,
        model: ForecastModel,
        members: Any = None,
        *,
        inputs: int,
        leads: int,
        variables: int,
        batch_size: int,
        tiling: Tiling | None = None,
    ) -> Predictor:
        """
        Args:
          members: stacked weights in place of the model's own.
          variables: how many the model is given.
        """
        graph, *own, fixed = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
        weights, count = tuple(own), 1
        if members is not None:
            weights, count = tuple(members), len(jax.tree.leaves(members)[0])
        targets = model.target_mask[...].shape[-1]
        once = None
        if not isinstance(model.head, ValueHead):
            once = "it forecasts probabilities or amounts, not the frames it is given"
        elif model.whole:
            once = "it forecasts one number for a window, not a frame"
        elif targets < variables:
            once = "some of its inputs are not forecast"
        return cls(graph, fixed, weights, count, inputs, leads, targets, batch_size, once, tiling)

    @cached_property
    def _alone(self) -> Predictor:
        """What forecasts with the weights of any one member, compiled once."""
        return replace(self, weights=None, count=1)

    @cached_property
    def _run(self) -> Callable[..., Array]:
        def run(weights: Any, fixed: Any, inputs: Inputs) -> Array:
            outputs, head = joint_outputs(self.graph, fixed, weights, inputs, self.count)
            return head.forecast(outputs)

        return jit(run)

    def __call__(
        self,
        series: FrameSeries,
        initial: Int[np.ndarray, " window"],
        leads: int | None = None,
    ) -> Float[np.ndarray, "window lead lat lon output"]:
        """What the head forecasts `leads` steps ahead from each initial position.

        Leads that the model was not trained for come from rolling out: its own forecasts become
        its inputs, of several members those that they made together. What is known in advance must
        reach beyond the last initial position.

        Raises:
          DataError: more leads than trained for, from a model that cannot roll out.
        """
        return self._forecast(self.weights, series, initial, leads or self.leads)

    def members(
        self,
        series: FrameSeries,
        initial: Int[np.ndarray, " window"],
        leads: int | None = None,
    ) -> Float[np.ndarray, "member window lead lat lon output"]:
        """What each member forecasts by itself, and rolls out by itself; as calling, otherwise."""
        if self.count == 1:
            return self(series, initial, leads)[None]
        each = [member_of(self.weights, member) for member in range(self.count)]
        return np.stack(
            [self._alone._forecast(one, series, initial, leads or self.leads) for one in each]
        )

    def _forecast(
        self,
        weights: Any,
        series: FrameSeries,
        initial: Int[np.ndarray, " window"],
        leads: int,
    ) -> Float[np.ndarray, "window lead lat lon output"]:
        if leads > self.leads and self.once is not None:
            raise DataError(
                f"the model was trained for {self.leads} leads and cannot be rolled out: "
                f"{self.once}\n  found: {leads} leads\n  fix: train with frames.leads: {leads}"
            )
        past = np.arange(1 - self.inputs, 1)
        source = series.answers(self.targets)
        out: list[np.ndarray] = []
        # Of the batch before: it is fetched when the next one is on its way.
        made: tuple[list[Array | np.ndarray], int] | None = None

        def fetch(blocks: list[Array | np.ndarray], windows: int) -> None:
            out.append(np.concatenate([np.asarray(b) for b in blocks], axis=1)[:windows, :leads])

        for at in range(0, initial.size, self.batch_size):
            chosen = initial[at : at + self.batch_size]
            # The last batch is filled up, so that one compiled program serves all.
            filled = np.concatenate([chosen, np.repeat(chosen[-1:], self.batch_size - chosen.size)])
            window, last = series.values[filled[:, None] + past], source[filled]
            answers = None if series.last is None else series.last[filled[:, None] + past]
            means = series.trailing_at(filled, self.targets)
            blocks = []
            for lead in range(0, leads, self.leads):
                if blocks:
                    block = np.asarray(blocks[-1])
                    window = np.concatenate([window, block], axis=1)[:, -self.inputs :]
                    last = block[:, -1]
                dates = filled[:, None] + lead + np.arange(1 - self.inputs, self.leads + 1)
                blocks.append(self._block(weights, series, window, last, dates, answers, means))
            if made is not None:
                fetch(*made)
            made = blocks, chosen.size
        if made is not None:
            fetch(*made)
        return np.concatenate(out)

    def _block(
        self,
        weights: Any,
        series: FrameSeries,
        window: np.ndarray,
        last: np.ndarray,
        dates: np.ndarray,
        answers: np.ndarray | None,
        means: Trailing | None,
    ) -> Array | np.ndarray:
        """[batch lead lat lon output] the leads that the model gives at once."""
        known, month = series.known[dates], series.month[dates[:, self.inputs :]]
        if self.tiling is None:
            frames, end = jnp.asarray(window), jnp.asarray(last)
            inputs = Inputs(frames, jnp.asarray(known), jnp.asarray(month), end, trailing=means)
            if answers is not None:
                inputs = inputs._replace(past=jnp.asarray(answers))
            return self._run(weights, self.fixed, inputs)
        pieces = []
        for row, column in self.tiling.starts:
            corner = (jnp.full(len(window), row), jnp.full(len(window), column))
            place = place_at(*corner, self.tiling.grid, self.tiling.size)
            rows, columns = np.asarray(place.rows[0]), np.asarray(place.columns[0])
            cut = (np.asarray(a)[..., rows[:, None], columns, :] for a in (window, last))
            frames, end = map(jnp.asarray, cut)
            lines = jnp.asarray(known[:, :, rows])
            inputs = Inputs(frames, lines, jnp.asarray(month), end, place)
            if means is not None:
                inputs = inputs._replace(
                    trailing=Trailing(*(m[:, rows[:, None], columns] for m in means))
                )
            pieces.append(np.asarray(self._run(weights, self.fixed, inputs)))
        return blend(np.stack(pieces), self.tiling.starts, self.tiling.weights, self.tiling.grid)
