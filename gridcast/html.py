"""HTML from small parts: what is no HTML yet is escaped, so that nobody can forget it."""

from __future__ import annotations

from html import escape

_VOID = {"meta", "input", "br", "image", "rect", "path", "use", "line"}
Attribute = str | int | float | bool | None


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def el(name: str, /, *inside: str, **attributes: Attribute) -> Html:
    """An element: text inside and in attributes is escaped, `Html` inside stays as it is.

    Args:
      **attributes: `class_` is class, `aria_label` is aria-label; True stands alone, None and False
        are left out.
    """
    told = ""
    for key, value in attributes.items():
        word = key.rstrip("_").replace("_", "-")
        if value is True:
            told += f" {word}"
        elif value is not None and value is not False:
            shown = f"{value:.6g}" if isinstance(value, float) else str(value)
            told += f' {word}="{escape(shown)}"'
    if name in _VOID:
        return Html(f"<{name}{told}>" if name in ("meta", "input", "br") else f"<{name}{told}/>")
    return Html(f"<{name}{told}>{joined(*inside)}</{name}>")


def joined(*parts: str) -> Html:
    """One after another, each escaped unless it is `Html`."""
    return Html("".join(one if isinstance(one, Html) else escape(one) for one in parts))


def table(head: list[str], rows: list[list[str]]) -> Html:
    """A table that scrolls sideways where it is too wide; the first cell of a row is its name."""
    top = el("tr", *(el("th", cell, scope="col") for cell in head))
    lines = [
        el("tr", el("th", row[0], scope="row"), *(el("td", cell) for cell in row[1:]))
        for row in rows
    ]
    return el("div", el("table", el("thead", top), el("tbody", *lines)), class_="wide", tabindex=0)
