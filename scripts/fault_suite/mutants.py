"""Mistakes in a config: characters in its text, or keys and values in its sections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

TEXT = st.sampled_from(
    ["[", "]", "{", "}", ": ", "- ", "\n", "\n  ", "*a", "&a ", "!!python/object/apply:os.abort ",
     "'", '"', "null", "yes", "1e-3", "0", "-1", "---\n", "? ", "#", "\t", "|\n", ">\n", "<<: ",
     "train:", "name: cnn_lstm", "true", "\\U99999999", "\x00", "é", "1:30", "0x1F", ".inf"]
) | st.text(max_size=4)  # fmt: skip
NUMBERS = st.sampled_from([0, -1, 1, 2, 3, 0.5, 1e-30, 1e30, 10**9, 10**25, float("nan")])
WORDS = st.sampled_from(["", "sst", "lim", "mask", "drop", "1982", "../..", "/", "conv_lstm", "x"])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=5,
)
SPLICES = st.tuples(st.just("splice"), st.floats(0, 1), st.integers(0, 12), TEXT)
CHANGES = st.tuples(
    st.sampled_from(["replace", "remove", "rename", "add"]), st.floats(0, 1), WORDS, VALUES
)
MUTATIONS = st.lists(SPLICES, min_size=1, max_size=3) | st.lists(CHANGES, min_size=1, max_size=3)


def mutant(origin: Path, mutations: list[tuple[Any, ...]]) -> tuple[str, set[str]]:
    """The text of a config with mistakes, and the keys they are in; none if they are anywhere."""
    text, keys = origin.read_text(), set[str]()
    for how, where, first, second in mutations:
        if how == "splice":
            start = int(where * len(text))
            text = text[:start] + second + text[start + first :]
            return text, set()
        tree = yaml.safe_load(text)
        places = [place for place in _places(tree) if isinstance(place[0], dict)]
        if not places:
            continue
        inner, key, around = places[min(int(where * len(places)), len(places) - 1)]
        if how == "replace":
            inner[key] = second
        elif how == "remove":
            del inner[key]
        elif how == "rename":
            inner[f"{key}{first}x"] = inner.pop(key)
        else:
            inner[first] = second
        keys |= {str(key), first, *around}
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    return text, keys


def _places(tree: Any, around: tuple[str, ...] = ()) -> list[tuple[Any, Any, tuple[str, ...]]]:
    """Each section with each of its keys, and the keys around it, from the outside in."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in pairs:
        found.append((tree, key, around))
        if isinstance(value, dict | list):
            found += _places(value, (*around, str(key)))
    return found
