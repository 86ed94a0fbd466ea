"""YAML text to plain settings, with the line of every key; what is ambiguous is refused.

A small language on purpose: mappings, lists, text, numbers, true, false, null. PyYAML alone keeps
the last of two equal keys, reads `no` as False, `1:30` as 90 and a date as a date object, follows
aliases and overflows the stack on deep nesting.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_VALUES = 10_000  # PyYAML takes a minute for a file of MAX_BYTES full of them

Path = tuple[str | int, ...]

# A subset of what PyYAML reads as numbers, so that other tools read the same values. Numbers with
# leading zeros, underscores, colons or hexadecimal digits stay text, and text is no number.
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,29})")
_FLOAT = re.compile(r"[-+]?[0-9]+\.[0-9]*([eE][-+][0-9]+)?|\.[0-9]+([eE][-+][0-9]+)?")
_WORDS = {word: value for names, value in (
    (("", "~", "null", "Null", "NULL"), None),
    (("true", "True", "TRUE"), True),
    (("false", "False", "FALSE"), False),
) for word in names}  # fmt: skip


@dataclass(frozen=True)
class Mistake:
    """One thing to mend: where in the file, where in the settings, and what."""

    line: int | None
    path: Path
    message: str


class Refused(Exception):  # noqa: N818  (a verdict, not an error of ours)
    """Text that is not in the language at all; reading stopped there."""

    def __init__(self, line: int, message: str):
        super().__init__(message)
        self.mistake = Mistake(line, (), message)


@dataclass
class Settings:
    """The values of a file, the line of each path in them, and mistakes found on the way."""

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Path, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)


def read_settings(text: str) -> Settings:
    """Read a file whose top level is a mapping.

    Raises:
      Refused: no YAML, more than one document, anchors, aliases, tags, too deep, or too much.
    """
    node = _compose(text)
    if node is None:
        raise Refused(1, "the file is empty\n  expected: sections such as data, splits, model")
    if not isinstance(node, yaml.MappingNode):
        raise Refused(
            node.start_mark.line + 1,
            f"the file holds {_kind(node)}\n  expected: sections, each with `key: value` lines",
        )
    settings = Settings()
    settings.values = _value(node, (), settings)
    return settings


def read_value(text: str) -> Any:
    """Read one value as it would stand behind a key; `*.nc` is text here, not an alias.

    Raises:
      Refused: a list, mapping or quoted text that is not closed, or as in `read_settings`.
    """
    text = text.strip()
    if not text.startswith(("[", "{", '"', "'")):
        return scalar(text)
    node = _compose(text)
    settings = Settings()
    value = _value(node, (), settings) if node is not None else None
    if settings.mistakes:
        raise Refused(1, settings.mistakes[0].message)
    return value


def scalar(text: str) -> Any:
    """The value of an unquoted scalar: null, true, false, a finite number, else text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text


def _compose(text: str) -> yaml.Node | None:
    """The node of the one document, after a look at the events: they need no recursion."""
    try:
        _refuse_events(text)
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        about = " ".join(part for part in (error.problem, error.context) if part)
        if "alias" in about:
            about += "\n  fix: put quotes around text that begins with *"
        raise Refused(line, f"this is not YAML: {about}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Refused(line, f"character #x{error.character:04x} may not stand in YAML") from None


def _refuse_events(text: str) -> None:
    depth = documents = count = 0
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_event():
            event = loader.get_event()
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                raise Refused(
                    line,
                    f"alias *{event.anchor}\n  expected: the value itself, written out"
                    "\n  fix: put quotes around text that begins with *",
                )
            if getattr(event, "anchor", None):
                raise Refused(line, f"anchor &{event.anchor}\n  expected: values without anchors")
            if getattr(event, "tag", None):
                raise Refused(line, f"tag {event.tag}\n  expected: plain values without tags")
            count += 1
            if count > MAX_VALUES:
                raise Refused(line, f"more than {MAX_VALUES} keys and values\n  expected: settings")
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise Refused(line, "a second document begins\n  expected: one experiment")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise Refused(line, f"nested more than {MAX_DEPTH} levels deep")
            if isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except (ValueError, OverflowError):  # an escape such as "\UFFFFFFFF", which PyYAML lets through
        raise Refused(loader.line + 1, "an escape in quotes names no character") from None
    finally:
        loader.dispose()


def _value(node: yaml.Node, path: Path, settings: Settings) -> Any:
    if path:
        settings.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, settings)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, i), settings) for i, item in enumerate(node.value)]
    text = str(node.value)
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
        line = node.start_mark.line + 1
        settings.mistakes.append(Mistake(line, path, "text with a character no name can have"))
        return ""
    return scalar(text) if getattr(node, "style", None) is None else text


def _mapping(node: yaml.MappingNode, path: Path, settings: Settings) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            message = f"the key is {_kind(key_node)}\n  expected: a name"
            settings.mistakes.append(Mistake(line, path, message))
            continue
        key = str(key_node.value)
        here = (*path, key)
        if key in values:
            first = settings.lines[here]
            message = f"duplicate key {dotted(here)}\n  first on line {first}; keep one of them"
            settings.mistakes.append(Mistake(line, here, message))
            continue
        settings.lines[here] = line
        values[key] = _value(value_node, here, settings)
    return values


def dotted(path: Path) -> str:
    """`train.epochs`, `static.layers[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "a mapping" if isinstance(node, yaml.MappingNode) else f"text {str(node.value)[:60]!r}"
