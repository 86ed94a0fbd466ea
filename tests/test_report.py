"""The report holds the numbers of the run's files, fetches nothing and escapes what it is told."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import re
import shutil
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from conftest import Trained, small_config
from PIL import Image

from gridcast.cli import main
from gridcast.errors import DataError
from gridcast.grid import Grid
from gridcast.report import page, words
from gridcast.report.cases import _WITHIN, Index, cases
from gridcast.report.class_cases import class_cases
from gridcast.report.contents import Contents, Subject, contents
from gridcast.report.maps import Colours, Frame
from gridcast.report.page import LARGEST, report_run, write_report
from gridcast.report.series import plume_chart
from gridcast.verification.hindcast import MODEL

VOID = {"meta", "input", "br"}
EVIL = 'x<script>alert(1)<script> "onload=alert(1) <img src=x onerror=alert(1)> $\\frac{ &amp;'


@dataclass
class Parsed(HTMLParser):
    """The elements of a page, and whatever is wrong with their nesting."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data

    def attribute(self, name: str) -> list[str]:
        return [str(found[name]) for _, found in self.elements if name in found]

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def parsed(path: Path) -> Parsed:
    reader = Parsed()
    reader.feed(path.read_text())
    reader.close()
    return reader


def assert_stands_alone(path: Path) -> Parsed:
    """Whole, well formed, small, nothing from elsewhere, one script, which the policy names."""
    text, found = path.read_text(), parsed(path)
    assert (found.wrong, found.open) == ([], [])
    assert path.stat().st_size < LARGEST
    names = found.attribute("id")
    assert len(names) == len(set(names))
    for link in found.attribute("href") + found.attribute("src"):
        assert link.startswith(("#", "data:image/png;base64,"))
        assert not link.startswith("#") or link[1:] in names
    assert {
        link for link in re.findall(r"url\(([^)]*)\)", text) if not link.startswith("#")
    } == set()
    assert not re.search(r"https?://|//\w+\.", re.sub(r"base64,[\w+/=]*", "", text))
    assert not [name for _, a in found.elements for name in a if name.startswith("on")]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert found.count("script") == len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in found.attribute("content")[0]
    return found


@pytest.fixture
def copy(trained: Trained, tmp_path: Path) -> Path:
    """A run that may be changed."""
    directory = tmp_path / "copy"
    shutil.copytree(trained.directory, directory)
    return directory


@pytest.fixture
def subject(trained: Trained):
    with contents(trained.directory) as run:
        yield run.subjects()[0]


def changed(path: Path, change) -> None:
    with xr.open_dataset(path, decode_timedelta=False) as dataset:
        new = change(dataset.load())
    new.to_netcdf(path)


def test_a_run_leaves_a_report_that_stands_alone(trained):
    found = assert_stands_alone(trained.directory / "report.html")
    assert "SIMULATED DATA" in found.text
    for name in ("1950 to 1958", "1961 to 1964, 48 dates", "linear inverse model", "nino34"):
        assert name in found.text
    assert (trained.directory / "report.html").stat().st_size < 200_000


def test_a_report_names_no_place_on_the_machine(trained, copy):
    text = (trained.directory / "report.html").read_text()
    text = re.sub(r"base64,[\w+/=]*", "", text)
    assert str(trained.data.parent) not in text
    assert trained.data.name in text  # the file itself is named, in the settings
    changed(copy / "scores.nc", lambda d: d.assign_attrs(source="a on /home/me/secret/sst.nc"))
    with contents(copy) as run:
        assert run.source == "a on sst.nc"
        assert run.public("mm/day, degC/s, a/b/c, /x/y/z.nc; see /x/y/") == (
            "mm/day, degC/s, a/b/c, z.nc; see "
        )


def test_reports_are_the_same_each_time(trained, copy):
    write_report([trained.directory], copy / "again.html")
    assert (copy / "again.html").read_bytes() == (trained.directory / "report.html").read_bytes()


def hostile(directory: Path) -> Path:
    """A run whose every name is an attack."""

    def rename(dataset: xr.Dataset) -> xr.Dataset:
        names = {"sst": EVIL, "sst_climatology": f"{EVIL}_climatology"}
        dataset = dataset.rename({k: v for k, v in names.items() if k in dataset})
        for variable in dataset.data_vars.values():
            variable.attrs["units"] = EVIL
        if "forecast" in dataset.dims:
            dataset["forecast"] = [
                n.replace("persistence", EVIL) for n in dataset["forecast"].values
            ]
            dataset["reference"] = dataset["forecast"].values[1:]
            dataset["lead"].attrs["long_name"] += EVIL
        title = f"scores of forecasts of {EVIL}"
        return dataset.assign_attrs(source=f"simulated {EVIL}", title=title)

    for name in ("scores", "hindcast", "forecast", "observations"):
        changed(directory / f"{name}.nc", rename)
    return directory.rename(directory.with_name("<img src=x onerror=x>"))


