"""Texts of the command line as numbers, shapes and names, with what was expected of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from gridcast.errors import ConfigError


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


def add_hosts(parser: argparse.ArgumentParser) -> None:
    """`--distributed`, and the address for where JAX finds none by itself."""
    several = parser.add_argument_group("several hosts")
    several.add_argument(
        "--distributed",
        action="store_true",
        help="train together with other processes, as SLURM, GKE or a TPU pod started them",
    )
    several.add_argument(
        "--coordinator", metavar="HOST:PORT", help="elsewhere: where process 0 is, a free port"
    )
    several.add_argument(
        "--processes", metavar="N", type=number(least=1), help="elsewhere: how many there are"
    )
    several.add_argument(
        "--process", metavar="I", type=number(least=0), help="elsewhere: which this one is, from 0"
    )


def joins(arguments: argparse.Namespace) -> bool:
    """Whether the arguments of `add_hosts` ask for several processes.

    Raises:
      ConfigError: an address without `--distributed`, or half of one, or for what one does alone.
    """
    names = ("coordinator", "processes", "process")
    given = [f"--{name}" for name in names if getattr(arguments, name) is not None]
    if given and not arguments.distributed:
        raise ConfigError(f"{given[0]} without --distributed\n  fix: --distributed as well")
    if arguments.distributed and arguments.dry_run:
        raise ConfigError(
            "--dry-run looks at what one process would do\n  fix: --dry-run without --distributed"
        )
    if given and len(given) < len(names):
        lacking = [f"--{name}" for name in names if f"--{name}" not in given]
        raise ConfigError(
            f"--distributed: {' and '.join(given)} without {' and '.join(lacking)}\n"
            "  expected: all three, or none of them on a cluster that JAX knows\n"
            "  fix: --coordinator HOST:PORT --processes N --process I"
        )
    if not given:
        return arguments.distributed
    if not re.fullmatch(r"\S+:[0-9]{1,5}", arguments.coordinator):
        raise ConfigError(
            f"--coordinator: found {arguments.coordinator!r}\n"
            "  expected: HOST:PORT of process 0, a port that is free there\n"
            "  fix: for example --coordinator node1:12355"
        )
    if arguments.process >= arguments.processes:
        raise ConfigError(
            f"--process: {arguments.process} of --processes {arguments.processes}\n"
            f"  expected: 0 to {arguments.processes - 1}, each of them once\n"
            "  fix: count from 0"
        )
    return True


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
