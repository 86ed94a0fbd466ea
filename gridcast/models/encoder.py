"""A CNN that turns one frame into a vector and features at several scales."""

from __future__ import annotations

from flax import nnx
from jaxtyping import Array, Float

from gridcast.config.models import CnnLstmConfig
from gridcast.models.batch_norm import BatchNorm, Moments
from gridcast.models.context import Additions, convolve_fields
from gridcast.models.layers import Dense, GridConv, segment, space_to_depth
from gridcast.models.norms import Norm
from gridcast.models.pooling import Pooling, pool
from gridcast.models.window import Frozen


def scales(grid: tuple[int, int], blocks: int) -> list[tuple[int, int]]:
    """Sizes (lat, lon) before the first block and after each; odd sizes are rounded up."""
    shapes = [grid]
    for _ in range(blocks):
        lat, lon = shapes[-1]
        shapes.append(((lat + 1) // 2, (lon + 1) // 2))
    return shapes


class EncoderStage(nnx.Module):
    """Convolution, norm, activation, and in a block's last stage half the resolution."""

    def __init__(
        self,
        channels: int,
        out: int,
        config: CnnLstmConfig,
        *,
        halves: bool,
        wraps: bool,
        rngs: nnx.Rngs,
    ):
        self.pooling: Pooling | None = config.pooling if halves else None
        self.wraps = wraps
        wide = 4 * channels if self.pooling == "stride" else channels
        self.conv = GridConv(wide, out, config.kernel, wraps=wraps, rngs=rngs)
        self.norm = BatchNorm(out) if config.norm == "batch" else Norm(config.norm, out, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "lat lon channel"],
        present: Float[Array, ""] | None,
        added: Additions | None = None,
    ) -> tuple[Float[Array, "lat_out lon_out out"], Moments | None]:
        if self.pooling == "stride":  # a convolution of 2 x 2 blocks in steps of one block
            x = space_to_depth(x, 2, wraps=self.wraps)
        x = self.conv(x) if added is None else convolve_fields(x, added, self.conv)
        moments = None
        if isinstance(self.norm, BatchNorm):
            moments = None if present is None else self.norm.moments(x, present)
            x = self.norm(x, moments)
        else:
            x = self.norm(x)
        if self.pooling == "mean":
            return pool(nnx.relu(x), "mean", wraps=self.wraps), moments
        if self.pooling == "max":  # the same in either order, and of a quarter of the cells
            x = pool(x, "max", wraps=self.wraps)
        return nnx.relu(x), moments


class Encoder(nnx.Module):
    """One frame to a vector, through blocks of convolutions (Simonyan & Zisserman 2015).

    Attributes:
      width: length of the vector.
      frozen: its weights stay as they are, and its batch norms use their running moments.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        config: CnnLstmConfig,
        *,
        wraps: bool,
        rngs: nnx.Rngs,
    ):
        self.frozen = False
        self.stages = nnx.List()
        for out in config.channels:
            for i in range(config.convolutions):
                halves = i == config.convolutions - 1
                self.stages.append(
                    EncoderStage(channels, out, config, halves=halves, wraps=wraps, rngs=rngs)
                )
                channels = out
        lat, lon = scales(grid, len(config.channels))[-1]
        self.width = config.latent or lat * lon * channels
        self.dense = (
            Dense(lat * lon * channels, config.latent, rngs=rngs) if config.latent else None
        )

    def __call__(
        self,
        frame: Float[Array, "lat lon channel"],
        present: Float[Array, ""] | None = None,
        added: Additions | None = None,
        *,
        remat: bool = False,
    ) -> tuple[Float[Array, " vector"], list[Array], list[Moments]]:
        """The frame's vector, the features of each block, and in training the batch's moments.

        Where `latent` is null, the vector is the last block's features.

        Args:
          present: 1 or 0, whether the frame counts in the moments of batch norms, over the mapped
            frames; None: batch norms use their running moments.
          added: what further channels add to the first convolution; `frame` lacks them then.
          remat: whether stages compute what they need for their gradients again.
        """
        features, found = [], []
        for stage in self.stages:
            frame, moments = segment(stage, remat)(frame, present, added)
            added = None
            if stage.pooling is not None:
                features.append(frame)
            if moments is not None:
                found.append(moments)
        vector = frame.reshape(-1) if self.dense is None else self.dense.of_field(frame)
        return vector, features, found


def freeze(encoder: Encoder) -> None:
    """Keep the encoder as it is: its weights and running moments become `Frozen`."""
    for _, module in nnx.iter_modules(encoder):
        for name, value in list(vars(module).items()):
            if isinstance(value, nnx.Param | nnx.BatchStat):
                setattr(module, name, Frozen(value[...]))
    encoder.frozen = True
