"""The site leaves nothing out, its links lead somewhere, and every command that is shown is run."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import ROOT, SITE, blocks, commands, documents, shown, words

import gridcast
from gridcast.cli import command_parser, main
from gridcast.config import Config, config_from_dict, load_config
from gridcast.errors import ConfigError

sys.path[:0] = [str(ROOT / "scripts"), str(SITE)]

import check_site  # noqa: E402
from api_reference import api_reference  # noqa: E402
from command_reference import command_reference  # noqa: E402
from command_reference import commands as parsers  # noqa: E402
from config_reference import config_reference, meaning, parts  # noqa: E402

# --- The reference pages


def schema_keys(schema: dict[str, Any], defs: dict[str, Any], path: str) -> Iterator[str]:
    """Every key by its path, from the JSON schema: another way than that of the page."""
    for inner in [*schema.get("anyOf", []), *schema.get("oneOf", [])]:
        yield from schema_keys(inner, defs, path)
    if "$ref" in schema:
        yield from schema_keys(defs[schema["$ref"].rpartition("/")[2]], defs, path)
    if "items" in schema:
        yield from schema_keys(schema["items"], defs, f"{path}[]")
    for key, value in schema.get("properties", {}).items():
        yield f"{path}.{key}".strip(".")
        yield from schema_keys(value, defs, f"{path}.{key}".strip("."))


def rows(text: str) -> dict[str, list[list[str]]]:
    """The cells of each row of settings, by the key."""
    found: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        if match := re.match(r"\| \[`([^`]+)`\]\{#[\w-]+\} \| ", line):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[2:-1]]
            found.setdefault(match[1], []).append(cells)
    return found


def test_every_key_of_the_schema_has_a_row_with_type_default_and_meaning():
    schema = Config.model_json_schema()
    keys = set(schema_keys(schema, schema["$defs"], ""))
    # What a period and a box are made of stands once, at the end.
    forms = {re.sub(r"^(?!parallel).*\.(?=(first|last|lat|lon)$)", "", key) for key in keys}
    told = rows(config_reference())
    assert set(told) == forms
    assert {"train.learning_rate", "data.more[].target", "model.hidden", "lat"} <= forms
    assert all(all(cells) for many in told.values() for cells in many)


def test_every_key_says_what_it_means():
    silent = [
        f"{part.title}.{key}"
        for part in parts()
        for key in part.model.model_fields
        if not meaning(part, key)
    ]
    assert silent == [], 'give each a Field(description="...")'


def test_rows_tell_bounds_and_defaults_as_the_schema_has_them():
    told = rows(config_reference())
    assert told["train.epochs"][0][1:] == ["whole number ≥ 1", "`20`"]
    assert told["frames.climatology.harmonics"][0][1:] == ["whole number ≥ 1 and ≤ 6", "`3`"]
    assert told["model.dropout"][0][1:] == ["number ≥ 0 and < 1", "`0.0`"]
    assert told["splits.train"][0][1:] == ["[A period](#a-period)", "required"]
    assert told["static.layers"][0][2] == '`["position"]`'


def test_no_two_rows_have_one_anchor():
    anchors = re.findall(r"\]\{#([\w-]+)\}", config_reference())
    assert len(anchors) == len({one.replace("_", "-").lower() for one in anchors}) > 100


def help_of(*command: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main([*command, "--help"]) == 0
    return said.getvalue()


def test_every_command_and_option_that_help_names_is_in_the_reference():
    told = {part.partition("\n")[0]: part for part in command_reference().split("## ")[1:]}
    found = set()
    for name in re.findall(r"^    ([a-z-]+)(?: |$)", help_of(), re.M):
        text = help_of(name)
        inner = re.findall(r"^    ([a-z-]+)(?: |$)", text, re.M)
        for command in [(name, one) for one in inner] or [(name,)]:
            chapter = told[f"gridcast {' '.join(command)}"]
            options = set(re.findall(r"--[a-z][a-z-]*", help_of(*command))) - {"--help"}
            assert options <= set(re.findall(r"--[a-z][a-z-]*", chapter.partition("|---")[2]))
            found.add(f"gridcast {' '.join(command)}")
    assert found == set(told)
    assert len(told) > 10


def test_every_public_name_is_in_the_reference_and_has_a_docstring():
    told = set(re.findall(r":: gridcast\.(\w+)", api_reference()))
    assert told == set(gridcast.__all__) - {"__version__"}
    assert [name for name in told if not getattr(gridcast, name).__doc__] == []


# --- Links


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A built site of two pages, in order."""
    (tmp_path / "style.css").write_text("")
    (tmp_path / "index.html").write_text(
        '<link rel="stylesheet" href="style.css"><a href="b.html#there">b</a>'
        '<a href="https://example.org/x">out</a>'
    )
    (tmp_path / "b.html").write_text(
        '<p id="there"></p><a href="index.html">a</a><a href="#">up</a>'
    )
    return tmp_path


