"""Texts of the command line as numbers, shapes and names, with what was expected of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path


def number(what: str = "a whole number", *, least: int) -> Callable[[str], int]:
    """A reader of whole numbers: `type=number("a number of years", least=1)`."""

    def read(text: str) -> int:
        if not re.fullmatch("[0-9]+", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected {what}, at least {least}, found {text!r}")
        return int(text)

    return read


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """`section.key=value`, as many as there are."""
    parser.add_argument(
        "overrides",
        metavar="section.key=value",
        nargs="*",
        default=[],
        help="settings in place of those of the file, for example train.epochs=3",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`: one JSON object on standard output, and nothing else there."""
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")


def shape(text: str) -> tuple[int, int]:
    """LATxLON, such as 45x90."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected LATxLON such as 45x90, found {text!r}")
    return int(match[1]), int(match[2])


def named(text: str) -> tuple[str, str]:
    """NAME=FILE, or a file that is named as it is called."""
    name, given, file = text.partition("=")
    if not given:
        name, file = Path(text).stem, text
    if not name or not file or "*" in name:
        raise argparse.ArgumentTypeError(f"expected NAME=FILE, found {text!r}")
    return name, file
