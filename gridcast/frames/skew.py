"""Invertible transforms of skewed values, such as rain, before anomalies are taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
from jaxtyping import Bool, Float

from gridcast.errors import DataError

_LEVELS = np.linspace(0.0, 1.0, 101)
_BEYOND = 3.0  # standard deviations that a normal score may go beyond the outermost of training


@dataclass(frozen=True)
class Skew:
    """Physical values <-> values that are closer to a normal distribution.

    none: as they are.
    log1p: log(1 + x / scale), for values that are never negative; the scale is the mean of the
      positive values of training, so that units do not matter.
    cube_root: keeps the sign.
    quantile: the normal score of each cell (Deutsch and Journel 1998, GSLIB, 2nd ed., V.2.6): the
      value of which a share p of training lies below becomes the p-quantile of the standard
      normal distribution, linear between 101 quantiles. Values that occur many times, such as no
      rain, become the score of the middle of their range of p; all scores in that range come
      back to the value. Beyond the range of training the outermost segment goes on, for 3
      standard deviations at most, and no further where the outermost values are tied.

    Attributes:
      fitted: log1p: "scale"; quantile: "quantiles" [101 lat lon], NaN off the mask, and "counts"
        [lat lon], the values they were taken from, 0 off the mask.
    """

    kind: Literal["none", "log1p", "cube_root", "quantile"]
    fitted: dict[str, np.ndarray]

    @classmethod
    def fit(
        cls,
        kind: Literal["none", "log1p", "cube_root", "quantile"],
        values: Float[np.ndarray, "time lat lon"],
        mask: Bool[np.ndarray, "lat lon"],
    ) -> Skew:
        """Fit on training dates only.

        Args:
          values: NaN where nothing was observed.

        Raises:
          DataError: log1p of negative values; quantiles of a cell with fewer than two values.
        """
        inside = values[:, mask]
        if kind == "log1p":
            _require_not_negative(inside)
            positive = inside[inside > 0].astype(np.float64)
            scale = positive.mean() if positive.size else 1.0
            return cls(kind, {"scale": np.array(scale, np.float64)})
        if kind != "quantile":
            return cls(kind, {})
        counts = np.zeros(mask.shape, np.int64)
        counts[mask] = (~np.isnan(inside)).sum(axis=0)
        few = int((counts[mask] < 2).sum())
        if few:
            raise DataError(
                f"{few} of {int(mask.sum())} cells have fewer than two values in training\n"
                "  expected: at least two in each cell, for the transform quantile\n"
                "  fix: longer training, another transform, or a smaller data.region"
            )
        quantiles = np.full((_LEVELS.size, *mask.shape), np.nan, np.float32)
        quantiles[:, mask] = sample_quantiles(inside, _LEVELS)
        return cls(kind, {"quantiles": quantiles, "counts": counts})

    def forward(self, values: Float[np.ndarray, "*batch lat lon"]) -> np.ndarray:
        """Transformed values in the precision given; NaN stays NaN, quantile: also off the mask.

        Raises:
          DataError: log1p of negative values.
        """
        if self.kind == "none":
            return values
        if self.kind == "log1p":
            _require_not_negative(values)
            moved = np.log1p(values / self.fitted["scale"])
        elif self.kind == "cube_root":
            moved = np.cbrt(values.astype(np.float64))
        else:
            moved = self._by_cell(_scores_of, values)
        return moved.astype(values.dtype)

    def inverse(self, moved: Float[np.ndarray, "*batch lat lon"]) -> np.ndarray:
        """Physical values in the precision given; NaN stays NaN, quantile: also off the mask."""
        if self.kind == "none":
            return moved
        if self.kind == "log1p":
            values = np.expm1(moved.astype(np.float64)) * self.fitted["scale"]
        elif self.kind == "cube_root":
            values = moved.astype(np.float64) ** 3
        else:
            values = self._by_cell(_values_of, moved)
        return values.astype(moved.dtype)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps, beside the kind."""
        return self.fitted

    @classmethod
    def restore(
        cls,
        kind: Literal["none", "log1p", "cube_root", "quantile"],
        arrays: dict[str, np.ndarray],
    ) -> Skew:
        """The inverse of `arrays`."""
        return cls(kind, arrays)

    def _by_cell(self, function: Callable[..., np.ndarray], values: np.ndarray) -> np.ndarray:
        counts = self.fitted["counts"]
        out = np.full(values.shape, np.nan)
        for i, j in zip(*np.nonzero(counts), strict=True):
            quantiles = self.fitted["quantiles"][:, i, j].astype(np.float64)
            out[..., i, j] = function(values[..., i, j], *_knots(quantiles, int(counts[i, j])))
        return out


def sample_quantiles(
    values: Float[np.ndarray, "time cell"], levels: Float[np.ndarray, " level"]
) -> Float[np.ndarray, "level cell"]:
    """Quantiles over time of what is not NaN, linear between neighbours; NaN where all is NaN.

    The method "linear" of `numpy.nanquantile`, for all cells at once.
    """
    ordered = np.sort(values.astype(np.float64), axis=0)  # NaN comes last
    last = np.maximum((~np.isnan(values)).sum(axis=0) - 1, 0)
    place = levels[:, None] * last
    below = np.floor(place).astype(np.int64)
    low = np.take_along_axis(ordered, below, axis=0)
    high = np.take_along_axis(ordered, np.minimum(below + 1, last), axis=0)
    return low + (place - below) * (high - low)


def _knots(
    quantiles: Float[np.ndarray, " level"], count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, probabilities and scores of one cell, with one more knot beyond each end.

    The k-th of n ordered values, from 1, has probability (k - 1/2) / n.
    """
    p = 0.5 / count + (1.0 - 1.0 / count) * _LEVELS
    z = scipy.special.ndtri(p)
    slopes = np.diff(quantiles)[[0, -1]] / np.diff(z)[[0, -1]]
    ends = quantiles[[0, -1]] + _BEYOND * np.array([-1.0, 1.0]) * slopes
    x = np.concatenate([ends[:1], quantiles, ends[1:]])
    return x, np.pad(p, 1, mode="edge"), np.concatenate([[z[0] - _BEYOND], z, [z[-1] + _BEYOND]])


def _scores_of(
    values: np.ndarray, x: np.ndarray, p: np.ndarray, z: np.ndarray
) -> Float[np.ndarray, "*batch"]:
    values = np.clip(values, x[0], x[-1])
    first = np.searchsorted(x, values, side="left")
    past = np.searchsorted(x, values, side="right")
    middle = scipy.special.ndtri(0.5 * (p[np.minimum(first, p.size - 1)] + p[past - 1]))
    return np.where(past - first > 1, middle, np.interp(values, x, z))


def _values_of(
    scores: np.ndarray, x: np.ndarray, p: np.ndarray, z: np.ndarray
) -> Float[np.ndarray, "*batch"]:
    return np.asarray(np.interp(scores, z, x))


def _require_not_negative(values: np.ndarray) -> None:
    below = int((values < 0).sum())
    if below:
        raise DataError(
            f"{below} values are below 0, the lowest is {np.nanmin(values):g}\n"
            "  expected: none, for the transform log1p\n"
            "  fix: transform: cube_root or quantile, or set them to 0 in the file"
        )
