"""Reading modules for a command, which is most of what a short one takes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """For reading modules: no garbage collection in the block, and none of what it has read.

    Modules stay, and looking through them for garbage takes longer than a forecast.
    """
    running, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
        if running:
            gc.enable()