def test_links_of_a_site_in_order_are_followed_and_those_outside_listed(site, capsys):
    assert check_site.main([str(site)]) == 0
    said = capsys.readouterr()
    assert said.out == "https://example.org/x\n"
    assert "2 pages, 4 links, 1 of other sites" in said.err


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ('<a href="c.html">c</a>', "no such page"),
        ('<a href="b.html#gone">b</a>', "no such anchor"),
        ('<a href="#gone">here</a>', "no such anchor"),
        ('<img src="gone.png">', "no such file"),
        ('<script src="https://cdn.example.org/x.js"></script>', "fetched from elsewhere"),
        ('<link rel="stylesheet" href="//fonts.example.org/x.css">', "fetched from elsewhere"),
    ],
)
def test_a_link_that_leads_nowhere_is_told(site, added, words, capsys):
    page = site / "index.html"
    page.write_text(page.read_text() + added)
    assert check_site.main([str(site)]) == 1
    assert words in capsys.readouterr().err


def test_a_folder_that_is_no_site_is_told(tmp_path, capsys):
    assert check_site.main([str(tmp_path)]) == 2
    assert "index.html" in capsys.readouterr().err


# --- Commands and settings

MINIMAL = {
    "data": {"path": "sea.nc"},
    "splits": {"train": [1950, 1960], "validation": [1961, 1962], "test": [1963, 1964]},
    "model": {"name": "conv_lstm"},
}