def test_what_a_file_says_is_text_and_nothing_else(copy, tmp_path, monkeypatch):
    run = hostile(copy)
    write_report([run, run], tmp_path / "two.html")
    found = assert_stands_alone(tmp_path / "two.html")
    assert EVIL in found.text
    assert "Side by side" in found.text
    # The control: without escaping the same names are found out.
    monkeypatch.setattr("gridcast.html.escape", str)
    write_report([run], tmp_path / "open.html")
    with pytest.raises(AssertionError):
        assert_stands_alone(tmp_path / "open.html")


def test_observations_and_hindcast_give_the_scores_again(subject):
    run, name = subject.run, subject.variable
    came, normal = (run.observations[n].load() for n in (name, f"{name}_climatology"))
    for lead in range(3):
        forecast = run.hindcast[name].isel(forecast_period=lead)
        times = forecast["time"].values
        known = np.isin(times, came["time"].values[came["time"].dt.year.values >= 1961])
        observed = came.sel(time=times[known]).values
        for who, made in (
            (MODEL, forecast.values[known]),
            ("climatology", normal.sel(time=times[known]).values),
        ):
            error = made - observed
            error = error[~np.isnan(error).all(axis=(1, 2))]
            mean = np.nansum((error**2).mean(axis=0) * subject.grid.weight)
            assert error.shape[0] == 48
            expected = float(subject.scores["rmse"].sel(forecast=who)[lead])
            np.testing.assert_allclose(np.sqrt(mean), expected, rtol=1e-5)


def test_cases_hold_the_errors_of_each_forecast_inside_the_test_years(subject):
    found = cases(subject)
    assert found is not None
    run, grid = subject.run, subject.grid
    # 48 test months; of the forecasts that start in December 1960 and later the last ends in 1964.
    assert found.initial.size == 46
    assert found.initial[0] == np.datetime64("1960-12-01")
    one = run.hindcast["sst"].sel(forecast_reference_time=found.initial[7])
    came = run.observations.sel(time=one["time"].values)
    weight = np.cos(np.deg2rad(grid.lat))[:, None] * grid.mask
    square = np.nansum((one.values - came["sst"].values) ** 2 * weight, axis=(1, 2)) / weight.sum()
    np.testing.assert_allclose(found.rmse[7], np.sqrt(square.mean()), rtol=1e-5)
    none = (came["sst"] - came["sst_climatology"]).values
    square = np.nansum(none**2 * weight, axis=(1, 2)) / weight.sum()
    np.testing.assert_allclose(found.normal[7], np.sqrt(square.mean()), rtol=1e-5)
    worst, best = found.extremes(3)
    assert worst[0] == found.rmse.argmax()
    assert best[0] == (found.normal**2 - found.rmse**2).argmax()
    for chosen in (worst, best):
        assert min(abs(a - b) for a in chosen for b in chosen if a != b) >= 3
    index = found.indices[0]
    assert index.name == "nino34"
    lat, lon = np.meshgrid(grid.lat, grid.lon, indexing="ij")
    box = (abs(lat) <= 5) & (lon >= 190) & (lon <= 240)
    expected = (one - came["sst_climatology"].values).values[:, box]
    expected = (expected * weight[box]).sum(axis=1) / weight[box].sum()
    np.testing.assert_allclose(index.forecast[7], expected, rtol=1e-4, atol=1e-6)


