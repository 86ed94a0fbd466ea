"""The climatology of rain amounts as a Bernoulli-gamma distribution of each cell and month."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from gridcast.errors import DataError

_SHAPES = (0.2, 50.0)  # of gamma distributions: short records give wild estimates


def rain_climatology(
    amounts: Float[np.ndarray, "time lat lon channel"],
    months: Int[np.ndarray, " time"],
    mask: Bool[np.ndarray, "lat lon"],
) -> Float[np.ndarray, "12 3 lat lon channel"]:
    """Logit of rain, logarithms of the gamma shape and mean of wet amounts, by calendar month.

    Estimated by moments, the frequency of rain with Jeffreys' prior.

    Args:
      amounts: physical values of training dates, 0 for dry; NaN where not observed.

    Raises:
      DataError: an amount below 0.
    """
    lowest = np.nanmin(amounts[:, mask])
    if lowest < 0:
        raise DataError(
            f"train.loss: bernoulli_gamma is for amounts such as rain; found {lowest:g}\n"
            "  expected: no value below 0\n  fix: another train.loss"
        )
    # A month that is always dry in a cell borrows the smallest amount that was ever seen.
    ever = amounts[amounts > 0]
    least = ever.min() if ever.size else 1.0
    table = np.zeros((12, 3, *amounts.shape[1:]))
    for month in range(1, 13):
        values = amounts[months == month].astype(np.float64)
        seen, wet = np.isfinite(values), values > 0
        count = wet.sum(axis=0)
        positive = np.where(wet, values, 0.0)
        mean = np.where(count > 0, positive.sum(axis=0) / np.maximum(count, 1), least)
        square = np.where(wet, (values - mean) ** 2, 0.0).sum(axis=0) / np.maximum(count - 1, 1)
        shape = np.where(count > 2, mean**2 / np.maximum(square, 1e-12), 1.0)
        probability = (count + 0.5) / (seen.sum(axis=0) + 1.0)
        table[month - 1] = [
            np.log(probability / (1 - probability)),
            np.log(np.clip(shape, *_SHAPES)),
            np.log(mean),
        ]
    return np.where(mask[:, :, None], table, 0.0).astype(np.float32)
