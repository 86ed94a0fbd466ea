"""`data.gridcast`: anomalies of named dates, pictures and HTML, whatever xarray users hold."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import gridcast
import gridcast.accessor
from gridcast.errors import ConfigError, DataError
from gridcast.run import Run

PERIOD = (1950, 1958)
EVIL = "<script>alert(1)</script>"


def turned(series: xr.DataArray) -> xr.DataArray:
    """The same series as another producer writes it: names, order and longitudes differ."""
    west = series.assign_coords(lon=(series["lon"] + 180.0) % 360.0 - 180.0).sortby("lon")
    west = west.isel(lat=slice(None, None, -1))
    return west.rename(lat="latitude", lon="longitude", time="t").transpose(
        "longitude", "latitude", "t"
    )


def as_cftime(series: xr.DataArray) -> xr.DataArray:
    times = xr.date_range(
        "1950-01-01", periods=series.sizes["time"], freq="MS", calendar="standard", use_cftime=True
    )
    return series.assign_coords(time=times)


def chunked(series: xr.DataArray) -> xr.DataArray:
    pytest.importorskip("dask")
    return series.chunk(time=50, lat=5)


HELD: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
    "float64": lambda series: series.astype(float),
    "dask": chunked,
    "cftime": as_cftime,
    "turned": turned,
    "turned, on dask": lambda series: chunked(series).pipe(turned),
}


@pytest.fixture(scope="module")
def run(trained) -> Run:
    return gridcast.load_run(trained.directory)


@pytest.fixture(scope="module")
def sea(trained) -> xr.DataArray:
    """What the run was trained on, in memory."""
    return gridcast.open(str(trained.data))


@pytest.fixture(scope="module")
def forecast(run, sea) -> xr.Dataset:
    return run.forecast(sea)


@pytest.mark.parametrize("kind", HELD)
def test_all_that_users_hold_gives_the_same_numbers_and_stays_as_it_was(kind, run, sea, forecast):
    held = HELD[kind](sea)
    before, graph = held.copy(deep=True), getattr(held.data, "name", None)
    xr.testing.assert_identical(gridcast.open(held), sea)
    ours = held.gridcast.anomaly(PERIOD)
    np.testing.assert_array_equal(ours.values, sea.gridcast.anomaly(PERIOD).values)
    xr.testing.assert_identical(run.forecast(held)["sst"], forecast["sst"])
    held.gridcast.plot()
    assert repr(held.gridcast) == repr(sea.gridcast)
    xr.testing.assert_identical(held, before)
    assert getattr(held.data, "name", None) == graph, "what was lazy is lazy still"
    assert held.attrs == before.attrs
    assert held.encoding == before.encoding


@pytest.mark.family
@pytest.mark.usefixtures("no_pictures")
def test_training_on_any_of_them_gives_the_same_weights(sea):
    def fitted(held: xr.DataArray) -> xr.Dataset:
        model = {"name": "conv_lstm", "hidden": [2]}
        forecaster = gridcast.Forecaster(model, inputs=3, leads=2, epochs=1)
        before = held.copy(deep=True)
        forecast = forecaster.fit(held).predict()
        xr.testing.assert_identical(held, before)
        return forecast

    expected = fitted(sea)
    for kind in ("cftime", "turned, on dask"):
        xr.testing.assert_identical(fitted(HELD[kind](sea))["sst"], expected["sst"])
    with pytest.raises(AssertionError):  # the control: other values, other weights
        xr.testing.assert_identical(fitted(sea + 0.1 * sea**2)["sst"], expected["sst"])


def test_a_file_that_is_open_stays_unread_and_a_zarr_store_is_as_good(trained, sea, tmp_path):
    with xr.open_dataset(trained.data) as lazy:
        xr.testing.assert_equal(gridcast.open(lazy), sea)
        assert not lazy["sst"].variable._in_memory  # the caller's own is not filled behind its back
    pytest.importorskip("zarr")
    store = tmp_path / "sea.zarr"
    sea.to_dataset().to_zarr(store, zarr_format=2)
    with xr.open_zarr(store) as stored:
        xr.testing.assert_equal(gridcast.open(stored), sea)
        assert stored["sst"].chunks is not None
    xr.testing.assert_equal(gridcast.open(store), sea)


def test_an_anomaly_is_the_departure_from_the_means_of_the_period(sea):
    ours = sea.gridcast.anomaly(PERIOD, kind="monthly")
    base = sea.sel(time=slice("1950", "1958")).astype(float).groupby("time.month").mean()
    expected = sea.astype(float).groupby("time.month") - base
    np.testing.assert_allclose(ours, expected, atol=2e-6)
    assert ours.name == "sst_anomaly"
    assert ours.attrs["units_metadata"] == "temperature: difference"
    assert ours.attrs["climatology_period"] == "1950 to 1958"


def test_values_after_the_period_cannot_change_an_anomaly_within_it(sea):
    spoilt = sea.copy(deep=True)
    spoilt.loc[{"time": slice("1959", None)}] += 7.0
    early = {"time": slice("1950", "1958")}
    ours, theirs = (one.gridcast.anomaly(PERIOD).sel(early) for one in (sea, spoilt))
    np.testing.assert_array_equal(ours, theirs)
    every = (1950, 1964)  # the control: a climatology of all dates knows them
    ours, theirs = (one.gridcast.anomaly(every).sel(early) for one in (sea, spoilt))
    assert float(abs(ours - theirs).max()) > 1.0


@pytest.mark.parametrize(
    ("period", "kind", "said"),
    [
        ((1958, 1950), ConfigError, "first and last date"),
        ("1950", ConfigError, "first and last date"),
        ((1850, 1900), DataError, "no date from 1850 to 1900"),
    ],
)
def test_a_period_that_cannot_be_meant_is_an_error_with_a_fix(period, kind, said, sea):
    with pytest.raises(kind, match=said):
        sea.gridcast.anomaly(period)


def test_there_is_no_anomaly_without_dates(sea):
    with pytest.raises(TypeError, match="period"):
        sea.gridcast.anomaly()


def test_an_anomaly_is_drawn_around_zero_on_an_uncut_ocean(sea):
    ours = sea.gridcast.anomaly(PERIOD)
    panel = ours.gridcast.plot(date="1960-05").axes[0]
    cells, coast = panel.collections
    low, high = cells.get_clim()
    assert low == -high < 0
    assert cells.get_cmap()(0.5)[:3] == pytest.approx((0.97, 0.97, 0.97), abs=0.01)
    # Each column shows what lies at its longitude, wherever the map begins.
    corners = cells.get_coordinates()[0, :, 0]
    centres = 0.5 * (corners[1:] + corners[:-1])
    field = ours.sel(time="1960-05-01", lon=centres % 360.0).values
    np.testing.assert_array_equal(cells.get_array().filled(np.nan), field)
    # It begins where there is no more sea than at any other meridian.
    wet = np.isfinite(field).sum(axis=0)
    area = np.cos(np.deg2rad(ours["lat"].values)) @ np.isfinite(field)
    assert area[0] == pytest.approx(area.min())
    assert wet[0] < wet.max()
    # The coast runs along each side that one cell with data has with one without.
    mask = np.isfinite(field)
    sides = (mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()
    assert len(coast.get_segments()) == sides > 0


def test_pictures_of_a_cell_a_forecast_and_scores(run, sea, forecast, trained):
    one = sea.isel(lat=[4], lon=[int(np.isfinite(sea.values[0, 4]).argmax())])
    (line,) = one.gridcast.plot().axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), one.values.ravel())
    alone = forecast.gridcast.plot()
    beside = forecast.gridcast.plot(observed=turned(sea))
    titles = [[panel.get_title() for panel in figure.axes] for figure in (alone, beside)]
    assert "forecast for 1965-01 (lead 1)" in titles[0]
    assert "observed 1964-12" in titles[1]
    assert "observed 1964-12" not in titles[0]
    with xr.open_dataset(trained.directory / "scores.nc") as scores:
        assert len(scores.gridcast.plot().axes) == 2


def test_what_a_picture_would_ignore_or_cannot_use_is_an_error(sea, forecast):
    with pytest.raises(DataError, match="date means nothing to a forecast"):
        forecast.gridcast.plot(date="1960")
    with pytest.raises(DataError, match="observed means nothing to a series"):
        sea.gridcast.plot(observed=sea)
    with pytest.raises(DataError, match="no series that the forecast from 1964-12"):
        forecast.gridcast.plot(observed=sea.isel(time=slice(0, 24)))
    with pytest.raises(DataError, match="no series but forecast"):
        forecast.gridcast.anomaly(PERIOD)


def shown(run: Run, sea: xr.DataArray, forecast: xr.Dataset, text: str) -> list[str]:
    """HTML of all kinds with a text from a file in every place that holds one."""
    named = sea.rename(text).assign_attrs(units=text, source=f"simulated {text}", long_name=text)
    made = forecast.rename(sst=text).assign_attrs(source=text)
    made[text].attrs = {"units": text, "long_name": text}
    with xr.open_dataset(run.directory / "scores.nc") as scores:
        names = [text, *scores["forecast"].values[1:]]
        judged = scores.load().assign_coords(forecast=names).assign_attrs(source=text)
    judged["lead"].attrs["long_name"] = text
    judged = judged.assign_coords(reference=[text, *judged["reference"].values[1:]])
    one = replace(run, origin=text, directory=Path(text))
    unfitted = gridcast.Forecaster(train={"start_from": text})
    objects = named.gridcast, made.gridcast, judged.gridcast, one, unfitted
    return [each._repr_html_() for each in objects]


def test_html_escapes_every_text_of_a_file(run, sea, forecast, monkeypatch):
    monkeypatch.setattr("gridcast.verification.tables.MODEL", EVIL)  # the verdict looks it up
    monkeypatch.setattr("gridcast.accessor.Accessor.plot", lambda _: blank())
    for html in shown(run, sea, forecast, EVIL):
        assert "<script" not in html
        assert "&lt;script&gt;" in html
    monkeypatch.setattr("gridcast.html.escape", str)
    for html in shown(run, sea, forecast, EVIL):
        assert "<script" in html


def blank() -> gridcast.plots.Picture:
    from gridcast.plots import Picture

    return Picture(figsize=(1, 1))


def test_a_forecast_is_shown_with_its_picture(forecast):
    html = forecast.gridcast._repr_html_()
    png = re.search(r'src="data:image/png;base64,([^"]+)"', html)
    assert png is not None
    assert Image.open(io.BytesIO(base64.b64decode(png[1]))).width > 400
    assert "SIMULATED DATA" in html


def test_a_run_is_shown_with_its_scores(run, trained):
    html = run._repr_html_()
    with xr.open_dataset(trained.directory / "scores.nc") as scores:
        for value in scores["rmse"].sel(forecast="model").values:
            assert f"<td>{value:.3f}</td>" in html
    assert "damped persistence" in html
    assert "SIMULATED DATA" in html
    assert "trained on: 1950 to 1958" in repr(run)


@pytest.mark.parametrize("order", ["gridcast, xarray", "xarray, gridcast"])
def test_the_accessor_is_there_whichever_is_imported_first(order):
    code = (
        f"import sys, {order}\n"
        "assert hasattr(xarray.DataArray, 'gridcast') and hasattr(xarray.Dataset, 'gridcast')\n"
        "assert 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    light = "import sys, gridcast; assert 'xarray' not in sys.modules"
    subprocess.run([sys.executable, "-c", light], check=True)
