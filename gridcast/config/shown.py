"""An experiment as YAML that explains itself: every setting with its default and its meaning."""

from __future__ import annotations

import textwrap

from gridcast.config.declared import default_at, fields_at, meaning_of, value_at, values_at
from gridcast.config.loading import dump_config
from gridcast.config.schema import Config
from gridcast.config.yaml_text import Path, read_settings, scalar

WIDTH = 100


def show_config(config: Config) -> str:
    """The whole experiment as `dump_config` writes it, with a comment above what is explained.

    A comment says what a setting means, the values it may have and, where it has another one, its
    default. `load_config` reads the same experiment back.
    """
    text = dump_config(config)
    settings = read_settings(text)
    lines = text.splitlines()
    keys = {number: path for path, number in settings.lines.items() if isinstance(path[-1], str)}
    shown = [f"# Every setting, defaults included; {_HOW}"]
    for number, line in enumerate(lines, 1):
        path = keys.get(number)
        if path is not None:
            if len(path) == 1:
                shown.append("")
            indent = " " * (len(line) - len(line.lstrip()))
            shown += textwrap.wrap(
                _comment(path, settings.values), WIDTH, initial_indent=f"{indent}# ",
                subsequent_indent=f"{indent}#   ", break_long_words=False,
            )  # fmt: skip
        shown.append(line)
    return "\n".join(shown) + "\n"


_HOW = "`gridcast train FILE section.key=value` changes one."


def _comment(path: Path, settings: dict) -> str:
    """What stands above a setting; nothing above what explains itself."""
    parts = [meaning_of(path, settings)]
    if not fields_at(path, settings):
        # The name of the model chooses its section, which itself knows one name.
        values = values_at(path[:-1] if path == ("model", "name") else path, settings)
        if values:
            parts.append(f"one of: {', '.join(map(str, values))}")
        default = default_at(path, settings)
        if default is not None and default != value_at(path, settings):
            parts.append(f"default: {_as_written(default)}")
    return "; ".join(part for part in parts if part)


def _as_written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and scalar(value) != value:
        return repr(value)
    return str(value)
