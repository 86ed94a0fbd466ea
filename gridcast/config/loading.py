"""From a file or a dict, and overrides, to a checked Config; every mistake names its place."""

from __future__ import annotations

import datetime as dt
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import yaml
from pydantic import ValidationError

from gridcast.config.mistakes import describe, explain
from gridcast.config.schema import Config
from gridcast.config.yaml_text import (
    MAX_BYTES,
    MAX_DEPTH,
    Mistake,
    Path,
    Refused,
    Settings,
    dotted,
    read_settings,
    read_value,
)
from gridcast.errors import ConfigError

_SHOWN = 10
_EXPLAINED = 100


def load_config(path: str | FilePath, overrides: Sequence[str] = ()) -> Config:
    """Read an experiment from a YAML file.

    Args:
      path: the file, at most 1 MB of UTF-8.
      overrides: `section.key=value`, applied after the file, in order; values as in YAML.

    Returns:
      The checked experiment, defaults filled in.

    Raises:
      ConfigError: one `FILE:LINE: message` for each mistake, up to ten.
    """
    origin = str(path)
    text = _text(FilePath(path))
    try:
        settings = read_settings(text)
    except Refused as refused:
        raise ConfigError(_report(origin, [(refused.mistake, None)])) from None
    settings.lines.setdefault((), 1)  # a file without a single key has a first line all the same
    return _checked(settings, overrides, origin)


def config_from_dict(settings: Any, overrides: Sequence[str] = ()) -> Config:
    """Check an experiment given as nested mappings, as from Python code.

    Paths and dates may be objects (`pathlib.Path`, `datetime.date`).

    Raises:
      ConfigError: one `<settings>: message` for each mistake, up to ten.
    """
    return _checked(Settings(_plain(settings)), overrides, "<settings>")


def dump_config(config: Config) -> str:
    """The whole experiment, defaults included, as YAML that `load_config` reads back."""
    values = config.model_dump()
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # a list used twice is written twice: the loader refuses aliases


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes these line breaks as they are inside single quotes, and reads them as a space.
    style = '"' if any(c in text for c in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _write_text)


def _text(path: FilePath) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(
                f"{path}:1: the file has {path.stat().st_size} bytes\n"
                f"  expected: an experiment of at most {MAX_BYTES} bytes; is this a data file?"
            )
        with path.open("rb") as file:  # a device says that it is empty, and never ends
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"{path}:1: more than {MAX_BYTES} bytes\n  expected: an experiment")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not text in UTF-8\n  expected: YAML text") from None
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, 1)
        hint = f"\n  did you mean: {path.with_name(near[0])}" if near else ""
        raise ConfigError(f"{path}: there is no such file{hint}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read: {reason}\n  expected: a YAML file") from None


def _checked(settings: Settings, overrides: Sequence[str], origin: str) -> Config:
    """Apply overrides and validate; otherwise raise with all mistakes, in the file's order."""
    sources: dict[Path, str] = {}
    for override in overrides:
        _apply(override, settings, sources)
    found = list(settings.mistakes)
    config: Config | None = None
    further = 0
    try:
        config = Config.model_validate(settings.values)
    except ValidationError as error:
        # A value already refused while reading needs no second message.
        told = {mistake.path for mistake in found}
        errors = error.errors(include_url=False)
        # To look for the nearest known key of each of 100,000 takes half an hour.
        for path, message in explain(errors[:_EXPLAINED], settings.values):
            if path not in told:
                found.append(Mistake(_line(path, settings.lines), path, message))
        further = len(errors[_EXPLAINED:])
    if config is None or found:
        placed = [(mistake, _override_of(mistake.path, sources)) for mistake in found]
        placed.sort(key=lambda pair: (pair[1] is not None, pair[0].line or 0))
        raise ConfigError(_report(origin, placed, further))
    return config


def _line(path: Path, lines: dict[Path, int]) -> int | None:
    """The line of the path, or of the innermost section that is in the file."""
    if not lines:
        return None
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


def _override_of(path: Path, sources: dict[Path, str]) -> str | None:
    """The override that set this path, a section around it, or a part of this section."""
    for given, override in reversed(sources.items()):
        if path[: len(given)] == given or (path and given[: len(path)] == path):
            return override
    return None


def _report(origin: str, placed: Sequence[tuple[Mistake, str | None]], further: int = 0) -> str:
    lines = []
    for mistake, override in placed[:_SHOWN]:
        place = origin if mistake.line is None else f"{origin}:{mistake.line}"
        lines.append(f"{place if override is None else f'override {override}'}: {mistake.message}")
    if (more := len(placed) + further - _SHOWN) > 0:
        lines.append(f"and {more} more")
    return "\n".join(lines)


def _apply(override: str, settings: Settings, sources: dict[Path, str]) -> None:
    """Set one `section.key=value`; unknown keys are left to validation, which knows them all."""
    name, sign, text = override.partition("=")
    keys = tuple(name.strip().split("."))
    if not sign or not all(keys):
        raise ConfigError(
            f"override {override}: not of the form section.key=value\n  example: train.epochs=3"
        )
    if not text.strip():
        raise ConfigError(
            f"override {override}: no value after =\n  fix: {name}=null takes the value away"
        )
    try:
        value = read_value(text)
    except Refused as refused:
        raise ConfigError(f"override {override}: {refused}") from None
    here = settings.values
    for depth, key in enumerate(keys[:-1], start=1):
        inner = here.setdefault(key, {})
        if not isinstance(inner, dict):
            section = ".".join(keys[:depth])
            raise ConfigError(
                f"override {override}: {section} is {describe(inner)}, not a section\n"
                f"  fix: give it whole, {section}=..."
            )
        here = inner
    here[keys[-1]] = value
    sources.pop(keys, None)
    sources[keys] = override


def _plain(value: Any, path: Path = ()) -> Any:
    """Nested dicts and lists of their own: nothing the caller holds is changed by overrides."""
    if len(path) > MAX_DEPTH:
        raise ConfigError(f"<settings>: {dotted(path[:3])}... is nested too deep, or holds itself")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                where = f" in {dotted(path)}" if path else ""
                raise ConfigError(f"<settings>: the key {key!r}{where} is no text")
        return {key: _plain(inner, (*path, key)) for key, inner in value.items()}
    if not path:
        raise ConfigError(f"<settings>: found {describe(value)}\n  expected: a dict of sections")
    if isinstance(value, list | tuple):
        return [_plain(inner, (*path, i)) for i, inner in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, dt.date):
        return value.isoformat()[:10]
    return value
