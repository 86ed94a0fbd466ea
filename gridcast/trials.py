"""What a search of settings tries: choices that make an experiment, and whose scores compare."""

from __future__ import annotations

import copy
import itertools
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gridcast.config import Config, config_from_dict
from gridcast.errors import ConfigError
from gridcast.judging import measure

# The sections that decide what a trial forecasts.
SECTIONS = ("data", "static", "frames", "model", "train")
_log = logging.getLogger("gridcast")


@dataclass(frozen=True)
class Trial:
    """One choice of settings.

    Attributes:
      chosen: the value of each key of `tune.search`.
      config: the whole experiment with them, without `tune` and `output`.
    """

    chosen: dict[str, Any]
    config: Config

    def __str__(self) -> str:
        return words(self.chosen)


def trials_of(config: Config) -> list[Trial]:
    """The config's own settings, then combinations of `tune.search`, none of them twice.

    All combinations where they are no more than `tune.trials`; otherwise so many trials in all,
    drawn at random with the seed `train.seed`. Combinations that contradict themselves are left
    out.

    Raises:
      ConfigError: no search; a key or value that makes no experiment by itself; or one that changes
        what is judged, and not only who forecasts it.
    """
    search, most = config.tune.search, config.tune.trials
    if not search:
        raise ConfigError(
            "tune.search names no setting\n"
            "  expected: values to try, for example {train.learning_rate: [1.0e-3, 3.0e-3]}"
        )
    own = _with(config, {})
    for alone in singles(config):
        _require_judged_alike(own, alone)
    first = Trial({key: _at(own, key) for key in search}, own)
    found, contradictory = {own.model_dump_json(): first}, set()
    drawn = math.prod(map(len, search.values())) > most
    for chosen in _combinations(search, most, config.train.seed, drawn):
        if drawn and len(found) >= most:
            break
        try:
            one = Trial(chosen, _with(config, chosen))
        except ConfigError:
            contradictory.add(words(chosen))
            continue
        found.setdefault(one.config.model_dump_json(), one)
    if contradictory:
        _log.warning("left out, as they contradict themselves: %s", "; ".join(contradictory))
    return list(found.values())


def singles(config: Config) -> Iterator[Trial]:
    """The config with each value of the search alone."""
    for key, values in config.tune.search.items():
        for value in values:
            yield Trial({key: value}, _with(config, {key: value}))


def most_inputs(config: Config) -> int:
    """Frames that the model is given, in the trial that takes the most of them."""
    return max(config.frames.inputs, *(one.config.frames.inputs for one in singles(config)))


def words(chosen: Mapping[str, Any]) -> str:
    """`train.epochs=3, model={"name": "lim"}`."""
    return ", ".join(f"{key}={word(value)}" for key, value in chosen.items())


def word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _combinations(
    search: Mapping[str, Sequence[Any]], most: int, seed: int, drawn: bool
) -> Iterator[dict[str, Any]]:
    if not drawn:
        for values in itertools.product(*search.values()):
            yield dict(zip(search, values, strict=True))
        return
    rng = np.random.default_rng(seed)
    for _ in range(100 * most):  # some come twice, and some may contradict themselves
        yield {key: values[int(rng.integers(len(values)))] for key, values in search.items()}


def _with(config: Config, chosen: Mapping[str, Any]) -> Config:
    """The experiment with these settings, checked as if they stood in the file."""
    settings = config.model_dump(exclude={"output", "tune"})
    model = config.model
    # Widths that the size has filled in are left to it: another size has others.
    preset = getattr(model, "presets", {}).get(getattr(model, "size", None), {})
    settings["model"] = {k: v for k, v in settings["model"].items() if preset.get(k, ...) != v}
    for key, value in chosen.items():
        here = settings
        *sections, last = key.split(".")
        for section in sections:
            if here.get(section) is None:
                here[section] = {}
            here = here[section]
            if not isinstance(here, dict):
                raise ConfigError(f"tune.search: {key}: {section} is not a section")
        here[last] = copy.deepcopy(value)
    try:
        return config_from_dict(settings)
    except ConfigError as error:
        reason = str(error).replace("<settings>: ", "").replace("\n", "\n  ")
        raise ConfigError(f"tune.search: {words(chosen)}\n  {reason}") from None


def _at(config: Config, key: str) -> Any:
    """A setting; of a section, those that are no defaults."""
    full, short = config.model_dump(mode="json"), config.model_dump(exclude_defaults=True)
    for part in key.split("."):
        full = full.get(part) if isinstance(full, dict) else None
        short = short.get(part) if isinstance(short, dict) else None
    return short or {} if isinstance(full, dict) else full


def _require_judged_alike(own: Config, alone: Trial) -> None:
    (key,) = alone.chosen
    ours, theirs = _judged(own), _judged(alone.config)
    changed = [part for part in ours if ours[part] != theirs[part]]
    if key.split(".")[0] in SECTIONS and not changed:
        return
    what = f" ({', '.join(changed)})" if changed else ""
    raise ConfigError(
        f"tune.search: {alone} changes what is judged, or how{what}\n"
        f"  expected: settings of {', '.join(SECTIONS)} whose forecasts compare\n"
        "  fix: a search of its own for each"
    )


def _judged(config: Config) -> dict[str, Any]:
    """All that must be the same for scores to compare."""
    data, frames, classes = config.data, config.frames, config.target.classes
    own = {"transform", "lowest", "vector", "weight"}  # of forecasts, not of what is forecast
    same: dict[str, Any] = {
        "data": data.model_dump(exclude={"more", "offline", *own}),
        "data.more": [v.model_dump(exclude=own) for v in data.more if v.target],
        "target": config.target,
        "splits": config.splits,
        "frames.leads": frames.leads,
        "frames.missing": (frames.missing, frames.least),
        "measure": measure(config),
    }
    if frames.missing != "error":  # which dates have a forecast depends on these
        same["frames.inputs"] = frames.inputs, data.more
    if classes is not None:  # and these decide which class a value is in
        same["frames.climatology"] = frames.climatology, data.transform
    return same