# Commands of `gridcast`, by name and options: the test that runs them. What pages tell to run and
# tests/test_site_pages.py runs as it is written is not repeated here.
HELP = "test_site.py::test_every_command_and_option_that_help_names_is_in_the_reference"
TESTED = {
    "COMMAND --help": HELP,
    "compare": "test_pairing.py::test_the_command_prints_a_table_or_json",
    "config schema": "test_config_shown.py::test_the_schema_command_prints_the_schema",
    "config show": "test_config_shown.py::"
    "test_overrides_are_shown_and_text_that_looks_like_yaml_survives",
    "data get": "test_cli_data.py::test_get_says_where_the_file_is_and_whom_to_cite",
    "data prepare": "test_streaming.py::test_the_command_prepares_a_store",
    "doctor": "test_look.py::test_a_healthy_machine_is_told_so",
    "train --coordinator --distributed --process --processes": "test_hosts.py::"
    "test_processes_learn_what_one_learns_and_one_of_them_writes",
    "forecast --leads --output --start": "test_cli_data.py::"
    "test_forecast_and_evaluate_pass_on_what_was_given",
    "pretrain": "test_crossval.py::test_pretrain_prints_where_the_encoder_is",
    "report": "test_report.py::test_the_command_writes_one_run_into_it_and_several_where_one_is",
    "report --output": "test_report.py::"
    "test_the_command_writes_one_run_into_it_and_several_where_one_is",
    "runs": "test_look.py::test_runs_tells_the_skill_that_the_scores_hold",
    "simulate-from": "test_simulate_from.py::"
    "test_the_commands_that_it_prints_train_on_the_series_and_then_on_the_data",
}
# Other commands: the line of .ci/run that does the same.
IN_CI = {
    "python -m venv .venv": 'python3 -m venv "$work/venv"',
    'pip install -e ".[dev]"': 'pip" install --quiet --disable-pip-version-check -e ".[dev,docs]"',
    'pip install -e ".[docs]"': 'pip" install --quiet --disable-pip-version-check -e ".[dev,docs]"',
    "sphinx-build -n -W --keep-going scripts/site site": "sphinx-build -n -W -q --keep-going",
    "pip install -e .": 'pip" install --quiet --disable-pip-version-check -e ".[dev,docs]"',
    "python -m pytest": "python -m pytest 2>&1",
    "python -m pytest -m family": "python -m pytest -m family",
    "python scripts/train.py configs/sst.yaml": "python scripts/train.py configs/sst.yaml",
}
# Why nothing runs it.
NOT_RUN = {
    "uv sync": "needs the registry; pip reads the same pyproject.toml",
    'pip install -e ".[cuda13]"': "downloads gigabytes of CUDA, and needs a GPU to be of use",
    **{
        f'pip install "gridcast[{extra}]"': "the package is on no registry yet; dev holds the same"
        for extra in ("completion", "export", "stream", "tensorboard")
    },
    'python -c "import jax; print(jax.devices())"': "of jax, not of ours",
    "python -m pytest -m slow -n 0": "most of an hour",
    "python -m pytest -m slow tests/test_known_limit.py": "many minutes; it is itself a test",
    "python scripts/results.py": "trains every config; its parts: tests/test_results.py",
    "python scripts/benchmark.py": "most of an hour; its parts: tests/test_benchmark.py",
    "python scripts/scaling.py": "minutes; what it counts: tests/test_parallel.py",
    "python scripts/larger_than_memory.py": "20 minutes and 8 GiB of disk",
    "python scripts/large_grid.py": "minutes and GiB; a small grid: tests/test_large_grid.py",
    "python scripts/faults.py": "long; its parts: tests/test_fault_suite.py",
    "python scripts/faults.py --readme": "long, and writes README; tests/test_fault_suite.py",
    "python scripts/faults.py --broken": "minutes; that the breaks fit: tests/test_broken.py",
}


PARSER = command_parser()
NAMES = {one.prog.removeprefix("gridcast ") for one in parsers(PARSER)}


def signature(command: str) -> str:
    """Name and options of a command of `gridcast`, without what it is given."""
    _, *rest = words(command)
    name = next((" ".join(rest[:n]) for n in (2, 1) if " ".join(rest[:n]) in NAMES), rest[0])
    options = sorted({word for word in rest if word.startswith("--")} - {name})
    return " ".join([name, *options])


def key_of(command: str) -> str:
    command = command.removeprefix(".venv/bin/")
    return signature(command) if command.startswith("gridcast ") else command


def covered(key: str, by: set[str]) -> bool:
    """Whether these keys hold it, or the same command with these options and more."""
    name, *options = re.split(r" (?=--)", key)
    more = [re.split(r" (?=--)", other) for other in by]
    return any(name == other and {*options} <= {*rest} for other, *rest in more)


def on_pages(*, run: bool) -> set[str]:
    """Commands in blocks of shell that tests/test_site_pages.py runs, or that say why not."""
    return {
        key_of(command)
        for path in SITE.rglob("*.md")
        for block in blocks(path.read_text())
        if block.language == "sh" and bool(block.reason) != run
        for command in commands(block.text)
    }


def test_every_command_that_is_shown_is_run_by_a_test_or_says_why_not():
    executed, known = on_pages(run=True), {*TESTED, *IN_CI, *NOT_RUN}
    unknown, used = [], set()
    for path in documents():
        text = path.read_text()
        reasoned = [c for b in blocks(text) if b.reason for c in commands(b.text)]
        for command in shown(text):
            key = key_of(command)
            used.add(key)
            if not covered(key, executed | known) and command not in reasoned:
                unknown.append(f"{path.name}: {command} ({key})")
    assert unknown == [], "\n".join(unknown)
    assert known <= used, "commands that nobody shows any more"
    assert [key for key in known if covered(key, executed)] == [], "what a page runs already"


