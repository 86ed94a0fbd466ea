"""Areas are those of the sphere, wrapping is recognised, and another grid is refused."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from gridcast.errors import DataError
from gridcast.grid import Grid


def grid(lat, lon, mask=None) -> Grid:
    lat, lon = np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)
    return Grid(lat, lon, np.ones((lat.size, lon.size), bool) if mask is None else mask)


@pytest.mark.parametrize(
    ("lon", "wraps"),
    [
        (np.arange(0, 360, 2.0), True),
        (np.arange(0.125, 360, 0.25), True),
        (np.arange(0, 358, 2.0), False),
        (np.arange(0, 359.75, 0.25), False),
        (np.arange(-30, 41, 2.0), False),
        (np.array([0.0, 120.0, 240.0]), True),
        (np.array([0.0, 180.0]), False),
        (np.array([7.0]), False),
    ],
)
def test_longitude_wraps_only_if_it_goes_all_the_way_around(lon, wraps):
    assert grid([0, 1], lon).wraps is wraps


def test_areas_of_a_global_grid_sum_to_the_sphere():
    for lat in (np.arange(-88.75, 90, 2.5), np.linspace(-90, 90, 73)):
        assert grid(lat, np.arange(0, 360, 5.0)).area.sum() == pytest.approx(2 * 72)


def test_areas_by_hand():
    # Edges at -90, -30, 30 and 90: a quarter, a half and a quarter of the sphere.
    area = grid([-60, 0, 60], [0, 1]).area
    np.testing.assert_allclose(area[:, 0], [0.5, 1.0, 0.5])
    np.testing.assert_array_equal(area[:, 0], area[:, 1])


def test_weights_sum_to_one_and_vanish_off_the_mask():
    mask = np.array([[True, False], [True, True]])
    weight = grid([0, 60], [0, 1], mask).weight
    assert weight.sum() == pytest.approx(1)
    assert weight[0, 1] == 0
    assert (weight[mask] > 0).all()


def test_a_grid_equals_itself_up_to_the_noise_of_float32():
    ours = grid(np.arange(-44.9, -40, 0.1), np.arange(300.1, 340, 0.1))
    noisy = grid(ours.lat.astype(np.float32), ours.lon.astype(np.float32), ours.mask)
    ours.require_same(noisy)
    assert ours.digest == noisy.digest


@pytest.mark.parametrize("shift", [0.002, 0.5])
def test_shifted_longitudes_are_another_grid_also_far_from_zero(shift):
    ours = grid([0, 1], [350.0, 352.0])
    with pytest.raises(DataError, match=r"the data's lon is .*\n  expected: 350 to 352"):
        ours.require_same(grid([0, 1], ours.lon + shift))


def test_another_mask_is_another_grid():
    mask = np.array([[True, False], [True, True]])
    with pytest.raises(DataError, match="mask differs from training in 1 of 4 cells"):
        grid([0, 1], [0, 1]).require_same(grid([0, 1], [0, 1], mask))
    assert grid([0, 1], [0, 1]).digest != grid([0, 1], [0, 1], mask).digest


def test_a_grid_without_any_value_is_refused():
    with pytest.raises(DataError, match="nothing to forecast"):
        grid([0, 1], [0, 1], np.zeros((2, 2), bool))


def test_a_mask_of_another_shape_is_refused():
    # Where annotations are enforced, they speak first.
    with pytest.raises((DataError, TypeCheckError), match="mask"):
        grid([0, 1], [0, 1], np.ones((2, 3), bool))


def test_a_globe_is_turned_to_the_meridian_with_the_fewest_data_and_nothing_else_is():
    lat, lon = np.array([-20.0, 0.0, 20.0]), np.arange(0.0, 360.0, 30.0)
    mask = np.ones((3, 12), bool)
    mask[:2, 9] = False  # two of three cells at 270 E
    mask[0, 4] = False
    grid = Grid(lat, lon, mask)
    assert grid.emptiest == 9
    turned = grid.turned(9)
    np.testing.assert_array_equal(turned.lon, np.arange(-90.0, 270.0, 30.0))
    np.testing.assert_array_equal(turned.mask[:, 0], [False, False, True])
    np.testing.assert_array_equal(turned.mask[:, 7], [False, True, True])
    assert turned.wraps
    mask[:, 9], mask[:, 2] = True, False
    assert Grid(lat, lon, mask).turned(2).lon[0] == 60.0  # east of Greenwich nothing is taken off
    assert Grid(lat, lon, np.ones((3, 12), bool)).emptiest == 0
    assert Grid(lat, lon[:6], mask[:, :6]).emptiest == 0  # a region is not turned
