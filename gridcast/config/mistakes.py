"""pydantic's errors in plain words, with the nearest known key or value."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic_core import ErrorDetails

from gridcast.config.declared import all_keys, description_of, fields_at, value_at, values_at
from gridcast.config.yaml_text import Path, dotted

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
}
_SECTIONS = ("model_type", "model_attributes_type", "dict_type")


def explain(errors: list[ErrorDetails], settings: dict[str, Any]) -> list[tuple[Path, str]]:
    """The path and the message of each error; the members of a union become one."""
    explained: dict[Path, str] = {}
    branches: dict[Path, list[str]] = {}
    for error in errors:
        path, union = _real_path(error, settings)
        if error["type"] == "union_tag_invalid":
            path = (*path, "name")
        if union:
            branches.setdefault(path, []).append(_EXPECTED.get(error["type"], error["msg"]))
        else:
            explained[path] = _message(error, path, settings)
    for path, expected in branches.items():
        # A list with one wrong element has an error of its own, deeper: that is the one to show.
        if not any(other != path and other[: len(path)] == path for other in explained):
            wanted = " or ".join(dict.fromkeys(expected))
            explained[path] = _found_instead(path, wanted, value_at(path, settings))
    return list(explained.items())


def _real_path(error: ErrorDetails, settings: dict[str, Any]) -> tuple[Path, bool]:
    """The path in the settings, and whether the error is about one member of a union there.

    pydantic puts the tag of the chosen model, and the type of each member of a union, into the
    location.
    """
    location = error["loc"]
    if location[:1] == ("model",):
        location = (*location[:1], *location[2:])
    path: Path = ()
    here: Any = settings
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if isinstance(here, dict):
            path = (*path, part)
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int):
            path = (*path, part)
            here = here[part] if part < len(here) else None
        elif isinstance(here, list) and part in ("first", "last"):
            path = (*path, int(part == "last"))  # a period written as a pair
            here = None
        elif last:
            return path, True
    return path, False


def _message(error: ErrorDetails, path: Path, settings: dict[str, Any]) -> str:
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    key = dotted(path)
    if kind == "extra_forbidden":
        return _unknown_key(path, settings)
    if kind == "missing":
        about = description_of(path, settings)
        return f"missing key {key}" + (f"\n  expected: {about}" if about else "")
    if kind == "union_tag_not_found":
        near = difflib.get_close_matches("name", [str(k) for k in found], 1)
        slip = f"\n  found instead: {key}.{near[0]}" if near else ""
        return f"missing key {key}.name{slip}{_choices(values_at(path, settings))}"
    if kind == "union_tag_invalid":
        return _not_among(key, found.get("name"), values_at(path[:-1], settings))
    if kind == "literal_error":
        return _not_among(key, found, values_at(path, settings))
    if kind in _SECTIONS:
        names = sorted(fields_at(path, settings))
        return _found_instead(
            path, "a section" + (f" with {', '.join(names)}" * bool(names)), found
        )
    if kind == "value_error":
        # What no single key is to blame for has no key in front.
        return f"{key}: {context['error']}" if key else str(context["error"])
    if kind in _EXPECTED:
        return _found_instead(path, _EXPECTED[kind], found)
    bounds = {
        "greater_than_equal": "at least {ge}",
        "greater_than": "more than {gt}",
        "less_than_equal": "at most {le}",
        "less_than": "less than {lt}",
        "too_short": "at least {min_length} value(s)",
        "too_long": "at most {max_length} value(s)",
    }
    if kind in bounds:
        return _found_instead(path, bounds[kind].format(**context), found)
    return _found_instead(path, error["msg"], found)


def _found_instead(path: Path, expected: str, found: Any) -> str:
    message = f"{dotted(path)}: expected {expected}, found {describe(found)}"
    if not isinstance(found, str):
        return message
    if "number" in expected:
        try:
            number = float(found)
        except ValueError:
            return message
        written = _as_yaml(number, whole="whole" in expected)
        return f"{message}\n  fix: {f'write {written}' if written else 'give a plain number'}"
    if expected == "true or false" and found.lower() in ("yes", "on", "no", "off", "y", "n"):
        return f"{message}\n  fix: write {str(found.lower() in ('yes', 'on', 'y')).lower()}"
    return message


def _as_yaml(number: float, whole: bool) -> str | None:
    """The number as YAML reads it: with a point and a signed exponent."""
    if number != number or number in (float("inf"), float("-inf")):
        return None
    if whole:
        return str(int(number)) if number == int(number) and abs(number) < 1e15 else None
    mantissa, _, exponent = f"{number!r}".partition("e")
    if not exponent and (abs(number) < 0.01 or abs(number) >= 1e5) and number:
        mantissa, _, exponent = f"{number:e}".partition("e")
        mantissa = mantissa.rstrip("0")
    if not exponent:
        return mantissa
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{mantissa}{'0' * mantissa.endswith('.')}e{int(exponent):+d}"


def describe(found: Any) -> str:
    """A value as messages show it, with its type in plain words."""
    if found is None:
        return "nothing"
    if isinstance(found, bool):
        return str(found).lower()
    if isinstance(found, str):
        return f"text {found[:60]!r}{'...' * (len(found) > 60)}"
    if isinstance(found, list | tuple):
        return f"a list of {len(found)}"
    if isinstance(found, dict):
        return "a section"
    return str(found)[:60]


def _unknown_key(path: Path, settings: dict[str, Any]) -> str:
    *section, key = path
    known = sorted(fields_at(tuple(section), settings))
    lines = [f"unknown key {dotted(path)}"]
    near = difflib.get_close_matches(str(key), known, 1)
    if near:
        lines.append(f"did you mean: {dotted((*section, near[0]))}")
    else:
        # A known key in the wrong section is as common as a slip of the pen.
        elsewhere = [other for other in all_keys((), settings) if other.split(".")[-1] == key]
        if elsewhere:
            lines.append(f"did you mean: {elsewhere[0]}")
    lines.append(f"known here: {', '.join(known)}")
    return "\n  ".join(lines)


def _not_among(key: str, found: Any, known: list[Any]) -> str:
    near = difflib.get_close_matches(str(found), [str(value) for value in known], 1)
    hint = f"\n  did you mean: {near[0]}" if near else ""
    return f"{key}: unknown value {describe(found)}{hint}{_choices(known)}"


def _choices(known: list[Any]) -> str:
    return f"\n  known here: {', '.join(str(value) for value in known)}"
