"""Counts cases while a class of faults is tried."""

from __future__ import annotations

from collections.abc import Callable

from fault_suite.outcome import Outcome


class Tally:
    """Cases so far; the control is none of them, and has to pass before they count."""

    def __init__(self) -> None:
        self.cases = 0
        self.failed = 0
        self.wrong: list[str] = []

    def control(self, found: str | None) -> None:
        """What is wrong without the fault: None if all is well."""
        if found is not None:
            self.wrong.append(f"control: {found}")

    def case(self, name: str, found: str | None) -> None:
        """What is wrong with the fault: None if all is well."""
        self.cases += 1
        if found is not None:
            self.failed += 1
            self.wrong.append(f"{name}: {found}")

    def check(self, name: str, judge: Callable[[], str | None]) -> None:
        """A case whose judge may raise: that is wrong, too."""
        try:
            found = judge()
        except Exception as error:
            found = f"{type(error).__name__}: {error}".splitlines()[0]
        self.case(name, found)

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.cases, self.cases - self.failed, self.wrong)
