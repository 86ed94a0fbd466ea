"""Maps as small SVG: cells as a PNG, coast from the mask, degrees, and dots where significant."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.ticker import MaxNLocator
from PIL import Image

from gridcast.forecast_plots import east as east_of
from gridcast.forecast_plots import north as north_of
from gridcast.grid import Grid
from gridcast.html import Html, el

_WIDE, _HIGH = 300.0, 300.0  # the most that a map takes, in pixels of its picture
_LEFT, _TOP, _RIGHT, _BELOW = 32.0, 8.0, 18.0, 18.0
_LABEL = 42.0, 24.0  # room for one label of degrees: beside another, and below one
_DOTS = 44  # across: more would hide what lies below
Values = Float[np.ndarray, "lat lon"]


@dataclass(frozen=True)
class Frame:
    """What all maps of a grid have in common.

    Attributes:
      name: that no other frame of the page has.
      grid: as drawn: coarser than the data where these are too fine for a page, and on the globe
        turned so that its edges lie where there are the fewest data: no ocean is cut.
      factor, turn: how it was made from the grid of the data.
    """

    name: str
    grid: Grid
    factor: int
    turn: int

    @classmethod
    def of(cls, grid: Grid, name: str, most: int) -> Frame:
        """Of at most about `most` cells."""
        factor = 1
        while -(-grid.lat.size // factor) * -(-grid.lon.size // factor) > max(most, 1):
            factor += 1
        lat, lon = (_blocks(axis, factor) for axis in (grid.lat, grid.lon))
        mask = _reduced(np.where(grid.mask, 1.0, np.nan), factor) > 0
        drawn = Grid(lat, lon, mask)
        turn = drawn.emptiest
        return cls(name, drawn.turned(turn) if turn else drawn, factor, turn)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in pixels: as on the ground in the middle of the map."""
        (south, north), (west, east) = (_ends(axis) for axis in (self.grid.lat, self.grid.lon))
        shape = (east - west) * max(np.cos(np.deg2rad((south + north) / 2)), 0.2) / (north - south)
        wide = min(_WIDE, _HIGH * shape)
        return wide, max(wide / shape, 12.0)

    def coast(self) -> Html:
        """The line between cells with and without data, and degrees; once on a page."""
        mask = self.grid.mask[::-1]
        rows, columns = mask.shape
        across = [f"M{a} {k + 1}H{b}" for k, a, b in _stretches(mask[1:] != mask[:-1])]
        beside = mask[:, 1:] != mask[:, :-1]
        down = [f"M{k + 1} {a}V{b}" for k, a, b in _stretches(beside.T)]
        wide, high = self.size
        move = f"translate({_LEFT:g} {_TOP:g}) scale({wide / columns:.6g} {high / rows:.6g})"
        line = el("path", d="".join(across + down) or "M0 0", transform=move, class_="coast")
        border = el("rect", x=_LEFT, y=_TOP, width=wide, height=high, class_="border")
        return el("g", line, border, *self._degrees(), id=self.name, class_="frame")

    def draw(
        self,
        fields: list[Values],
        colours: Colours,
        title: str,
        significant: Bool[np.ndarray, "lat lon"] | None = None,
    ) -> Html:
        """One map; of several fields the first is seen, and a slider shows the others."""
        wide, high = self.size
        images = [
            el(
                "image",
                href=colours.png(self.reduced(field)[::-1]),
                x=_LEFT,
                y=_TOP,
                width=wide,
                height=high,
                preserveAspectRatio="none",
                class_="cells" if k == 0 else "cells later",
            )
            for k, field in enumerate(fields)
        ]
        land = el("rect", x=_LEFT, y=_TOP, width=wide, height=high, class_="land")
        dots = Html("") if significant is None else self._dots(significant)
        box = f"0 0 {_LEFT + wide + _RIGHT:.6g} {_TOP + high + _BELOW:.6g}"
        coast = el("use", href=f"#{self.name}")
        return el(
            "svg",
            land,
            *images,
            dots,
            coast,
            viewBox=box,
            role="img",
            aria_label=title,
            class_="map",
        )

    def reduced(self, field: Values) -> Float[np.ndarray, "row column"]:
        """A field of the data's grid on the grid that is drawn."""
        return np.roll(_reduced(np.asarray(field, np.float64), self.factor), -self.turn, axis=1)

    def _dots(self, significant: Bool[np.ndarray, "lat lon"]) -> Html:
        """A dot on every n-th cell, where more than half of what it stands for is significant."""
        there = (self.reduced(significant.astype(np.float64)) > 0.5) & self.grid.mask
        every = -(-max(there.shape) // _DOTS)
        rows, columns = there.shape
        wide, high = self.size
        dots = "".join(
            f"M{(j + 0.5) * wide / columns:.1f} {high - (i + 0.5) * high / rows:.1f}h.01"
            for i in range(every // 2, rows, every)
            for j in range(every // 2, columns, every)
            if there[i, j]
        )
        move = f"translate({_LEFT:g} {_TOP:g})"
        return el("path", d=dots or "M0 0", transform=move, class_="dots")

    def _degrees(self) -> list[Html]:
        wide, high = self.size
        (south, north), (west, east) = (_ends(axis) for axis in (self.grid.lat, self.grid.lon))
        found = []
        for value in _places(west, east, min(wide / _LABEL[0], 6.0)):
            x = _LEFT + (value - west) / (east - west) * wide
            if _LEFT <= x <= _LEFT + wide:
                y = _TOP + high + 13
                found.append(el("text", east_of(value, None), x=x, y=y, text_anchor="middle"))
        for value in _places(south, north, min(high / _LABEL[1], 4.0)):
            y = _TOP + (north - value) / (north - south) * high
            if _TOP <= y <= _TOP + high:
                found.append(
                    el("text", north_of(value, None), x=_LEFT - 3, y=y + 3, text_anchor="end")
                )
        return found


@dataclass(frozen=True)
class Colours:
    """Colours of values between two limits; beyond them the last colours."""

    name: str
    low: float
    high: float

    @classmethod
    def around_zero(cls, fields: list[Values], name: str = "RdBu_r") -> Colours:
        """Diverging, white at 0; the limit holds all but the largest hundredth."""
        largest = _percentile([np.abs(one) for one in fields], 99.0)
        return cls(name, -largest, largest)

    @classmethod
    def of_values(cls, fields: list[Values], name: str = "viridis") -> Colours:
        """Perceptually uniform, from the lowest to the highest hundredth."""
        low, high = _percentile(fields, 1.0), _percentile(fields, 99.0)
        return cls(name, low, high if high > low else low + 1.0)

    def png(self, field: Values) -> str:
        """A picture with one pixel for each cell, NaN transparent, as a data URL."""
        known = np.isfinite(field)
        share = (np.where(known, field, self.low) - self.low) / (self.high - self.low)
        index = np.where(known, 1 + np.clip(share * 254, 0, 254).round(), 0).astype(np.uint8)
        picture = Image.fromarray(index)
        palette = mpl.colormaps[self.name](np.linspace(0, 1, 255))[:, :3]
        picture.putpalette([0, 0, 0, *(palette * 255).round().astype(int).ravel().tolist()])
        written = io.BytesIO()
        picture.save(written, "PNG", transparency=0, optimize=True)
        return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"

    def bar(self, text: str) -> Html:
        """The scale below a row of maps."""
        strip = self.png(np.linspace(self.low, self.high, 255)[None])
        image = el("image", href=strip, x=20, y=2, width=260, height=10, preserveAspectRatio="none")
        span = self.high - self.low
        ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        marks = [
            el("text", f"{v:.4g}", x=20 + 260 * (v - self.low) / span, y=24, text_anchor="middle")
            for v in ticks
            if self.low - 1e-6 * span <= v <= self.high + 1e-6 * span
        ]
        drawn = el("svg", image, *marks, viewBox="0 0 300 28", role="img", aria_label=text)
        return el("div", drawn, el("p", text), class_="bar")


def _places(first: float, last: float, room: float) -> list[float]:
    """Round degrees with at most so many steps between the ends."""
    locator = MaxNLocator(max(int(room), 1), steps=[1, 2, 3, 6, 10], min_n_ticks=1)
    return [float(value) for value in locator.tick_values(first, last)]


def _percentile(fields: list[Values], share: float) -> float:
    values = np.concatenate([one[np.isfinite(one)] for one in fields])
    found = float(np.percentile(values, share)) if values.size else 0.0
    return found if found != 0 or share < 50 else 1.0


def _blocks(axis: np.ndarray, factor: int) -> np.ndarray:
    return np.array([axis[k : k + factor].mean() for k in range(0, axis.size, factor)])


def _reduced(field: np.ndarray, factor: int) -> np.ndarray:
    """Means over blocks of cells, of what is known in them."""
    if factor == 1:
        return field
    known = np.isfinite(field)
    total, count = np.where(known, field, 0.0), known.astype(np.float64)
    for axis in (0, 1):
        starts = np.arange(0, field.shape[axis], factor)
        total, count = (np.add.reduceat(one, starts, axis=axis) for one in (total, count))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _stretches(there: Bool[np.ndarray, "line place"]) -> list[tuple[int, int, int]]:
    """Line, begin and end of the places that follow each other."""
    padded = np.pad(there, ((0, 0), (1, 1))).astype(np.int8)
    steps = np.diff(padded, axis=1)
    (lines, begin), (_, end) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    return list(zip(lines.tolist(), begin.tolist(), end.tolist(), strict=True))


def _ends(axis: np.ndarray) -> tuple[float, float]:
    """The outer edges of the first and the last cell."""
    half = 0.5 * (axis[1] - axis[0]) if axis.size > 1 else 0.5
    return float(axis[0] - half), float(axis[-1] + half)
