"""The forecast model: a network's correction added to a reference forecast."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from gridcast.config.models import Precision
from gridcast.frames.places import Place, take_static
from gridcast.frames.windows import Trailing
from gridcast.models.heads import Head, Past
from gridcast.models.summary import summarise, table
from gridcast.models.window import Context, Fixed, Sizes, Window

DTYPES = {"float32": jnp.float32, "mixed": jnp.bfloat16}


class Inputs(NamedTuple):
    """What a forecast model is given for a batch of windows.

    Attributes:
      frames: scaled anomalies up to the initial date, 0 off the mask; NaN where not observed, for
        a model that was built for gaps.
      known: what is known in advance, of the dates of the frames and of the leads.
      month: calendar month of each lead's date, 1 to 12.
      last: the target's scaled anomaly at the initial date.
      place: where in the grid each sample was taken from; None: the whole grid.
      truth: scheduled sampling, in training: the targets to be forecast.
      truth_rate: and the share of them that is shown.
      key: for dropout, in training.
      past: one answer for a window: the target's own scaled anomalies on the dates of the frames.
      trailing: the mean of the years before, which the model takes for normal.
    """

    frames: Float[Array, "batch time lat lon variable"]
    known: Float[Array, "batch dates lat known"]
    month: Int[Array, "batch lead"]
    last: Float[Array, "batch out_lat out_lon target"]
    place: Place | None = None
    truth: Float[Array, "batch lead out_lat out_lon target"] | None = None
    truth_rate: Float[Array, ""] | float = 0.0
    key: Array | None = None
    past: Float[Array, "batch time 1 1 target"] | None = None
    trailing: Trailing | None = None


class ForecastModel(nnx.Module):
    """A reference forecast plus a network's correction: untrained, it is the reference.

    Attributes:
      head: the reference, and what the numbers mean.
      layers: [lat lon layer] static layers and, last, the mask.
      target_mask: [out_lat out_lon target] where there is something to forecast.
      sizes, variables: what it was built for.
      gaps: whether frames may lack; then each variable brings a channel of what was observed.
      precision: in which the network computes; its weights, the sums over frames and what it adds
        to the reference stay float32.
      whole: one answer for a window.
    """

    def __init__(
        self,
        network: nnx.Module,
        head: Head,
        layers: Float[np.ndarray, "lat lon layer"],
        target_mask: Bool[np.ndarray, "out_lat out_lon target"],
        *,
        sizes: Sizes,
        variables: int,
        gaps: bool,
        precision: Precision = "float32",
    ):
        self.network, self.head, self.gaps, self.whole = network, head, gaps, sizes.whole
        self.sizes, self.variables = sizes, variables
        self.precision: Precision = precision
        self.layers = Fixed(jnp.asarray(layers, jnp.float32))
        self.target_mask = Fixed(jnp.asarray(target_mask, jnp.float32))

    def __repr__(self) -> str:
        """The layers with the shapes of their outputs for one window, and their parameters."""
        return table(summarise(self, lambda model: model(self.example())))

    def example(self) -> Inputs:
        """One window of zeros."""
        sizes, targets = self.sizes, self.target_mask.shape[-1]
        lat, lon = sizes.grid
        last = jnp.zeros((1, *sizes.out, targets))
        place = None
        if sizes.grid != self.layers.shape[:2]:
            place = Place(jnp.arange(lat)[None], jnp.arange(lon)[None], None)
        return Inputs(
            jnp.zeros((1, sizes.inputs, lat, lon, self.variables)),
            jnp.zeros((1, sizes.inputs + sizes.leads, lat, sizes.ahead - self.layers.shape[-1])),
            jnp.ones((1, sizes.leads), jnp.int32),
            last,
            place,
            past=jnp.zeros((1, sizes.inputs, 1, 1, targets)) if sizes.whole else None,
        )

    def __call__(self, inputs: Inputs) -> Float[Array, "batch lead out_lat out_lon output"]:
        """The head's numbers at each lead; 0 off the mask."""
        inputs = self._about_trailing(inputs)
        frames, place = inputs.frames, inputs.place
        time, leads = frames.shape[1], inputs.month.shape[1]
        layers = self.layers[...]
        layers = layers[None] if place is None else take_static(layers, place)
        fields, present = [frames], None
        if self.gaps:
            seen = jnp.isfinite(frames)
            inside = layers[:, None, :, :, -1] > 0
            present = (seen[..., 0] & inside).any(axis=(2, 3))
            fields = [self._filled(frames), seen.astype(frames.dtype)]
        if inputs.past is not None:
            past = self._filled(inputs.past)
            fields.append(jnp.broadcast_to(past, (*frames.shape[:4], past.shape[-1])))

        def with_layers(parts: list[Array], known: Array) -> Array:
            shape = (*known.shape[:3], layers.shape[2])
            return jnp.concatenate(
                [
                    *parts,
                    jnp.broadcast_to(known[:, :, :, None], (*shape, known.shape[-1])),
                    jnp.broadcast_to(layers[:, None], (*shape, layers.shape[-1])),
                ],
                axis=-1,
            )

        reference, known = self._reference(inputs), inputs.known[:, :time]
        window = Window(
            with_layers(fields, known),
            present,
            with_layers([], inputs.known[:, time : time + leads]),
            reference,
            inputs.truth,
            inputs.truth_rate,
            inputs.key,
            Context(known, layers[0]) if place is None else None,
        )
        mask = self.target_mask[...]
        spot = self._spot(inputs)
        mask = mask[None] if spot is None else take_static(mask, spot)
        mask = jnp.repeat(mask, self.head.width, axis=-1)[:, None]
        correction = self.network(window.of(DTYPES[self.precision])).astype(reference.dtype)
        return jnp.where(mask > 0, reference + correction, 0.0)

    def reference(self, inputs: Inputs) -> Float[Array, "batch lead out_lat out_lon output"]:
        """The head's numbers without the network."""
        return self._reference(self._about_trailing(inputs))

    def _reference(self, inputs: Inputs) -> Array:
        trailing = None if inputs.trailing is None else inputs.trailing.targets
        past = Past(self._filled(inputs.frames[:, -1]), trailing)
        last = self._filled(inputs.last, 0.0 if trailing is None else trailing)
        return self.head.reference(last, inputs.month, self._spot(inputs), past)

    def _about_trailing(self, inputs: Inputs) -> Inputs:
        """Frames as departures from the mean of the years before, where the model is given it."""
        if inputs.trailing is None:
            return inputs
        past = inputs.past
        if past is not None:
            past = past - inputs.trailing.targets[:, None]
        return inputs._replace(frames=inputs.frames - inputs.trailing.frames[:, None], past=past)

    def _filled(self, values: Array, normal: Array | float = 0.0) -> Array:
        """What is normal, where nothing was observed."""
        return jnp.where(jnp.isfinite(values), values, normal) if self.gaps else values

    def _spot(self, inputs: Inputs) -> Place | None:
        return None if self.whole else inputs.place
