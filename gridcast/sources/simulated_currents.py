"""How anomalies of the simulated ocean move, mix and arise: operators on its ocean cells."""

from __future__ import annotations

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

FASTEST = 0.95  # cells a month; below 1, so that one step reaches no further than a neighbour
DIFFUSION = 0.01  # share of a cell's anomaly that each neighbour receives in a month
SMOOTHING_STEPS = 3  # of the noise: it is then alike within 1 to 2 cells

Cells = Float[np.ndarray, " cell"]


def ocean_currents(
    lat: Float[np.ndarray, " lat"], mask: Bool[np.ndarray, "lat lon"]
) -> tuple[Float[np.ndarray, "lat lon"], Float[np.ndarray, "lat lon"]]:
    """Eastward and northward displacement in cells a month: gyres and an equatorial wave guide.

    The gyres' stream function balances bands of wind-stress curl against friction and vanishes
    on land, so there is one set of gyres in each basin, and they follow the coasts.
    """
    cell = _number(mask)
    rows, curl = np.nonzero(mask)[0], np.sin(4.0 * np.deg2rad(lat))
    reach = max(lat.size / 6.0, 1.0)
    stiffness = (4.0 + reach**-2) * scipy.sparse.eye_array(rows.size) - _adjacency(cell)
    psi = np.zeros(mask.shape)
    psi[mask] = scipy.sparse.linalg.splu(stiffness.tocsc()).solve(curl[rows])
    padded = np.pad(psi, ((1, 1), (0, 0)))
    u = -0.5 * (padded[2:] - padded[:-2])
    v = 0.5 * (np.roll(psi, -1, axis=1) - np.roll(psi, 1, axis=1))
    # Nearly one speed everywhere but in the eye of a gyre: Poisson's solution alone would leave
    # small basins still and large ones too fast for one step.
    speed = np.hypot(u, v)
    scale = FASTEST / np.hypot(speed, max(0.4 * float(np.median(speed[mask])), 1e-12))
    guide = np.exp(-((lat / 12.0) ** 2))[:, None]
    u = (1.0 - guide) * scale * u + guide * FASTEST
    v = (1.0 - guide) * scale * v
    return np.where(mask, u, 0.0), np.where(mask, v, 0.0)


def ocean_operator(
    mask: Bool[np.ndarray, "lat lon"],
    u: Float[np.ndarray, "lat lon"],
    v: Float[np.ndarray, "lat lon"],
    damping: Cells,
) -> scipy.sparse.csr_array:
    """A: advection, then diffusion, then damping.

    Advection is semi-Lagrangian: a cell takes the value, bilinear between cells, of where its
    water was a month ago. Weights are positive and sum to the damping, hence the spectral radius
    is below 1. The share of a neighbour on land, or behind a corner of land, is the cell's own.
    """
    cell = _number(mask)
    own = cell[mask]
    south_north, west_east = np.where(v > 0, -1, 1)[mask], np.where(u > 0, -1, 1)[mask]
    i, j = np.nonzero(mask)
    padded = np.pad(cell, ((1, 1), (0, 0)), constant_values=-1)
    column = (j + west_east) % mask.shape[1]
    zonal, meridional = cell[i, column], padded[i + 1 + south_north, j]
    diagonal = padded[i + 1 + south_north, column]
    diagonal = np.where((zonal < 0) & (meridional < 0), -1, diagonal)
    east, north = np.abs(u[mask]), np.abs(v[mask])
    parts = [
        (own, (1 - east) * (1 - north)),
        (zonal, east * (1 - north)),
        (meridional, (1 - east) * north),
        (diagonal, east * north),
    ]
    source = np.concatenate([np.where(index < 0, own, index) for index, _ in parts])
    weight = np.concatenate([w for _, w in parts])
    size = (own.size, own.size)
    advection = scipy.sparse.coo_array((weight, (np.tile(own, 4), source)), shape=size)
    step = scipy.sparse.diags_array(damping) @ _diffusion(cell, DIFFUSION) @ advection.tocsr()
    return _sorted(step)


def ocean_noise(mask: Bool[np.ndarray, "lat lon"], amplitude: Cells) -> scipy.sparse.csr_array:
    """S: white noise made smooth along the sea, with standard deviation `amplitude`."""
    smooth = step = _diffusion(_number(mask), 1.0 / 6.0)
    for _ in range(SMOOTHING_STEPS - 1):
        smooth = smooth @ step
    deviation = np.sqrt((smooth * smooth) @ np.ones(amplitude.size))
    return _sorted(scipy.sparse.diags_array(amplitude / deviation) @ smooth)


def _number(mask: Bool[np.ndarray, "lat lon"]) -> Int[np.ndarray, "lat lon"]:
    """The number of each ocean cell, -1 on land."""
    return np.where(mask, np.cumsum(mask).reshape(mask.shape) - 1, -1)


def _adjacency(cell: Int[np.ndarray, "lat lon"]) -> scipy.sparse.csr_array:
    """1 where two ocean cells share an edge; columns wrap, rows end at the poles."""
    pairs = [(cell, np.roll(cell, -1, axis=1)), (cell[:-1], cell[1:])]
    a, b = (np.concatenate([pair[k].ravel() for pair in pairs]) for k in (0, 1))
    at_sea = (a >= 0) & (b >= 0)
    a, b = a[at_sea], b[at_sea]
    row, column = np.concatenate([a, b]), np.concatenate([b, a])
    size = int(cell.max()) + 1
    return scipy.sparse.coo_array((np.ones(row.size), (row, column)), shape=(size, size)).tocsr()


def _diffusion(cell: Int[np.ndarray, "lat lon"], share: float) -> scipy.sparse.csr_array:
    adjacency = _adjacency(cell)
    neighbours = adjacency @ np.ones(int(cell.max()) + 1)
    return scipy.sparse.csr_array(
        scipy.sparse.diags_array(1.0 - share * neighbours) + share * adjacency
    )


def _sorted(matrix: scipy.sparse.sparray) -> scipy.sparse.csr_array:
    """Canonical order of the entries: sums then round the same way after a trip through a file."""
    result = scipy.sparse.csr_array(matrix)
    result.sum_duplicates()
    return result
