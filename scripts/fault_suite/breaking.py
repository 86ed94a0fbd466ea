"""Runs parts of the classes against a copy of gridcast that is broken on purpose."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from fault_suite.breaks import Break
from fault_suite.outcome import Outcome
from fault_suite.small import ROOT

LIMIT = 300  # seconds for one part
_COPIED = ("gridcast", "scripts", "configs")


def broken_text(one: Break, root: Path = ROOT) -> str:
    """The text of the file with the break.

    Raises:
      ValueError: what is to be replaced is not there exactly once.
    """
    path = root / "gridcast" / one.file
    text = path.read_text()
    if (count := text.count(one.old)) != 1:
        raise ValueError(
            f"{one.fault}, {one.words}: in gridcast/{one.file} its text occurs {count} times, "
            f"expected once\n  fix: scripts/fault_suite/breaks.py\n{one.old}"
        )
    return text.replace(one.old, one.new)


def outcome_of(part: str, one: Break | None, folder: Path) -> Outcome | str:
    """What a part of a class finds in a copy of the code, broken or not.

    Args:
      one: None: the code as it is, which is the control.

    Returns:
      The outcome; or how the process ended that was to find it.
    """
    copy, result, said = folder / "copy", folder / "outcome.json", folder / "said.txt"
    for name in _COPIED:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    if one is not None:
        (copy / "gridcast" / one.file).write_text(broken_text(one))
    (folder / "tried").mkdir()
    paths = os.pathsep.join([str(copy), str(copy / "scripts")])
    command = [sys.executable, "-m", "fault_suite.parts", part, folder / "tried", result]
    with said.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=copy,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            code = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            return f"not done after {LIMIT} s"
        finally:  # with it all that it has started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if not result.exists():
        return f"exit code {code}: {said.read_text()[-500:]}"
    return Outcome(**json.loads(result.read_text()))


def noticed(found: Outcome | str) -> bool:
    """Whether a break was seen by a fault that was answered wrongly, not by a control alone."""
    return isinstance(found, Outcome) and _controlled(found) and found.survived < found.cases


def _controlled(found: Outcome) -> bool:
    return found.control and not any(line.startswith("control: ") for line in found.wrong)


def attempts(breaks: Sequence[Break]) -> Iterator[tuple[Break, Outcome | str]]:
    """Each break with what was found; each part is tried on the code as it is first.

    What finds something wrong there finds no break: that is told instead.
    """
    controls: dict[str, Outcome | str] = {}
    for one in breaks:
        if one.part not in controls:
            controls[one.part] = _in_temporary_folder(one.part, None)
        control = controls[one.part]
        if isinstance(control, str):
            yield one, f"without the break: {control}"
        elif not control.passed or not _controlled(control):
            yield one, f"without the break: {'; '.join(control.wrong[:3]) or 'no control'}"
        else:
            yield one, _in_temporary_folder(one.part, one)


def _in_temporary_folder(part: str, one: Break | None) -> Outcome | str:
    with tempfile.TemporaryDirectory(prefix="faults-broken-") as folder:
        return outcome_of(part, one, Path(folder))
