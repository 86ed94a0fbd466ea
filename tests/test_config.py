"""Configuration: what is accepted means what it says, every mistake names file, line and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridcast.config import Config, config_from_dict, dump_config, load_config
from gridcast.errors import ConfigError

VALID = """\
# a comment
data:
  name: ersst-v5
  region: {lat: [-30, 30], lon: [120, 290]}
splits:
  train: [1950, 1994-12]
  validation: [1995-01-01, 1999]
  test: [2001, 2012]
model:
  name: conv_lstm
  hidden: [8, 8]
train:
  epochs: 4
  learning_rate: 1.0e-3
"""


@pytest.fixture
def load(tmp_path):
    """Loads VALID with one replacement in its text, and overrides."""

    def load(old: str = "", new: str = "", *overrides: str) -> Config:
        assert old in VALID
        path = tmp_path / "run.yaml"
        path.write_text(VALID.replace(old, new, 1), encoding="utf-8")
        return load_config(path, overrides)

    return load


def message(load, *arguments: str) -> str:
    """The error's text, with the temporary folder taken away."""
    with pytest.raises(ConfigError) as caught:
        load(*arguments)
    return re.sub(r"\S*run\.yaml", "run.yaml", str(caught.value))


def test_a_valid_file_is_read_as_written(load):
    config = load()
    assert config.data.region is not None
    assert config.data.region.lon == (120.0, 290.0)
    assert config.model.hidden == [8, 8]
    assert config.train.learning_rate == 0.001
    assert config.splits.train.bounds == ((1950, 1, 1), (1994, 12, 31))
    assert config.splits.validation.bounds == ((1995, 1, 1), (1999, 12, 31))


def test_years_months_and_days_work_unquoted_in_pairs_and_in_sections(load):
    pair = load("[2001, 2012]", "[2001-02-03, 2012-11]").splits.test
    section = load("[2001, 2012]", "{first: 2001-02-03, last: 2012-11}").splits.test
    quoted = load("[2001, 2012]", "['2001-02-03', '2012-11']").splits.test
    assert pair == section == quoted
    assert load("[2001, 2012]", "{first: 2001, last: 2012}") == load()


