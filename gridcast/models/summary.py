"""What a model is made of: a line for each module, with its output's shape and its weights."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
from flax import nnx
from jax.custom_batching import custom_vmap
from jaxtyping import Array

from gridcast.models.window import Frozen

Shape = tuple[int, ...]
Path = tuple[Any, ...]

_CALL = "__call__"
# Set on the copy of the model that is traced; it outlives splitting and merging inside a call.
_PATH = "path_in_summary"


@dataclass(frozen=True)
class Row:
    """A module.

    Attributes:
      path: from the model down, with dots; "" is the model itself.
      kind: its class.
      shape: of what it returned when it was first called, or of each array that it returned; None
        where it was never called. In a loop, the shape of one step. Axes of jax.vmap come first.
      time_distributed: whether it was called under jax.vmap: the same weights for each frame.
      parameters: numbers that are trained, without those of the modules inside.
      frozen: numbers that were trained elsewhere and stay, likewise.
    """

    path: str
    kind: str
    shape: Shape | tuple[Shape, ...] | None
    time_distributed: bool
    parameters: int
    frozen: int


@dataclass
class _Call:
    """The first call of a module: the shapes that it returned, and whether under jax.vmap."""

    shapes: dict[int, Shape] = field(default_factory=dict)
    mapped: bool = False


def summarise(model: nnx.Module, call: Callable[[nnx.Module], Any]) -> list[Row]:
    """The modules that have weights, or modules inside, in the order of their first calls.

    Nothing is computed, and the model stays as it is.

    Args:
      call: applies the model to something.
    """
    modules = _modules(model)
    calls = _first_calls(model, call)
    trained, frozen = (_count(model, modules, kind) for kind in (nnx.Param, Frozen))
    # A module that holds others comes before them, called or not; those never called come last.
    place: dict[Path, int] = {}
    for path in [*calls, *sorted(modules, key=str)]:
        for end in range(len(path) + 1):
            place.setdefault(path[:end], len(place))

    names = {path: ".".join(map(str, path)) for path in modules}
    rows = []
    for path in sorted(modules, key=lambda p: [place[p[:end]] for end in range(len(p) + 1)]):
        holds = any(_holds(names[path], other) for other in names.values())
        if holds or trained[path] or frozen[path]:
            made = calls.get(path, _Call())
            shapes = tuple(made.shapes.values())
            rows.append(
                Row(
                    names[path],
                    type(modules[path]).__name__,
                    shapes[0] if len(shapes) == 1 else shapes or None,
                    made.mapped,
                    trained[path],
                    frozen[path],
                )
            )
    return rows


def table(rows: Sequence[Row]) -> str:
    """One line for each module, indented by its depth, and the totals."""
    some_frozen = any(row.frozen for row in rows)
    lines = [["module", "class", "output", "parameters", *["frozen"] * some_frozen]]
    for row in rows:
        around = [r.path for r in rows if _holds(r.path, row.path)]
        name = row.path.removeprefix(max(around, key=len, default="")).removeprefix(".")
        numbers = [row.parameters, *[row.frozen] * some_frozen]
        lines.append(
            [
                "  " * len(around) + (name or "model"),
                row.kind,
                _shape_text(row.shape) + " *" * row.time_distributed,
                *(f"{n:,}" if n else "" for n in numbers),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rule = "-" * max(map(len, text))
    text = [text[0], rule, *text[1:], rule]
    if any(row.time_distributed for row in rows):
        text.append("* time-distributed: the same weights for each entry of the first axis")
    text.append(f"trainable parameters: {sum(row.parameters for row in rows):,}")
    text.append(f"frozen parameters: {sum(row.frozen for row in rows):,}")
    return "\n".join(text)


def _holds(outer: str, inner: str) -> bool:
    return inner != outer and (outer == "" or inner.startswith(f"{outer}."))


def _shape_text(shape: Shape | tuple[Shape, ...] | None) -> str:
    if shape is None:
        return "-"
    if not shape or isinstance(shape[0], int):
        return str(shape)
    more = f" and {len(shape) - 2} more" if len(shape) > 2 else ""
    return ", ".join(map(str, shape[:2])) + more


def _modules(model: nnx.Module) -> dict[Path, nnx.Module]:
    """Each module once; lists and dictionaries only hold them."""
    found = dict(nnx.iter_modules(model))
    return {p: m for p, m in found.items() if not isinstance(m, nnx.List | nnx.Dict)}


def _count(
    model: nnx.Module, modules: dict[Path, nnx.Module], kind: type[nnx.Variable]
) -> Counter[Path]:
    """Numbers in variables of a kind, by the path of the module that owns them."""
    counts = Counter[Path]()
    for path, variable in nnx.to_flat_state(nnx.state(model, kind)):
        ends = range(len(path), -1, -1)
        owner = next(path[:end] for end in ends if path[:end] in modules)
        counts[owner] += math.prod(variable.shape)
    return counts


def _first_calls(model: nnx.Module, call: Callable[[nnx.Module], Any]) -> dict[Path, _Call]:
    """What is called, in this order; a module comes before those that it calls."""
    graph, state = nnx.split(model)
    calls: dict[Path, _Call] = {}

    def traced(state: Any) -> None:
        copy = nnx.merge(graph, state)
        modules = _modules(copy)
        for path, module in modules.items():
            setattr(module, _PATH, path)
        with _watched({type(module) for module in modules.values()}, calls):
            call(copy)

    jax.eval_shape(traced, state)
    return calls


@contextmanager
def _watched(kinds: Iterable[type], calls: dict[Path, _Call]) -> Iterator[None]:
    """While it is open, the first call of each module with a path is noted."""
    originals = {
        base: vars(base)[_CALL] for kind in kinds for base in kind.__mro__ if _CALL in vars(base)
    }
    try:
        for base, original in originals.items():
            setattr(base, _CALL, _noting(original, calls))
        yield
    finally:
        for base, original in originals.items():
            setattr(base, _CALL, original)


def _noting(original: Callable[..., Any], calls: dict[Path, _Call]) -> Callable[..., Any]:
    @functools.wraps(original)
    def noting(module: nnx.Module, *args: Any, **kwargs: Any) -> Any:
        path = getattr(module, _PATH, None)
        if path is None or path in calls:
            return original(module, *args, **kwargs)
        made = calls[path] = _Call()
        leaves, tree = jax.tree.flatten(original(module, *args, **kwargs))
        noted = [
            _note(leaf, made, i) if isinstance(leaf, jax.Array) else leaf
            for i, leaf in enumerate(leaves)
        ]
        return tree.unflatten(noted)

    return noting


def _note(x: Array, made: _Call, position: int) -> Array:
    """`x`, whose shape is noted: now, and with each axis that a jax.vmap around it adds."""
    made.shapes[position] = x.shape

    @custom_vmap
    def same(x: Array) -> Array:
        return x

    @same.def_vmap
    def with_axis(size: int, mapped: list[bool], x: Array) -> tuple[Array, bool]:
        made.shapes[position], made.mapped = x.shape, True
        return same(x), True

    return same(x)
