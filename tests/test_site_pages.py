"""What the pages tell to do is done, block by block as it is written, in an empty folder.

A page begins with what "Your own data" leaves. Blocks with a caption are files, a `diff` is applied
to a copy of the package, and commands run in a shell; `% not run: ...` above a block says why it is
left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, SITE, Block, blocks

pytestmark = pytest.mark.family

FIRST = "tutorials/your_data.md"
PAGES = [
    "installation.md",
    "howto/new_data_set.md",
    "howto/new_model.md",
    "howto/new_metric.md",
    "howto/others_forecasts.md",
    "howto/resume.md",
    "howto/export.md",
]


def is_run(block: Block) -> bool:
    """Whether it is there to be followed; other YAML is checked in tests/test_site.py."""
    return block.language in ("sh", "python", "diff") or bool(block.name)


def run(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """One block, in the folder of the page."""
    text = block.text
    if block.name:
        (folder / block.name).write_text(text)
        command = ["true"]
    elif block.language == "sh":
        command = ["bash", "-euo", "pipefail", "-c", text]
    elif block.language == "python":
        command = [sys.executable, "-c", text]
    else:
        command = ["git", "apply", "--recount", "-"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {
        "PATH": path,
        "PYTHONPATH": str(folder),
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
        "GRIDCAST_CACHE": str(folder.parent / "cache"),
    }
    environment.pop("GRIDCAST_DATA", None)
    return subprocess.run(
        command, input=text, cwd=folder, env=environment, capture_output=True, text=True
    )


def follow(page: str, folder: Path) -> int:
    """Do what a page says; returns how many of its blocks were run."""
    done = 0
    for block in blocks((SITE / page).read_text()):
        if block.reason or not is_run(block):
            continue
        result = run(block, folder)
        assert result.returncode == 0, f"{page}:\n{block.text}\n{result.stdout}{result.stderr}"
        done += 1
    return done


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package in which "Your own data" has been followed."""
    folder = tmp_path_factory.mktemp("site") / "first"
    for name in ("gridcast", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    assert follow(FIRST, folder) > 5
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed_as_it_is_written(page, checkout):
    folder = checkout.with_name(Path(page).stem)
    shutil.copytree(checkout, folder)
    assert follow(page, folder) > 0
    shutil.rmtree(folder)


def test_every_page_is_followed_or_says_of_each_block_why_it_is_not():
    for path in SITE.rglob("*.md"):
        if str(path.relative_to(SITE)) in [FIRST, *PAGES]:
            continue
        for block in blocks(path.read_text()):
            assert block.reason or not is_run(block), f"{path}:\n{block.text}"
