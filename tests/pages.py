"""What README and the pages of the site show: their blocks of code, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[1]
SITE = ROOT / "scripts" / "site"
PROGRAMS = ("gridcast", "python", "pip", "uv", "sphinx-build", ".venv/bin/pip", ".venv/bin/python")
_FENCE = re.compile(r"^( *)```(?:\{code-block\} )?([\w]+)\n(.*?)^\1```$", re.M | re.S)
_REASON = re.compile(r"^ *% not run: (.+)\n\Z", re.M)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
      name: of the file that it is, from its caption; otherwise empty.
      reason: why it is not run, from the line `% not run: ...` above it; otherwise empty.
    """

    language: str
    text: str
    name: str = ""
    reason: str = ""


def documents() -> list[Path]:
    """The READMEs and every page."""
    return [ROOT / "README.md", ROOT / "data" / "README.md", *sorted(SITE.rglob("*.md"))]


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for match in _FENCE.finditer(text):
        body, name = dedent(match[3]), ""
        if body.startswith(":caption: "):
            first, _, body = body.partition("\n")
            name = first.removeprefix(":caption: ")
        reason = _REASON.search(text[: match.start()])
        yield Block(match[2], body, name, reason[1] if reason else "")


def commands(shell: str) -> list[str]:
    """The commands of a block of shell, one a line: those that begin with a program of ours."""
    found = []
    for line in shell.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s+&&\s+|\s+\\?\|\s+", line.strip().removeprefix("$ ")):
            command = part.removeprefix("srun ").strip()
            if command.startswith(tuple(f"{program} " for program in PROGRAMS)):
                found.append(command)
    return found


def shown(text: str) -> set[str]:
    """Every command of a page: in blocks of shell, in indented lines and between backticks."""
    found = set()
    for block in blocks(text):
        if block.language in ("sh", "bash", "console"):
            found.update(commands(block.text))
    plain = _FENCE.sub("", text)
    for line in re.findall(r"^    (\S.*)$", plain, re.M):
        found.update(commands(line))
    for span in _INLINE.findall(plain):
        found.update(commands(" ".join(span.split())))
    return found


def words(command: str) -> list[str]:
    """A command as a shell hands it over; where its output goes is no part of it."""
    return shlex.split(command.partition(" > ")[0])
