"""Classes of scaled anomalies by calendar month: their edges, and how often each occurs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from gridcast.config.frames import ClassesConfig
from gridcast.errors import ConfigError, DataError
from gridcast.frames.skew import sample_quantiles
from gridcast.frames.transform import FrameTransform
from gridcast.timeaxis import season_fields

_TERCILES = np.array([1.0, 2.0]) / 3.0


@dataclass(frozen=True)
class Classes:
    """Fitted on training dates only. The first index is the calendar month, January first.

    Attributes:
      labels: of the classes, from low to high.
      edges: between neighbouring classes, scaled anomalies; a value on an edge belongs below it.
        0 off the mask and where nothing was observed in a month; NaN in a month without dates.
      odds: probabilities of the classes, summing to 1: how often each occurred, with Jeffreys'
        prior (half an occurrence of each); equal off the mask.
    """

    labels: list[str]
    edges: Float32[np.ndarray, "12 boundary lat lon channel"]
    odds: Float32[np.ndarray, "12 class lat lon channel"]

    @classmethod
    def fit(
        cls,
        config: ClassesConfig,
        scaled: Float[np.ndarray, "time lat lon channel"],
        months: Int[np.ndarray, " time"],
        mask: Bool[np.ndarray, "lat lon"],
        boundaries_of_values: Float[np.ndarray, "12 boundary lat lon channel"] | None,
    ) -> Classes:
        """Edges of terciles from the anomalies, or the given ones, and the odds of the classes.

        Args:
          scaled: scaled anomalies of training dates; NaN where nothing was observed.
          months: 1 to 12, of each date.
          boundaries_of_values: thresholds as scaled anomalies of each month, for kind thresholds;
            None for terciles.
        """
        on_mask = mask[..., None]
        if boundaries_of_values is None:
            edges = np.full((12, _TERCILES.size, *scaled.shape[1:]), np.nan)
            for month in np.unique(months):
                dates = scaled[months == month]
                found = sample_quantiles(dates.reshape(len(dates), -1), _TERCILES)
                edges[month - 1] = np.nan_to_num(found).reshape(edges.shape[1:])
        else:
            edges = np.where(on_mask, boundaries_of_values, 0.0)
        edges = np.where(on_mask | np.isnan(edges), edges, 0.0).astype(np.float32)
        odds = np.full((12, config.count, *scaled.shape[1:]), 1.0 / config.count)
        draft = cls(config.labels, edges, odds.astype(np.float32))
        number = draft.classify(scaled, months)
        for month in np.unique(months):
            one = number[months == month]
            times = np.stack([(one == k).sum(axis=0) for k in range(config.count)])
            share = (times + 0.5) / (times.sum(axis=0) + 0.5 * config.count)
            odds[month - 1] = np.where(on_mask, share, 1.0 / config.count)
        return cls(config.labels, edges, odds.astype(np.float32))

    def edges_at(
        self, months: Int[np.ndarray, "*batch"]
    ) -> Float32[np.ndarray, "*batch boundary lat lon channel"]:
        """The edges that hold in these calendar months, 1 to 12.

        Raises:
          DataError: terciles of a month without training dates.
        """
        # The months are few, the dates many.
        asked = np.unique(months)
        absent = asked[np.isnan(self.edges[asked - 1]).any(axis=(1, 2, 3, 4))]
        if absent.size:
            raise DataError(
                f"terciles: the training dates hold no month {absent.tolist()}\n"
                "  expected: training dates in every calendar month that is forecast\n"
                "  fix: a longer splits.train, or target.classes.kind: thresholds"
            )
        return self.edges[months - 1]

    def classify(
        self, scaled: Float[np.ndarray, "time lat lon channel"], months: Int[np.ndarray, " time"]
    ) -> Float32[np.ndarray, "time lat lon channel"]:
        """The class of each value: the number of edges below it; NaN where the value is NaN.

        Raises:
          DataError: terciles of a month without training dates.
        """
        # In float32 as the edges: a value that lies on an edge must not seem to lie above it.
        values = scaled.astype(np.float32)[:, None]
        number = (values > self.edges_at(months)).sum(axis=1)
        return np.where(np.isnan(scaled), np.nan, number).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps."""
        return {"edges": self.edges, "odds": self.odds}

    @classmethod
    def restore(cls, config: ClassesConfig, arrays: dict[str, np.ndarray]) -> Classes:
        """The inverse of `arrays`."""
        return cls(config.labels, arrays["edges"], arrays["odds"])


def threshold_edges(
    config: ClassesConfig, targets: Sequence[FrameTransform], times: np.ndarray
) -> Float[np.ndarray, "12 boundary lat lon target"]:
    """Thresholds as scaled anomalies, for each calendar month.

    Args:
      times: of the training dates.

    Raises:
      ConfigError: thresholds that no month has, because of a trend or a transform.
    """
    months = season_fields(times, "month")[1]
    edges = []
    for target in targets:
        thresholds = np.array(config.thresholds, np.float64)[:, None, None]
        if config.of == "anomaly":
            if target.skew.kind != "none":
                raise ConfigError(
                    f"thresholds of anomalies have no meaning after data.transform: "
                    f"{target.skew.kind}\n  fix: target.classes.of: value, or data.transform: none"
                )
            one = thresholds / target.scaler.deviation
            one = np.broadcast_to(one, (thresholds.size, *target.grid.shape))
            edges.append(np.broadcast_to(one, (12, *one.shape)))
            continue
        if target.climatology.trend:
            raise ConfigError(
                "thresholds of values need a climatology without trend\n"
                "  fix: frames.climatology.trend: false, or target.classes.of: anomaly"
            )
        seasonal = target.climatology.at(times)
        # A month without training dates has no edges: whoever asks for them is told.
        normal = np.full((12, *target.grid.shape), np.nan)
        for month in np.unique(months):
            normal[month - 1] = seasonal[months == month].mean(axis=0)
        fields = np.broadcast_to(thresholds, (thresholds.size, *target.grid.shape)).astype(
            np.float32
        )
        moved = target.skew.forward(fields)
        edges.append((moved[None] - normal[:, None]) / target.scaler.deviation)
    return np.stack(edges, axis=-1).astype(np.float32)
