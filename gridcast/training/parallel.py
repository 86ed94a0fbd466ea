"""Several devices: their mesh, what lies on which of them, and how they share the work."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from gridcast.accelerator import each_member, jit, shards
from gridcast.config import Config
from gridcast.errors import ConfigError
from gridcast.frames.windows import FrameSeries
from gridcast.hosts import several
from gridcast.training.series import DeviceSeries
from gridcast.training.sharing import require_cells, require_windows, require_work_for_all
from gridcast.training.state import TrainState

AXES = ("data", "lat", "lon")
_log = logging.getLogger("gridcast")


@dataclass(frozen=True)
class Layout:
    """Where everything lies; XLA adds the communication that follows from it.

    Weights lie on every device, batches are shared along `data`, and the grid along `lat` and
    `lon`. What is drawn at random, and so what is learned, is the same on any number of devices.

    Attributes:
      mesh: of the devices; None: there is one, and nothing to share.
      apart: each device trains members of its own, instead of its part of each batch.
      whole: targets are one answer for a window, and have no grid.
    """

    mesh: Mesh | None = None
    apart: bool = False
    whole: bool = False

    def jit(self, function: Callable[..., Any], given: str, made: str, **arguments: Any) -> Any:
        """The function compiled for these devices.

        Args:
          given, made: what it takes and returns: `state`, `weights`, `series`, or what is the
            `same` everywhere.
        """
        if self.mesh is None:
            return jit(function, **arguments)
        mesh = self.mesh.abstract_mesh

        def on_mesh(*values: Any) -> Any:
            with jax.sharding.use_abstract_mesh(mesh):
                return function(*values)

        inputs = tuple(self._where(kind) for kind in given.split())
        outputs = tuple(self._where(kind) for kind in made.split())
        if len(outputs) == 1:
            (outputs,) = outputs
        compiled = jit(on_mesh, in_shardings=inputs, out_shardings=outputs, **arguments)
        if not several():
            return compiled

        def on_hosts(*values: Any) -> Any:
            kinds = given.split()
            return compiled(*(self.put(one, kind) for one, kind in zip(values, kinds, strict=True)))

        return on_hosts

    def put(self, tree: Any, kind: str) -> Any:
        """On the devices, laid out as its kind is: see `jit`.

        Of several processes, each has the whole tree and puts what its own devices hold.
        """
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        where = self._where(kind)
        if not several():
            return jax.device_put(tree, where)
        return jax.tree.map(_put_own, tree, jax.tree.broadcast(where, tree))

    def fetch(self, tree: Any) -> Any:
        """The tree, with all of each array within reach of this process; all must ask."""

        def whole(leaf: Any) -> Any:
            apart = isinstance(leaf, jax.Array) and not (
                leaf.is_fully_addressable or leaf.is_fully_replicated
            )
            return multihost_utils.process_allgather(leaf, tiled=True) if apart else leaf

        return jax.tree.map(whole, tree)

    def _where(self, kind: str) -> Any:
        """A tree that begins as those of this kind, with where each branch lies."""

        def along(*axes: str | None) -> Any:
            assert self.mesh is not None
            return NamedSharding(self.mesh, P(*axes))

        everywhere = along()
        if kind == "series":
            fields, rows = along(None, "lat", "lon"), along(None, "lat")
            answers, weight = (everywhere,) * 2 if self.whole else (fields, along("lat", "lon"))
            frames = FrameSeries(fields, answers, answers, rows, everywhere, fields, answers)
            return DeviceSeries(frames, weight, everywhere, everywhere)
        member = along("data") if self.apart else everywhere
        if kind == "state":
            return TrainState(member, member, member, everywhere, member)
        return member if kind == "weights" else everywhere

    def each_member(self, function: Callable[..., Any], *same: Any) -> Callable[..., Any]:
        """As `accelerator.each_member`; of members that are apart, each device maps its own.

        Args:
          same: further arguments, the same for all members.
        """

        def mapped(same: tuple[Any, ...], *stacked: Any) -> Any:
            return each_member(lambda *one: function(*one, *same))(*stacked)

        def apart(*stacked: Any) -> Any:
            given = (P(), *[P("data")] * len(stacked))
            on_each = jax.shard_map(mapped, in_specs=given, out_specs=P("data"), check_vma=False)
            return on_each(same, *stacked)

        return apart if self.apart else functools.partial(mapped, same)


ONE_DEVICE = Layout()


def _put_own(leaf: Any, where: NamedSharding) -> jax.Array:
    """One array on the devices of several processes, unless it is there already."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf
    whole = np.asarray(leaf)
    whole = whole.astype(jax.dtypes.canonicalize_dtype(whole.dtype), copy=False)
    return jax.make_array_from_callback(whole.shape, where, lambda index: whole[index])


