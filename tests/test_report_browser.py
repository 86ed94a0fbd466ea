"""The report in a real browser: nothing complains, nothing is fetched, the slider works.

The reports of a run of sea-surface temperature and of a run of rain, and pictures of them at two
widths by day and by night, are left in the folder GRIDCAST_SCREENSHOTS (default:
`tests/screenshots/`), to be looked at.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from browser import Page
from conftest import Trained

from gridcast.cli import main
from gridcast.report.page import write_report
from gridcast.sources.simulated import write_simulation

pytestmark = [
    pytest.mark.family,
    pytest.mark.skipif(browser.executable() is None, reason="no Chromium: apt install chromium"),
]
WIDTHS = {"telephone": 390, "desk": 1280}
PICTURES = Path(os.environ.get("GRIDCAST_SCREENSHOTS") or Path(__file__).parent / "screenshots")
RAIN = """\
data: {{path: {data}, lowest: 0}}
frames: {{inputs: 3, leads: 3}}
splits: {{train: [1950, 1958], validation: [1959, 1960], test: [1961, 1964]}}
model: {{name: conv_lstm, hidden: [4], base: climatology}}
train: {{epochs: 2, learning_rate: 1.0e-2}}
output: {{directory: {directory}}}
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser.opened(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def rain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of simulated rain."""
    folder = tmp_path_factory.mktemp("rain")
    data, config, directory = folder / "rain.nc", folder / "small.yaml", folder / "rain"
    write_simulation(data, kind="rain", years=15, shape=(9, 18), seed=1)
    config.write_text(RAIN.format(data=data, directory=directory))
    assert main(["train", str(config)]) == 0
    return directory


@pytest.fixture(scope="module")
def reports(trained: Trained, rain: Path) -> dict[str, Path]:
    """Of a run of sea-surface temperature, of one of rain, and of both side by side."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    found = {name: PICTURES / f"{name}.html" for name in ("sst", "rain", "both")}
    shutil.copy(trained.directory / "report.html", found["sst"])
    shutil.copy(rain / "report.html", found["rain"])
    write_report([trained.directory, rain], found["both"])
    return found


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["sst", "rain", "both"])
def test_it_is_readable_at_each_width_by_day_and_night(page, reports, name, width, dark):
    page.open(reports[name], WIDTHS[width], dark=dark)
    assert page.complaints() == []
    assert page.requests() == [reports[name].as_uri()]
    page.picture(PICTURES / f"{name}-{width}{'-dark' if dark else ''}.png")
    assert page.value("innerWidth") == WIDTHS[width]
    # Nothing but tables, which scroll by themselves, is wider than the window.
    assert page.value("document.documentElement.scrollWidth") <= WIDTHS[width]
    # Letters of at least 8 pixels, also those in pictures that were made smaller.
    letters = """Math.min(...[...document.querySelectorAll('main svg text')].map((t) =>
        parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a))"""
    assert page.value(letters) > 8
    contrast = """(() => { const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map((v) => {
            v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05; };
        const paper = light(getComputedStyle(document.querySelector('figure')).backgroundColor);
        return [...document.querySelectorAll('main p, main li, dt, dd, figcaption, svg text')].map(
            (e) => { const s = getComputedStyle(e);
                const ink = light(e.closest('svg') ? s.fill : s.color);
                return Math.max(ink, paper) / Math.min(ink, paper); }); })()"""
    assert min(page.value(contrast)) > 4.5
    paper = page.value("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")


def shown(page: Page) -> list[list[int]]:
    """Which pictures of each film are seen."""
    return page.value(
        """[...document.querySelectorAll('.film svg.map')].map((m) =>
        [...m.querySelectorAll('.cells')].map((c, k) => [getComputedStyle(c).display, k])
        .filter((pair) => pair[0] !== 'none').map((pair) => pair[1]))"""
    )


def test_the_slider_is_moved_by_the_keyboard(page, reports):
    page.open(reports["sst"], 1280)
    output = "document.querySelector('.film output').value"
    assert shown(page) == [[0], [0]]
    assert page.value(output) == "lead 1: 1965-01"
    page.value("document.querySelector('.film button').focus()")
    page.press("Tab")
    assert page.value("document.activeElement.type") == "range"
    for key, lead in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 2)):
        page.press(key)
        assert shown(page) == [[lead], [lead]]
        assert page.value(output) == f"lead {lead + 1}: 1965-0{lead + 1}"
        assert page.value("document.activeElement.getAttribute('aria-valuetext')") == page.value(
            output
        )
    assert page.complaints() == []


def test_the_button_plays_and_stops(page, reports):
    page.open(reports["sst"], 1280)
    button = "document.querySelector('.film button')"
    page.value(f"{button}.click()")
    assert page.value(f"{button}.textContent") == "Stop"
    moved = f"""new Promise((done) => {{
        const at = () => document.querySelector('.film input').value;
        const first = at();
        const timer = setInterval(() => {{ if (at() !== first) {{
            clearInterval(timer); {button}.click(); done(at()); }} }}, 50); }})"""
    found = page.send("Runtime.evaluate", expression=moved, awaitPromise=True, returnByValue=True)
    assert found["result"]["value"] == "1"
    assert page.value(f"{button}.textContent") == "Play"
    assert shown(page) == [[1], [1]]


def test_the_policy_lets_no_other_script_run(page, reports, tmp_path):
    text = reports["sst"].read_text()
    evil = "<script>document.title = 'evil'</script><img src=x onerror=\"document.title = 'evil'\">"
    (tmp_path / "evil.html").write_text(text.replace("<main>", f"<main>{evil}"))
    page.open(tmp_path / "evil.html", 1280)
    assert page.value("document.title") != "evil"
    assert page.complaints() != []  # the control: complaints are seen, the report has none
    (tmp_path / "open.html").write_text(
        text.replace("<main>", f"<main>{evil}").replace("Content-Security-Policy", "x")
    )
    page.open(tmp_path / "open.html", 1280)
    assert page.value("document.title") == "evil"
