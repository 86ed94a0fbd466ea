"""The first convolution of frames whose last channels are the same along longitude or at all times.

A convolution is linear: what such channels add to it is made once, not for each cell of each frame.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from gridcast.models.convolution import conv2d, conv2d_frame
from gridcast.models.edges import pad_grid
from gridcast.models.layers import GridConv
from gridcast.models.window import Context


class Additions(NamedTuple):
    """What all channels but the fields add to a convolution; `rows` of each frame.

    Attributes:
      rows: away from the edges, and at each longitude that is too near to one for the kernel.
      still: of the static layers, and the bias.
    """

    rows: Float[Array, "*frame lat longitude out"]
    still: Float[Array, "lat lon out"]


def additions(context: Context, conv: GridConv) -> Additions | None:
    """Of the channels of `context`, the last ones that `conv` reads.

    None: a kernel that is wider than the grid.
    """
    (lat, lon), (height, width) = context.layers.shape[:2], conv.kernel.shape[:2]
    if not conv.wraps and lon < width:
        return None
    kernel, bias = conv.weights(context.known.dtype)
    fields = kernel.shape[2] - context.channels
    _, known, layers = jnp.split(kernel, [fields, fields + context.known.shape[-1]], axis=2)
    there = jnp.array([[True] * width, *(taps for _, taps in _edges(conv, lon))])
    sums = jnp.einsum("lj,ijko->iklo", there.astype(kernel.dtype), known, precision="highest")
    reach = (height - 1) // 2, height // 2
    padded = pad_grid(context.known[..., None, :], reach, (0, 0), wraps=False)[..., 0, :]
    near = jnp.stack([padded[..., i : i + lat, :] for i in range(height)], axis=-2)
    rows = jnp.einsum("...ik,iklo->...lo", near, sums, precision="highest")
    return Additions(rows, conv2d(context.layers[None], layers, bias, conv.wraps)[0])


def convolve_fields(
    fields: Float[Array, "lat lon field"],
    added: Additions,
    conv: GridConv,
) -> Float[Array, "lat lon out"]:
    """What `conv` gives for one frame, under `jax.vmap`, of its fields and what the rest adds."""
    kernel, bias = conv.weights(fields.dtype)
    lon, count = fields.shape[1:]
    row, column = added.rows[:, :1], jnp.arange(lon)[:, None]
    for i, (edge, _) in enumerate(_edges(conv, lon), start=1):
        row = jnp.where(column == edge, added.rows[:, i : i + 1], row)
    own = conv2d_frame(conv.wraps)(fields, kernel[:, :, :count], jnp.zeros_like(bias))
    return own + row + added.still


def _edges(conv: GridConv, lon: int) -> list[tuple[int, list[bool]]]:
    """The longitudes from which the kernel reaches over an edge, and its columns that do not."""
    width = conv.kernel.shape[1]
    west = (width - 1) // 2
    columns = [] if conv.wraps else [*range(west), *range(lon - width // 2, lon)]
    return [(c, [0 <= c + j - west < lon for j in range(width)]) for c in columns]
