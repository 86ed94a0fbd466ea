"""Every command as Markdown, read from the parser of `gridcast.cli`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

from gridcast.cli import command_parser

_WIDTH = 88


def command_reference() -> str:
    """A heading, the usage and a table of arguments for each command."""
    return "\n".join(_chapter(parser) for parser in commands(command_parser()))


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of all commands, without those that only hold others."""
    inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not inner:
        yield parser
    for action in inner:
        told = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for name, one in action.choices.items():
            if name in told:  # no other name of the same command
                one.description = one.description or f"{told[name][:1].upper()}{told[name][1:]}."
                yield from commands(one)


def arguments_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Those that a user may write."""
    return [
        action
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS
    ]


def name_of(action: argparse.Action) -> str:
    """As it is written: `--leads LEADS`, `RUN`."""
    value = action.metavar or action.dest.upper()
    value = value if isinstance(value, str) else " ".join(value)
    if not action.option_strings:
        return str(action.metavar or action.dest)
    takes = "" if action.nargs == 0 else f" {value}"
    return ", ".join(action.option_strings) + takes


def _chapter(parser: argparse.ArgumentParser) -> str:
    parser.formatter_class = partial(argparse.HelpFormatter, width=_WIDTH)
    usage = parser.format_usage().removeprefix("usage: ").strip()
    lines = [f"## {parser.prog}", "", parser.description or "", "", "```text", usage, "```", ""]
    actions = arguments_of(parser)
    if actions:
        lines += ["| Argument | Meaning |", "|---|---|"]
        lines += [f"| `{_cell(name_of(a))}` | {_cell(_meaning(a))} |" for a in actions]
    return "\n".join([*lines, ""])


def _meaning(action: argparse.Action) -> str:
    text = action.help or ""
    if action.choices is not None:
        text += f"{'; ' * bool(text)}one of {', '.join(f'`{choice}`' for choice in action.choices)}"
    if action.default not in (None, False, [], argparse.SUPPRESS) and "default" not in text:
        text += f"; default {action.default}"
    return text


def _cell(text: str) -> str:
    return text.replace("%%", "%").replace("|", "\\|")
