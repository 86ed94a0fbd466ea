"""What became of one class of faults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """Of the cases of one class.

    Attributes:
      cases: how many faults were tried.
      survived: after how many the answer was right, or an error that says what is wrong.
      wrong: one line for each of the others, and for controls that failed one by one.
      control: whether the same without the fault went well; a suite without it proves nothing.
    """

    cases: int
    survived: int
    wrong: list[str]
    control: bool = True

    @property
    def passed(self) -> bool:
        return self.control and not self.wrong and self.survived == self.cases
