"""Folds of cross-validation: every date is judged once, by models that saw nothing near it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from gridcast.config.schema import SplitsConfig
from gridcast.errors import DataError
from gridcast.frames.splits import Splits, blocked_folds
from gridcast.frames.windows import whole_windows
from gridcast.timeaxis import TimeAxis

YEARS = 9
CALENDARS = ["standard", "noleap", "360_day"]


@cache
def whole_axis(freq: str, calendar: str) -> TimeAxis:
    """2001 to 2009, without a gap."""
    cf = calendar != "standard"
    length = "30" if calendar == "360_day" else "31"
    dates = xr.date_range(
        "2001-01-01", f"{2000 + YEARS}-12-{length}", freq=freq, calendar=calendar, use_cftime=cf
    )
    return TimeAxis.of(dates.values)


def without(axis: TimeAxis, removed: np.ndarray) -> TimeAxis:
    steps = axis.steps[~removed]
    return TimeAxis(axis.times[~removed], axis.unit, axis.every, steps - steps[0])


def splits_config(first: str | int, last: str | int) -> SplitsConfig:
    """Only the first date of training and the last of test matter to folds."""
    return SplitsConfig.model_validate(
        {"train": [first, 2003], "validation": [2004, 2004], "test": [2005, last]}
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[TimeAxis, SplitsConfig, int, int]:
    freq = draw(st.sampled_from(["MS", "ME", "3MS", "5D", "D"]))
    full = whole_axis(freq, draw(st.sampled_from(CALENDARS)))
    removed = np.zeros(full.steps.size, dtype=bool)
    for begin, length in draw(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.15)), max_size=4)):
        removed[int(begin * removed.size) :][: int(length * removed.size)] = True
    first = draw(st.sampled_from([2001, 2002, "2001-04", "2002-11-08"]))
    last = draw(st.sampled_from([2009, 2008, "2008-05", "2009-06-20"]))
    in_a_year = full.steps.size // YEARS
    # Mostly buffers that leave something, and some that may not.
    buffer = draw(st.integers(0, draw(st.sampled_from([1, 1, 1, 4])) * in_a_year // 2))
    axis = without(full, removed)
    return axis, splits_config(first, last), draw(st.integers(3, 7)), buffer


def blocks_of(axis: TimeAxis, config: SplitsConfig, folds: int) -> list[list[int]]:
    """Positions of the dates of each block, found date by date; longer blocks come first."""
    first, last = config.train.bounds[0], config.test.bounds[1]
    inside = [i for i, date in enumerate(axis.dates.tolist()) if first <= tuple(date) <= last]
    years = sorted({axis.dates[i, 0] for i in inside})
    lengths = [len(years) // folds + (k < len(years) % folds) for k in range(folds)]
    ends = np.cumsum(lengths)
    return [
        [i for i in inside if axis.dates[i, 0] in years[end - length : end]]
        for length, end in zip(lengths, ends, strict=True)
    ]


def distance(axis: TimeAxis, dates: np.ndarray | list[int], block: list[int]) -> np.ndarray:
    """Steps from each date to the nearest of a block."""
    return np.abs(axis.steps[dates][:, None] - axis.steps[block]).min(axis=1)


def expected_folds(
    axis: TimeAxis, config: SplitsConfig, folds: int, buffer: int
) -> list[tuple[set[int], set[int], set[int]]]:
    """Train, validation and test dates by their distances to every date of the blocks."""
    blocks, found = blocks_of(axis, config, folds), []
    for k, test in enumerate(blocks):
        held = blocks[k + 1] if k < folds - 1 else blocks[k - 1]
        others = [i for block in blocks if block is not test and block is not held for i in block]
        validation = [
            i for i, d in zip(held, distance(axis, held, test), strict=True) if d > buffer
        ]
        near = np.minimum(distance(axis, others, test), distance(axis, others, held))
        train = [i for i, d in zip(others, near, strict=True) if d > buffer]
        found.append((set(train), set(validation), set(test)))
    return found


def as_sets(splits: Splits) -> tuple[set[int], set[int], set[int]]:
    parts = (splits.train, splits.validation, splits.test)
    return tuple(set(np.flatnonzero(part).tolist()) for part in parts)


# ---------------------------------------------------------------- properties


@given(cases())
@settings(deadline=None, max_examples=80)
def test_folds_are_those_found_by_the_distance_between_every_two_dates(case):
    axis, config, folds, buffer = case
    if not all(blocks_of(axis, config, folds)):
        with pytest.raises(DataError, match=f"with {folds} folds"):
            blocked_folds(axis, config, folds, buffer)
        return
    expected = expected_folds(axis, config, folds, buffer)
    if not all(train and validation for train, validation, _ in expected):
        with pytest.raises(DataError, match=r"has no (training|validation) date"):
            blocked_folds(axis, config, folds, buffer)
        return
    assert [as_sets(s) for s in blocked_folds(axis, config, folds, buffer)] == expected


@given(cases(), st.integers(1, 6), st.integers(1, 4))
@settings(deadline=None, max_examples=80)
def test_no_window_of_training_comes_near_a_judged_date(case, inputs, leads):
    axis, config, folds, buffer = case
    try:
        made = blocked_folds(axis, config, folds, buffer)
    except DataError:
        return
    period = axis.inside(config.train.bounds[0], config.test.bounds[1])
    np.testing.assert_array_equal(sum(s.test.astype(int) for s in made), period)
    offsets = np.arange(1 - inputs, leads + 1)
    for splits in made:
        total = splits.train.astype(int) + splits.validation + splits.test
        assert total.max() == 1
        assert not (total.astype(bool) & ~period).any()
        test, validation = (axis.steps[part] for part in (splits.test, splits.validation))
        for name, kept_from in (("train", [test, validation]), ("validation", [test])):
            windows = whole_windows(axis, getattr(splits, name), inputs, leads)
            used = np.unique(axis.steps[windows][:, None] + offsets)
            for block in kept_from:
                gap = np.abs(used[:, None] - block).min(axis=1)
                assert (gap > buffer).all(), name
                # Nor does a window reach over the block from one side to the other.
                first = axis.steps[windows] + offsets[0]
                last = axis.steps[windows] + offsets[-1]
                assert ((last < block[0]) | (first > block[-1])).all(), name


@pytest.mark.parametrize("calendar", CALENDARS)
@pytest.mark.parametrize("freq", ["MS", "D"])
def test_blocks_are_whole_years_in_order_and_nearly_equal(calendar, freq):
    axis = whole_axis(freq, calendar)
    made = blocked_folds(axis, splits_config(2001, 2009), 4, 1)
    years = [np.unique(axis.dates[s.test, 0]).tolist() for s in made]
    assert years == [[2001, 2002, 2003], [2004, 2005], [2006, 2007], [2008, 2009]]
    validated = [np.unique(axis.dates[s.validation, 0]).tolist() for s in made]
    assert validated == [*years[1:], years[2]]


# ---------------------------------------------------------------- by hand


def test_folds_of_nine_years_of_months_are_what_one_counts_by_hand():
    axis = whole_axis("MS", "standard")
    first, middle, last = blocked_folds(axis, splits_config(2001, 2009), 3, 5)
    # Blocks of 36 months: 0 to 35, 36 to 71, 72 to 107.
    assert as_sets(first) == (set(range(77, 108)), set(range(41, 72)), set(range(36)))
    assert as_sets(middle) == (set(range(31)), set(range(77, 108)), set(range(36, 72)))
    assert as_sets(last) == (set(range(31)), set(range(36, 67)), set(range(72, 108)))


def test_a_gap_counts_as_time():
    full = whole_axis("MS", "standard")
    # All of 2004 and January to May 2005 are missing: 17 months after the first block.
    axis = without(full, (full.steps >= 36) & (full.steps < 53))
    splits = blocked_folds(axis, splits_config(2001, 2009), 3, 18)[0]
    # Eight years: 2001 to 2003, 2005 to 2007, 2008 and 2009.
    assert axis.steps[splits.test][-1] == 35
    # June 2005 is 18 steps after December 2003, July 19: only June is within the buffer.
    assert axis.steps[splits.validation].tolist() == list(range(54, 84))


def test_without_a_buffer_every_date_has_its_split():
    axis = whole_axis("MS", "360_day")
    for splits in blocked_folds(axis, splits_config(2001, 2009), 5, 0):
        assert (splits.train | splits.validation | splits.test).all()


def test_dates_between_the_splits_of_the_config_are_used_too():
    axis = whole_axis("MS", "standard")
    apart = SplitsConfig.model_validate(
        {"train": [2001, 2002], "validation": [2004, 2004], "test": [2007, 2009]}
    )
    ours, theirs = (
        blocked_folds(axis, config, 3, 2) for config in (apart, splits_config(2001, 2009))
    )
    assert [as_sets(s) for s in ours] == [as_sets(s) for s in theirs]


# ---------------------------------------------------------------- errors


def test_more_folds_than_years_are_an_error():
    axis = whole_axis("MS", "standard")
    with pytest.raises(DataError, match=r"10 folds, and the data hold 9 year") as error:
        blocked_folds(axis, splits_config(2001, 2009), 10, 1)
    assert "fix: fewer crossval.folds" in str(error.value)
    assert len(blocked_folds(axis, splits_config(2001, 2009), 9, 1)) == 9
    # Years that the data do not hold do not count.
    with pytest.raises(DataError, match=r"9 folds, and the data hold 8 year"):
        blocked_folds(without(axis, axis.dates[:, 0] == 2004), splits_config(2001, 2009), 9, 1)
    with pytest.raises(DataError, match=r"9 folds, and the data hold 8 year"):
        blocked_folds(axis, splits_config(1990, 2008), 9, 1)


def test_a_buffer_as_long_as_a_block_leaves_no_validation():
    axis = whole_axis("MS", "standard")
    config = splits_config(2001, 2009)
    with pytest.raises(DataError, match=r"fold 1 of 9 .* no validation date") as error:
        blocked_folds(axis, config, 9, 12)
    assert "fix: a smaller crossval.buffer, or fewer crossval.folds" in str(error.value)
    blocked_folds(axis, config, 9, 11)
    blocked_folds(axis, config, 5, 11)


def test_buffers_that_eat_all_training_dates_are_an_error():
    # 2001 and January 2002; January 2003 and 2004; 2005.
    full = whole_axis("MS", "standard")
    removed = np.isin(full.dates[:, 0], [2002, 2003]) & (full.dates[:, 1] > 1)
    axis = without(full, removed)
    config = splits_config(2001, 2005)
    blocks = blocks_of(axis, config, 3)
    assert [len(b) for b in blocks] == [13, 13, 12]
    # Fold 1 trains on 2005, 12 months right after its validation block.
    with pytest.raises(DataError, match=r"fold 1 of 3 .* no training date") as error:
        blocked_folds(axis, config, 3, 12)
    assert "fix: a smaller crossval.buffer" in str(error.value)
    blocked_folds(axis, config, 3, 11)