def classes_of(directory: Path) -> None:
    """Make it a run of three classes, of odds and classes drawn at random."""
    random = np.random.default_rng(0)

    def odds(shape: tuple[int, ...]) -> np.ndarray:
        return np.moveaxis(random.dirichlet(np.ones(3), shape), -1, -3)

    def of_hindcast(dataset: xr.Dataset) -> xr.Dataset:
        made = xr.DataArray(odds(dataset["sst"].shape), dims=(*dataset["sst"].dims[:2], *CLASSES))
        made = made.where(xr.DataArray(np.isfinite(dataset["sst"].values[0, 0]), dims=CLASSES[1:]))
        found = dataset.drop_vars("sst").assign(sst_probability=made)
        return found.assign_coords(category=["dry", "middle", "wet"])

    def of_observations(dataset: xr.Dataset) -> xr.Dataset:
        sst = dataset["sst"]
        came = sst.copy(data=random.integers(0, 3, sst.shape).astype(np.float32))
        normal = xr.DataArray(odds(sst.shape), dims=("time", *CLASSES))
        mask = xr.DataArray(np.isfinite(sst.values).any(axis=0), dims=CLASSES[1:])
        return dataset.assign(
            sst_class=came.where(np.isfinite(sst)),
            sst_climatology_probability=normal.where(mask),
        )

    def of_scores(dataset: xr.Dataset) -> xr.Dataset:
        kept = {"rmse": "rps", "acc": "hit_rate", "rmse_map": "rps_map"}
        found = dataset[[*kept, "skill", "skill_map", "dates"]].rename(kept)
        return found.assign_attrs(headline="rps hit_rate")

    changed(directory / "hindcast.nc", of_hindcast)
    changed(directory / "observations.nc", of_observations)
    changed(directory / "scores.nc", of_scores)


CLASSES = ("category", "lat", "lon")


def test_cases_of_classes_are_those_of_the_ranked_probability_score(copy):
    classes_of(copy)
    with contents(copy) as run:
        subject = run.subjects()[0]
        found = class_cases(subject)
        assert found is not None
        assert found.initial.size == 46
        assert cases(subject) is None
        mask, hindcast = subject.grid.mask, run.hindcast
        one = hindcast["sst_probability"].sel(forecast_reference_time=found.initial[7])
        came = run.observations.sel(time=one["time"].values)
        area = np.diff(np.sin(np.deg2rad(np.linspace(-90, 90, 10))))[:, None] * mask
        for odds, score in (
            (one.values, found.rps),
            (came["sst_climatology_probability"].values, found.normal),
        ):
            total = 0.0
            for lead, row, column in np.argwhere(np.broadcast_to(mask, (3, *mask.shape))):
                low, middle, _ = odds[lead, :, row, column].tolist()
                number = int(came["sst_class"].values[lead, row, column])
                square = (low - (number <= 0)) ** 2 + (low + middle - (number <= 1)) ** 2
                total += square * area[row, column]
            assert score[7] == pytest.approx(total / (3 * area.sum()), rel=1e-5)
        worst, best = found.extremes(3)
        assert (worst[0], best[0]) == (found.rps.argmax(), (found.normal - found.rps).argmax())
        lacking = found.initial[20]
    write_report([copy], copy / "report.html")
    text = assert_stands_alone(copy / "report.html").text
    assert f"largest error{str(found.initial[worst[0]])[:7]}{found.rps[worst[0]]:.3f}" in text
    assert "probability of wet at lead 2; observed: 1 where it came" in text
    # One cell of one date that nobody saw: every case that needs it is left out.

    def forget(dataset: xr.Dataset) -> xr.Dataset:
        place = int(dataset.indexes["time"].get_indexer([lacking])[0]) + 1
        row, column = np.argwhere(mask)[0]
        dataset["sst_class"][place, row, column] = np.nan
        return dataset

    changed(copy / "observations.nc", forget)
    with contents(copy) as run:
        again = class_cases(run.subjects()[0])
        assert again is not None
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(again.rps)), [18, 19, 20])


def members_of(directory: Path, shifts: list[float]) -> None:
    """indices.nc of members that lie so far from the forecast of the run."""
    with contents(directory) as run:
        found = cases(run.subjects()[0])
        assert found is not None
        assert run.hindcast is not None
        dims = ("index", "realization", "forecast_reference_time", "forecast_period")
        each = np.stack([found.indices[0].forecast + one for one in shifts])[None]
        coords = {"index": ["nino34"], "forecast_reference_time": found.initial}
        xr.DataArray(each, coords, dims, name="sst").to_netcdf(directory / "indices.nc")


@pytest.mark.parametrize(
    ("shifts", "low", "high", "told"),
    [
        ([0.5, -0.25, 0.0], -0.25, 0.5, "the range of 3 members"),
        (np.arange(11.0), 1.0, 9.0, "hold 80 % of 11 members"),
    ],
)
def test_plumes_have_the_bands_of_members_and_words_where_there_are_none(
    copy, shifts, low, high, told
):
    def index():
        with contents(copy) as run:
            found = cases(run.subjects()[0])
        assert found is not None
        return found.indices[0]

    without = index()
    assert without.band is None
    assert without.told == (
        "No bands: the model forecasts one value, without members or a distribution."
    )
    members_of(copy, list(shifts))
    found = index()
    assert told in found.told
    np.testing.assert_allclose(found.band[0], found.forecast + low, atol=1e-9)
    np.testing.assert_allclose(found.band[1], found.forecast + high, atol=1e-9)