# Each: text to replace, its replacement, and what the message must hold.
MISTAKES = [
    ("epochs: 4", "epochz: 4", ["run.yaml:13: unknown key train.epochz", "mean: train.epochs"]),
    ("  epochs: 4", "  leads: 4", ["run.yaml:13: unknown key train.leads", "mean: frames.leads"]),
    ("train:\n  epochs", "trian:\n  epochs", ["run.yaml:12: unknown key trian", "mean: train"]),
    ("epochs: 4", "epochs: abc", ["run.yaml:13: train.epochs: expected a whole number", "'abc'"]),
    ("epochs: 4", "epochs: '4'", ["found text '4'", "write 4"]),
    ("epochs: 4", "epochs: 4.0", ["expected a whole number, found 4.0"]),
    ("epochs: 4", "epochs: 1:30", ["found text '1:30'"]),
    ("epochs: 4", "epochs: 010", ["found text '010'"]),
    ("epochs: 4", "epochs: true", ["expected a whole number, found true"]),
    ("epochs: 4", "epochs: 0", ["expected at least 1, found 0"]),
    ("epochs: 4", "epochs:", ["expected a whole number, found nothing"]),
    ("1.0e-3", "1e-3", ["run.yaml:14: train.learning_rate", "found text '1e-3'", "write 1.0e-3"]),
    ("1.0e-3", "1.0e3", ["found text '1.0e3'", "write 1000.0"]),
    ("1.0e-3", ".inf", ["expected a number, found text '.inf'"]),
    ("1.0e-3", "1.0e+999", ["expected a number, found text '1.0e+999'"]),
    ("epochs: 4", "epochs: 4\n  epochs: 5", ["run.yaml:14: duplicate key train.epochs", "line 13"]),
    ("  hidden: [8, 8]", "  hidden: &a [8]", ["run.yaml:11: anchor &a"]),
    ("name: ersst-v5", "path: *.nc", ["run.yaml:3: ", "quotes"]),
    ("[8, 8]", "!!python/tuple [8]", ["run.yaml:11: tag"]),
    ("[8, 8]", "[8, 8", ["not YAML"]),
    ("[8, 8]", "[]", ["model.hidden: expected at least 1 value(s)"]),
    ("[8, 8]", "[8, x]", ["run.yaml:11: model.hidden[1]: expected a whole number, found text 'x'"]),
    ("[8, 8]", "[8]\n  kernel: true", ["model.kernel: expected a whole number, found true"]),
    ("[8, 8]", "[8]\n  kernel: 4", ["model.kernel: unknown value 4", "known here: 1, 2, 3, 5, 7"]),
    ("[8, 8]", "[8]\n  latent: 4", ["run.yaml:12: unknown key model.latent", "downsample"]),
    ("conv_lstm", "conv_lstn", ["run.yaml:10: model.name: unknown", "mean: conv_lstm", "cnn_lstm"]),
    ("name: conv_lstm", "base: persistence", ["run.yaml:9: missing key model.name", "cnn_lstm"]),
    ("name: ersst-v5", "offline: error", ["run.yaml:2: data: give a name"]),
    ("name: ersst-v5", "path: 3", ["run.yaml:3: data.path: expected text or a list, found 3"]),
    ("name: ersst-v5", "path: [a, 3]", ["run.yaml:3: data.path[1]: expected text, found 3"]),
    ("name: ersst-v5", "name: e\n  offline: simulate", ["run.yaml:4", "did you mean: simulated"]),
    ("1994-12", "1994-13", ["run.yaml:6: splits.train[1]: '1994-13'", "no month 13"]),
    ("1994-12", "1995-06", ["run.yaml:5: splits: train (1950 to 1995-06) must end before"]),
    ("  test: [2001, 2012]\n", "", ["run.yaml:5: missing key splits.test"]),
    ("lon: [120, 290]", "lon: [120, no]", ["data.region.lon[1]: expected a number, found text"]),
    ("lon: [120, 290]", "lon: [1, 2, 3]", ["run.yaml:4: data.region.lon: expected at most 2"]),
    (VALID, "", ["run.yaml:1: the file is empty"]),
    (VALID, "- 3\n", ["run.yaml:1: the file holds a list"]),
    (VALID, "just words", ["run.yaml:1: the file holds text 'just words'"]),
    ("model:", "---\nmodel:", ["run.yaml:9: a second document"]),
    ("model:", "? [a, b]\n: 3\nmodel:", ["run.yaml:9: the key is a list"]),
    ("model:", "\tmodel:", ["run.yaml:9: this is not YAML"]),
    ("ersst-v5", '"\\UFFFFFFFF"', ["run.yaml:3: an escape in quotes names no character"]),
    ("ersst-v5", '"\\ud800"', ["run.yaml:3: text with a character no name can have"]),
    ("ersst-v5", "a\x07b", ["run.yaml:3: character #x0007"]),
]


@pytest.mark.parametrize(("old", "new", "parts"), MISTAKES, ids=lambda v: str(v)[:30])
def test_each_mistake_names_file_line_and_fix(load, old, new, parts):
    text = message(load, old, new)
    assert text.startswith("run.yaml:"), text
    for part in parts:
        assert part in text


def test_words_that_yaml_1_1_takes_for_false_stay_text(load):
    assert load("ersst-v5", "no").data.name == "no"
    text = message(load, "model:", "frames: {climatology: {trend: yes}}\nmodel:")
    assert "run.yaml:9: frames.climatology.trend: expected true or false, found text 'yes'" in text
    assert "write true" in text


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(load):
    text = message(load, VALID, VALID.replace("4\n", "x\n").replace("name", "nmae"))
    lines = [int(line) for line in re.findall(r"^run\.yaml:(\d+)", text, re.MULTILINE)]
    assert lines == sorted(lines)
    assert set(lines) == {3, 9, 13}
    assert "missing key model.name\n  found instead: model.nmae" in text
    many = "\n".join(f"  wrong{i}: 1" for i in range(15))
    text = message(load, "train:\n", f"train:\n{many}\n")
    assert text.count("unknown key") == 10
    assert text.endswith("and 5 more")


@pytest.mark.parametrize("opening", ["[", "{a: "])
def test_deep_nesting_is_refused_before_the_stack_overflows(load, opening):
    assert "nested more than 20" in message(load, "[8, 8]", opening * 5000)
    assert "nested more than 20" in message(load, "", "", "model.hidden=" + opening * 5000)