def test_the_tests_that_run_commands_are_there_and_name_them():
    for key, place in TESTED.items():
        file, name = place.split("::")
        text = (ROOT / "tests" / file).read_text()
        assert f"\ndef {name}(" in text, place
        for word in key.split() if place != HELP else []:
            assert word in text, (word, file)
    ci = (ROOT / ".ci" / "run").read_text()
    assert [line for line in IN_CI.values() if line not in ci] == []


def test_every_command_that_is_shown_is_in_the_language_of_the_command_line():
    read = 0
    for path in documents():
        for command in shown(path.read_text()):
            if not command.startswith("gridcast ") or command.endswith(" COMMAND --help"):
                continue
            _, *given = words(command)
            if " ".join(given) in NAMES:  # mentioned by its name alone
                continue
            if given not in (["--help"], ["--version"]):
                PARSER.parse_args(given)  # exits where it is not
            files = [word for word in given if word.startswith("configs/")]
            overrides = [word for word in given if re.match(r"[a-z_.]+=", word)]
            if files and "train.learing_rate=0.01" not in overrides:
                load_config(ROOT / files[0], overrides)
            read += 1
    assert read > 30


def test_the_slip_on_the_page_gets_the_answer_on_the_page():
    text = (SITE / "tutorials" / "first_forecast.md").read_text()
    answer = next(b.text for b in blocks(text) if b.text.startswith("error: override"))
    with pytest.raises(ConfigError) as caught:
        load_config(ROOT / "configs" / "sst.yaml", ["train.learing_rate=0.01"])
    assert f"error: {caught.value}".startswith(answer.strip())


def test_a_command_that_nobody_runs_is_seen():
    found = shown("Type `gridcast train CONFIG --fast`.\n\n```sh\ngridcast fly\n```\n")
    assert found == {"gridcast train CONFIG --fast", "gridcast fly"}
    run = {*TESTED, *on_pages(run=True)}
    assert not any(covered(key_of(one), run) for one in found)
    assert covered(key_of("gridcast train CONFIG --dry-run"), run)


def test_every_piece_of_a_config_that_is_shown_is_one():
    read = 0
    for path in documents():
        for block in blocks(path.read_text()):
            if block.language == "yaml":
                config_from_dict(MINIMAL | yaml.safe_load(block.text))
                read += 1
    assert read > 2


def test_the_sections_that_a_reader_is_led_through_are_those_of_the_report():
    text = (SITE / "howto" / "read_the_report.md").read_text()
    told = [name.rstrip(".") for name in re.findall(r"^\d\. \*\*(.+?)\*\*", text, re.M)]
    source = (ROOT / "gridcast" / "report" / "page.py").read_text()
    sections = re.findall(r'^        "([A-Z][\w ]+)": ', source, re.M)
    assert len(told) == 8
    assert told == [name for name in sections if name in told]  # in the same order


def figures(text: str) -> set[str]:
    """Shares, and periods of years: what has been measured."""
    return set(re.findall(r"(?:\d+ to )?\d+ %|\b(?:19|20)\d\d-(?:19|20)\d\d\b", text))


def test_pages_say_no_figure_that_readme_does_not_say():
    # Of any interval, of an example, of the names of files.
    free = {"95 %", "60 %", "1950-1973"}
    pages = {path.name: figures(path.read_text()) - free for path in SITE.rglob("*.md")}
    assert {"10 to 40 %", "1995-2000"} <= pages["probabilities.md"]
    known = figures((ROOT / "README.md").read_text())
    assert {name: found - known for name, found in pages.items() if found - known} == {}


# --- The files beside README


def test_the_citation_names_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {"cff-version", "message", "title", "authors", "version", "license"}
    assert required <= citation.keys()
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert [one["name"] for one in citation["authors"]] == [a["name"] for a in project["authors"]]


def test_no_page_of_the_site_is_left_out_of_its_contents():
    listed = set(re.findall(r"^[\w/]+$", (SITE / "index.md").read_text(), re.M))
    pages = {str(path.relative_to(SITE).with_suffix("")) for path in SITE.rglob("*.md")}
    assert listed == pages - {"index"}
