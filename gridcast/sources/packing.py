"""Whole numbers with a scale and an offset, as many files hold their values: half of float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float32, Int16

# Stands for a value that is missing; no other number of a store is so low.
MISSING = -(2**15)


@dataclass(frozen=True)
class Packing:
    """Values are `scale` times whole numbers of 16 bits, plus `offset`, computed in float64."""

    scale: float
    offset: float

    @classmethod
    def of(cls, variable: xr.DataArray) -> Packing | None:
        """How a variable that xarray has opened is packed; None of what is not, or otherwise."""
        how = variable.encoding
        if np.dtype(how.get("dtype", float)) != np.int16 or variable.dtype != np.float64:
            return None
        return cls(float(how.get("scale_factor", 1.0)), float(how.get("add_offset", 0.0)))

    def packed(self, values: Float32[np.ndarray, "*dims"]) -> Int16[np.ndarray, "*dims"] | None:
        """The whole numbers; None where they would not give every value back, bit for bit."""
        missing = np.isnan(values)
        whole = np.rint((values.astype(np.float64) - self.offset) / self.scale)
        whole[missing] = MISSING
        if not (np.abs(whole[~missing]) < -MISSING).all():
            return None
        found = whole.astype(np.int16)
        return found if np.array_equal(self.unpacked(found), values, equal_nan=True) else None

    def unpacked(self, packed: Int16[np.ndarray, "*dims"]) -> Float32[np.ndarray, "*dims"]:
        """The values, as xarray makes them of a file; NaN where they are missing."""
        values = (packed * np.float64(self.scale) + self.offset).astype(np.float32)
        values[packed == MISSING] = np.nan
        return values

    @property
    def attributes(self) -> dict[str, Any]:
        """What tells xarray and others."""
        return {"scale_factor": self.scale, "add_offset": self.offset, "_FillValue": MISSING}


def bytes_of(packing: Packing | None) -> int:
    """Of a value, packed or in float32."""
    return 4 if packing is None else 2
