"""The compiled training step: batches are gathered, and many steps run, inside one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from gridcast.frames.places import Place, take, take_rows, take_static
from gridcast.frames.windows import Trailing
from gridcast.models import Inputs
from gridcast.models.members import joint_outputs
from gridcast.training.batches import member_seed
from gridcast.training.gradients import Batch, gradient_of
from gridcast.training.losses import LOSSES, masked_mean, penalty
from gridcast.training.parallel import ONE_DEVICE, Layout, everywhere, mean_of, spread
from gridcast.training.patch_rows import purposes, validation_key
from gridcast.training.series import DeviceSeries
from gridcast.training.state import TrainState, Weights, finite, moved_average

LOGGED = ("loss", "gradient_norm", "parameter_norm", "update_norm")


@dataclass(frozen=True)
class Stepper:
    """Compiled functions for one model, made once for a run.

    Attributes:
      fixed: what the model carries beside weights and statistics.
      first: steps from the initial date to the first lead; 0 to learn the frame itself.
      gaps: whether values may lack.
      whole: one answer for a window, not a field.
      teach_until: the step at which scheduled sampling has faded out; 0: no such sampling.
      penalty: (l1, l2) times the sums of absolute and squared weights, in the training loss.
      noise: standard deviation added to the inputs in training.
      places: draws where in the grid a batch is taken from; None: the whole grid.
      everywhere: whether validation, too, needs places: the model works on patches.
      members: networks that are trained side by side.
      average: decay of the moving average of the weights; 0: none.
      parts: of a batch, computed one after the other; gradients are those of the whole, except
        that batch norms take their moments over each part.
      layout: of what lies on which device.
    """

    graph: nnx.GraphDef
    fixed: Any
    optimizer: optax.GradientTransformation
    loss: str
    inputs: int
    leads: int
    seed: int
    first: int = 1
    gaps: bool = False
    whole: bool = False
    teach_until: int = 0
    penalty: tuple[float, float] = (0.0, 0.0)
    noise: float = 0.0
    places: Callable[[Array, int], Place] | None = None
    everywhere: bool = False
    members: int = 1
    average: float = 0.0
    parts: int = 1
    layout: Layout = ONE_DEVICE

    @cached_property
    def run(self) -> Callable[..., tuple[TrainState, Array]]:
        """`_run`, compiled; the state that is handed in is given away."""
        given = "state series same same same"
        return self.layout.jit(self._run, given, "state same", donate_argnums=0)

    @cached_property
    def losses(self) -> Callable[..., Array]:
        """`_losses`, compiled."""
        return self.layout.jit(self._losses, "weights series same", "same")

    @cached_property
    def reference_losses(self) -> Callable[..., Array]:
        """`_reference_losses`, compiled."""
        return self.layout.jit(self._reference_losses, "weights series same", "same same")

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of each member."""
        if self.members == 1:
            return (self.seed,)
        return tuple(member_seed(self.seed, member) for member in range(self.members))

    def start(self, weights: Weights) -> TrainState:
        init = self.optimizer.init if self.members == 1 else jax.vmap(self.optimizer.init)
        average = jax.tree.map(jnp.copy, weights) if self.average else None
        state = TrainState(*weights, init(weights.params), jnp.zeros((), jnp.int32), average)
        return self.layout.put(state, "state")

    def _batch(
        self, series: DeviceSeries, initial: Array, key: Array | None, rate: Array | float
    ) -> tuple[Inputs, Array, Array]:
        """What the model is given, what is to be forecast, and the weight of each cell."""
        frames = series.frames
        past = initial[:, None] + jnp.arange(1 - self.inputs, 1)
        ahead = initial[:, None] + jnp.arange(self.first, self.first + self.leads)
        place, noise, dropout = None, None, None
        if key is not None:
            where, noise, dropout = purposes(key)
            place = None if self.places is None else self.places(where, initial.size)
        elif self.places is not None and self.everywhere:
            where = validation_key(series.position(initial[0]))
            place = self.places(where, initial.size)
        spot = None if self.whole else place
        values = take(frames.values, past, place)
        count = series.weight.shape[-1]
        source = frames.answers(count)
        last = take(source, initial[:, None], spot)[:, 0]
        answers = take(source, past, None) if self.whole else None
        trailing = frames.trailing_at(initial, count, place)
        targets = take(source if frames.targets is None else frames.targets, ahead, spot)
        weight = series.weight[None] if spot is None else take_static(series.weight, spot)
        if place is not None and place.signs is not None:
            signs = place.signs[:, None, None, None]
            values = values * signs
            last, targets = last * signs[:, 0, ..., :count], targets * signs[..., :count]
            answers = None if answers is None else answers * signs[..., :count]
            if trailing is not None:
                fields, ends = trailing
                trailing = Trailing(fields * signs[:, 0], ends * signs[:, 0, ..., :count])
        if noise is not None and self.noise:
            # Cells off the mask are exactly 0, and stay so.
            normal = jax.random.normal(noise, values.shape)
            values = jnp.where(values == 0, 0.0, values + self.noise * normal)
        known = take_rows(frames.known, jnp.concatenate([past, ahead], axis=1), place)
        truth = targets if self.teach_until and key is not None else None
        month = frames.month[ahead]
        inputs = Inputs(values, known, month, last, place, truth, rate, dropout, answers, trailing)
        return inputs, targets, weight

    def _loss(
        self,
        weights: Weights,
        series: DeviceSeries,
        initial: Array,
        key: Array | None,
        rate: Array | float = 0.0,
    ) -> tuple[Array, Any]:
        """The loss of each window, and the statistics after it."""
        model = nnx.merge(self.graph, weights.params, weights.statistics, self.fixed)
        inputs, targets, weight = self._batch(series, initial, key, rate)
        loss = masked_mean(
            LOSSES[self.loss], model(inputs), targets, weight, series.scale, gaps=self.gaps
        )
        return loss, nnx.state(model, nnx.BatchStat)

    def _run(
        self,
        state: TrainState,
        series: DeviceSeries,
        batches: Int[Array, "*member step batch"],
        first: Int[Array, ""],
        last: Int[Array, ""],
    ) -> tuple[TrainState, Float[Array, "step logged"]]:
        """Take steps `first` to `last` (excluded) of an epoch; of members, the mean is logged.

        The bounds are traced, so any stretch of any epoch runs the same compiled program. A step
        from which anything comes that is not finite changes nothing and is not finite in the log.
        """

        same = series, first, last
        if self.members == 1:
            return self._run_member(state, batches, self.seed, *same)
        # All members have taken as many steps.
        each = state._replace(step=jnp.full(self.members, state.step))
        one = self.layout.each_member(self._run_member, *same)
        each, log = one(each, batches, jnp.array(self.seeds, jnp.uint32))
        return each._replace(step=each.step[0]), log.mean(axis=0)

    def _run_member(
        self,
        state: TrainState,
        batches: Int[Array, "step batch"],
        seed: Array | int,
        series: DeviceSeries,
        first: Int[Array, ""],
        last: Int[Array, ""],
    ) -> tuple[TrainState, Float[Array, "step logged"]]:
        root = jax.random.key(seed)

        def one(i: Array, carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
            state, log = carry
            key = jax.random.fold_in(root, state.step)
            rate = 1.0 - jnp.minimum(state.step / max(self.teach_until, 1), 1.0)

            def objective(params: Any, statistics: Any, part: Batch) -> tuple[Array, Any]:
                weights = Weights(params, statistics)
                initial = spread(part.initial)
                loss, statistics = self._loss(weights, series, initial, part.key, rate)
                return mean_of(loss, part.initial.size) + penalty(params, *self.penalty), statistics

            batch = Batch(batches[i], key)
            loss, statistics, gradient = gradient_of(
                objective, state.params, state.statistics, batch, self.parts
            )
            gradient = everywhere(gradient)
            updates, optimizer = self.optimizer.update(gradient, state.optimizer, state.params)
            params = optax.apply_updates(state.params, updates)
            norms = (optax.tree.norm(tree) for tree in (gradient, params, updates))
            row = jnp.stack([loss, *norms])
            average = state.average
            if average is not None:
                moved = Weights(params, statistics)
                average = moved_average(average, moved, self.average, state.step)
            made = TrainState(params, statistics, optimizer, state.step + 1, average)
            good = finite((made, row))
            # A step that is not taken has no update.
            log = log.at[i].set(row.at[-1].set(jnp.where(good, row[-1], jnp.nan)))
            kept = state._replace(step=state.step + 1)
            # No `where`: fused with the step, it would change roundings.
            return jax.lax.cond(good, lambda: made, lambda: kept), log

        log = jnp.full((batches.shape[0], len(LOGGED)), jnp.nan)
        return jax.lax.fori_loop(first, last, one, (state, log))

    def _losses(
        self, weights: Weights, series: DeviceSeries, batches: Int[Array, "step batch"]
    ) -> Float[Array, "step batch"]:
        """The loss of each window, without dropout; of members, that of their joint forecast."""

        weights = everywhere(weights)

        def of(initial: Array) -> Array:
            inputs, targets, weight = self._batch(series, spread(initial), None, 0.0)
            outputs, _ = joint_outputs(self.graph, self.fixed, weights, inputs, self.members)
            loss = LOSSES[self.loss]
            each = masked_mean(loss, outputs, targets, weight, series.scale, gaps=self.gaps)
            return each[: initial.size]

        return jax.lax.map(of, batches)

    def _reference_losses(
        self, weights: Weights, series: DeviceSeries, batches: Int[Array, "step batch"]
    ) -> tuple[Float[Array, "step lead target"], Float[Array, "step lead target"]]:
        """Of the reference: sums of loss times weight, and of weight, over each batch."""
        model = nnx.merge(self.graph, weights.params, weights.statistics, self.fixed)

        def of(initial: Array) -> tuple[Array, Array]:
            inputs, targets, weight = self._batch(series, initial, None, 0.0)
            outputs = model.reference(inputs)
            seen = jnp.isfinite(targets) & (weight[:, None] > 0)
            wide = jnp.repeat(seen, outputs.shape[-1] // targets.shape[-1], axis=-1)
            safe = jnp.where(seen, targets, 0.0)
            cells = LOSSES[self.loss](jnp.where(wide, outputs, 0.0), safe)
            area = jnp.where(seen, weight[:, None], 0.0)
            return (cells * area).sum(axis=(0, 2, 3)), area.sum(axis=(0, 2, 3))

        return jax.lax.map(of, batches)
