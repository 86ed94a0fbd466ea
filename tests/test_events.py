"""Scores of events: hand computation, the package `scores`, loops, and what must not matter."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scores.categorical import BinaryContingencyManager
from scores.spatial import fss_2d

from gridcast.errors import DataError
from gridcast.verification.events import csi, fss

DIMS = ("window", "lat", "lon")


def everywhere(fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every window verified at every lead, and a mask of all cells."""
    return np.ones(fields.shape[:2], dtype=bool), np.ones(fields.shape[2:], dtype=bool)


def random_fields(seed: int = 0) -> dict[str, np.ndarray]:
    """Five windows, three leads, 7 x 9 cells with a coast; observations have gaps."""
    rng = np.random.default_rng(seed)
    forecast, observed = rng.gamma(1.0, 2.0, (2, 5, 3, 7, 9))
    forecast += 0.5 * observed
    observed[rng.random(observed.shape) < 0.1] = np.nan
    verified = np.stack([np.roll([1, 1, 1, 0, 0], k) for k in range(3)], axis=1).astype(bool)
    mask = np.ones((7, 9), dtype=bool)
    mask[:3, :4] = mask[6, 8] = False
    return {"forecast": forecast, "observed": observed, "verified": verified, "mask": mask}


def squares(case: dict[str, np.ndarray], threshold: float, side: int) -> np.ndarray:
    """The fractions skill score cell by cell and square by square."""
    forecast, observed = case["forecast"], case["observed"]
    counted = case["verified"][:, :, None, None] & case["mask"] & ~np.isnan(observed)
    reach = (side - 1) // 2
    scores = []
    for lead in range(forecast.shape[1]):
        error = worst = 0.0
        for window, row, column in zip(*np.nonzero(counted[:, lead]), strict=True):
            ours, theirs = [], []
            for i in range(row - reach, row + reach + 1):
                for j in range(column - reach, column + reach + 1):
                    inside = 0 <= i < forecast.shape[2] and 0 <= j < forecast.shape[3]
                    if inside and counted[window, lead, i, j]:
                        ours.append(forecast[window, lead, i, j] > threshold)
                        theirs.append(observed[window, lead, i, j] > threshold)
            error += (np.mean(ours) - np.mean(theirs)) ** 2
            worst += np.mean(ours) ** 2 + np.mean(theirs) ** 2
        scores.append(1 - error / worst)
    return np.array(scores)


# ---------------------------------------------------------------- numbers


def test_csi_of_two_dates_is_what_one_computes_by_hand():
    # Date 1: hit, false alarm, miss, neither; date 2: hit, unknown, false alarm, off the mask.
    forecast = np.array([[[5.0, 5.0], [0.0, 0.0]], [[5.0, 5.0], [5.0, 5.0]]])[:, None]
    observed = np.array([[[9.0, 0.0], [9.0, 0.0]], [[9.0, np.nan], [0.0, 9.0]]])[:, None]
    verified, mask = everywhere(forecast)
    assert csi(forecast[:1], observed[:1], verified[:1], mask, 2.0) == pytest.approx(1 / 3)
    mask[1, 1] = False
    assert csi(forecast, observed, verified, mask, 2.0) == pytest.approx(2 / 5)
    # Above 5 nothing is forecast: two misses at the first date, one at the second.
    assert csi(forecast, observed, verified, mask, 5.0) == pytest.approx(0)


def test_fss_of_a_displaced_event_is_what_one_computes_by_hand():
    forecast, observed = np.zeros((2, 1, 1, 1, 5))
    forecast[..., 1] = observed[..., 2] = 1.0
    case = (forecast, observed, *everywhere(forecast), 0.5)
    assert fss(*case, 1) == pytest.approx(0)
    # Side 3, fractions at the five cells; the squares at both ends hold two cells.
    f, o = np.array([1 / 2, 1 / 3, 1 / 3, 0, 0]), np.array([0, 1 / 3, 1 / 3, 1 / 3, 0])
    expected = 1 - ((f - o) ** 2).sum() / ((f**2).sum() + (o**2).sum())
    assert fss(*case, 3) == pytest.approx(expected)


def test_csi_agrees_with_the_package_scores():
    case = random_fields()
    for threshold in (0.5, 2.0, 6.0):
        found = csi(**case, threshold=threshold)
        for lead in range(3):
            chosen = case["verified"][:, lead]
            ours, theirs = (
                xr.DataArray(case[name][chosen, lead], dims=DIMS)
                for name in ("forecast", "observed")
            )
            known = theirs.notnull() & xr.DataArray(case["mask"], dims=DIMS[1:])
            counts = BinaryContingencyManager(
                (ours > threshold).astype(float).where(known),
                (theirs > threshold).astype(float).where(known),
            )
            expected = float(counts.transform().critical_success_index())
            assert found[lead] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("side", [1, 3, 5])
def test_fss_agrees_with_the_package_scores_where_no_event_is_near_an_edge(side):
    # There it matters not what lies beyond the edge: zeros for `scores`, nothing for us.
    rng = np.random.default_rng(1)
    inner = rng.gamma(1.0, 2.0, (2, 4, 2, 6, 8))
    forecast, observed = np.pad(inner, ((0, 0),) * 3 + ((4, 4),) * 2)
    found = fss(forecast, observed, *everywhere(forecast), 2.0, side)
    for lead in range(2):
        expected = fss_2d(
            xr.DataArray(forecast[:, lead], dims=DIMS),
            xr.DataArray(observed[:, lead], dims=DIMS),
            event_threshold=2.0,
            window_size=(side, side),
            spatial_dims=("lat", "lon"),
            zero_padding=True,
            reduce_dims=DIMS,
        )
        assert found[lead] == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("side", [1, 3, 5, 9, 25])
