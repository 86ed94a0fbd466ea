"""Configurations with mistakes: accepted and prepared, or refused with file, line and key."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fault_suite.mutants import MUTATIONS, mutant
from fault_suite.outcome import Outcome
from gridcast.config import Config, load_config
from gridcast.errors import ConfigError, GridcastError
from gridcast.opening import open_source
from gridcast.preparation import prepare
from gridcast.sources.catalog import catalog
from gridcast.sources.simulated import simulated_series

NAME = "config"
SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
MUTANTS = 2000
PREPARED = 10  # one in so many of those that are accepted
LIMIT = 120  # seconds for one configuration


def run(folder: Path) -> Outcome:
    wrong: list[str] = []
    with _without_data(folder):
        control = all(_accepted(path, folder) for path in SHIPPED)
        mutants = mutated(folder, MUTANTS, wrong)
    bombs = answered(folder, wrong)
    return Outcome(mutants + bombs, mutants + bombs - len(wrong), wrong, control)


def answered(folder: Path, wrong: list[str]) -> int:
    """Read each of the files that are made to harm; `wrong` gets a line for each bad answer."""
    tried = 0
    for name, content in bombs_of():
        tried += 1
        path = folder / "bomb.yaml"
        path.write_bytes(content)
        try:
            with time_limit(LIMIT):
                load_config(path)
            wrong.append(f"{name}: accepted")
        except ConfigError as error:
            if not placed(path, error):
                wrong.append(f"{name}: refused without its line: {error}")
        except BaseException as error:
            wrong.append(f"{name}: {type(error).__name__}: {str(error)[:100]}")
    return tried


def mutated(folder: Path, count: int, wrong: list[str], prepared: int = PREPARED) -> int:
    """Answer so many mutants of the shipped configs; `wrong` gets a line for each bad answer.

    Args:
      prepared: one in so many that are accepted is also prepared; 0: none.
    """
    tried = 0

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.sampled_from(SHIPPED), MUTATIONS)
    def one(origin: Path, mutations: list[tuple[Any, ...]]) -> None:
        nonlocal tried
        tried += 1
        path = folder / "mutant.yaml"
        text, keys = mutant(origin, mutations)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        if problem := answer(path, prepared > 0 and tried % prepared == 0, folder, keys):
            wrong.append(f"{origin.stem}, {mutations}: {problem}")

    one()
    return tried


def answer(path: Path, whole: bool, folder: Path, keys: set[str]) -> str | None:
    """What is wrong with how a config is answered; None: accepted, or refused with line and key.

    Args:
      whole: whether one that is accepted is also prepared.
      keys: of which the message names one, if there are any.
    """
    try:
        with time_limit(LIMIT):
            try:
                config = load_config(path)
            except ConfigError as error:
                if not placed(path, error):
                    return f"refused without its line: {error}"
                named = not keys or any(key in str(error) for key in keys)
                return None if named else f"refused without its key: {error}"
            if whole:
                _prepare(config, folder)
    except GridcastError as error:
        return None if str(error) else "an empty message"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


def placed(path: Path, error: ConfigError) -> bool:
    """Whether a refusal begins with the file and the line."""
    return re.match(rf"{re.escape(str(path))}:\d+: \S", str(error)) is not None


def _accepted(path: Path, folder: Path) -> bool:
    """Whether a shipped config is loaded; and prepared, where monthly data are what it wants."""
    config = load_config(path)
    if "daily" not in str(config.data.name):
        _prepare(config, folder)
    return True


_DATA: dict[str, xr.Dataset] = {}


def _prepare(config: Config, folder: Path) -> None:
    """As far as a dry run goes without compiling, on simulated months that hold every variable."""
    if not _DATA:
        ocean, _ = simulated_series("ocean", years=64, shape=(45, 90), seed=0)
        ocean = ocean.fillna(9.0).drop_attrs()
        names = {entry.variables[0] for entry in catalog().values() if entry.kind == "series"}
        _DATA["all"] = xr.Dataset({name: ocean.rename(name) for name in names})
    relief = folder / "data" / "static_etopo_simulated.nc"
    if not relief.exists():
        simulated_series("ocean", years=2)[1].rename("elevation").to_netcdf(relief)
    # Without further variables a config need not say which of several it wants.
    data = _DATA["all"] if config.data.more else _DATA["all"][["sst"]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(config, open_source(config, data))


@contextlib.contextmanager
def _without_data(folder: Path) -> Iterator[None]:
    """No data set but those of `folder`, and none to be downloaded."""
    (folder / "data").mkdir()
    before = {name: os.environ.get(name) for name in ("GRIDCAST_DATA", "GRIDCAST_CACHE")}
    proxies = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    before |= {name: os.environ.get(name) for name in proxies}
    os.environ |= {"GRIDCAST_DATA": str(folder / "data"), "GRIDCAST_CACHE": str(folder), **proxies}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block after so many seconds."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before: Callable[..., Any] | int | None = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def bombs_of() -> Iterator[tuple[str, bytes]]:
    """Files that are made to hang, to fill the memory, or to run code."""
    laughs = "a0: &a0 [x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    whole = SHIPPED[0].read_bytes()
    for name, content in {
        "a billion laughs": laughs,
        "a list that holds itself": "&a [*a]",
        "3,000 nested lists": f"a: {'[' * 3000}{']' * 3000}",
        "3,000 nested mappings": f"a: {'{a: ' * 3000}1{'}' * 3000}",
        "1,000 nested blocks": "".join(" " * i + "a:\n" for i in range(1000)),
        "10 MB": "#" * 10_000_000,
        "1 MB of one key each line": "".join(f"a{i}: 1\n" for i in range(90_000)),
        "1 MB of one list": f"train: {{epochs: [{'1,' * 400_000}]}}",
        "1 MB of one key": "a: 1\n" * 190_000,
        "an object": "data: !!python/object/apply:os.abort []\n",
        "a module": "data: !!python/module:os\n",
        "a name": "data: !!python/name:os.abort\n",
        "a tag": "data: !x {}\n",
        "a merge": "a: &a {path: x}\ndata:\n  <<: *a\n",
        "two documents": "data: {}\n---\ndata: {}\n",
        "a key that is a list": "? [a, b]\n: 1\n",
        "no text": "\x00\x01\x02",
        "a directive": "%YAML 9.9\n---\na: 1\n",
        "a number": "1",
        "nothing": "",
    }.items():
        yield name, content.encode()
    yield "latin 1", whole + "# \xe9".encode("latin-1")
    yield "UTF-16", whole.decode().encode("utf-16")
    yield "a lone surrogate", whole + "# \ud800".encode("utf-8", "surrogatepass")
    yield "random bytes", np.random.default_rng(0).integers(0, 256, 4096, np.uint8).tobytes()
