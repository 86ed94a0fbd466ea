"""The examples in the docstrings of the public names run, and print what they say."""

from __future__ import annotations

import doctest
import inspect

import pytest

import gridcast

ALONE = ("open_frames", "open", "train", "Forecaster")
EXAMPLES = (
    "open_frames",
    "open",
    "train",
    "load_run",
    "Run.forecast",
    "evaluate",
    "load_exported",
    pytest.param("Forecaster", marks=pytest.mark.family),
)


@pytest.fixture(scope="module")
def example_names() -> dict[str, object]:
    """What the example of `train` defines; the later examples go on from it."""
    return {}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_each_public_function_runs(name, example_names):
    if name not in ALONE and not example_names:
        pytest.skip("goes on from the example of train, which did not run")
    found = gridcast
    for part in name.split("."):
        found = getattr(found, part)
    text = inspect.getdoc(found)
    test = doctest.DocTestParser().get_doctest(text or "", dict(example_names), name, None, 0)
    assert test.examples, f"{name} has no example"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    failed = runner.run(test, out=said.append, clear_globs=False).failed
    assert failed == 0, "".join(said)
    if name == "train":
        example_names.update(test.globs)
