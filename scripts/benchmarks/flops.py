"""Useful floating-point operations of a network, counted from its sizes.

Convolutions and matrix products only, a multiplication and an addition each counting one. The
backward pass counts the gradient of the weights and that of the inputs, the latter only where it
is needed: not of frames, which are data. That the first state is zero is not made use of.
"""

from __future__ import annotations

from dataclasses import dataclass

from gridcast.config.models import CnnLstmConfig, ConvLstmConfig, ConvSeq2SeqConfig
from gridcast.models.encoder import scales
from gridcast.models.window import Sizes


@dataclass(frozen=True)
class Flops:
    """Of one batch: of the forward pass alone, and of a training step."""

    inference: int = 0
    training: int = 0

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.inference + other.inference, self.training + other.training)

    def __mul__(self, times: int) -> Flops:
        return Flops(self.inference * times, self.training * times)


def convolution(kernel: int, channels: int, out: int, cells: int, *, data: int = 0) -> Flops:
    """Of a square convolution.

    Args:
      cells: of the output, times the batch.
      data: how many of the channels need no gradient.
    """
    each = 2 * kernel**2 * out * cells
    return Flops(each * channels, each * (3 * channels - data))


def dense(features: int, out: int, rows: int) -> Flops:
    return convolution(1, features, out, rows)


def network_flops(config: object, sizes: Sizes, batch: int) -> Flops:
    """Of a network that forecasts fields, for one batch."""
    if isinstance(config, ConvLstmConfig):
        return _conv_lstm(config, sizes, batch)
    if isinstance(config, ConvSeq2SeqConfig):
        return _conv_seq2seq(config, sizes, batch)
    if isinstance(config, CnnLstmConfig):
        return _cnn_lstm(config, sizes, batch)
    raise TypeError(f"no count for {type(config).__name__}")


def _cells(
    config: ConvLstmConfig | ConvSeq2SeqConfig, channels: int, cells: int, data: int
) -> Flops:
    """All cells of a stack at one time; `data` of the first one's channels need no gradient."""
    total = Flops()
    for hidden in config.hidden:
        total += convolution(config.kernel, channels + hidden, 4 * hidden, cells, data=data)
        channels, data = hidden, 0
    return total


def _coarse(config: ConvLstmConfig | ConvSeq2SeqConfig, sizes: Sizes, batch: int) -> int:
    """Cells of the coarsened grid, times the batch."""
    rows, columns = (-(-side // config.downsample) for side in sizes.grid)
    return rows * columns * batch


def _conv_lstm(config: ConvLstmConfig, sizes: Sizes, batch: int) -> Flops:
    cells, block = _coarse(config, sizes, batch), config.downsample**2
    channels, out = sizes.channels * block, sizes.leads * sizes.outputs * block
    head = convolution(config.kernel, config.hidden[-1], out, cells)
    return _cells(config, channels, cells, channels) * sizes.inputs + head


def _conv_seq2seq(config: ConvSeq2SeqConfig, sizes: Sizes, batch: int) -> Flops:
    cells, block = _coarse(config, sizes, batch), config.downsample**2
    channels = sizes.channels * block
    ahead, outputs = sizes.ahead * block, sizes.outputs * block
    head = convolution(config.kernel, config.hidden[-1], outputs, cells)
    read = _cells(config, channels, cells, channels) * sizes.inputs
    return read + (_cells(config, outputs + ahead, cells, ahead) + head) * sizes.leads


def _cnn_lstm(config: CnnLstmConfig, sizes: Sizes, batch: int) -> Flops:
    shapes = scales(sizes.grid, len(config.channels))
    frames, channels, total = batch * sizes.inputs, sizes.channels, Flops()
    for (rows, columns), out in zip(shapes, config.channels, strict=False):
        for _ in range(config.convolutions):
            data = channels if total == Flops() else 0
            cells = rows * columns * frames
            total += convolution(config.kernel, channels, out, cells, data=data)
            channels = out
    flat = shapes[-1][0] * shapes[-1][1] * channels
    if config.latent:
        total += dense(flat, config.latent, frames)
    width = config.latent or flat
    for hidden in config.hidden:
        total += dense(width + hidden, 4 * hidden, frames)
        width = hidden
    total += dense(width, flat, batch)
    ups = [*config.channels[::-1], sizes.channels]
    for i in range(len(config.channels)):
        rows, columns = shapes[-1 - i]
        total += convolution(config.kernel, 2 * ups[i], ups[i + 1], rows * columns * batch)
    cells, out = sizes.grid[0] * sizes.grid[1] * batch, sizes.leads * sizes.outputs
    return total + convolution(config.kernel, 2 * ups[-1], out, cells, data=ups[-1])
