"""A recurrent convolution over the frames of a window, with a backward pass of its own.

Automatic differentiation would form the gradient of the kernel at each step of the backward loop.
Here that loop passes on states alone; what the kernel and the frames contribute is one convolution
over all times after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gridcast.accelerator import shards
from gridcast.models.convolution import bias_gradient, conv2d, frame_gradient, kernel_gradient

State = tuple[Float[Array, "batch lat lon hidden"], Float[Array, "batch lat lon hidden"]]
# The state after: of parameters, what the convolution gives, the state before, and whether the
# frame is there.
Update = Callable[[Any, Array, State, Array | None], State]


def recurrent_convolution(
    update: Update,
    wraps: bool,
    kernel: Float[Array, "height width both out"],
    bias: Float[Array, " out"],
    rest: Any,
    frames: Float[Array, "time batch lat lon channel"],
    present: Bool[Array, "time batch"] | None,
) -> tuple[State, Float[Array, "time batch lat lon hidden"]]:
    """The state (h, c) after the last frame, and h after each, from a state of zeros.

    Args:
      update: called with `rest` and, at each time, kernel * [frame, h] + bias.
    """
    return _recurrent_convolution(update, wraps, kernel, bias, rest, frames, present)


def _start(kernel: Array, frames: Array) -> State:
    """A state of zeros; c, which adds up over the frames, in full precision."""
    empty = jnp.zeros((*frames.shape[1:4], kernel.shape[2] - frames.shape[-1]), frames.dtype)
    return empty, empty.astype(jnp.float32)


def _reader(
    update: Update, wraps: bool, kernel: Array, bias: Array, rest: Any
) -> Callable[[State, Array, Array | None], tuple[State, Array]]:
    """From the state, a frame and whether it is there: the state after, and what `update` took."""

    def read(state: State, frame: Array, there: Array | None) -> tuple[State, Array]:
        driven = conv2d(jnp.concatenate([frame, state[0]], axis=-1), kernel, bias, wraps)
        return update(rest, driven, state, there), driven

    return read


def _without_gradient(
    update: Update, wraps: bool, kernel: Array, bias: Array, rest: Any, frames: Array, present: Any
) -> tuple[State, Array]:
    read = _reader(update, wraps, kernel, bias, rest)

    def step(state: State, now: tuple[Array, Array | None]) -> tuple[State, Array]:
        after, _ = read(state, *now)
        return after, after[0]

    # At first there is no h to read.
    driven = conv2d(frames[0], kernel[:, :, : frames.shape[-1]], bias, wraps)
    there, later = (None, None) if present is None else (present[0], present[1:])
    first = update(rest, driven, _start(kernel, frames), there)
    last, h = jax.lax.scan(step, first, (frames[1:], later))
    return last, jnp.concatenate([first[0][None], h])


def _forward(
    update: Update, wraps: bool, kernel: Array, bias: Array, rest: Any, frames: Array, present: Any
) -> tuple[tuple[State, Array], Any]:
    read = _reader(update, wraps, kernel, bias, rest)

    def step(state: State, now: tuple[Array, Array | None]) -> tuple[State, Any]:
        after, driven = read(state, *now)
        return after, (after[0], state[1], driven)

    last, (h, c, driven) = jax.lax.scan(step, _start(kernel, frames), (frames, present))
    return (last, h), (kernel, rest, frames, present, h, c, driven)


def _backward(update: Update, wraps: bool, saved: Any, gradients: Any) -> Any:
    kernel, rest, frames, present, h, c, driven = saved
    to_last, to_h = gradients
    channels = frames.shape[-1]
    recurrent = kernel[:, :, channels:]
    before = jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]])

    def step(carry: tuple[State, Any], then: Any) -> tuple[tuple[State, Any], Array]:
        (to_h, to_c), to_rest = carry
        given, driven, state, there = then
        _, through = jax.vjp(lambda p, d, s: update(p, d, s, there), rest, driven, state)
        more, to_driven, (back_h, back_c) = through((to_h + given, to_c))
        back_h += frame_gradient(to_driven, recurrent, wraps)
        return ((back_h, back_c), jax.tree.map(jnp.add, to_rest, more)), to_driven

    none = jax.tree.map(jnp.zeros_like, rest)
    (_, to_rest), to_driven = jax.lax.scan(
        step, (to_last, none), (to_h, driven, (before, c), present), reverse=True
    )
    read = jnp.concatenate([frames, before], axis=-1)
    if batch_first := shards("data") > 1:
        # Of two axes that become one only the first may be shared by devices.
        read, to_driven = (jnp.moveaxis(x, 1, 0) for x in (read, to_driven))
    ahead = to_driven.shape[:2]
    read, to_driven = (x.reshape(-1, *x.shape[2:]) for x in (read, to_driven))
    to_kernel = kernel_gradient(read, to_driven, kernel, wraps)
    to_frames = frame_gradient(to_driven, kernel[:, :, :channels], wraps)
    to_frames = to_frames.reshape(*ahead, *frames.shape[2:])
    if batch_first:
        to_frames = jnp.moveaxis(to_frames, 1, 0)
    return to_kernel, bias_gradient(to_driven), to_rest, to_frames, None


_recurrent_convolution = jax.custom_vjp(_without_gradient, nondiff_argnums=(0, 1))
_recurrent_convolution.defvjp(_forward, _backward)
