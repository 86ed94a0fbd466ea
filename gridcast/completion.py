"""Completion in the shell: what may stand next, found without jax."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable

from gridcast.errors import ConfigError

SHELLS = ("bash", "zsh")


def add(commands: argparse._SubParsersAction) -> None:
    """Add `gridcast completion`."""
    parser = commands.add_parser(
        "completion",
        help="print what makes a shell complete gridcast's commands",
        description='In ~/.bashrc or ~/.zshrc: eval "$(gridcast completion bash)", or zsh.',
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=_print)


def _print(arguments: argparse.Namespace) -> None:
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError:
        raise ConfigError(
            'completion needs argcomplete\n  fix: pip install "gridcast[completion]"'
        ) from None
    print(shellcode(["gridcast"], shell=arguments.shell))


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and end the process, where it is the shell that asks."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    import argcomplete
    from argcomplete.completers import DirectoriesCompleter, FilesCompleter

    completers = {
        "CONFIG": FilesCompleter(("yaml", "yml")),
        "section.key=value": _settings,
        "NAME": _data_sets,
        **dict.fromkeys(("RUN", "DIR", "A", "B"), DirectoriesCompleter()),
    }
    for action in _actions(parser):
        if action.metavar in completers:
            action.completer = completers[action.metavar]  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _actions(parser: argparse.ArgumentParser) -> Iterable[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)


def _settings(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """The keys of the settings, or, after the sign, the values that one may have."""
    from gridcast.config.declared import all_keys, values_at
    from gridcast.config.yaml_text import read_settings

    try:  # the model of the config has keys of its own
        with open(parsed_args.config, encoding="utf-8") as file:
            settings = read_settings(file.read()).values
    except Exception:  # whatever is wrong with it, a completion is no place to say so
        settings = {}
    name, sign, _value = prefix.partition("=")
    keys = [key for key in all_keys((), settings) if not all_keys(tuple(key.split(".")), settings)]
    if not sign:
        return [f"{key}=" for key in keys]
    if name not in keys:
        return []
    return [f"{name}={value}" for value in values_at(tuple(name.split(".")), settings)]


def _data_sets(**_: object) -> list[str]:
    from gridcast.sources.catalog import catalog

    return list(catalog())
