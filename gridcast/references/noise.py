"""The noise that drives a linear inverse model: ensembles around its forecast, and long series."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from jaxtyping import Bool, Float, Int

from gridcast.errors import DataError
from gridcast.frames.fields import months_of
from gridcast.references.lim import components_of, month_weight
from gridcast.references.linear import LinearReference, quotient
from gridcast.references.series import TrainingSeries
from gridcast.timeaxis import TimeAxis

SPIN_UP = 50  # cycles of the seasons from rest that a series throws away
_PART = 1024  # steps whose noise is drawn at once


@dataclass(frozen=True)
class Noise:
    """What one step of a LIM leaves unexplained (Penland & Sardeshmukh 1995), season by season.

    A field is x = z P + r. Its principal components go on as z' = z G + e, where e is normal with
    the covariance Q; what lies outside the EOFs P is red noise r' = a r + d in each cell. The maps
    d are sums of the training's own with normal random factors: as large, and as alike from cell
    to cell, as those were. e and d are drawn independently, since z and r of training are
    uncorrelated. Of one season or, where the LIM has an operator for each calendar month, of 12.

    Attributes:
      reference: the LIM; its first propagators are G.
      covariance: Q.
      damping: a, of the cells of `mask`; never beyond 1.
      maps: d of each training step, on the cells of `mask`.
      shares: how much each of these steps counts in a season; they sum to 1.
      mask: where there is weight, so that there are forecasts.
      months: by how many seasons a step goes on.
    """

    reference: LinearReference
    covariance: Float[np.ndarray, "season eof eof"]
    damping: Float[np.ndarray, " cell"]
    maps: Float[np.ndarray, "step cell"]
    shares: Float[np.ndarray, "season step"]
    mask: Bool[np.ndarray, "lat lon target"]
    months: int

    @cached_property
    def operators(self) -> Float[np.ndarray, "season eof eof"]:
        """G of the steps into each season, acting on row vectors."""
        return _system(self.reference)[2][:, 0].astype(np.float64)

    @cached_property
    def patterns(self) -> Float[np.ndarray, "eof cell"]:
        return _system(self.reference)[0][:, self.mask]

    @cached_property
    def roots(self) -> Float[np.ndarray, "season eof eof"]:
        """Matrices S of which S^T S is Q."""
        values, vectors = np.linalg.eigh(self.covariance)
        return np.sqrt(np.maximum(values, 0.0))[:, :, None] * vectors.transpose(0, 2, 1)

    def draw(
        self, seasons: Int[np.ndarray, " n"], rng: np.random.Generator
    ) -> tuple[Float[np.ndarray, "n eof"], Float[np.ndarray, "n cell"]]:
        """Independent e and d of steps into these seasons, numbered from 0."""
        inner = np.empty((seasons.size, self.roots.shape[1]))
        outer = np.empty((seasons.size, self.damping.size), np.float32)
        for season in np.unique(seasons):
            chosen = np.flatnonzero(seasons == season)
            inner[chosen] = rng.standard_normal((chosen.size, inner.shape[1])) @ self.roots[season]
            counted = self.shares[season] > 0
            factors = rng.standard_normal((chosen.size, int(counted.sum())), np.float32)
            factors *= np.sqrt(self.shares[season][counted]).astype(np.float32)
            outer[chosen] = factors @ self.maps[counted]
        return inner, outer


def fit_noise(reference: LinearReference, training: TrainingSeries) -> Noise:
    """The noise of a LIM, from steps between training dates.

    Q = C' - G^T C G, the fluctuation-dissipation relation, with the covariances C before and C'
    after these steps: so the driven system keeps the variance of training. Where G is a plain
    regression, this is the covariance of the one-step errors; months held to the whole year
    (`shrink`) leave errors that go with the state: their covariance gives 6 % too little variance
    of the tropical Pacific. A month's Q comes from steps into this month and, with less weight,
    its neighbours, as its operator does; negative eigenvalues become 0.

    Args:
      reference: as `linear_inverse_model` fits it on `training`.

    Raises:
      DataError: no two training dates follow each other.
    """
    patterns, projection, propagators = _system(reference)
    now, later = training.pairs(1)
    if now.size == 0:
        raise DataError(
            "no training date follows another: noise is what a step leaves unexplained\n"
            "  fix: longer splits.train, or frames.missing: mask"
        )
    operators = propagators[:, 0].astype(np.float64)
    shares = _shares(training, now, len(operators))
    components = components_of(training, projection.astype(np.float64))
    before, after = components[now], components[later]
    covariance = np.empty_like(operators)
    for season, operator in enumerate(operators):
        share = shares[season][:, None]
        explained = operator.T @ (before.T @ (share * before)) @ operator
        covariance[season] = _not_negative(after.T @ (share * after) - explained)
    mask = training.weight > 0
    inside = np.tensordot(components.astype(np.float32), patterns, 1)
    damping, maps = _red_noise((training.values - inside)[:, mask], training, mask)
    return Noise(reference, covariance, damping, maps, shares, mask, training.months)


def _system(reference: LinearReference) -> tuple[np.ndarray, ...]:
    assert reference.patterns is not None, "a reference without EOFs is no LIM"
    parts = reference.patterns, reference.projection, reference.propagators
    return tuple(np.asarray(part) for part in parts)


def _not_negative(matrix: Float[np.ndarray, "eof eof"]) -> Float[np.ndarray, "eof eof"]:
    """The nearest covariance matrix: symmetric, without negative eigenvalues (Higham 1988)."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.maximum(values, 0.0)) @ vectors.T


