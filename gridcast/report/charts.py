"""Charts as SVG that takes the colours and letters of the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch

from gridcast.html import Html, el
from gridcast.plots import COLOURS

INK = "#010203"  # drawn in the colour of the text around the chart
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of variables may hold a dollar sign
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,  # it would be cut off above the panel
    "grid.alpha": 0.25,
    "grid.color": INK,
}
_OTHER = "#e69f00"
_RUNS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", INK)


def colour(name: str) -> str:
    """Of a forecast; black is the colour of the text, which is light on a dark page."""
    found = COLOURS.get(name, _OTHER)
    return INK if found == "#000000" else found


def of_run(number: int) -> str:
    """Of one run beside others."""
    return _RUNS[number % len(_RUNS)]


def chart(
    draw: Callable[[Axes], None], title: str, key: str, size: tuple[float, float] = (4.7, 3.1)
) -> Html:
    """A chart with one panel.

    Args:
      draw: fills the panel.
      key: that no other chart of the page has: names inside the picture are made from it.
      size: inches of 72 pixels, which a telephone shows without making letters smaller.
    """
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": key}):
        wide, high = size
        figure = Figure(figsize=size)
        # Fixed margins: a layout engine would draw everything twice.
        figure.subplots_adjust(0.62 / wide, 0.45 / high, 1 - 0.1 / wide, 1 - 0.1 / high)
        panel = figure.subplots()
        draw(panel)
        written = io.BytesIO()
        figure.savefig(written, format="svg", transparent=True, metadata=_NO_METADATA)
    picture = _for_page(written.getvalue().decode(), title)
    return el("figure", el("figcaption", title), _legend(panel), picture, class_="chart")


def _legend(panel: Axes) -> Html:
    """The names of what is drawn, as text of the page: it wraps where there is little room."""
    handles, labels = panel.get_legend_handles_labels()
    keys = []
    for handle, label in zip(handles, labels, strict=True):
        first: Any = handle[0] if isinstance(handle, Sequence) else handle
        if isinstance(first, Line2D):
            hue = first.get_color()
        else:
            hue = first.get_edgecolor() if isinstance(first, StepPatch) else first.get_facecolor()
        shown = "currentColor" if to_hex(hue) == INK else to_hex(hue)
        mark = el("span", class_="key", style=f"background: {shown}")
        keys.append(el("li", mark, label))
    return el("ul", *keys, class_="legend") if len(keys) > 1 else Html("")


_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def _for_page(text: str, title: str) -> Html:
    """What stands in a page: without prolog, metadata, fixed size and names nothing refers to."""
    text = text[text.find("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"| version="[^"]*"', "", text)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", text)
    text = text.replace(INK, "currentColor").replace("xlink:href", "href")
    label = el("svg", role="img", aria_label=title)[: -len("></svg>")]
    return Html(label + text[len("<svg") :]) if text else Html("")
