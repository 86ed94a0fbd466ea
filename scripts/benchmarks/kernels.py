"""What XLA made of a program: the kernels that each turn of its loops launches."""

from __future__ import annotations

import re

# Instructions that read and write memory by themselves; what is fused is part of a `fusion`.
_KERNEL = re.compile(r"\s(fusion|convolution|dot|custom-call|copy|reduce|scatter|sort)\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) .*\{$")
_BODY = re.compile(r"\swhile\(.*body=%?([\w.-]+)")


def kernels(hlo: str) -> list[int]:
    """How many kernels one turn of each loop launches, of its own; the largest number first.

    Args:
      hlo: the optimized program as text. A loop inside another counts by itself.
    """
    counts: dict[str, int] = {}
    bodies, inside = set(), ""
    for line in hlo.splitlines():
        if (begins := _COMPUTATION.match(line)) is not None:
            inside = begins[1]
            counts[inside] = 0
        elif _KERNEL.search(line):
            counts[inside] += 1
        if (loop := _BODY.search(line)) is not None:
            bodies.add(loop[1])
    return sorted((counts[name] for name in bodies if name in counts), reverse=True)
