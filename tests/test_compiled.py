"""What one process compiled, the next one loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
{before}
from gridcast.compiled import keep_compiled
keep_compiled(Path(sys.argv[1]))
import jax
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((8, 8))).block_until_ready()
print(sum("cache_hits" in event for event in hits))
"""


def hits(directory: Path, before: str = "", **environment: str) -> int:
    """How many programs a new process loaded instead of compiling them."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    everything = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before), str(directory)],
        env=kept | everything | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(found.stdout)


@pytest.mark.family
def test_a_second_process_loads_and_another_processor_has_its_own_programs(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert hits(ours) == 0
    assert hits(ours) > 0
    (folder,) = ours.iterdir()
    assert any(folder.iterdir())
    other = "import platform; platform.machine = lambda: 'another'"
    assert hits(ours, other) == 0
    assert len(list(ours.iterdir())) == 2
    # The environment wins, and JAX that is already there is left alone.
    hits(tmp_path / "unused", JAX_COMPILATION_CACHE_DIR=str(theirs))
    assert any(theirs.iterdir())
    hits(tmp_path / "unused", "import jax")
    assert not (tmp_path / "unused").exists()
