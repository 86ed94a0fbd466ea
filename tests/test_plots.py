"""Pictures hold the numbers they are made of, each kind of forecast in its own form."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import matplotlib.dates as mdates
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from gridcast.forecast_plots import plot_forecast
from gridcast.plots import plot_scores
from gridcast.run import Run

SIMULATED = "conv_lstm trained on simulated ocean: grid 9x18, 14 years, seed 3; not observed"
REAL = "conv_lstm trained on ERSSTv5"
MONTHS = xr.date_range("1950-01-01", periods=120, freq="MS")
NOW = 99  # the last initial date, 1958-04; the observations go on after it
GRID = (4, 6)
TERCILES = ["below", "near", "above"]


def series(
    shape: tuple[int, int] = GRID, times: xr.CFTimeIndex = MONTHS, name: str = "sst"
) -> xr.DataArray:
    """Random values; the first cell of a grid is land."""
    values = np.random.default_rng(0).normal(size=(times.size, *shape)).astype(np.float32)
    if shape != (1, 1):
        values[:, 0, 0] = np.nan
    coords = {
        "time": times,
        "lat": np.linspace(-15, 15, shape[0]) if shape[0] > 1 else [5.0],
        "lon": 10.0 * np.arange(shape[1]) + 20,
    }
    return xr.DataArray(values, coords, ("time", "lat", "lon"), name, {"units": "degC"})


def forecast(
    observed: xr.DataArray,
    *,
    leads: int = 5,
    now: int = NOW,
    categories: list[str] | None = None,
    units: str = "month",
    source: str = SIMULATED,
) -> xr.Dataset:
    """Random forecasts from the date before `now` and from `now`, labelled as a run does."""
    rng, shape = np.random.default_rng(1), (2, leads, *observed.shape[1:])
    dims = ("forecast_reference_time", "forecast_period", "lat", "lon")
    values, name, about = rng.normal(size=shape), str(observed.name), observed.attrs
    if categories is not None:
        values = np.moveaxis(rng.dirichlet(np.ones(len(categories)), size=shape), -1, 2)
        dims = (*dims[:2], "category", *dims[2:])
        name, about = f"{name}_probability", {"units": "1"}
    values = np.where(np.isnan(observed.values[now]), np.nan, values).astype(np.float32)
    valid = np.array([now - 1, now])[:, None] + np.arange(1, leads + 1)
    times = observed["time"].values
    coords = {
        dims[0]: times[[now - 1, now]],
        dims[1]: (dims[1], np.arange(1, leads + 1), {"units": units}),
        "time": (dims[:2], times[valid]),
        "lat": observed["lat"],
        "lon": observed["lon"],
    }
    if categories is not None:
        coords["category"] = categories
    return xr.Dataset({name: (dims, values, about)}, coords, {"source": source})


@pytest.fixture
def draw(monkeypatch, tmp_path) -> Callable[..., Figure]:
    """Draw and return the figure, with a file that is empty for the sake of time."""
    caught: list[Figure] = []

    def keep(figure: Figure, path: Path, **_: object) -> None:
        caught.append(figure)
        path.touch()

    monkeypatch.setattr(Figure, "savefig", keep)

    def call(plot: Callable[..., None], *given: object) -> Figure:
        plot(*given, tmp_path / "picture.png")
        return caught[-1]

    return call


def maps(figure: Figure) -> dict[str, np.ma.MaskedArray]:
    """What each map shows, by its place and title, the first row first."""
    return {
        f"{i}: {axes.get_title()}": axes.collections[0].get_array()
        for i, axes in enumerate(a for a in figure.axes if a.get_title())
    }


def assert_shows(shown: np.ma.MaskedArray, values: np.ndarray) -> None:
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), np.isnan(values))
    np.testing.assert_array_equal(shown.filled(np.nan), values)


def test_values_on_a_grid_are_maps_of_the_last_field_the_forecasts_and_the_changes(draw):
    observed = series()
    made = forecast(observed)
    drawn = maps(draw(plot_forecast, observed, made))
    last, ahead = observed.values[NOW], made["sst"].values[-1]
    expected = {
        "0: observed 1958-04": last,
        "1: forecast for 1958-05 (lead 1)": ahead[0],
        "2: forecast for 1958-09 (lead 5)": ahead[4],
        "3: forecast minus 1958-04": ahead[0] - last,
        "4: forecast minus 1958-04": ahead[4] - last,
    }
    assert list(drawn) == list(expected)
    for title, values in expected.items():
        assert_shows(drawn[title], values)


def test_maps_of_values_share_their_colours_and_changes_have_white_at_zero(draw):
    observed = series()
    figure = draw(plot_forecast, observed, forecast(observed))
    limits = [a.collections[0].get_clim() for a in figure.axes if a.get_title()]
    assert limits[0] == limits[1] == limits[2]
    assert limits[3] == limits[4]
    assert limits[3][0] == -limits[3][1] < 0


def test_cells_of_maps_lie_where_they_are(draw):
    observed = series()
    panel = draw(plot_forecast, observed, forecast(observed)).axes[0]
    mesh = panel.collections[0]
    assert isinstance(mesh, QuadMesh)
    corners = mesh.get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], [15, 25, 35, 45, 55, 65, 75])
    np.testing.assert_allclose(corners[:, 0, 1], [-20, -10, 0, 10, 20])


def test_a_single_lead_is_drawn_once(draw):
    observed = series()
    assert len(maps(draw(plot_forecast, observed, forecast(observed, leads=1)))) == 3
    odds = forecast(observed, leads=1, categories=TERCILES)
    assert len(maps(draw(plot_forecast, observed, odds))) == 2


def test_a_single_row_of_cells_is_not_drawn_as_a_hairline(draw):
    observed = series((1, 36))
    for panel in draw(plot_forecast, observed, forecast(observed)).axes[:3]:
        assert panel.get_box_aspect() == 0.25


def test_probabilities_on_a_grid_are_maps_of_the_highest_and_the_lowest_class(draw):
    observed = series()
    made = forecast(observed, categories=TERCILES)
    figure = draw(plot_forecast, observed, made)
    odds = made["sst_probability"].values[-1]
    expected = {
        "0: above, 1958-05 (lead 1)": odds[0, 2],
        "1: above, 1958-09 (lead 5)": odds[4, 2],
        "2: below, 1958-05 (lead 1)": odds[0, 0],
        "3: below, 1958-09 (lead 5)": odds[4, 0],
    }
    drawn = maps(figure)
    assert list(drawn) == list(expected)
    for title, values in expected.items():
        assert_shows(drawn[title], values)
    assert {a.collections[0].get_clim() for a in figure.axes if a.get_title()} == {(0.0, 1.0)}
    bars = [a.get_ylabel() for a in figure.axes if a.get_ylabel()]
    assert bars == ["probability of above", "probability of below"]


def test_of_two_classes_only_the_higher_is_drawn(draw):
    observed = series()
    made = forecast(observed, categories=["dry", "wet"])
    drawn = maps(draw(plot_forecast, observed, made))
    assert list(drawn) == ["0: wet, 1958-05 (lead 1)", "1: wet, 1958-09 (lead 5)"]
    assert_shows(drawn["1: wet, 1958-09 (lead 5)"], made["sst_probability"].values[-1, 4, 1])


def curves(panel: Axes) -> dict[str, np.ndarray]:
    """Dates and values of the lines by what the legend calls them."""
    legend = panel.get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    lines = [line for line in panel.get_lines() if len(line.get_xdata()) > 2]
    return {n: np.array(x.get_data(), object) for n, x in zip(names, lines, strict=True)}


@pytest.mark.parametrize(("leads", "history"), [(5, 36), (20, 60)])
def test_values_of_a_series_go_on_from_the_observed_curve(draw, leads, history):
    observed = series((1, 1))
    made = forecast(observed, leads=leads)
    panel = draw(plot_forecast, observed, made).axes[0]
    past, ahead = curves(panel).values()
    values, times = observed.values[:, 0, 0], observed["time"].values
    np.testing.assert_array_equal(past[0].astype(times.dtype), times[NOW + 1 - history : NOW + 1])
    np.testing.assert_array_equal(past[1].astype(float), values[NOW + 1 - history : NOW + 1])
    np.testing.assert_array_equal(ahead[0].astype(times.dtype), times[NOW : NOW + leads + 1])
    expected = [values[NOW], *made["sst"].values[-1, :, 0, 0]]
    np.testing.assert_array_equal(ahead[1].astype(float), expected)
    assert list(curves(panel)) == ["observed", "forecast"]
    assert panel.get_ylabel() == "sst [degC]"


def test_a_date_without_observation_is_a_gap_in_the_curve(draw):
    observed = series((1, 1))
    observed[NOW - 3] = np.nan
    past = curves(draw(plot_forecast, observed, forecast(observed)).axes[0])["observed"]
    assert np.flatnonzero(np.isnan(past[1].astype(float))).tolist() == [36 - 1 - 3]


def test_dates_of_another_calendar_lie_at_the_same_share_of_their_year(draw):
    times = xr.date_range("2000-01-01", periods=40, freq="MS", calendar="360_day", use_cftime=True)
    observed = series((1, 1), times)
    figure = draw(plot_forecast, observed, forecast(observed, now=29))
    past, ahead = curves(figure.axes[0]).values()
    days = mdates.date2num(np.concatenate([past[0], ahead[0][1:]]).astype("datetime64[s]"))
    # The seventh month begins after 180 of 360 days: in the middle of 2001's 365 days.
    assert days[18] == pytest.approx(mdates.date2num(dt.datetime(2001, 7, 2, 12)))
    assert days[12] == mdates.date2num(dt.datetime(2001, 1, 1))
    assert days[24] == mdates.date2num(dt.datetime(2002, 1, 1))
    assert (np.diff(days) > 0).all()
    assert figure.get_suptitle().startswith("forecast of sst from 2002-06\n")


def test_probabilities_of_a_series_are_bars_that_add_up_from_the_lowest_class(draw):
    observed = series((1, 1))
    made = forecast(observed, categories=TERCILES)
    figure = draw(plot_forecast, observed, made)
    panel = figure.axes[0]
    odds = made["sst_probability"].values[-1, :, :, 0, 0]
    for k, bars in enumerate(panel.containers):
        assert bars.get_label() == TERCILES[k]
        for lead, bar in enumerate(bars.patches):
            assert bar.get_height() == pytest.approx(odds[lead, k])
            assert bar.get_y() == pytest.approx(odds[lead, :k].sum(), abs=1e-6)
            assert bar.get_x() + bar.get_width() / 2 == pytest.approx(lead + 1)
    assert len(panel.containers) == 3
    ticks = [text.get_text() for text in panel.get_xticklabels()]
    assert ticks == ["1958-05", "1958-06", "1958-07", "1958-08", "1958-09"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == TERCILES[::-1]
    numbers = [text.get_text() for text in panel.texts]
    assert numbers == [f"{100 * p:.0f}" if p > 0.05 else "" for p in odds.T.ravel()]


def test_many_bars_have_a_date_below_the_bars_it_belongs_to(draw):
    observed = series((1, 1))
    made = forecast(observed, leads=20, categories=TERCILES)
    panel = draw(plot_forecast, observed, made).axes[0]
    assert panel.get_xticks().tolist() == list(range(1, 21, 2))
    assert [t.get_text() for t in panel.get_xticklabels()][:2] == ["1958-05", "1958-07"]


def test_short_steps_are_dated_to_the_hour(draw):
    times = xr.date_range("2001-01-01", periods=60, freq="6h")
    observed = series((1, 1), times)
    made = forecast(observed, now=41, leads=2, categories=TERCILES, units="hours")
    figure = draw(plot_forecast, observed, made)
    assert figure.get_suptitle().startswith("forecast of probabilities of sst from 2001-01-11T06")
    ticks = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert ticks == ["2001-01-11T12:00", "2001-01-11T18:00"]


def test_of_several_variables_the_first_is_drawn(draw):
    observed = series((1, 1), name="wind")
    first, second = forecast(observed), forecast(series((1, 1), name="air"))
    both = first.assign(air=second["air"] + 100)
    figure = draw(plot_forecast, observed, both)
    assert figure.get_suptitle().startswith("forecast of wind from 1958-04\n")
    assert curves(figure.axes[0])["forecast"][1][-1] == first["wind"].values[-1, -1, 0, 0]


KINDS = {
    "maps of values": (GRID, None),
    "curve": ((1, 1), None),
    "maps of probabilities": (GRID, TERCILES),
    "one row of maps": (GRID, ["dry", "wet"]),
    "tall maps": ((12, 2), ["dry", "wet"]),
    "bars": ((1, 1), TERCILES),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_whether_it_is_simulated_and_nothing_sticks_out_or_overlaps(draw, kind):
    shape, categories = KINDS[kind]
    observed = series(shape)
    for source, says in ((REAL, False), (SIMULATED, True)):  # the longer one last
        made = forecast(observed, leads=2, categories=categories, source=source)
        figure = draw(plot_forecast, observed, made)
        title = figure.get_suptitle().replace("\n", " ")
        assert title.endswith(f"{'SIMULATED DATA: ' if says else ''}{source}")
        assert ("SIMULATED" in title) is says
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.get_tightbbox(canvas.get_renderer())
    assert min(box.x0, box.y0) >= -0.01
    assert box.x1 <= figure.get_figwidth() + 0.01
    assert box.y1 <= figure.get_figheight() + 0.01
    titles = [a.title.get_window_extent() for a in figure.axes if a.get_title()]
    assert not any(a.overlaps(b) for a, b in combinations(titles, 2))


def test_the_picture_of_a_run_is_drawn_from_its_own_observations(draw, trained):
    run = Run.load(trained.directory)
    observed = run.observed()
    with xr.open_dataset(trained.data) as data:
        np.testing.assert_array_equal(observed.values, data["sst"].values)
    shown = maps(draw(plot_forecast, observed, run.forecast(start="1960-03")))
    assert_shows(shown["0: observed 1960-03"], observed.sel(time="1960-03-01").values)


def test_a_picture_is_a_whole_file(tmp_path):
    observed = series((1, 1))
    path = tmp_path / "forecast.png"
    path.write_text("old")
    plot_forecast(observed, forecast(observed), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]


def test_scores_of_classes_are_drawn_as_curves(draw):
    names = ["model", "climatology", "persistence", "damped_persistence", "lim"]
    values = np.random.default_rng(2).uniform(size=(2, 5, 4))
    over = ("forecast", "lead")
    scores = xr.Dataset(
        {
            "rps": (over, values[0], {"units": "1"}),
            "hit_rate": (over, values[1], {"units": "1"}),
            "brier": ((*over, "category"), np.zeros((5, 4, 3))),
            "dates": ("lead", [48, 48, 48, 48]),
        },
        {"forecast": names, "lead": ("lead", [1, 2, 3, 4], {"long_name": "lead in steps of: day"})},
        {"headline": "rps hit_rate", "source": SIMULATED},
    )
    figure = draw(plot_scores, scores)
    titles = ["ranked probability score, lower is better", "hit rate, higher is better"]
    assert [panel.get_title() for panel in figure.axes] == titles
    for panel, expected in zip(figure.axes, values, strict=True):
        drawn = {line.get_label(): line.get_ydata() for line in panel.get_lines()}
        np.testing.assert_array_equal(drawn["model"], expected[0])
        np.testing.assert_array_equal(drawn["persistence of class"], expected[2])
        np.testing.assert_array_equal(drawn["linear inverse model"], expected[4])
        assert panel.get_xlabel() == "lead in steps of: day"
        model = next(line for line in panel.get_lines() if line.get_label() == "model")
        for line in panel.get_lines():  # the wide line may not hide those it coincides with
            assert line is model or line.get_zorder() > model.get_zorder()
    assert figure.get_suptitle().startswith("48 verification dates\nSIMULATED DATA: ")
