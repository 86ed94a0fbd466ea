"""From an empty directory, with README alone, somebody's file gets to a verified forecast."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

ROOT = Path(__file__).parents[1]
GRIDCAST = "import sys; from gridcast.cli import main; sys.exit(main())"  # of this checkout
TITLE = "## From somebody's file to a verified forecast"


def howto() -> tuple[str, list[str]]:
    """The config and the commands of README, as they stand there."""
    section = (ROOT / "README.md").read_text().split(f"\n{TITLE}\n")[1].split("\n## ")[0]
    config = section.split("```yaml\n")[1].split("```")[0]
    commands = section.split("```sh\n")[1].split("```")[0].splitlines()
    return config, [line for line in commands if line]


def write_somebodys_file(path: Path) -> xr.DataArray:
    """Daily 0.25-degree temperatures of 2001 to 2003 in the open sea, with an island; float64 K.

    Anomalies fade over some weeks and are alike over some cells, so that there is something to
    forecast. The file has names of its own, is packed in int16, north is on top, longitudes are
    -180..180, and land is a fill value.
    """
    rng = np.random.default_rng(0)
    days = np.arange("2001-01-01", "2004-01-01", dtype="datetime64[D]").astype("datetime64[ns]")
    lat, lon = 12.125 - 0.25 * np.arange(12), -150.875 + 0.25 * np.arange(16)
    noise = rng.normal(size=(days.size, lat.size + 4, lon.size + 4))
    smooth = sum(np.roll(noise, (i, j), (1, 2)) for i in range(5) for j in range(5)) / 5
    anomaly = np.zeros_like(smooth)
    for day in range(1, days.size):
        anomaly[day] = 0.95 * anomaly[day - 1] + 0.3 * smooth[day]
    phase = 2 * np.pi * np.arange(days.size) / 365.25
    values = 299.0 - 1.5 * np.cos(phase)[:, None, None] + anomaly[:, 4:, 4:]
    values[:, 3:5, 6:9] = np.nan
    field = xr.DataArray(
        values,
        {
            "day": ("day", days),
            "y": ("y", lat, {"units": "degrees_north"}),
            "x": ("x", lon, {"units": "degrees_east"}),
        },
        ("day", "y", "x"),
        "TEMP_SFC",
        {"units": "kelvin", "long_name": "skin temperature, preliminary"},
    )
    packing = {"dtype": "int16", "scale_factor": 0.002, "add_offset": 290.0, "_FillValue": -32768}
    field.to_netcdf(path, encoding={"TEMP_SFC": packing})
    with xr.open_dataset(path) as written:
        return written["TEMP_SFC"].load()


@pytest.mark.family
def test_somebodys_file_gets_to_a_verified_forecast_by_the_commands_of_readme(tmp_path):
    theirs = write_somebodys_file(tmp_path / "theirs.nc")
    config, commands = howto()
    (tmp_path / "my.yaml").write_text(config)
    assert [shlex.split(line)[:2] for line in commands] == [
        ["gridcast", "train"],
        ["gridcast", "train"],
        ["gridcast", "forecast"],
        ["gridcast", "evaluate"],
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = []
    for line in commands:
        arguments = [sys.executable, "-c", GRIDCAST, *shlex.split(line)[1:]]
        done = subprocess.run(
            arguments, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
        said.append(done.stdout + done.stderr)
    assert "TEMP_SFC [kelvin], 1095 dates, 2001-01-01 to 2003-12-31, every day" in said[0]
    assert "lon 209.125 to 212.875" in said[0]
    run = tmp_path / "runs" / "my"
    assert (run / "report.html").is_file()

    with xr.open_dataset(tmp_path / "november.nc") as november:
        assert november["TEMP_SFC"].attrs["units"] == "kelvin"
        assert november["TEMP_SFC"].shape == (1, 10, 12, 16)
        dates = november["time"].dt.strftime("%Y-%m-%d").values[0]
        assert list(dates[[0, -1]]) == ["2003-11-16", "2003-11-25"]

    # The scores once more, by hand, from the hindcast and the file as somebody wrote it.
    canonical = theirs.rename(day="time", y="lat", x="lon").isel(lat=slice(None, None, -1))
    canonical = canonical.assign_coords(lon=canonical["lon"] + 360.0)
    with xr.open_dataset(run / "hindcast.nc") as file, xr.open_dataset(run / "scores.nc") as scores:
        made = file["TEMP_SFC"].load()
        ours = scores["rmse"].sel(forecast="model").values
        references = scores["rmse"].drop_sel(forecast="model").min("forecast").values
    weight = np.cos(np.deg2rad(canonical["lat"].values))[:, None] * np.ones(16)
    for lead, expected in enumerate(ours):
        one = made.isel(forecast_period=lead)
        inside = one["time"].dt.year.values == 2003
        came = canonical.sel(time=one["time"].values[inside]).values
        square = (one.values[inside] - came) ** 2
        known = np.isfinite(square)
        assert known[:, :].sum() == 365 * (12 * 16 - 6)
        total = (np.where(known, square, 0.0) * weight).sum() / (known * weight).sum()
        assert expected == pytest.approx(np.sqrt(total), rel=1e-3)
    # Verified means beside the references: the model is about as good as the best, or better.
    assert (ours < 1.1 * references).all()
    assert "damped persistence" in said[3]