def spread(initial: Int[Array, " batch"]) -> Int[Array, " filled"]:
    """A batch shared out to the devices, filled up by its first window so that all have as many.

    A single window is not shared: it is computed on every device.
    """
    parts = shards("data")
    if parts == 1 or initial.size == 1:
        return initial
    place = jnp.arange(-(-initial.size // parts) * parts)
    place = jax.lax.with_sharding_constraint(place, P("data"))
    return initial[jnp.where(place < initial.size, place, 0)]


def everywhere(tree: Any) -> Any:
    """The whole of each array on every device that shares the work."""
    if all(shards(axis) == 1 for axis in AXES):
        return tree
    return jax.lax.with_sharding_constraint(tree, P())


def mean_of(loss: Float[Array, " filled"], count: int) -> Float[Array, ""]:
    """The mean over the first `count` windows; the others fill a batch up."""
    if loss.size == count:
        return loss.mean()
    return jnp.where(jnp.arange(loss.size) < count, loss, 0.0).sum() / count


def layout_of(
    config: Config, grid: tuple[int, int], step: int, windows: int, *, whole: bool
) -> Layout:
    """How a training lies on the devices that there are.

    Args:
      grid: (lat, lon).
      step: cells of the grid to one of the network where it is coarsest.
      windows: that are computed at a time: of a batch, or of a part of it.
      whole: as of `Layout`.

    Raises:
      ConfigError: more devices than there are or than there is work for, or parts that do not
        come out even where filling them up would change results.
    """
    parallel, devices = config.parallel, jax.devices()
    space = parallel.lat * parallel.lon
    if space > len(devices):
        raise ConfigError(
            f"parallel: lat {parallel.lat} times lon {parallel.lon} needs {space} devices, found "
            f"{len(devices)}\n  fix: parallel.lat: 1 and parallel.lon: 1"
        )
    for axis, cells in zip(("lat", "lon"), grid, strict=True):
        require_cells(config, axis, cells, step)
    members, most = config.train.members, len(devices) // space
    data = parallel.data
    if data == "auto":
        shared = members if not parallel.spatial and members % most == 0 else windows
        data = min(most, shared)
    if data > most:
        raise ConfigError(
            f"parallel.data: {data} times lat and lon needs {data * space} devices, found "
            f"{len(devices)}\n  fix: parallel.data: {most}"
        )
    require_work_for_all(config, data, devices[: data * space])
    if data * space == 1:
        return ONE_DEVICE
    apart = data > 1 and not parallel.spatial and members > 1 and members % data == 0
    if not apart:
        require_windows(config, data, windows)
    if data * space < len(devices):
        _log.warning("%d of %d devices are used", data * space, len(devices))
    shape = (data, parallel.lat, parallel.lon)
    mesh = Mesh(np.array(devices[: data * space]).reshape(shape), AXES, (AxisType.Auto,) * 3)
    work = f"{members // data} members on each" if apart else f"batches shared by {data}"
    _log.info("%d devices: %s", data * space, work)
    return Layout(mesh, apart, whole)
