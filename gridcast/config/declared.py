"""What the schema declares at a path of the settings: its keys, its values and what they mean."""

from __future__ import annotations

import inspect
import types
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from gridcast.config.schema import Config
from gridcast.config.yaml_text import Path, dotted


def value_at(path: Path, settings: Any) -> Any:
    """The value at `path`, None where there is none."""
    for part in path:
        if isinstance(settings, dict):
            settings = settings.get(part)
        elif isinstance(settings, list) and isinstance(part, int) and part < len(settings):
            settings = settings[part]
        else:
            return None
    return settings


def fields_at(path: Path, settings: dict[str, Any]) -> list[str]:
    """The keys of the section at `path`; none where there is no section."""
    models = _models(_annotation(path, settings), path, settings)
    return list(models[0].model_fields) if models else []


def values_at(path: Path, settings: dict[str, Any]) -> list[Any]:
    """What may stand at `path`: the values of a Literal, or the names of the models there."""
    members = _members(_annotation(path, settings))
    if any(isinstance(m, type) and issubclass(m, BaseModel) for m in members):
        members = [m.model_fields["name"].annotation for m in members]
    return [value for m in members if get_origin(m) is Literal for value in get_args(m)]


def description_of(path: Path, settings: dict[str, Any]) -> str:
    """What the setting at `path` means, or which keys the section has; may be nothing."""
    *section, key = path
    models = _models(_annotation(tuple(section), settings), tuple(section), settings)
    field = models[0].model_fields.get(str(key)) if models else None
    if field is None:
        return ""
    names = fields_at(path, settings)
    return field.description or (f"a section with {', '.join(names)}" if names else "")


def meaning_of(path: Path, settings: dict[str, Any]) -> str:
    """The description of the setting at `path`, or what its section says of itself."""
    *section, key = path
    models = _models(_annotation(tuple(section), settings), tuple(section), settings)
    field = models[0].model_fields.get(str(key)) if models else None
    if field is None:
        return ""
    inner = _models(field.annotation, path, settings)
    about = (inspect.getdoc(inner[0]) or "").split("\n")[0].rstrip(".") if inner else ""
    return field.description or about


def default_at(path: Path, settings: dict[str, Any]) -> Any:
    """The default of the setting at `path`; None where there is none.

    Of a width that `model.size` fills in, that of this size.
    """
    *section, key = path
    models = _models(_annotation(tuple(section), settings), tuple(section), settings)
    field = models[0].model_fields.get(str(key)) if models else None
    if field is None or field.is_required():
        return None
    given = value_at(tuple(section), settings)
    sizes = getattr(models[0], "presets", {})
    filled = sizes[given["size"]] if sizes and isinstance(given, dict) else {}
    default = filled.get(key, field.get_default(call_default_factory=True))
    return list(default) if isinstance(default, tuple) else default


def all_keys(path: Path, settings: dict[str, Any]) -> list[str]:
    """Every key below `path`, dotted."""
    keys = []
    for name in fields_at(path, {**settings}):
        keys += [dotted((*path, name)), *all_keys((*path, name), settings)]
    return keys


def _annotation(path: Path, settings: dict[str, Any]) -> Any:
    """The declared type at `path`; for `model`, the model that `name` chooses."""
    annotation: Any = Config
    for depth, part in enumerate(path):
        if isinstance(part, int):
            members = [get_args(m) for m in _members(annotation) if get_origin(m) in (list, tuple)]
            annotation = members[0][0] if members and members[0] else None
            continue
        models = _models(annotation, path[:depth], settings)
        field = models[0].model_fields.get(part) if models else None
        annotation = field.annotation if field is not None else None
    return annotation


def _models(annotation: Any, path: Path, settings: dict[str, Any]) -> list[type[BaseModel]]:
    models = [m for m in _members(annotation) if isinstance(m, type) and issubclass(m, BaseModel)]
    if len(models) > 1:
        given = value_at(path, settings) if path else None
        name = given.get("name") if isinstance(given, dict) else None
        models = [m for m in models if name in get_args(m.model_fields["name"].annotation)]
    return models


def _members(annotation: Any) -> list[Any]:
    """The members of a union, without Annotated."""
    if hasattr(annotation, "__metadata__"):
        return _members(annotation.__origin__)
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]