def _shares(
    training: TrainingSeries, now: Int[np.ndarray, " step"], seasons: int
) -> Float[np.ndarray, "season step"]:
    if seasons == 1:
        return np.full((1, now.size), 1.0 / now.size)
    shares = np.empty((12, now.size))
    for month in range(1, 13):
        weight = month_weight(month, training)[now]
        # A month without training dates has the operator of the whole year, and its noise.
        weight = weight if weight.any() else np.ones(now.size)
        shares[month - 1] = weight / weight.sum()
    return shares


def _red_noise(
    rest: Float[np.ndarray, "time cell"], training: TrainingSeries, mask: np.ndarray
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, "step cell"]]:
    """Factor and one-step errors of each cell by itself.

    The factor is the lag-1 correlation about 0: within -1 and 1, it keeps training's variance.
    """
    now, later = training.pairs(1)
    before, after = rest[now], rest[later]
    scale = np.ones(rest.shape[1])
    if training.seen is not None:
        # What was not observed is no error of 0: the other steps make up for it.
        both = training.seen[now][:, mask] & training.seen[later][:, mask]
        before, after = np.where(both, before, 0.0), np.where(both, after, 0.0)
        scale = np.sqrt(now.size / np.maximum(both.sum(axis=0), 1))
    product = np.einsum("tc,tc->c", before, after, dtype=np.float64)
    squares = [np.einsum("tc,tc->c", x, x, dtype=np.float64) for x in (before, after)]
    damping = quotient(product, np.mean(squares, axis=0))
    return damping, ((after - damping * before) * scale).astype(np.float32)


def ensemble(
    noise: Noise,
    frames: Float[np.ndarray, "batch time lat lon target"],
    month: Int[np.ndarray, " batch"],
    state: Float[np.ndarray, "batch state_lat state_lon variable"] | None = None,
    *,
    members: int,
    seed: int,
) -> Float[np.ndarray, "member batch lead lat lon target"]:
    """Forecasts of the LIM with the noise that may enter on the way to each lead.

    The mean over members tends to the LIM's own forecast, and the covariance at lead k to the sum
    over j < k of G^Tj Q G^j, with what the red noise adds. Scaled anomalies.

    Args:
      frames, month, state: as `Reference` takes them.
      members: how many forecasts of each; `seed` is that of their noise.
    """
    made = np.asarray(noise.reference(frames, month, state), np.float32)
    result = np.repeat(made[None], members, axis=0)
    count, rng = len(noise.operators), np.random.default_rng(seed)
    first = np.tile((month - 1) % count, members)
    inside = np.zeros((first.size, noise.operators.shape[1]))
    outside = np.zeros((first.size, noise.damping.size), np.float32)
    for lead in range(result.shape[2]):
        season = (first + lead * noise.months) % count
        inner, outer = noise.draw(season, rng)
        inside = np.einsum("ni,nij->nj", inside, noise.operators[season]) + inner
        outside = (noise.damping * outside + outer).astype(np.float32)
        added = (inside @ noise.patterns + outside).reshape(members, len(month), -1)
        result[:, :, lead, noise.mask] += added.astype(np.float32)
    return result


def simulate(
    noise: Noise, axis: TimeAxis, *, seed: int
) -> Float[np.ndarray, "time lat lon target"]:
    """A series of the LIM driven by its noise, in scaled anomalies, 0 off the mask; float32.

    It begins at rest, and its first 50 years (50 steps of a yearly series) are thrown away.

    Args:
      axis: dates to simulate, without a gap.

    Raises:
      DataError: a LIM whose anomalies grow from year to year.
    """
    rng, year = np.random.default_rng(seed), _steps_of_a_year(axis)
    season = (months_of(axis.times) - 1) % len(noise.operators)
    _require_stable(noise, season[:year])
    rest = season[np.arange(-SPIN_UP * year, 0) % season.size]
    season = np.concatenate([rest, season])
    result = np.zeros((season.size - rest.size, *noise.mask.shape), np.float32)
    inside, outside = np.zeros(noise.operators.shape[1]), np.zeros(noise.damping.size)
    for begin in range(0, season.size, _PART):
        steps = season[begin : begin + _PART]
        inner, outer = noise.draw(steps, rng)
        for k, operator in enumerate(noise.operators[steps]):
            inside, outside = inside @ operator + inner[k], noise.damping * outside + outer[k]
            inner[k], outer[k] = inside, outside
        kept = slice(max(rest.size - begin, 0), None)
        fields = (inner[kept] @ noise.patterns + outer[kept]).astype(np.float32)
        first = max(begin - rest.size, 0)
        result[first : first + len(fields)][:, noise.mask] = fields
    return result


def _steps_of_a_year(axis: TimeAxis) -> int:
    """After so many steps the months come again; of a step of several months 12, some years."""
    if axis.unit == "month":
        return 12
    return max(1, int((axis.dates[:, 0] == axis.dates[0, 0]).sum()))


def _require_stable(noise: Noise, season: Int[np.ndarray, " step"]) -> None:
    product = reduce(np.matmul, noise.operators[season])
    growth = float(np.abs(np.linalg.eigvals(product)).max())
    if growth >= 1.0:
        raise DataError(
            f"the linear inverse model of {len(product)} EOFs has anomalies that grow: by a factor "
            f"of {growth:.3g} in a year\n  expected: less than 1, or a long series has no end\n"
            f"  fix: model.base=lim with fewer model.reference.eofs, {len(product) // 2 or 1} say, "
            "or a larger model.reference.shrink; or longer splits.train"
        )