def test_files_that_are_none_are_refused(tmp_path):
    for name, content in (("big.yaml", b"#" * 1_000_001), ("latin.yaml", b"data: \n caf\xe9")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=rf"{name}:\d: "):
            load_config(tmp_path / name)
    with pytest.raises(ConfigError, match=r"no such file\n  did you mean: .*big\.yaml"):
        load_config(tmp_path / "bigg.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_overrides_replace_values_and_add_sections(load):
    config = load(
        "", "", "train.epochs=3", "data.path=*.nc", "frames.climatology.trend=true",
        "model.hidden=[4]", "splits.test=[2002-01, 2003]", "train.epochs=5",
    )  # fmt: skip
    assert (config.train.epochs, config.data.path) == (5, "*.nc")
    assert config.frames.climatology.trend is True
    assert config.model.hidden == [4]
    assert config.splits.test.bounds == ((2002, 1, 1), (2003, 12, 31))
    assert config.train.learning_rate == 0.001


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.epoch=3", ["unknown key train.epoch", "did you mean: train.epochs"]),
        ("train.epochs=abc", ["train.epochs: expected a whole number, found text 'abc'"]),
        ("train.learning_rate=1e-3", ["write 1.0e-3"]),
        ("train.epochs=", ["no value after ="]),
        ("train.epochs", ["not of the form section.key=value"]),
        ("train..epochs=3", ["not of the form"]),
        ("splits.train.first=1960", ["splits.train is a list of 2, not a section"]),
        ("splits.train=[1950, 1996]", ["splits: train (1950 to 1996) must end before"]),
        ("data.name=null", ["data: give a name"]),
        ("model.hidden=[8", ["not YAML"]),
        ("model.hidden=[&a 8]", ["anchor"]),
    ],
)
def test_a_mistake_in_an_override_names_the_override_not_the_file(load, override, parts):
    text = message(load, "", "", override)
    assert text.startswith(f"override {override}: ")
    assert "run.yaml:" not in text
    for part in parts:
        assert part in text


def test_keys_of_the_file_that_another_model_lacks_are_told_with_their_line(load):
    text = message(load, "[8, 8]", "8\n  downsample: 2", "model.name=cnn_lstm")
    assert "run.yaml:12: unknown key model.downsample" in text
    assert "latent" in text


def test_a_dict_is_checked_like_a_file_and_left_as_it_was():
    given_settings = {
        "data": {"path": Path("a.nc")},
        "splits": {"train": (1950, 1994), "validation": [1995, 2000], "test": [2001, 2012]},
        "model": {"name": "cnn_lstm"},
    }
    config = config_from_dict(given_settings, ["data.variable=sst"])
    assert config.data.path == "a.nc"
    assert "variable" not in given_settings["data"]
    with pytest.raises(ConfigError, match=r"^<settings>: unknown key data\.nam"):
        config_from_dict({**given_settings, "data": {"nam": "x", "path": "y"}})
    with pytest.raises(ConfigError, match=r"^<settings>: train\.learning_rate: expected a finite"):
        config_from_dict({**given_settings, "train": {"learning_rate": float("nan")}})
    for wrong in ([], {3: 4}, {"data": {3: 4}}):
        with pytest.raises(ConfigError, match=r"^<settings>: "):
            config_from_dict(wrong)  # type: ignore[arg-type]
    itself: dict = {}
    itself["data"] = itself
    with pytest.raises(ConfigError, match="holds itself"):
        config_from_dict(itself)


BOX = {"lat": [-5, 5], "lon": [190, 240]}
# Sections that go well by themselves and not together, and what is said of them.
CONTRADICTIONS = [
    ({"target": {"classes": {}}, "train": {"loss": "mae"}}, "cross-entropy, found train.loss: mae"),
    ({"train": {"loss": "bernoulli_gamma"}}, "fix: model.base: climatology"),
    (
        {
            "train": {"loss": "bernoulli_gamma"},
            "data": {"transform": "log1p"},
            "model": {"base": "climatology"},
        },
        "fix: data.transform: none",
    ),
    ({"model": {"name": "conv_seq2seq"}, "target": {"classes": {}}}, "conv_seq2seq feeds its"),
    ({"model": {"name": "conv_seq2seq"}, "target": {"mean_over": BOX}}, "gives fields"),
    (
        {"target": {"mean_over": BOX}, "data": {"more": [{"name": "soda-ssh", "target": True}]}},
        "target.mean_over gives one answer",
    ),
    (
        {"target": {"mean_over": BOX}, "frames": {"patches": {"size": [32, 32]}}},
        "target.mean_over needs the whole grid",
    ),
    (
        {
            "target": {"classes": {}},
            "data": {"vector": "east"},
            "frames": {"augment": {"flip": ["lon"]}},
        },
        "flips change the sign",
    ),
    ({"frames": {"inputs": 3, "least": 4}}, "4 observed frames of 3 inputs"),
    ({"data": {"mean_over": BOX}, "frames": {"augment": {"flip": ["lat"]}}}, "leaves one cell"),
    (
        {"data": {"more": [{"name": "soda-ssh", "mean_over": BOX}]}},
        "mean_over goes with data.mean_over",
    ),
    ({"parallel": {"lat": 2}, "model": {"name": "series"}}, "found model.name: series"),
    ({"parallel": {"lat": 2}, "frames": {"patches": {"size": [32, 32]}}}, "the whole grid as it"),
    ({"parallel": {"lon": 2}, "target": {"mean_over": BOX}}, "a mean over a box has none"),
    ({"parallel": {"lon": 2}, "model": {"base": "analogues"}}, "analogues needs whole frames"),
    (
        {"parallel": {"lat": 2}, "model": {"name": "cnn_lstm", "latent": None}},
        "a number for model.latent",
    ),
]


