"""Tables that scripts write into README, each between markers of its own."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from gridcast.drafts import write_text
from gridcast.errors import DataError

README = Path(__file__).parents[1] / "README.md"


def tell(lines: Iterable[str], name: str, about: str, argv: Sequence[str] | None = None) -> int:
    """Print a table, and with `--readme` write it into README as well; returns 0.

    Args:
      about: the script's docstring, of which `--help` shows the first line.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    arguments = parser.parse_args(argv)
    text = "\n".join(lines)
    print(text)
    if arguments.readme:
        write_text(README, between_markers(README.read_text(), text, name))
    return 0


def between_markers(text: str, tables: str, name: str = "results") -> str:
    """`text` with the tables between the markers `<!-- NAME:begin -->` and `<!-- NAME:end -->`.

    Raises:
      DataError: it has not one of each, in this order.
    """
    first, last = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end) or first in rest or last in before + after:
        raise DataError(
            f"no place for the tables\n  expected: one line {first} and, after it, one line {last}"
        )
    return f"{before}{first}\n{tables}\n{last}{after}"
