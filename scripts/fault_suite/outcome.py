"""What a class of faults came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """The faults of one class that were tried.

    Attributes:
      cases: how many.
      survived: of them, those that ended as they should.
      wrong: what was found in the others, or in a control, a line each.
    """

    cases: int
    survived: int
    wrong: list[str]
