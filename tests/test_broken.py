"""The deliberate breaks of `scripts/faults.py --broken` still fit the code, and are counted."""

from __future__ import annotations

import ast
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import faults
from fault_suite import breaking
from fault_suite.breaking import broken_text, noticed
from fault_suite.breaks import BREAKS, Break
from fault_suite.outcome import Outcome
from fault_suite.parts import PARTS

ONE = Break("a class", "one is two", "a part", "one.py", "x = 1", "x = 2")
SEEN, UNSEEN = Outcome(3, 2, ["a: read otherwise"]), Outcome(3, 3, [])


@pytest.mark.parametrize("one", BREAKS, ids=lambda one: f"{one.fault}: {one.words}")
def test_the_text_that_a_break_replaces_is_there_once_and_what_replaces_it_is_python(one):
    ast.parse(broken_text(one))
    assert one.part in PARTS


def test_each_class_of_faults_has_a_break_and_each_part_serves_one():
    assert {one.fault for one in BREAKS} == set(faults.find_classes())
    assert {one.part for one in BREAKS} == set(PARTS)
    assert len({(one.fault, one.words) for one in BREAKS}) == len(BREAKS)


@pytest.mark.parametrize("text", ["y = 1\n", "x = 1\nx = 1\n"])
def test_a_text_that_is_gone_or_there_twice_is_no_break(text, tmp_path):
    path = tmp_path / "gridcast" / "one.py"
    path.parent.mkdir()
    path.write_text("x = 1\n")
    assert broken_text(ONE, tmp_path) == "x = 2\n"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"one is two: in gridcast/one.py .* expected once"):
        broken_text(ONE, tmp_path)


def test_a_break_is_noticed_by_a_wrong_answer_to_a_fault_and_by_nothing_else():
    assert noticed(SEEN)
    assert not noticed(UNSEEN)
    assert not noticed("exit code 1: ImportError")
    assert not noticed(replace(SEEN, control=False))
    assert not noticed(replace(SEEN, wrong=["control: nothing was trained", *SEEN.wrong]))
    assert not noticed(replace(UNSEEN, wrong=["control: nothing was trained"]))


def test_a_part_is_tried_on_the_code_as_it_is_and_only_then_on_broken_code(monkeypatch):
    asked, controls = [], [UNSEEN]

    def outcome_of(part, one, folder):
        asked.append((part, one))
        return controls[-1] if one is None else SEEN

    monkeypatch.setattr(breaking, "outcome_of", outcome_of)
    other = replace(ONE, words="another")
    found = list(breaking.attempts([ONE, other]))
    assert found == [(ONE, SEEN), (other, SEEN)]
    assert asked == [("a part", None), ("a part", ONE), ("a part", other)]
    for wrong in (SEEN, replace(UNSEEN, control=False), "exit code 1: ImportError"):
        asked.clear()
        controls.append(wrong)
        ((_, said),) = breaking.attempts([ONE])
        assert isinstance(said, str)
        assert said.startswith("without the break: ")
        assert asked == [("a part", None)]


def test_the_table_and_the_exit_code_say_which_break_was_not_noticed(monkeypatch, capsys):
    for outcome, code, row in (
        (SEEN, 0, "| trust | one is two | 3 | 1 |"),
        (UNSEEN, 1, "| trust | one is two | 3 | 0, not noticed |"),
        ("not done after 300 s", 1, "| trust | one is two | - | -, not noticed |"),
    ):
        found = [(replace(ONE, fault="trust"), outcome)]
        monkeypatch.setattr(faults, "attempts", lambda breaks, found=found: iter(found))
        assert faults.main(["--broken", "trust"]) == code
        assert row in capsys.readouterr().out


def test_what_does_not_end_is_stopped_and_finds_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(breaking, "LIMIT", 0.01)
    assert breaking.outcome_of("the cache", BREAKS[0], tmp_path) == "not done after 0.01 s"
    copied = (tmp_path / "copy" / "gridcast" / BREAKS[0].file).read_text()
    assert copied == broken_text(BREAKS[0])


@pytest.mark.family
def test_code_that_leaves_half_written_files_is_caught_in_the_act():
    (one,) = (one for one in BREAKS if one.words == "what is half written is left")
    ((_, found),) = breaking.attempts([one])
    assert noticed(found)
    assert "left: [" in "".join(found.wrong)