def test_the_page_draws_bands_and_says_what_they_are_or_why_there_are_none(copy):
    def seen(text: str, told: str, bands: bool) -> None:
        assert told in text
        plume = text[text.index("nino34, anomaly") :]
        assert ("fill-opacity: 0.2" in plume[: plume.index("</figure>")]) == bands

    seen((copy / "report.html").read_text(), "No bands: the model forecasts one value", False)
    members_of(copy, [0.5, -0.25])
    write_report([copy], copy / "report.html")
    seen((copy / "report.html").read_text(), "Bands are the range of 2 members.", True)


def test_a_single_series_has_the_band_that_holds_four_fifths_of_a_normal_distribution():
    share = scipy.stats.norm.cdf(_WITHIN) - scipy.stats.norm.cdf(-_WITHIN)
    assert share == pytest.approx(0.8, abs=1e-4)


def test_of_many_short_forecasts_the_last_dates_are_shown():
    days = np.datetime64("2001-01-01") + np.arange(1000)
    index = Index("i", days, np.zeros(1000), np.ones((990, 3)), None, "")
    valid = days[:990, None] + np.arange(1, 4)
    drawn = plume_chart(index, days[:990], valid, "K", "k")
    assert "the last 120 test dates" in drawn
    assert "2001" not in re.sub("<[^>]*>", "", drawn)
    whole = Index("i", days[:100], np.zeros(100), np.ones((90, 3)), None, "")
    assert "the last" not in plume_chart(whole, days[:90], valid[:90], "K", "k")


def told(skill: dict[str, list[tuple[float, float]]], step: str = "month", **more) -> Subject:
    """Intervals of the skill against each reference, over as many leads as there are."""
    names = [*skill]
    interval = np.array([*skill.values()])
    leads = interval.shape[1]
    scores = xr.Dataset(
        {
            "skill_interval": (("reference", "lead", "bound"), interval),
            "skill_map": (
                ("reference", "lead", "lat", "lon"),
                np.where(np.arange(4) < 3, 0.1, -0.1) * np.ones((len(names), leads, 1, 4)),
            ),
            "rmse_map": (("forecast", "lead", "lat", "lon"), np.ones((1, leads, 1, 4))),
            "acc": (("forecast", "lead"), [np.linspace(0.9, 0.4, leads)]),
            **more,
        },
        {
            "reference": names,
            "forecast": [MODEL],
            "bound": ["low", "high"],
            "lead": ("lead", np.arange(1, leads + 1), {"long_name": f"lead in steps of: {step}"}),
            "lat": [0.0],
            "lon": [0.0, 1.0, 2.0, 3.0],
        },
        {"headline": "rmse acc", "title": "scores of forecasts of x"},
    )
    return Subject(Contents("run", small_config(), [scores], None, None, None, []), scores)


UP, DOWN, OPEN = (0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1)


def test_the_summary_says_what_the_intervals_say():
    subject = told({"climatology": [UP] * 3 + [OPEN], "lim": [UP, UP, OPEN, DOWN]})
    assert words.summary(subject) == [
        "The model is surely better than every reference at leads 1 to 2 months.",
        "It beats the linear inverse model at leads 1 to 2 months, in 75 % of the area; is worse "
        "at lead 4 months.",
        "It is no better than climatology after month 3.",
        "Its anomaly correlation is 0.90 at lead 1 and 0.40 at lead 4 months.",
    ]
    ratio = (("forecast", "lead"), [[0.5, 0.8]])
    subject = told({"climatology": [OPEN, OPEN]}, "6 hours", spread_error_ratio=ratio)
    assert words.summary(subject) == [
        "It is no better than climatology at any lead.",
        "Its anomaly correlation is 0.90 at lead 1 and 0.40 at lead 2 (steps of 6 hours).",
        "Its spread is 0.50 to 0.80 times its error: too sure of itself.",
    ]
    subject = told({"climatology": [UP, UP], "persistence": [UP, OPEN]})
    assert words.summary(subject)[1:3] == [
        "It beats anomaly persistence at lead 1 month, in 75 % of the area; no difference "
        "elsewhere.",
        "It is better than climatology at every lead.",
    ]


