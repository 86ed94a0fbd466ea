"""PyTorch as a peer: eager or compiled, channels first or last; data in memory, no loader."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.machine import MATRIX, matrix_rate
from benchmarks.problem import Problem, require_same
from benchmarks.torch_networks import network_of, torch, translated


class TorchPeer:
    """The network of a problem, AdamW and clipping of PyTorch.

    Args:
      kind: "torch", with "-channels-last" or "-compile" or both.
    """

    def __init__(self, kind: str, problem: Problem):
        self.last, self.compiled = "channels-last" in kind, "compile" in kind
        self.problem = problem
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # As XLA does by default on a GPU.
        torch.set_float32_matmul_precision("high")

    def build(self) -> dict[str, Any]:
        network = network_of(self.problem).to(self.device)
        if self.last:
            network = network.to(memory_format=torch.channels_last)
        self.network = network
        self.model: Any = network
        if self.compiled:
            # Many small kernels: on a GPU replayed as one graph.
            mode = "reduce-overhead" if self.device.type == "cuda" else "default"
            self.model = torch.compile(network, mode=mode)
        arrays = self.problem.arrays
        self.inputs = [self._fields(arrays[n]) for n in ("frames", "ahead", "reference")]
        batch, _, lat, lon, _ = arrays["targets"].shape
        self.shape = (batch, -1, lat, lon)
        missing = arrays["targets"] - arrays["reference"]
        self.missing = self._fields(missing).reshape(self.shape)
        self.weight = self._fields(arrays["weight"][None]).reshape(1, -1, lat, lon)
        settings = self.problem.about["optimizer"]
        self.clip = settings["clip"]
        matrices = [p for p in network.parameters() if p.ndim > 1]
        vectors = [p for p in network.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": settings["weight_decay"]},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=settings["learning_rate"],
        )
        return {}

    def begin(self) -> None:
        """The loss and its gradients with the given weights, then the first step."""
        self.loss = float(self._backward())
        self.gradients = {
            name: p.grad.detach().cpu().numpy().copy()
            for name, p in self.network.named_parameters()
        }
        self._update()
        self._wait()

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self._backward()
            self._update()
        self._wait()

    def infer(self, batches: int) -> None:
        """Forecasts that arrive in host memory."""
        with torch.inference_mode():
            for _ in range(batches):
                self.model(*self.inputs).cpu().numpy()

    def agreement(self) -> dict[str, float]:
        """How well loss, gradients and outputs agree with gridcast's."""
        found = {"loss": require_same("losses", self.loss, self.problem.about["loss"])}
        expected = translated(self.problem, self.problem.gradients)
        found["gradients"] = max(
            require_same(f"gradients of {name}", self.gradients[name], gradient)
            for name, gradient in expected.items()
        )
        # The weights have moved on.
        with torch.inference_mode():
            fresh = network_of(self.problem).to(self.device)
            outputs = fresh(*self.inputs).reshape(self.shape).cpu().numpy()
        arrays = self.problem.arrays["outputs"]
        flat = np.moveaxis(arrays, -1, 2).reshape(outputs.shape)
        return found | {"outputs": require_same("outputs", outputs, flat)}

    def memory(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None

    def rates(self) -> dict[str, float]:
        matrix = torch.ones(MATRIX, MATRIX, device=self.device)

        def multiply() -> None:
            torch.mm(matrix, matrix)
            self._wait()

        return {"torch": matrix_rate(multiply)}

    def _backward(self) -> Any:
        self.optimizer.zero_grad()
        error = self.model(*self.inputs).reshape(self.shape) - self.missing
        loss = (self.weight * error**2).sum() / self.shape[0]
        loss.backward()
        return loss.detach()

    def _update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.optimizer.step()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _fields(self, array: np.ndarray) -> Any:
        """[.. lat lon channel] as [.. channel lat lon]; in memory as before for channels last."""
        moved = torch.from_numpy(np.ascontiguousarray(array)).to(self.device).movedim(-1, -3)
        return moved if self.last else moved.contiguous()
