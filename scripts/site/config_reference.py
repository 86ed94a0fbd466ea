"""Every setting as Markdown tables, read from the models of `gridcast.config`."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gridcast.config import Config
from gridcast.config.bounds import Period, Region

# How a value is written, rather than a section of its own; each stands once, at the end.
FORMS: dict[type[BaseModel], str] = {Period: "A period", Region: "A box"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true` or `false`",
    "null": "`null`",
}


@dataclass(frozen=True)
class Part:
    """A section of the settings.

    Attributes:
      path: dotted, such as `frames.climatology`; of a list's elements with `[]` behind it.
      title: as the path, or the model's name that stands for one of several sections.
    """

    path: str
    title: str
    model: type[BaseModel]


def config_reference() -> str:
    """A heading and a table for each section, in the order of the schema."""
    found = list(parts())
    titles = {part.model: part.title for part in reversed(found)} | FORMS
    chapters = [_chapter(part, titles) for part in found]
    chapters += [_chapter(Part("", title, form), titles) for form, title in FORMS.items()]
    return "\n".join(chapters)


def parts() -> Iterator[Part]:
    """The whole, then its sections, each model of a section once."""
    yield Part("", "Sections", Config)
    seen: set[type[BaseModel]] = set()
    for name, field in Config.model_fields.items():
        yield from _parts(name, field, seen)


def _parts(path: str, field: FieldInfo, seen: set[type[BaseModel]]) -> Iterator[Part]:
    models = [model for model in _models(field.annotation) if model not in {*seen, *FORMS}]
    listed = "[]" if "list" in str(field.annotation) and models else ""
    for model in models:
        seen.add(model)
        title = path + listed
        if len(models) > 1:
            names = get_args(model.model_fields["name"].annotation)
            title = f"{path}.name: {names[0] if len(names) == 1 else 'a reference'}"
        yield Part(path + listed, title, model)
        for name, inner in model.model_fields.items():
            yield from _parts(f"{path}.{name}", inner, seen)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models anywhere inside a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _chapter(part: Part, titles: dict[type[BaseModel], str]) -> str:
    names = {model.__name__: title for model, title in titles.items()}
    properties = _properties(part.model.model_json_schema())
    rows = []
    for key, field in part.model.model_fields.items():
        spot = "-".join([*re.findall(r"\w+", part.title.replace(".name: ", "-")), key])
        dotted = f"{part.path}.{key}" if part.path else key
        cells = (
            f"[`{dotted}`]{{#{spot}}}",
            meaning(part, key),
            type_text(properties[key], names),
            _default(field),
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    head = ["| Key | Meaning | Type and bounds | Default |", "|---|---|---|---|"]
    lines = [f"## {part.title}", "", inspect.getdoc(part.model) or "", "", *head, *rows, ""]
    return "\n".join([*lines, *_presets(part.model)])


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    """Of a section, also where something shorter may be written in its place."""
    forms = [schema, *schema.get("anyOf", [])]
    return next(form["properties"] for form in forms if "properties" in form)


def meaning(part: Part, key: str) -> str:
    """What a key is for; of a key that holds a section, what the section is for."""
    field = part.model.model_fields[key]
    if field.description is not None:
        return field.description
    models = _models(field.annotation)
    if len(models) > 1:
        return "one of these, chosen by its `name`"
    text = (inspect.getdoc(models[0]) or "") if models else ""
    text = text.partition("\n\n")[0].replace("\n", " ").removesuffix(".")
    return text[:1].lower() + text[1:]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "as there"
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _presets(model: type[BaseModel]) -> list[str]:
    """What the sizes of a network fill in."""
    presets: dict[str, dict[str, Any]] = getattr(model, "presets", {})
    if not presets:
        return []
    keys = list(next(iter(presets.values())))
    rows = [
        f"| `{size}` | " + " | ".join(f"`{json.dumps(values[key])}`" for key in keys) + " |"
        for size, values in presets.items()
    ]
    head = "| `size` | " + " | ".join(f"`{key}`" for key in keys) + " |"
    return [head, "|---" * (len(keys) + 1) + "|", *rows, ""]


def type_text(schema: dict[str, Any], names: dict[str, str]) -> str:
    """A JSON schema in words.

    Args:
      names: headings of the sections by the names of their models.
    """
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(type_text(choice, names) for choice in choices))
    if "$ref" in schema:
        title = names[schema["$ref"].rpartition("/")[2]]
        return f"[{title}](#{anchor(title)})"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type")
    if kind == "array":
        if "prefixItems" in schema:
            inner = ", ".join(type_text(item, names) for item in schema["prefixItems"])
            return f"pair: {inner}"
        least = f" ({schema['minItems']} or more)" if "minItems" in schema else ""
        return f"list{least} of {type_text(schema['items'], names)}"
    if kind == "object":
        return f"mapping of names to {type_text(schema['additionalProperties'], names)}"
    if kind is None:
        return "any value"
    known = [(sign, schema[key]) for key, sign in _BOUNDS.items() if key in schema]
    bounds = [f"{sign} {int(b) if b == int(b) else b}" for sign, b in known]
    return " ".join([_KINDS[kind], " and ".join(bounds)]).strip()


def anchor(text: str) -> str:
    """As headings get theirs: lower case, words joined by hyphens, other signs left out."""
    kept = "".join(c for c in text.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")
