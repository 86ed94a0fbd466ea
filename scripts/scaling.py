"""What a training step costs each device where devices and work grow together.

    python scripts/scaling.py            # a table, in a few minutes on 2 cores
    python scripts/scaling.py --readme   # the table into README.md as well

Nothing is run or timed: 8 devices are made up of one CPU, each step is compiled for them, and read
from the program of one device are its FLOPs, the bytes it reads and writes, the memory of what it
holds between, and what it sends to others. XLA counts the body of a loop once, on any number.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import Any

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
from readme_tables import tell

from gridcast.config import config_from_dict
from gridcast.fitting import compile_setup
from gridcast.opening import open_source
from gridcast.preparation import prepare
from gridcast.sources.simulated import simulated_series

WINDOWS, ROWS, COLUMNS = 4, 16, 64  # on each device, and along longitude
MODELS = {
    "ConvLSTM": {"name": "conv_lstm", "hidden": [24]},
    "CNN-LSTM": {"name": "cnn_lstm"},
}
MESHES = [(1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 4), (2, 4)]  # data, lat
SENT = re.compile(r"= (\S.*?) (?:all-[a-z-]+|collective-permute|reduce-scatter)(?:-start)?\(")


def table() -> Iterator[str]:
    yield "| | devices: data x lat | batch, grid | MFLOP | MB moved | MiB held | kB sent |"
    yield "|---|---|---|---|---|---|---|"
    for name, model in MODELS.items():
        for data, lat in MESHES:
            flops, moved, held, sent = costs(model, data, lat)
            yield (
                f"| {name} | {data} x {lat} | {WINDOWS * data}, {ROWS * lat} x {COLUMNS} | "
                f"{flops / 1e6:.0f} | {moved / 1e6:.0f} | {held / 2**20:.1f} | {sent / 1e3:.0f} |"
            )
            name = ""
    yield ""
    yield (
        f"Of one device's program: {WINDOWS} windows of 6 frames, {ROWS} x {COLUMNS} cells each; "
        f"jax {jax.__version__}; `scripts/scaling.py`."
    )


def costs(model: dict[str, Any], data: int, lat: int) -> tuple[float, float, float, float]:
    """FLOPs, bytes accessed, bytes of temporaries and bytes sent, of one device in one step."""
    series, _ = simulated_series("ocean", years=8, shape=(ROWS * lat, COLUMNS), seed=0)
    config = config_from_dict(
        {
            "data": {"path": "(in memory)"},
            "splits": {"train": [1950, 1954], "validation": [1955, 1956], "test": [1957, 1957]},
            "frames": {"leads": 6},
            "model": model,
            "train": {"batch_size": WINDOWS * data},
            "parallel": {"data": data, "lat": lat},
        }
    )
    setup = prepare(config, open_source(config, series))
    stepper, on_devices, weights, _ = compile_setup(setup)
    order = jax.ShapeDtypeStruct(setup.epoch(0).shape, np.int32)
    state = stepper.start(weights)
    program = stepper.run.lower(state, on_devices, order, 0, 1).compile()
    cost = program.cost_analysis()
    return (
        cost["flops"],
        cost["bytes accessed"],
        program.memory_analysis().temp_size_in_bytes,
        sum(size(made) for made in SENT.findall(program.as_text())),
    )


def size(made: str) -> int:
    """Bytes of what a collective operation gives, all of it float32 or int32."""
    shapes = re.findall(r"[fs]32\[([\d,]*)\]", made)
    return sum(4 * int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)


if __name__ == "__main__":
    sys.exit(tell(table(), "scaling", str(__doc__)))
