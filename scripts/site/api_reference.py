"""Every public name of the package, for autodoc to fill in from its docstring."""

from __future__ import annotations

import inspect

import gridcast

# Dunder methods are left out elsewhere.
_CALLED = {"Exported": "__call__"}


def api_reference() -> str:
    """A heading for functions, classes and errors, each with its names."""
    kinds: dict[str, list[str]] = {"Functions": [], "Classes": [], "Errors": []}
    for name in gridcast.__all__:
        found = getattr(gridcast, name)
        if not callable(found):
            continue
        if not inspect.isclass(found):
            kinds["Functions"].append(_entry("autofunction", name))
        elif issubclass(found, Exception):
            kinds["Errors"].append(_entry("autoexception", name, "show-inheritance"))
        else:
            special = f"special-members: {_CALLED[name]}" if name in _CALLED else ""
            kinds["Classes"].append(_entry("autoclass", f"{name}()", "members", special))
    chapters = [f"## {kind}\n\n" + "\n".join(names) for kind, names in kinds.items() if names]
    return "\n".join(chapters)


def _entry(directive: str, name: str, *options: str) -> str:
    lines = [f".. {directive}:: gridcast.{name}"]
    for option in filter(None, options):
        key, _, value = option.partition(": ")
        lines.append(f"   :{key}: {value}".rstrip())
    return "\n".join(["```{eval-rst}", *lines, "```", ""])