def test_where_nothing_is_beaten_the_summary_says_so_in_names_that_a_reader_knows():
    subject = told({"climatology": [OPEN] * 2, "base": [OPEN] * 2, "damped_trailing": [DOWN] * 2})
    subject.scores["acc"][:] = [[0.02, -0.004]]
    assert words.summary(subject) == [
        "At no lead is the model surely better than every reference.",
        "It does not beat the reference that its network corrects at any lead.",
        "It does not beat persistence damped to the trailing mean at any lead; is worse at every "
        "lead.",
        "It is no better than climatology at any lead.",
        "Its anomaly correlation is 0.02 at lead 1 and 0.00 at lead 2 months.",
    ]


def decoded(link: str) -> np.ndarray:
    picture = Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2])))
    return np.asarray(picture.convert("RGBA")).astype(int)


def test_colours_are_symmetric_around_zero_and_clear_where_nothing_is_known():
    field = np.array([[-2.0, 0.0, 2.0, np.nan], [-9.0, 9.0, 1.0, -1.0]])
    pixels = decoded(Colours("RdBu_r", -2.0, 2.0).png(field))
    assert pixels[0, 3, 3] == 0
    assert (pixels[..., 3] == 255).sum() == 7
    assert (pixels[0, 1, :3] > 240).all()  # zero is white
    blue, red = pixels[0, 0], pixels[0, 2]
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    assert (pixels[1, 0] == blue).all()
    assert (pixels[1, 1] == red).all()  # beyond the limits: the last colours
    around = Colours.around_zero([np.array([[-3.0, 1.0]])])
    assert around.low == -around.high


def test_maps_have_the_shape_of_the_ground_the_coast_of_the_mask_and_no_cut_ocean():
    lat, lon = np.arange(-58.0, 60.0, 4.0), np.arange(0.0, 360.0, 4.0)
    mask = np.ones((lat.size, lon.size), bool)
    mask[:, 4:8] = False  # land from 14 to 30 E, from the south to the north
    mask[10, 40] = False  # an island
    frame = Frame.of(Grid(lat, lon, mask), "a", 10**6)
    wide, high = frame.size
    np.testing.assert_allclose(wide / high, 360 / 120, rtol=1e-6)
    assert not frame.grid.mask[:, 0].any()  # the edge of the map lies on land
    assert (np.diff(frame.grid.lon) > 0).all()
    assert frame.grid.mask[:, 10:80].mean() > 0.99
    field = np.broadcast_to(lon, mask.shape)
    shown = frame.reduced(field)
    np.testing.assert_array_equal(shown[0] % 360, frame.grid.lon % 360)
    coast = re.search(r' d="([^"]*)"', frame.coast())
    assert coast is not None
    lines = re.findall(r"M(\d+) (\d+)([HV])(\d+)", coast[1])
    assert len(lines) == 4 + 1  # around the island, and where the land ends: its other end is cut
    assert sum(abs(int(e) - int(x if way == "H" else y)) for x, y, way, e in lines) == 4 + 30
    coarse = Frame.of(Grid(lat, lon, mask), "b", 300)
    assert coarse.grid.mask.size <= 300
    means = coarse.reduced(np.where(mask, 2.0, np.nan))
    np.testing.assert_allclose(means[coarse.grid.mask], 2.0)
    region = Frame.of(Grid(lat, lon[30:60], mask[:, 30:60]), "c", 10**6)
    assert region.turn == 0  # only the globe can be turned


SHAPES = [(124, 358), (60, 170), (30, 50), (8, 8), (100, 6), (2, 170), (1, 1)]


@pytest.mark.parametrize(("south_north", "west_east"), SHAPES)
def test_degrees_are_whole_in_the_picture_and_never_on_each_other(south_north, west_east):
    ends = ((-40.0, south_north), (100.0, west_east))
    lat, lon = (first + span * (np.arange(9) + 0.5) / 9 for first, span in ends)
    frame = Frame.of(Grid(lat, lon, np.ones((9, 9), bool)), "a", 10**6)
    text = frame.coast()
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">([^<]+)', text)
    view = frame.draw([np.zeros((9, 9))], Colours("RdBu", -1.0, 1.0), "t")
    wide, high = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', view)[0])
    below = sorted(float(x) for x, _, anchor, _ in found if anchor == "middle")
    beside = sorted(float(y) for _, y, anchor, _ in found if anchor == "end")
    assert below or beside
    assert all(7.5 <= float(y) <= high for _, y, _, _ in found)  # letters are 7.5 high
    assert all(16 <= x <= wide - 16 for x in below)  # and 120 degrees west takes 32
    assert np.diff(below).min(initial=99) > 34
    assert np.diff(beside).min(initial=99) > 10


