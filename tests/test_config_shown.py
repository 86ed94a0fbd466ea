"""`gridcast config`: what is shown trains the same, and the schema says what is accepted."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from gridcast.cli import main
from gridcast.config import Config, config_from_dict, load_config
from gridcast.config.declared import fields_at, meaning_of, value_at
from gridcast.config.json_schema import json_schema
from gridcast.config.shown import show_config
from gridcast.config.yaml_text import read_settings

SHIPPED = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
MODELS = ["conv_lstm", "conv_seq2seq", "cnn_lstm", "series", "lim"]


@pytest.fixture(scope="module")
def schema() -> jsonschema_rs.Draft202012Validator:
    written = json_schema()
    jsonschema_rs.meta.validate(written)
    return jsonschema_rs.Draft202012Validator(written)


def everything(model: str) -> dict[str, Any]:
    """Settings in which every section and every optional one is given."""
    box = {"lat": [-20, 20.0], "lon": [120, 290]}
    config = config_from_dict(
        {
            "data": {
                "path": ["a.nc", "b.nc"],
                "region": box,
                "more": [{"name": "godas-ssh", "target": False, "mean_over": None}],
            },
            "splits": {
                "train": [1950, "1994-12"],
                "validation": ["1995-01-01", "1999"],
                "test": {"first": 2001, "last": "2012-02-30"},
            },
            "frames": {
                "climatology": {"period": [1960, 1990]},
                "trailing": None if model == "conv_seq2seq" else 10,
                "patches": None if model == "lim" else {"size": [32, 32], "overlap": 8},
            },
            "target": {"classes": None, "mean_over": None},
            "model": {"name": model},
            "verification": {"thresholds": [2, 5.5], "boxes": {"here": box}},
            "tune": {"search": {"train.epochs": [1, 2]}},
        }
    )
    return json.loads(config.model_dump_json())


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every place in nested settings, sections too."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def changed(tree: Any, path: tuple, value: Any) -> Any:
    """The settings with another value in one place; what is beside it is shared."""
    if not path:
        return value
    changed_here = copy.copy(tree)
    inner = tree[path[0]] if len(path) > 1 else None
    changed_here[path[0]] = changed(inner, path[1:], value)
    return changed_here


def refusals(tree: dict[str, Any]) -> list[str]:
    """The kinds of error by which loading refuses these settings; none where it takes them."""
    try:
        Config.model_validate(tree)
    except ValidationError as error:
        return [one["type"] for one in error.errors(include_url=False, include_context=False)]
    return []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_is_shown_loads_to_the_same_experiment_and_the_schema_takes_it(path, schema, tmp_path):
    config, copied = load_config(path), tmp_path / "shown.yaml"
    copied.write_text(show_config(config))
    assert load_config(copied) == config
    for text in (path.read_text(), copied.read_text()):
        assert schema.is_valid(read_settings(text).values)


def test_overrides_are_shown_and_text_that_looks_like_yaml_survives(capsys, tmp_path):
    config, copied = SHIPPED[-1], tmp_path / "shown.yaml"
    overrides = ["train.epochs=3", "output.directory='# no: comment'", "data.variable='1994'"]
    assert main(["config", "show", str(config), *overrides]) == 0
    copied.write_text(capsys.readouterr().out)
    assert load_config(copied) == load_config(config, overrides)
    assert "  # passes over the training windows, at most; default: 20\n  epochs: 3\n" in (
        copied.read_text()
    )


def test_a_default_is_told_where_the_setting_has_another(schema):
    config = config_from_dict(everything("cnn_lstm") | {"model": {"name": "cnn_lstm"}})
    assert "default: 64" not in show_config(config)
    small = config_from_dict(
        everything("cnn_lstm") | {"model": {"name": "cnn_lstm", "size": "small", "latent": 7}}
    )
    assert "null: its features; default: 32\n  latent: 7\n" in show_config(small)
    assert "  # channels of each encoder block; each block halves the grid\n" in show_config(small)


@pytest.mark.parametrize("model", MODELS)
def test_every_setting_says_what_it_means(model):
    tree = everything(model)
    silent = [
        path
        for path in places(tree)
        if isinstance(path[-1], str)
        and path[-1] in fields_at(path[:-1], tree)
        and not meaning_of(path, tree)
    ]
    assert silent == []


@pytest.mark.parametrize("model", MODELS)
def test_the_schema_refuses_what_loading_refuses_and_nothing_else(model, schema):
    tree = everything(model)
    assert refusals(tree) == []
    assert schema.is_valid(tree)
    wrong = [None, True, -1, 0, 1.5, "text", "1994-13", [], {}, ["x"]]
    seen = {True: 0, False: 0}
    # The sections beside the model are the same for all.
    everywhere = model == "conv_lstm"
    for path in (path for path in places(tree) if everywhere or path[0] == "model"):
        for value in wrong:
            mutant = changed(tree, path, value)
            found, taken = refusals(mutant), schema.is_valid(mutant)
            if not found:
                assert taken, f"{path} = {value!r} is accepted by loading alone"
            # What one setting cannot know of another is told by loading alone.
            elif set(found) != {"value_error"}:
                assert not taken, f"{path} = {value!r} is accepted by the schema alone: {found}"
            seen[taken] += 1
    assert all(seen.values())


@pytest.mark.parametrize("model", MODELS)
def test_the_schema_refuses_an_unknown_key_in_every_section(model, schema):
    tree = everything(model)
    sections = [
        path
        for path in places(tree)
        if isinstance(value_at(path, tree), dict) and "search" not in path
    ]
    sections.remove(("verification", "boxes"))  # whose names are the user's
    assert len(sections) > 15
    for path in sections:
        mutant = changed(tree, (*path, "epoch"), 1)
        assert refusals(mutant)
        assert not schema.is_valid(mutant), path


@pytest.mark.parametrize(
    "tree",
    [
        {"data": {}},
        {"data": {"name": None}},
        {"splits": {"train": [1950, 1960], "validation": [1961, 1962], "test": [195, 1999]}},
        {"splits": {"train": [1950, "1960-04-31"], "validation": [1961, 1962], "test": [1963, 64]}},
        {"model": {"name": "convlstm"}},
        {"model": {}},
    ],
    ids=str,
)
def test_common_mistakes_are_seen_by_the_schema(tree, schema):
    good = everything("conv_lstm")
    assert refusals(good | tree)
    assert not schema.is_valid(good | tree)


def test_the_schema_command_prints_the_schema(capsys):
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
