"""The networks in PyTorch, with its own layers and in its usual style; channels come before lat.

Weights come from gridcast's: the channels of coarsened grids lie in another order there.
"""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.problem import Problem, block_order

torch: Any = import_module("torch")
nn: Any = torch.nn
functional: Any = nn.functional
Weights = dict[str, np.ndarray]


class ConvLstmCell(nn.Module):
    """As in OpenSTL: one convolution of input and state side by side."""

    def __init__(self, channels: int, hidden: int, kernel: int):
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(channels + hidden, 4 * hidden, kernel, padding=kernel // 2)

    def forward(self, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
        i, f, g, o = torch.chunk(self.gates(torch.cat([x, h], dim=1)), 4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class _ConvCells(nn.Module):
    """What both networks of convolutional cells share."""

    def __init__(self, about: dict[str, Any]):
        super().__init__()
        settings = about["network"]
        self.block, self.kernel = settings["downsample"], settings["kernel"]

    def stack(self, channels: int, hidden: list[int]) -> Any:
        widths = [channels * self.block**2, *hidden]
        return nn.ModuleList(ConvLstmCell(n, m, self.kernel) for n, m in pairwise(widths))

    def to_depth(self, x: Any) -> Any:
        if self.block == 1:
            return x
        lat, lon = x.shape[-2:]
        x = functional.pad(x, (0, -lon % self.block, 0, -lat % self.block))
        return functional.pixel_unshuffle(x, self.block)

    def to_space(self, x: Any, lat: int, lon: int) -> Any:
        return functional.pixel_shuffle(x, self.block)[..., :lat, :lon] if self.block > 1 else x

    def zeros(self, cells: Any, x: Any) -> list[tuple[Any, Any]]:
        batch, _, lat, lon = x.shape
        empty = [x.new_zeros(batch, cell.hidden, lat, lon) for cell in cells]
        return [(h, h) for h in empty]

    def step(self, cells: Any, states: list[tuple[Any, Any]], x: Any) -> list[tuple[Any, Any]]:
        after = []
        for cell, (h, c) in zip(cells, states, strict=True):
            after.append(cell(x, h, c))
            x = after[-1][0]
        return after


class ConvLstm(_ConvCells):
    def __init__(self, about: dict[str, Any]):
        super().__init__(about)
        hidden, out = about["network"]["hidden"], about["leads"] * about["outputs"]
        self.cells = self.stack(about["channels"], hidden)
        padding = self.kernel // 2
        self.head = nn.Conv2d(hidden[-1], out * self.block**2, self.kernel, padding=padding)

    def forward(self, frames: Any, ahead: Any, reference: Any) -> Any:
        states = None
        for now in range(frames.shape[1]):
            x = self.to_depth(frames[:, now])
            states = self.step(self.cells, states or self.zeros(self.cells, x), x)
        assert states is not None
        return self.to_space(self.head(states[-1][0]), *frames.shape[-2:])


class ConvSeq2Seq(_ConvCells):
    def __init__(self, about: dict[str, Any]):
        super().__init__(about)
        hidden, self.outputs = about["network"]["hidden"], about["outputs"]
        self.encoder = self.stack(about["channels"], hidden)
        self.decoder = self.stack(about["outputs"] + about["ahead"], hidden)
        out, padding = self.outputs * self.block**2, self.kernel // 2
        self.head = nn.Conv2d(hidden[-1], out, self.kernel, padding=padding)

    def forward(self, frames: Any, ahead: Any, reference: Any) -> Any:
        states, mask = None, frames[:, -1, -1:]
        for now in range(frames.shape[1]):
            x = self.to_depth(frames[:, now])
            states = self.step(self.encoder, states or self.zeros(self.encoder, x), x)
        before, corrections = frames[:, -1, : self.outputs], []
        for lead in range(ahead.shape[1]):
            x = self.to_depth(torch.cat([before, ahead[:, lead]], dim=1))
            assert states is not None
            states = self.step(self.decoder, states, x)
            corrections.append(self.to_space(self.head(states[-1][0]), *frames.shape[-2:]))
            before = torch.where(mask > 0, reference[:, lead] + corrections[-1], 0.0)
        return torch.cat(corrections, dim=1)


class CnnLstm(nn.Module):
    def __init__(self, about: dict[str, Any], grid: tuple[int, int]):
        super().__init__()
        settings, count = about["network"], about["channels"]
        channels, kernel, padding = (
            settings["channels"],
            settings["kernel"],
            settings["kernel"] // 2,
        )
        coarse = 2 ** len(channels)
        if grid[0] % coarse or grid[1] % coarse or len(settings["hidden"]) > 1:
            raise NotImplementedError(f"grid {grid} with {len(channels)} poolings, or two LSTMs")
        self.shape = (channels[-1], grid[0] // coarse, grid[1] // coarse)
        flat, hidden = int(np.prod(self.shape)), settings["hidden"][0]
        widths = [count, *channels]
        self.stages = nn.ModuleList(
            nn.Conv2d(n, m, kernel, padding=padding) for n, m in zip(widths, channels, strict=False)
        )
        self.dense = nn.Linear(flat, settings["latent"])
        self.lstm = nn.LSTM(settings["latent"], hidden, batch_first=True)
        self.start = nn.Linear(hidden, flat)
        ups = widths[::-1]
        self.ups = nn.ModuleList(
            nn.Conv2d(2 * n, m, kernel, padding=padding) for n, m in pairwise(ups)
        )
        out = about["leads"] * about["outputs"]
        self.head = nn.Conv2d(2 * count, out, kernel, padding=padding)

    def forward(self, frames: Any, ahead: Any, reference: Any) -> Any:
        batch, time = frames.shape[:2]
        x, seen = frames.flatten(0, 1), [frames[:, -1]]
        for stage in self.stages:
            x = functional.max_pool2d(torch.relu(stage(x)), 2)
            seen.append(x.unflatten(0, (batch, time))[:, -1])
        vectors = self.dense(x.flatten(1)).unflatten(0, (batch, time))
        vector = self.lstm(vectors)[0][:, -1]
        x = torch.relu(self.start(vector)).unflatten(1, self.shape)
        for stage in self.ups:
            x = torch.relu(stage(torch.cat([x, seen.pop()], dim=1)))
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
        return self.head(torch.cat([x, seen.pop()], dim=1))


def network_of(problem: Problem) -> Any:
    """The network of a problem, with its weights."""
    about = problem.about
    name = about["network"]["name"]
    if name == "cnn_lstm":
        network = CnnLstm(about, problem.arrays["frames"].shape[2:4])
    else:
        network = {"conv_lstm": ConvLstm, "conv_seq2seq": ConvSeq2Seq}[name](about)
    own = network.state_dict()
    for key, array in translated(problem, problem.weights).items():
        if key.endswith("gates.bias") or key == "lstm.bias_ih_l0":
            quarter = array.size // 4
            array[quarter : 2 * quarter] += 1.0  # there the cell adds it
        own[key] = torch.from_numpy(array)
    if name == "cnn_lstm":
        own["lstm.bias_hh_l0"] = torch.zeros_like(own["lstm.bias_hh_l0"])
    network.load_state_dict(own)
    return network


def translated(problem: Problem, given: Weights) -> Weights:
    """Weights, or their gradients, under the names and in the order of this module."""
    if problem.about["network"]["name"] == "cnn_lstm":
        return _cnn_lstm(problem, given)
    about, block = problem.about, problem.about["network"]["downsample"]
    out = {}
    for name, array in given.items():
        key = name.replace(".kernel", ".weight")
        if name.endswith(".bias"):
            out[key] = array.copy()
            continue
        if ".0.gates" in name:
            inner = "ahead" if name.startswith("decoder") else "channels"
            count = about[inner] + (about["outputs"] if inner == "ahead" else 0)
            order = block_order(block, block, count)
            array = np.concatenate([array[:, :, order], array[:, :, order.size :]], axis=2)
        out[key] = _convolution(array)
    # Of conv_lstm leads and outputs come out of the head, of conv_seq2seq one lead's outputs.
    order = block_order(block, block, out["head.bias"].size // block**2)
    return out | {n: np.ascontiguousarray(out[n][order]) for n in ("head.weight", "head.bias")}


def _cnn_lstm(problem: Problem, given: Weights) -> Weights:
    settings, (_, _, lat, lon, _) = problem.about["network"], problem.arrays["frames"].shape
    coarse = 2 ** len(settings["channels"])
    order = block_order(lat // coarse, lon // coarse, settings["channels"][-1])
    out = {
        "dense.weight": given["encoder.dense.kernel"][order].T,
        "dense.bias": given["encoder.dense.bias"],
        "lstm.weight_ih_l0": given["lstm.layers.0.0.from_input.kernel"].T,
        "lstm.weight_hh_l0": given["lstm.layers.0.0.from_state.kernel"].T,
        "lstm.bias_ih_l0": given["lstm.layers.0.0.from_input.bias"],
        "start.weight": given["decoder.start.kernel"][:, order].T,
        "start.bias": given["decoder.start.bias"][order],
        "head.weight": _convolution(given["decoder.head.kernel"]),
        "head.bias": given["decoder.head.bias"],
    }
    for i in range(len(settings["channels"])):
        for ours, key in ((f"encoder.stages.{i}.conv", "stages"), (f"decoder.stages.{i}", "ups")):
            out[f"{key}.{i}.weight"] = _convolution(given[f"{ours}.kernel"])
            out[f"{key}.{i}.bias"] = given[f"{ours}.bias"]
    return {name: np.array(array) for name, array in out.items()}


def _convolution(kernel: np.ndarray) -> np.ndarray:
    """[height width channel out] as [out channel height width]."""
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