def test_dots_lie_where_it_is_significant():
    lat, lon = np.arange(0.0, 4.0), np.arange(0.0, 8.0)
    frame = Frame.of(Grid(lat, lon, np.ones((4, 8), bool)), "a", 100)
    significant = np.zeros((4, 8), bool)
    significant[3, 1] = True  # the northernmost row
    drawn = frame.draw([np.zeros((4, 8))], Colours("RdBu", -1.0, 1.0), "t", significant)
    wide, high = frame.size
    expected = f"M{1.5 * wide / 8:.1f} {0.5 * high / 4:.1f}h.01"
    assert re.findall(r'class="dots"|d="(M[^"]*h.01)"', drawn)[0] == expected


def test_the_slider_has_a_picture_for_each_lead(trained):
    found = parsed(trained.directory / "report.html")
    labels = found.attribute("data-labels")[0].split("|")
    assert labels == [f"lead {k}: 1965-0{k}" for k in (1, 2, 3)]
    (slider,) = [a for tag, a in found.elements if tag == "input"]
    assert (slider["type"], slider["min"], slider["max"]) == ("range", "0", "2")
    text = (trained.directory / "report.html").read_text()
    film = text[text.index('class="film"') :]
    first = film[film.index("<svg") : film.index("</svg>")]
    pictures = re.findall(r'href="(data:[^"]*)"', first)
    assert len(pictures) == len(set(pictures)) == 3
    # The first map: forecast minus climatology, its northern row first.
    with contents(trained.directory) as run:
        assert run.forecast is not None
        assert run.observations is not None
        normal = run.observations["sst_climatology"].sel(time="1965-01-01").values
        anomaly = run.forecast["sst"].values[-1, 0] - normal
        grid = run.subjects()[0].grid
    shown = decoded(pictures[0])
    expected = Frame.of(grid, "a", 10**6).reduced(anomaly)[::-1]
    np.testing.assert_array_equal(shown[..., 3] == 0, np.isnan(expected))
    known = shown[..., 3] > 0
    strong = known & (np.abs(np.nan_to_num(expected)) > 0.3)
    redder = shown[..., 0] > shown[..., 2]
    np.testing.assert_array_equal(redder[strong], expected[strong] > 0)


def test_the_command_writes_one_run_into_it_and_several_where_one_is(
    trained, copy, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (copy / "report.html").unlink()
    assert main(["report", str(copy)]) == 0
    assert capsys.readouterr().out.strip() == str(copy / "report.html")
    monkeypatch.setattr(page, "page", lambda runs: " ".join(run.name for run in runs))
    assert main(["report", str(trained.directory), str(copy)]) == 0
    assert (tmp_path / "report.html").read_text() == "run copy"
    assert main(["report", str(copy), "--output", "other.html"]) == 0
    assert (tmp_path / "other.html").read_text() == "copy"
    for wrong in (["report", str(tmp_path)], ["report", str(copy), "--output", "no/x.html"]):
        assert main(wrong) == 2
        assert "fix:" in capsys.readouterr().err


def test_what_is_not_there_is_left_out(copy):
    for name in ("hindcast.nc", "forecast.nc", "observations.nc", "metrics.jsonl"):
        (copy / name).unlink()
    write_report([copy], copy / "report.html")
    found = assert_stands_alone(copy / "report.html")
    assert "Skill by lead" in found.text
    for name in ("Latest forecast", "Indices", "Worst and best cases", "Training"):
        assert f"{name.lower().replace(' ', '-')}" not in found.attribute("id")


def test_a_page_that_would_be_too_large_is_refused(copy, monkeypatch):
    monkeypatch.setattr(page, "page", lambda runs: "x" * (LARGEST + 1))
    with pytest.raises(DataError, match=r"2 runs has 5\.0 MB"):
        write_report([copy, copy], copy / "large.html")
    assert not (copy / "large.html").exists()


def test_a_run_is_not_lost_by_its_report(copy, monkeypatch, caplog):
    monkeypatch.setattr(page, "page", lambda runs: 1 / 0)
    with caplog.at_level(logging.WARNING, "gridcast"):
        report_run(copy)
    assert "ZeroDivisionError" in caplog.text
    assert f"gridcast report {copy}" in caplog.text