def test_fss_agrees_with_a_loop_over_squares_at_coasts_edges_and_gaps(side):
    case = random_fields()
    np.testing.assert_allclose(
        fss(**case, threshold=2.0, side=side), squares(case, 2.0, side), rtol=1e-12
    )


# ---------------------------------------------------------------- properties


def test_a_perfect_forecast_scores_one_and_one_that_is_never_right_zero():
    case = random_fields()
    perfect = case | {"forecast": np.nan_to_num(case["observed"])}
    np.testing.assert_array_equal(csi(**perfect, threshold=2.0), 1)
    never = case | {"forecast": 4.0 - np.nan_to_num(case["observed"])}
    np.testing.assert_array_equal(csi(**never, threshold=2.0), 0)
    np.testing.assert_array_equal(fss(**perfect, threshold=2.0, side=3), 1)
    np.testing.assert_allclose(fss(**never, threshold=2.0, side=1), 0, atol=1e-12)


def test_a_value_at_the_threshold_is_no_event():
    fields = np.full((1, 1, 2, 2), 2.0)
    fields[..., 0, 0] = np.nextafter(2.0, 3.0)
    observed = np.full((1, 1, 2, 2), 3.0)
    assert csi(fields, observed, *everywhere(fields), 2.0) == pytest.approx(1 / 4)
    assert csi(observed, fields, *everywhere(fields), 2.0) == pytest.approx(1 / 4)


def test_a_lead_at_which_nothing_ever_happens_has_no_score():
    case = random_fields()
    case["forecast"][:, 1], case["observed"][:, 1] = 0.0, 0.0
    for found in (csi(**case, threshold=2.0), fss(**case, threshold=2.0, side=3)):
        np.testing.assert_array_equal(np.isnan(found), [False, True, False])


def test_fss_of_squares_that_hold_the_whole_grid_compares_only_how_often_it_happens():
    case = random_fields()
    rng = np.random.default_rng(2)
    observed = case["forecast"].reshape(5, 3, -1)
    case |= {"observed": rng.permuted(observed, axis=2).reshape(5, 3, 7, 9)}
    case["mask"] = np.ones((7, 9), dtype=bool)
    np.testing.assert_allclose(fss(**case, threshold=2.0, side=17), 1)
    assert (fss(**case, threshold=2.0, side=1) < 0.9).all()


def test_fss_weighs_dates_by_their_events_and_not_by_their_number():
    # One cell of one date is wrong, nine of the other right: 1 - 1 / (9 + 9 + 1), not a mean.
    forecast, observed = np.zeros((2, 2, 1, 3, 3))
    forecast[0], observed[0] = 1.0, 1.0
    forecast[1, 0, 1, 1] = 1.0
    found = fss(forecast, observed, *everywhere(forecast), 0.5, 1)
    assert found == pytest.approx(1 - 1 / 19)


@pytest.mark.parametrize("side", [None, 1, 3, 5])
def test_what_does_not_count_changes_nothing_and_neither_does_who_is_judged(side):
    case = random_fields()

    def score(changed: dict[str, np.ndarray]) -> np.ndarray:
        if side is None:
            return csi(**changed, threshold=2.0)
        return fss(**changed, threshold=2.0, side=side)

    expected = score(case)
    counted = case["verified"][:, :, None, None] & case["mask"]
    for value in (np.nan, np.inf, 1e30, -1e30):
        for name in ("forecast", "observed"):
            changed = np.where(counted, case[name], value)
            np.testing.assert_array_equal(score(case | {name: changed}), expected)
        unknown = np.where(np.isnan(case["observed"]), value, case["forecast"])
        np.testing.assert_array_equal(score(case | {"forecast": unknown}), expected)
    swapped = case | {
        "forecast": np.where(np.isnan(case["observed"]), 0, case["observed"]),
        "observed": np.where(np.isnan(case["observed"]), np.nan, case["forecast"]),
    }
    np.testing.assert_allclose(score(swapped), expected, rtol=1e-12)
    turned = {
        k: v if k == "verified" else v[..., ::-1, :].swapaxes(-1, -2) for k, v in case.items()
    }
    np.testing.assert_allclose(score(turned), expected, rtol=1e-12)
    order = np.random.default_rng(3).permutation(5)
    mixed = {k: v if k == "mask" else v[order] for k, v in case.items()}
    np.testing.assert_allclose(score(mixed), expected, rtol=1e-12)


def test_single_precision_gives_the_same_scores():
    case = random_fields()
    single = case | {name: case[name].astype(np.float32) for name in ("forecast", "observed")}
    np.testing.assert_array_equal(csi(**single, threshold=2.0), csi(**case, threshold=2.0))
    np.testing.assert_array_equal(
        fss(**single, threshold=2.0, side=3), fss(**case, threshold=2.0, side=3)
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_forecast_that_is_not_finite_where_it_is_judged_is_an_error(value):
    case = random_fields()
    case["observed"][1, 0, 5, 5] = 1.0
    case["forecast"][1, 0, 5, 5] = value
    with pytest.raises(DataError, match="a forecast is not finite"):
        csi(**case, threshold=2.0)
    with pytest.raises(DataError, match="a forecast is not finite"):
        fss(**case, threshold=2.0, side=3)
    case["observed"][1, 0, 5, 5] = np.nan  # the control: unknown there
    csi(**case, threshold=2.0)
