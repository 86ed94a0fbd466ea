"""The script that says what a step of a large grid takes, on a small one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import large_grid

pytestmark = pytest.mark.family


def test_what_a_step_takes_grows_with_the_cells():
    model = {"name": "conv_lstm", "hidden": [4]}
    small, large = (large_grid.step_of(model, 12, lon) for lon in (24, 48))
    assert large.flops == 2 * small.flops
    assert 1.5 < large.temporary / small.temporary < 2.5
    assert large.weights == small.weights
    assert 0 < small.seconds < 10
    assert small.peak > small.temporary
