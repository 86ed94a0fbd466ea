"""Several variables: each with its own grid, dates, units, mask and share in the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from conftest import Bench, same_bits, small_config
from flax import nnx
from scipy import stats

import gridcast
from gridcast.errors import DataError
from gridcast.frames.fields import variables
from gridcast.grid import Grid
from gridcast.models import Inputs
from gridcast.opening import open_source
from gridcast.preparation import Setup, prepare
from gridcast.run import Run
from gridcast.sources.canonical import canonical
from gridcast.sources.regrid import to_grid

pytestmark = pytest.mark.usefixtures("no_pictures")

MEMORY = "(in memory)"
INPUTS, LEADS = 3, 2
TRAINING = 108  # steps
BOX = {"lat": [-30, 30], "lon": [100, 260]}


def more(variable: str | None = None, path: Any = MEMORY, **settings: Any) -> dict[str, Any]:
    return {"path": str(path), "variable": variable, **settings}


def data(*further: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"path": MEMORY, "variable": "sst", "more": list(further), **settings}


def prepared(dataset: xr.Dataset | xr.DataArray, **sections: Any) -> Setup:
    config = small_config(**sections)
    return prepare(config, open_source(config, dataset))


def in_metres(height: np.ndarray, like: xr.DataArray, name: str = "ssh") -> xr.DataArray:
    attributes = {"units": "m", "long_name": f"{name} of the tests"}
    return like.copy(data=height.astype(np.float32)).rename(name).assign_attrs(attributes)


@pytest.fixture(scope="module")
def pair(ocean) -> xr.Dataset:
    """Temperature, and a height that follows it, on fewer and on other cells."""
    anomaly = ocean.values - ocean.values.mean(axis=0)
    filled = np.nan_to_num(anomaly)
    noise = np.random.default_rng(3).normal(size=ocean.shape)
    height = 2.0 + 0.1 * np.roll(filled, 2, axis=0) + 0.03 * noise
    sea = np.isfinite(ocean.values[0])
    rows, columns = np.nonzero(sea)
    inside = sea.copy()
    inside[rows[::12], columns[::12]] = False
    rows, columns = np.nonzero(~sea)
    inside[rows[:3], columns[:3]] = True
    return xr.Dataset({"sst": ocean, "ssh": in_metres(np.where(inside, height, np.nan), ocean)})


PAIR = data(more("ssh", target=True, weight=0.5))
KNOWN = {"known": ["season", "insolation"]}


@pytest.fixture(scope="module")
def both(pair, tmp_path_factory) -> Run:
    """Two targets, trained."""
    directory = str(tmp_path_factory.mktemp("both"))
    config = small_config(
        data=PAIR, frames=KNOWN, train={"epochs": 2}, output={"directory": directory}
    )
    return gridcast.train(config, pair)


# ---------------------------------------------------------------- opening


def ramp(lat: list[float], lon: np.ndarray, first: str, months: int, day: int) -> xr.DataArray:
    """A plane over latitude that rises by 1 a month from January 1950; stamped on any day."""
    month = np.arange(np.datetime64(first), np.datetime64(first) + months)
    count = (month - np.datetime64("1950-01")).astype(int)
    times = (month + np.timedelta64(0, "D")).astype("datetime64[ns]") + np.timedelta64(day - 1, "D")
    values = count[:, None, None] + 0.1 * np.array(lat)[:, None] + 0.0 * lon
    coords = {"time": times, "lat": lat, "lon": lon}
    return xr.DataArray(
        values.astype(np.float32), coords, ("time", "lat", "lon"), "wind", {"units": "m s-1"}
    )


@pytest.mark.parametrize("day", [1, 15, 28])
def test_an_input_of_another_grid_and_start_is_interpolated_and_put_on_its_months(
    ocean, tmp_path, day
):
    wind = ramp([-75.0, -45.0, -15.0, 15.0, 45.0, 75.0], np.arange(8) * 45.0, "1952-06", 120, day)
    wind.to_netcdf(tmp_path / "wind.nc")
    sections = {"data": {"more": [more("wind", tmp_path / "wind.nc")]}}
    with pytest.raises(DataError, match=r"values of wind are missing .* at 1950-01-01") as error:
        prepared(ocean, **sections)
    assert "fix: frames.missing: drop or mask" in str(error.value)

    setup = prepared(ocean, frames={"missing": "mask"}, **sections)
    found = setup.series[1]
    np.testing.assert_array_equal(found["time"], setup.series[0]["time"])
    values = found.values[INPUTS - 1 :]
    assert np.isnan(values[:29]).all()
    assert np.isnan(values[149:]).all()
    inner = np.abs(ocean["lat"].values) < 75
    expected = np.arange(29, 149)[:, None] + 0.1 * ocean["lat"].values[inner]
    np.testing.assert_allclose(values[29:149][:, inner, 5], expected, atol=1e-4)
    # What lacks is no number to the model, and no reason to leave a window out.
    assert np.isnan(setup.arrays.values[INPUTS - 1 : INPUTS + 28, ..., 1]).all()
    assert setup.train_windows.size == TRAINING - LEADS
    dropped = prepared(ocean, frames={"missing": "drop"}, **sections)
    np.testing.assert_array_equal(dropped.axis.times, ocean["time"].values[29:149])


def test_targets_come_first_and_each_channel_is_its_own_variable(pair):
    other = in_metres(np.cos(np.nan_to_num(pair["sst"].values)), pair["sst"], "wave")
    dataset = pair.assign(wave=other)
    setup = prepared(dataset, data=data(more("wave"), more("ssh", target=True)))
    names = ["sst", "ssh", "wave"]
    assert [v.variable for v in variables(setup.config)] == names
    assert [t.variable for t in setup.fields.inputs] == names
    assert [t.variable for t in setup.fields.targets] == names[:2]
    for k, name in enumerate(names):
        alone = prepared(dataset[name])
        np.testing.assert_array_equal(setup.arrays.values[..., k], alone.arrays.values[..., 0])
        assert same_bits(setup.fields.inputs[k].arrays(), alone.fields.inputs[0].arrays())
        if k < 2:
            np.testing.assert_array_equal(
                setup.head["damping"][..., k], alone.head["damping"][..., 0]
            )
            np.testing.assert_array_equal(setup.fields.weight[..., k], alone.fields.weight[..., 0])
    masks = [t.grid.mask for t in setup.fields.targets]
    assert (masks[0] & ~masks[1]).any()
    assert (masks[1] & ~masks[0]).any()


def test_a_variable_that_is_not_there_is_named(both, pair):
    for dataset in (pair.drop_vars("ssh"), pair["sst"]):
        with pytest.raises(DataError, match="the variable ssh was in memory in training") as error:
            both.forecast(dataset)
        assert "fix: give a data set that holds all variables" in str(error.value)
    with pytest.raises(DataError, match="no variable 'sst'; found ssh"):
        both.forecast(pair.drop_vars("sst"))


def test_a_file_that_holds_all_variables_forecasts_as_the_data_set(both, pair, tmp_path):
    pair.to_netcdf(tmp_path / "both.nc")
    assert both.forecast(tmp_path / "both.nc").drop_attrs().equals(both.forecast(pair).drop_attrs())


def test_each_variable_has_its_box_or_that_of_the_first(pair):
    other = {"lat": [0, 60], "lon": [150, 300]}
    config = small_config(
        data=data(
            more("ssh", target=True, mean_over=other),
            more("ssh"),
            mean_over=BOX,
        )
    )
    source = open_source(config, pair)
    lat, lon = pair["lat"].values, pair["lon"].values
    area = np.repeat(np.diff(np.sin(np.deg2rad(np.arange(-90, 91, 20))))[:, None], 18, axis=1)

    def by_hand(name: str, box: dict[str, list[int]]) -> np.ndarray:
        rows = (lat >= box["lat"][0]) & (lat <= box["lat"][1])
        columns = (lon >= box["lon"][0]) & (lon <= box["lon"][1])
        cells = pair[name].values[:, rows[:, None] & columns].astype(np.float64)
        weight = area[rows[:, None] & columns] * np.isfinite(cells[0])
        return np.nansum(cells * weight, axis=1) / weight.sum()

    boxes = [("sst", BOX), ("ssh", other), ("ssh", BOX)]
    for one, (name, box) in zip(source.series, boxes, strict=True):
        assert one.shape == (168, 1, 1)
        np.testing.assert_allclose(one.values[:, 0, 0], by_hand(name, box), rtol=1e-5)
        # One place for all: the channels of one frame.
        assert (one["lat"].item(), one["lon"].item()) == (0.0, 180.0)
    setup = prepare(config, source)
    assert setup.arrays.values.shape == (168, 1, 1, 3)
    assert setup.fields.target_mask.shape == (1, 1, 2)


# ---------------------------------------------------------------- two targets


def test_the_loss_of_each_target_is_relative_to_its_reference_and_counts_by_its_weight(pair):
    dataset = pair.assign(wave=in_metres(np.cos(np.nan_to_num(pair["sst"].values)), pair["sst"]))
    section = data(more("wave", weight=0.1), more("ssh", target=True, weight=0.5))
    bench = Bench.of(dataset, small_config(data=section))
    setup = bench.setup
    arrays = setup.arrays.values[..., :2].astype(np.float64)

    def squares(windows: np.ndarray) -> np.ndarray:
        """[window lead target] of the reference, which the untrained model is."""
        truth = arrays[windows[:, None] + np.arange(1, LEADS + 1)]
        error = arrays[windows][:, None] * setup.head["damping"] - truth
        return (error**2 * setup.fields.weight).sum(axis=(2, 3))

    scale = squares(setup.train_windows).mean(axis=0)
    np.testing.assert_allclose(bench.series.scale, scale, rtol=1e-4)
    windows = setup.validation_windows[:4]
    first, second = np.moveaxis((squares(windows) / scale).mean(axis=1), 1, 0)
    assert np.abs(first / second - 1).max() > 0.05
    found = bench.stepper.losses(bench.weights, bench.series, jnp.asarray(windows)[None])
    np.testing.assert_allclose(found[0], (first + 0.5 * second) / 1.5, rtol=1e-4)


def test_each_target_is_forecast_and_scored_in_its_units_on_its_cells(both, pair):
    forecast = xr.load_dataset(both.directory / "forecast.nc")
    hindcast = xr.load_dataset(both.directory / "hindcast.nc")
    assert list(forecast.data_vars) == ["sst", "ssh"]
    for name, file in (("sst", "scores.nc"), ("ssh", "scores_2.nc")):
        scores = xr.load_dataset(both.directory / file)
        series = pair[name]
        assert forecast[name].attrs["units"] == series.attrs["units"] == scores.rmse.attrs["units"]
        assert scores.attrs["title"] == f"scores of forecasts of {name}"
        inside = np.isfinite(series.values[0])
        np.testing.assert_array_equal(np.isfinite(forecast[name].values[0]), [inside, inside])
        np.testing.assert_array_equal(np.isfinite(scores["rmse_map"].values[0, 0]), inside)
        # By hand, in the variable's units: the model from its file, persistence from the data.
        transform = next(t for t in both.fields.targets if t.variable == name)
        normal = transform.climatology.at(series["time"].values)
        anomaly = np.where(inside, series.values - normal, 0.0)
        months = hindcast["forecast_reference_time"].values.astype("datetime64[M]").astype(int)
        initial = (months + 20 * 12).tolist()
        for lead in (1, 2):
            dates = np.arange(132, 168)
            rows = [initial.index(t - lead) for t in dates]
            made = hindcast[name].values[rows, lead - 1]
            model = np.where(inside, made - series.values[dates], 0.0)
            for forecast_name, error in (
                ("model", model),
                ("persistence", anomaly[dates - lead] - anomaly[dates]),
            ):
                square = ((error**2).mean(axis=0) * transform.grid.weight).sum()
                found = scores["rmse"].sel(forecast=forecast_name, lead=lead).item()
                assert found == pytest.approx(np.sqrt(square), rel=1e-3)
    assert not (both.directory / "scores_3.nc").exists()


@pytest.mark.family
def test_any_target_can_be_asked_for_its_scores(both, pair):
    for name, file in ((None, "scores.nc"), ("sst", "scores.nc"), ("ssh", "scores_2.nc")):
        found, written = both.evaluate(pair, variable=name), xr.load_dataset(both.directory / file)
        np.testing.assert_allclose(found["rmse"], written["rmse"], rtol=1e-6)
    with pytest.raises(DataError, match="no forecast of 'wave'") as error:
        both.evaluate(pair, variable="wave")
    assert "known here: sst, ssh" in str(error.value)


def test_all_variables_are_converted_to_the_units_of_training(both, pair):
    expected = both.forecast(pair)
    moved = pair.copy()
    moved["sst"] = (pair["sst"] + 273.15).assign_attrs(pair["sst"].attrs | {"units": "K"})
    moved["ssh"] = (pair["ssh"] * 100.0).assign_attrs(pair["ssh"].attrs | {"units": "cm"})
    found = both.forecast(moved)
    for name, unit in (("sst", "degC"), ("ssh", "m")):
        assert found[name].attrs["units"] == unit
        np.testing.assert_allclose(found[name], expected[name], atol=2e-3)
    # The control: what the number is depends on the unit.
    wrong = both.forecast(pair.assign(ssh=pair["ssh"].assign_attrs(units="cm")))
    assert np.nanmax(np.abs(wrong["ssh"].values - expected["ssh"].values)) > 0.1


def test_a_model_that_forecasts_all_its_inputs_is_rolled_out(both, pair):
    longer = both.forecast(pair, leads=5)
    assert longer.sizes["forecast_period"] == 5
    for name in ("sst", "ssh"):
        inside = np.isfinite(pair[name].values[0])
        np.testing.assert_array_equal(np.isfinite(longer[name].values[0]), [inside] * 5)
        np.testing.assert_array_equal(longer[name][:, :2], both.forecast(pair)[name])


@pytest.mark.parametrize(("channels", "what"), [([0, 1], "season"), ([2], "insolation")])
def test_what_is_known_in_advance_reaches_the_model(both, pair, channels, what):
    setup = prepared(pair, data=PAIR, frames=KNOWN)
    arrays, initial = setup.arrays, np.array([140])
    before = both.predictor(arrays, initial)
    known = arrays.known.copy()
    known[130:138, :, channels] = 5.0  # before the window: nobody's
    np.testing.assert_array_equal(both.predictor(arrays._replace(known=known), initial), before)
    known = arrays.known.copy()
    known[138:143, :, channels] += 0.5
    after = both.predictor(arrays._replace(known=known), initial)
    inside = setup.fields.target_mask
    assert (np.abs(after - before).max(axis=(0, 1))[inside] > 1e-5).mean() > 0.9, what


# ---------------------------------------------------------------- inputs that are no targets


@pytest.fixture(scope="module")
def wind_and_sea(tmp_path_factory) -> tuple[xr.DataArray, Path]:
    """A sea that follows white noise on a coarser grid a month later; the noise since 1952."""
    random = np.random.default_rng(6)
    months = np.arange(np.datetime64("1950-01"), np.datetime64("1964-01"))
    times, dims = months.astype("datetime64[ns]"), ("time", "lat", "lon")
    coarse = {"time": times, "lat": [-20.0, 20.0], "lon": np.arange(4) * 90.0 + 22.5}
    noise = random.normal(size=(168, 2, 4)).astype(np.float32)
    wind = xr.DataArray(noise, coarse, dims, "wind", {"units": "m s-1"})
    lat, lon = np.array([-30.0, -10.0, 10.0, 30.0]), np.arange(8) * 45.0
    finer = to_grid(canonical(wind), Grid(lat, lon, np.ones((4, 8), bool)))
    values = 20 + 0.1 * random.normal(size=finer.shape)
    values[1:] += finer.values[:-1]
    sst = finer.copy(data=values.astype(np.float32)).rename("sst").assign_attrs(units="degC")
    path = tmp_path_factory.mktemp("wind") / "wind.nc"
    later = wind[24:].assign_coords(time=times[24:] + np.timedelta64(14, "D"))
    later.to_netcdf(path)
    return sst, path


@pytest.fixture(scope="module")
def driven(wind_and_sea, tmp_path_factory) -> Run:
    sst, path = wind_and_sea
    config = small_config(
        data=data(more("wind", path)),
        frames={"inputs": 2, "leads": 1, "missing": "mask", "climatology": {"harmonics": 1}},
        model={"hidden": [8], "downsample": 1},
        train={"epochs": 40, "learning_rate": 2e-2, "patience": 40},
        output={"directory": str(tmp_path_factory.mktemp("driven"))},
    )
    return gridcast.train(config, sst)


@pytest.mark.family
def test_a_model_learns_of_an_input_what_no_reference_knows(driven):
    scores = xr.load_dataset(driven.directory / "scores.nc")
    skill = scores["skill"].isel(lead=0)
    assert (skill > 0.4).all(), skill.values
    forecast = xr.load_dataset(driven.directory / "forecast.nc")
    assert list(forecast.data_vars) == ["sst"]
    assert not (driven.directory / "scores_2.nc").exists()


@pytest.mark.family
def test_a_stronger_wind_changes_the_forecast_where_it_blows(driven, wind_and_sea):
    sst, _ = wind_and_sea
    usual = driven.forecast(sst)["sst"].values[0, 0]
    wind = open_source(driven.config, sst).series[1]
    # The same wind beside the sea in the data at hand, not from its file.
    same = driven.forecast(xr.Dataset({"sst": sst, "wind": wind}))["sst"].values[0, 0]
    np.testing.assert_allclose(same, usual, atol=1e-4)
    wind[-1, 2:, 4:6] += 2.0
    moved = driven.forecast(xr.Dataset({"sst": sst, "wind": wind}))["sst"].values[0, 0]
    assert (moved - usual)[2:, 4:6].mean() > 1.0
    assert np.abs(moved - usual)[:2, :2].mean() < 0.3


@pytest.mark.family
def test_an_input_that_is_not_forecast_cannot_be_rolled_out(driven, wind_and_sea):
    with pytest.raises(DataError, match="trained for 1 leads and cannot be rolled out") as error:
        driven.forecast(wind_and_sea[0], leads=2)
    assert "some of its inputs are not forecast" in str(error.value)
    assert "fix: train with frames.leads: 2" in str(error.value)


@pytest.mark.family
def test_before_an_input_begins_the_forecast_is_made_without_it(driven, wind_and_sea):
    sst = wind_and_sea[0]
    early = driven.forecast(sst, start="1951-06")["sst"].values
    assert np.isfinite(early).all()
    # Nothing is known of the next month then: no strong anomaly is forecast.
    late = [driven.forecast(sst, start=f"1960-{m:02d}")["sst"].values - 20 for m in (3, 6, 9)]
    assert np.std(early - 20) < 0.5 * np.std(late)


# ---------------------------------------------------------------- one answer for a window


@pytest.fixture(scope="module")
def index(pair, tmp_path_factory) -> Run:
    config = small_config(
        data=data(more("ssh")),
        target={"mean_over": BOX},
        train={"epochs": 1},
        output={"directory": str(tmp_path_factory.mktemp("index"))},
    )
    return gridcast.train(config, pair)


def mean_of_box(pair: xr.Dataset) -> np.ndarray:
    part = pair["sst"].sel(lat=slice(*BOX["lat"]), lon=slice(*BOX["lon"])).values
    lat = pair["lat"].sel(lat=slice(*BOX["lat"])).values
    area = np.sin(np.deg2rad(lat + 10)) - np.sin(np.deg2rad(lat - 10))
    weight = np.repeat(area[:, None], part.shape[2], axis=1) * np.isfinite(part[0])
    return np.nansum(part * weight, axis=(1, 2)) / weight.sum()


@pytest.mark.family
def test_the_mean_over_a_box_is_forecast_from_fields_and_judged_by_itself(index, pair):
    series = mean_of_box(pair)
    transform = index.transform
    assert transform.grid.shape == (1, 1)
    assert [t.grid.shape for t in index.fields.inputs] == [(9, 18), (9, 18)]
    np.testing.assert_allclose(index.observed(pair).values[:, 0, 0], series, rtol=1e-5)
    normal = transform.climatology.at(pair["time"].values)[:, 0, 0]
    anomaly = series - normal
    deviation = np.sqrt(np.mean(anomaly[:TRAINING] ** 2))
    assert transform.scaler.deviation.item() == pytest.approx(deviation, rel=1e-4)

    hindcast = xr.load_dataset(index.directory / "hindcast.nc")
    assert hindcast["sst"].shape[1:] == (LEADS, 1, 1)
    scores = xr.load_dataset(index.directory / "scores.nc")
    dates = np.arange(132, 168)
    for lead in (1, 2):
        made = hindcast["sst"].values[:, lead - 1, 0, 0]
        valid = hindcast["time"].values[:, lead - 1].astype("datetime64[M]").astype(int) + 240
        model = made[np.isin(valid, dates)] - series[dates]
        persistence = anomaly[dates - lead] - anomaly[dates]
        for name, error in (("model", model), ("persistence", persistence)):
            found = scores["rmse"].sel(forecast=name, lead=lead).item()
            assert found == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-3), name


@pytest.mark.family
def test_both_inputs_change_the_answer_for_a_window(index, pair):
    before = index.forecast(pair)["sst"]
    for name, size in (("sst", 1.0), ("ssh", 0.2)):
        moved = pair.copy(deep=True)
        # Outside of the box: its mean stays, the field does not.
        moved[name][-1, :, :2] += size
        changed = index.forecast(moved)["sst"]
        assert np.abs(changed.values - before.values).max() > 1e-5, name
    with pytest.raises(DataError, match="it forecasts one number for a window, not a frame"):
        index.forecast(pair, leads=3)


def test_a_class_of_the_mean_over_a_box_is_that_of_its_anomaly(pair):
    classes = {"kind": "thresholds", "thresholds": [-0.2, 0.2], "names": ["cold", "mild", "warm"]}
    setup = prepared(pair, data=data(more("ssh")), target={"mean_over": BOX, "classes": classes})
    series, times = mean_of_box(pair), pair["time"].values
    anomaly = series - setup.fields.targets[0].climatology.at(times)[:, 0, 0]
    number = np.digitize(anomaly, [-0.2, 0.2])
    clear = np.abs(np.abs(anomaly) - 0.2) > 1e-4
    assert setup.arrays.targets is not None
    np.testing.assert_array_equal(setup.arrays.targets[clear, 0, 0, 0], number[clear])
    assert min(np.bincount(number[:TRAINING])) > 10
    # What the reference takes is the mean's own anomaly; untrained, the model gives its odds.
    deviation = np.sqrt(np.mean(anomaly[:TRAINING] ** 2))
    arrays = setup.arrays
    assert arrays.last is not None
    np.testing.assert_allclose(arrays.last[:, 0, 0, 0], anomaly / deviation, atol=1e-4)
    model = setup.model()
    graph, state = nnx.split(model)
    initial = np.array([50, 77])
    past = initial[:, None] + np.arange(1 - INPUTS, 1)
    ahead = initial[:, None] + np.arange(1, LEADS + 1)
    parts = Inputs(
        jnp.asarray(arrays.values[past]),
        jnp.asarray(arrays.known[np.concatenate([past, ahead], axis=1)]),
        jnp.asarray(arrays.month[ahead]),
        jnp.asarray(arrays.last[initial]),
        past=jnp.asarray(arrays.last[past]),
    )

    @jax.jit
    def odds(state: Any, inputs: Any) -> jax.Array:
        model = nnx.merge(graph, state)
        return model.head.forecast(model(inputs))

    found = np.asarray(odds(state, parts))
    assert found.shape == (2, LEADS, 1, 1, 3)
    damping, error = setup.head["damping"][0, :, 0, 0, 0], setup.head["deviation"][:, 0, 0, 0]
    below = [
        stats.norm.cdf(edge / deviation, anomaly[initial][:, None] / deviation * damping, error)
        for edge in (-0.2, 0.2)
    ]
    expected = np.stack([below[0], below[1] - below[0], 1 - below[1]], axis=-1)
    np.testing.assert_allclose(found[:, :, 0, 0], expected, atol=3e-3)  # none is below 0.001