def with_sections(sections: dict) -> dict:
    settings = {
        "data": {"path": "a.nc"},
        "splits": {"train": [1950, 1994], "validation": [1995, 2000], "test": [2001, 2012]},
        "model": {"name": "conv_lstm"},
    }
    return settings | {k: settings.get(k, {}) | v for k, v in sections.items()}


@pytest.mark.parametrize(("sections", "reason"), CONTRADICTIONS, ids=lambda v: str(v)[:40])
def test_sections_that_contradict_each_other_are_refused_with_a_fix(sections, reason):
    with pytest.raises(ConfigError) as error:
        config_from_dict(with_sections(sections))
    assert reason in str(error.value)
    assert "Value error" not in str(error.value)
    # The control: without any one of the sections that meet, nothing is wrong.
    for name in sections:
        kept = {k: v for k, v in sections.items() if k != name}
        if name != "model" or "train" not in sections:
            assert isinstance(config_from_dict(with_sections(kept)), Config)


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"target": {"classes": {"thresholds": [1.0]}}}, "terciles have no thresholds"),
        ({"target": {"classes": {"kind": "thresholds"}}}, "give thresholds"),
        ({"target": {"classes": {"kind": "thresholds", "thresholds": [2.0, 1.0]}}}, "must ascend"),
        ({"target": {"classes": {"names": ["dry", "wet"]}}}, "expected 3 names, found 2"),
        ({"frames": {"patches": {"size": [16, 64], "overlap": 9}}}, "overlap may be at most half"),
        ({"verification": {"neighbourhood": [1, 4]}}, "an odd side, found [1, 4]"),
        ({"model": {"name": "cnn_lstm", "freeze_encoder": True}}, "needs model.encoder_from"),
        ({"frames": {"missing": "skip"}}, "known here: error, drop, mask"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_a_section_that_contradicts_itself_is_refused(sections, reason):
    with pytest.raises(ConfigError) as error:
        config_from_dict(with_sections(sections))
    assert reason in str(error.value)


def test_a_size_fills_in_the_widths_that_are_not_given():
    def model(**settings):
        return config_from_dict(with_sections({"model": settings})).model

    assert model(name="cnn_lstm", size="small").channels == [8, 16, 16]
    assert model(name="cnn_lstm", size="small", channels=[3]).channels == [3]
    assert model(name="cnn_lstm", size="large").hidden == [256]
    # A default that stands twice stands there alike.
    for name in ("conv_lstm", "conv_seq2seq", "cnn_lstm", "series"):
        base = model(name=name)
        fields = type(base).model_fields
        for key in base.presets["base"]:
            assert getattr(base, key) == fields[key].get_default(call_default_factory=True), key


def test_classes_are_counted_and_named():
    def classes(**settings):
        sections = {"target": {"classes": {"kind": "thresholds", **settings}}}
        return config_from_dict(with_sections(sections)).target.classes

    assert classes(kind="terciles").labels == ["below", "near", "above"]
    three = classes(thresholds=[-0.5, 0.5])
    assert (three.count, three.labels) == (3, ["below -0.5", "-0.5 to 0.5", "above 0.5"])
    assert classes(thresholds=[20.0], names=["no", "yes"]).labels == ["no", "yes"]


# Text that YAML could take for something else stays text through a round trip.
TEXT = st.one_of(
    st.sampled_from(["no", "1e-3", "1994", "1994-12", "~", "null", "*a", "&a", "1:30", "0x1", "",
                     " a ", "a: b", "#", "a\nb", "[", "'", '"', "!!int 3", "\x85", "\u2028"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
)  # fmt: skip
YEARS = st.lists(st.integers(1000, 9999), min_size=6, max_size=6, unique=True).map(sorted)


@st.composite
def configs(draw) -> Config:
    years = draw(YEARS)
    positive = st.integers(1, 10**6)
    fraction = st.floats(0, 1, exclude_max=True)
    model = draw(
        st.one_of(
            st.fixed_dictionaries(
                {"name": st.just("conv_lstm"), "hidden": st.lists(positive, min_size=1)},
                optional={"kernel": st.sampled_from([1, 2, 3, 5, 7]), "dropout": fraction},
            ),
            st.fixed_dictionaries(
                {"name": st.just("cnn_lstm"), "latent": positive},
                optional={"channels": st.lists(positive, min_size=1)},
            ),
            st.fixed_dictionaries(
                {"name": st.sampled_from(["conv_seq2seq", "series"])},
                optional={"hidden": st.lists(positive, min_size=1), "dropout": fraction},
            ),
        )
    )
    return config_from_dict(
        {
            "data": {"name": draw(TEXT), "path": draw(st.none() | TEXT | st.lists(TEXT))},
            "splits": {
                "train": years[0:2],
                "validation": years[2:4],
                "test": [f"{years[4]}-{draw(st.integers(1, 12)):02d}", years[5]],
            },
            "model": model,
            "train": {"learning_rate": draw(st.floats(1e-300, 1e300)), "warmup": draw(fraction)},
            "static": {"layers": draw(st.lists(st.sampled_from(["position"]), max_size=1))},
        }
    )


def refused(load) -> str | None:
    """The message of a ConfigError, None where a Config came back; anything else is a failure."""
    try:
        assert isinstance(load(), Config)
    except ConfigError as error:
        return str(error)
    return None


SHARED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(SHARED, max_examples=60)
@given(configs())
def test_a_dumped_config_reads_back_equal(tmp_path, config):
    path = tmp_path / "dump.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["name"] == config.model.name


SNIPPETS = st.one_of(
    st.sampled_from(["[", "]", "{", "}", ": ", "- ", "\n", "\n  ", "*a", "&a ", "!!x ", "'", '"',
                     "null", "yes", "1e-3", "0", "-1", "---\n", "? ", "#", "\t", "%", "|\n", ">\n",
                     "<<: ", "train:", "name: cnn_lstm", "true", "\\U99999999"]),
    st.text(max_size=4),
)  # fmt: skip


@settings(SHARED, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, len(VALID)), st.integers(0, 12), SNIPPETS), max_size=4))
def test_any_mutation_is_accepted_or_refused_with_file_and_line(tmp_path, mutations):
    text = VALID
    for start, length, snippet in mutations:
        text = text[:start] + snippet + text[start + length :]
    path = tmp_path / "mutant.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    refusal = refused(lambda: load_config(path))
    assert refusal is None or re.match(rf"{re.escape(str(path))}:\d+: \S", refusal)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "first", "lat", "model", "a"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
KEYS = ["data", "data.path", "data.region", "data.region.lat", "splits", "splits.train", "model",
        "splits.test", "model.name", "model.hidden", "train", "train.epochs", "static.layers",
        "frames.climatology", "frames.climatology.kind", "output"]  # fmt: skip


@settings(SHARED, max_examples=200)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3))
def test_any_value_in_any_place_is_accepted_or_refused_with_its_name(changes):
    tree = yaml.safe_load(VALID)
    for name, value in changes.items():
        *sections, key = name.split(".")
        here = tree
        for section in sections:
            inner = here.get(section)
            here[section] = here = inner if isinstance(inner, dict) else {}
        here[key] = value
    refusal = refused(lambda: config_from_dict(tree))
    assert refusal is None or refusal.startswith("<settings>: ")
    assert "Value error" not in (refusal or "")


def test_every_shipped_config_is_accepted_and_opens_with_its_command():
    paths = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
    assert {path.stem for path in paths} >= {"sst", "sst_cnn_lstm", "tasman"}
    for path in paths:
        load_config(path)
        assert path.read_text().startswith(f"# python scripts/train.py configs/{path.name}\n")
