"""How gridcast compiles: one place for the options of each platform."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax

# The default fusion of XLA's CPU back end halves the speed of convolutions in training.
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


def jit(function: Callable[..., Any], **arguments: Any) -> Any:
    """`jax.jit` with the options that suit the default device; see `jax.jit` for `arguments`."""
    return jax.jit(function, compiler_options=compiler_options(), **arguments)


def each_member(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` over the leading member axis of its arguments, inside one compiled call.

    Accelerators compute all members at once. On a CPU one follows the other: kernels that differ
    within a batch become grouped convolutions there, which are slow. So it is where devices share a
    batch: mapped weights would make them gather it.
    """
    if jax.default_backend() != "cpu" and all(shards(axis) == 1 for axis in ("data", "lat", "lon")):
        return jax.vmap(function)
    return lambda *stacked: jax.lax.map(lambda one: function(*one), stacked)


def shards(axis: str) -> int:
    """Parts, each on a device of its own, of an axis of what is being traced: data, lat or lon.

    1 on a single device, and inside `jax.shard_map`, where what is traced is one part.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return mesh.shape[axis] if kinds.get(axis) == jax.sharding.AxisType.Auto else 1


def space_is_shared() -> bool:
    """Whether devices hold parts of the grid."""
    return shards("lat") * shards("lon") > 1


@cache
def compiler_options() -> dict[str, str] | None:
    """Options that this jaxlib knows for the default device, or None."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda x: x + 1, compiler_options=CPU_OPTIONS).lower(1.0).compile()
    except Exception:  # an unknown option: jaxlib raises types of its own, and has changed them
        return None
    return dict(CPU_OPTIONS)


def device_name() -> str:
    """What the computation runs on, for logs and reports."""
    devices = jax.devices()
    kind = devices[0].device_kind
    return f"{len(devices)} x {kind}" if len(devices) > 1 else kind
