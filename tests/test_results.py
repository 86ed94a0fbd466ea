"""The tables of results: numbers in their places, and runs that are trained only where needed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from conftest import small_config

from gridcast.config import Config
from gridcast.errors import DataError

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import results
from readme_tables import between_markers
from results_tables import Done, Group, made_on, number, table

ABOUT = {
    "seconds": 75.6,
    "date": "2001-02-03",
    "cores": 2,
    "processor": "Fast",
    "device": "cpu",
    "versions": {"jax": "1.2"},
}


def scores_of(rmse: dict[str, list[float]], **more: Any) -> xr.Dataset:
    """Scores as a run writes them, with made-up numbers."""
    names, table = list(rmse), np.array(list(rmse.values()))
    references = [name for name in names if name != "model"]
    best = np.stack([rmse[name] for name in references]).argmin(axis=0)
    interval = np.zeros((len(references), table.shape[1], 2))
    for lead, place in enumerate(best):
        interval[place, lead] = [-0.02 - lead, 0.0101 + lead]
    over = ("forecast", "lead")
    return xr.Dataset(
        {
            "rmse": (over, table, {"units": "K"}),
            "acc": (over, 1 - table, {"units": "1"}),
            "best_reference": ("lead", best),
            "rmse_difference_interval": (("reference", "lead", "bound"), interval),
            "dates": ("lead", np.full(table.shape[1], 36)),
            **more,
        },
        {
            "forecast": names,
            "reference": references,
            "lead": ("lead", np.arange(1, table.shape[1] + 1), {"long_name": STEP}),
        },
        {"headline": "rmse acc", "source": "conv_lstm trained on something"},
    )


STEP = "lead in steps of: month"
FIRST = {
    "model": [0.2, 0.4, 0.9],
    "climatology": [1.5, 1.5, 0.5],
    "lim": [0.3, 0.3, 0.6],
}


def done_of(scores: xr.Dataset, name: str = "first", config: Config | None = None) -> Done:
    return Done(f"configs/{name}.yaml", config or small_config(), scores, ABOUT)


def cells(text: str) -> dict[str, list[str]]:
    """The rows of a table by their first cell."""
    rows = [line[1:-1].split("|") for line in text.splitlines() if line.startswith("| ")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[1:]}


def test_each_number_stands_in_its_row_and_column():
    text = table(Group("Sea", (), (1, 3, 6)), [done_of(scores_of(FIRST))])
    lines = text.splitlines()
    assert lines[0] == (
        "**Sea**, trained 1950 to 1958, validated 1959 to 1960, tested 1961 to 1963. "
        "RMSE in K (ACC) on 36 dates, by lead in steps of: month."
    )
    assert lines[2:4] == ["| | 1 | 3 |", "|---|---|---|"]  # no run has a lead 6
    assert cells(text) == {
        "climatology": ["1.500 (-.500)", "**.500 (.500)**"],
        "linear inverse model": [".300 (.700)", ".600 (.400)"],
        "ConvLSTM, `configs/first.yaml`, 76 s": ["**.200 (.800)**", ".900 (.100)"],
        "minus the best reference, 95 %": ["-.020 to .010", "-2.020 to 2.010"],
    }


def test_references_come_once_and_what_a_config_corrects_comes_with_it():
    short = {"model": [0.1], "climatology": [1.5], "base": [0.25]}
    cnn = small_config(model={"name": "cnn_lstm", "base": "lim"}, train={"members": 3})
    runs = [done_of(scores_of(short), "second", cnn), done_of(scores_of(FIRST))]
    rows = cells(table(Group("Sea", ()), runs))
    assert list(rows) == [
        "climatology",
        "linear inverse model",
        "what the model corrects, `configs/second.yaml`",
        "CNN-LSTM over LIM, 3 members, `configs/second.yaml`, 76 s",
        "minus the best reference, 95 %",
        "ConvLSTM, `configs/first.yaml`, 76 s",
    ]
    assert rows["climatology"] == ["1.500 (-.500)", "1.500 (-.500)", "**.500 (.500)**"]
    assert rows["linear inverse model"][1] == "**.300 (.700)**"
    # What the first run has of lead 1 counts there, and beyond it there is nothing of it.
    assert rows["what the model corrects, `configs/second.yaml`"] == [".250 (.750)", "", ""]
    assert rows["CNN-LSTM over LIM, 3 members, `configs/second.yaml`, 76 s"][1:] == ["", ""]


def test_classes_have_rps_and_hit_rate_or_rpss():
    over = ("forecast", "lead")
    scores = xr.Dataset(
        {
            "rps": (over, np.array([[0.3, 0.45], [0.4, 0.4]]), {"units": "1"}),
            "hit_rate": (over, np.array([[0.6, 0.5], [0.4, 0.45]]), {"units": "1"}),
            "dates": ("lead", [24, 24]),
        },
        {
            "forecast": ["model", "climatology"],
            "reference": ["climatology"],
            "lead": ("lead", [1, 2], {"long_name": STEP}),
        },
        {"headline": "rps hit_rate", "source": "simulated rain"},
    )
    shown = table(Group("Rain", ()), [done_of(scores)])
    assert cells(shown)["climatology"] == [".400 (.400)", "**.400 (.450)**"]
    assert "SIMULATED DATA. RPS (hit rate) on 24 dates" in shown
    shown = table(Group("Rain", (), shown="rpss"), [done_of(scores)])
    assert cells(shown) == {
        "climatology": [".000", "**.000**"],
        "ConvLSTM, `configs/first.yaml`, 76 s": ["**.250**", "-.125"],
    }


def test_a_distribution_has_a_line_of_its_own():
    over = ("forecast", "lead")
    told = {
        "crps_skill": (over, np.array([[0.5, 0.25, 0.1]] + [[np.nan] * 3] * 2)),
        "spread_error_ratio": (over, np.array([[0.99, 1.01, 1.2]] + [[np.nan] * 3] * 2)),
    }
    rows = cells(table(Group("Sea", (), (1, 3)), [done_of(scores_of(FIRST, **told))]))
    assert rows["CRPS skill (spread / error)"] == [".500 (.990)", ".100 (1.200)"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.2849, ".285"), (-0.0491, "-.049"), (1.767, "1.767"), (-0.0001, ".000"), (0.9999, "1.000")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_the_machine_is_named_once():
    runs = [done_of(scores_of(FIRST), name) for name in ("a", "b")]
    assert made_on(runs).count("2 cores of Fast, device cpu, jax 1.2") == 1


def test_only_what_is_between_the_markers_is_replaced():
    text = "before\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n"
    new = between_markers(text, "new")
    assert new == "before\n<!-- results:begin -->\nnew\n<!-- results:end -->\nafter\n"
    assert between_markers(new, "new") == new
    for wrong in ("nothing", text.replace("end", "begin"), text + text):
        with pytest.raises(DataError, match="results:begin"):
            between_markers(wrong, "new")


@pytest.mark.family
def test_the_script_trains_reuses_and_skips(ocean, tmp_path, capsys, monkeypatch):
    """A reference as the model: nothing to train, and quick."""
    monkeypatch.setenv("GRIDCAST_CACHE", str(tmp_path / "cache"))
    ocean.to_netcdf(tmp_path / "sea.nc")
    readme = tmp_path / "README.md"
    readme.write_text("x\n<!-- results:begin -->\n<!-- results:end -->\ny\n")

    def config(name: str, data: dict[str, Any], **sections: Any) -> str:
        made = small_config(model={"name": "damped_persistence"}, **sections)
        settings = made.model_dump(mode="json") | {"data": data}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(settings))
        return str(tmp_path / f"{name}.yaml")

    here, gone = {"path": str(tmp_path / "sea.nc")}, {"path": str(tmp_path / "gone.nc")}
    files = [config("small", here), config("nowhere", gone)]
    arguments = ["--runs", str(tmp_path), "--readme", str(readme), "--json", str(tmp_path / "j")]
    trained = []
    real = results.run_training
    monkeypatch.setattr(results, "run_training", lambda config: trained.append(real(config)))
    assert results.main([*arguments, "--configs", *files]) == 0
    text = readme.read_text()
    rows = cells(text)
    assert len(trained) == 1
    assert "`nowhere`: skipped, its data were not found." in text
    assert "SIMULATED DATA" in text
    scores = xr.load_dataset(tmp_path / "small" / "scores.nc", decode_timedelta=False)
    ours = [label for label in rows if "`small.yaml`" in label]
    assert len(ours) == 1
    assert ours[0].startswith("damped persistence, ")
    for name, row in (("model", ours[0]), ("climatology", "climatology")):
        expected = [number(v) for v in scores["rmse"].sel(forecast=name).values]
        assert [cell.strip("*").split(" ")[0] for cell in rows[row]] == expected
    kept = json.loads((tmp_path / "j").read_text())
    assert kept.keys() == {"small"}
    assert kept["small"]["cores"] >= 1
    assert kept["small"]["scores"]["data_vars"]["rmse"]["data"] == scores["rmse"].values.tolist()
    # What is finished is taken as it is; another setting, or no --reuse, trains again.
    assert results.main([*arguments, "--reuse", "--configs", *files]) == 0
    assert len(trained) == 1
    assert readme.read_text() == text
    files[0] = config("small", here, frames={"climatology": {"harmonics": 1}})
    assert results.main([*arguments, "--reuse", "--configs", *files]) == 0
    assert len(trained) == 2
    assert readme.read_text() != text
    readme.write_text("no place")
    assert results.main([*arguments, "--configs", *files]) == 2
    assert len(trained) == 2
    assert "no place for the tables" in capsys.readouterr().err


def test_every_config_of_the_tables_is_there():
    names = [name for group in results.GROUPS for name in group.configs]
    assert len(set(names)) == len(names)
    for name in names:
        assert (results.ROOT / "configs" / f"{name}.yaml").is_file()
