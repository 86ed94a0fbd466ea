"""ConvLSTM and sequence-to-sequence: plain loops, missing frames, shown truth, symmetry."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gridcast.config.models import ConvLstmConfig, ConvSeq2SeqConfig
from gridcast.errors import ConfigError
from gridcast.models.conv_lstm import ConvLstm
from gridcast.models.conv_seq2seq import ConvSeq2Seq
from gridcast.models.window import Sizes, Window

BATCH, TIME, LEADS, OUTPUTS, AHEAD = 2, 4, 3, 1, 2
CHANNELS = OUTPUTS + AHEAD
ODD, EVEN = (3, 5), (4, 8)

LSTM = ConvLstmConfig(name="conv_lstm", hidden=[3, 2], downsample=1)
SEQ = ConvSeq2SeqConfig(name="conv_seq2seq", hidden=[3, 2], downsample=1, sampling="scheduled")


def changed(config: Any, **settings: Any) -> Any:
    return type(config)(**(config.model_dump() | settings))


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def network(name: str, size: tuple[int, int], *, wraps: bool, whole: bool) -> Any:
    config = NETWORKS[name]
    sizes = Sizes(CHANNELS, AHEAD, TIME, LEADS, OUTPUTS, size, whole, wraps)
    if isinstance(config, ConvLstmConfig):
        return ConvLstm(config, sizes, rngs=nnx.Rngs(0))
    return ConvSeq2Seq(config, sizes, rngs=nnx.Rngs(0))


NETWORKS: dict[str, Any] = {
    "lstm": LSTM,
    "lstm_coarse": changed(LSTM, downsample=2),
    "lstm_layer": changed(LSTM, norm="layer"),
    "lstm_group": changed(LSTM, norm="group", downsample=2),
    "lstm_cell": changed(LSTM, kernel=1),
    "lstm_even": changed(LSTM, kernel=2),
    "lstm_dropout": changed(LSTM, dropout=0.5),
    "seq": SEQ,
    "seq_coarse": changed(SEQ, downsample=2),
    "seq_layer": changed(SEQ, norm="layer", downsample=2),
    "seq_blind": changed(SEQ, sampling="none"),
    "seq_dropout": changed(SEQ, dropout=0.5, hidden=[12]),
}


class Trained(NamedTuple):
    """A network with weights that are not zero, and compiled functions of weights and window."""

    network: Any
    first: Any
    weights: Any
    forward: Callable
    gradient: Callable


@cache
def trained(
    name: str, size: tuple[int, int] = ODD, *, wraps: bool = True, whole: bool = False
) -> Trained:
    graph, first = nnx.split(network(name, size, wraps=wraps, whole=whole))
    leaves, tree = jax.tree.flatten(first)
    leaves = [p + 0.3 * random(*p.shape, seed=i) for i, p in enumerate(leaves)]
    weights = jax.tree.unflatten(tree, leaves)

    def forward(weights: Any, window: Window) -> jax.Array:
        return nnx.merge(graph, weights)(window)

    gradient = jax.grad(lambda weights, window: (forward(weights, window) ** 2).sum())
    return Trained(nnx.merge(graph, weights), first, weights, jax.jit(forward), jax.jit(gradient))


def window_of(size: tuple[int, int] = ODD, *, whole: bool = False) -> Window:
    """Frames of one variable, one covariate and the mask."""
    mask = np.random.default_rng(1).random(size) < 0.7
    mask[-1, -1], mask[0, 0] = False, True  # a single cell is inside
    mask = mask.astype(np.float32)[:, :, None]

    def channels(*shape: int, seed: int) -> np.ndarray:
        masks = np.broadcast_to(mask, (*shape[:2], *mask.shape))
        return np.concatenate([random(*shape, seed=seed), masks], axis=-1)

    out = (1, 1) if whole else size
    frames = channels(BATCH, TIME, *size, CHANNELS - 1, seed=2)
    frames[..., :OUTPUTS] *= mask
    return Window(
        frames=jnp.asarray(frames),
        present=None,
        ahead=jnp.asarray(channels(BATCH, LEADS, *size, AHEAD - 1, seed=3)),
        reference=jnp.asarray(random(BATCH, LEADS, *out, OUTPUTS, seed=4)),
        truth=None,
        truth_rate=0.0,
        key=None,
    )


def run(name: str, window: Window, **where: Any) -> np.ndarray:
    model = trained(name, window.frames.shape[2:4], **where)
    return np.asarray(model.forward(model.weights, window))


def gradient(name: str, window: Window, **where: Any) -> list[np.ndarray]:
    model = trained(name, window.frames.shape[2:4], **where)
    return jax.tree.leaves(model.gradient(model.weights, window))


def close(found: Any, expected: Any, relative: float = 1e-6) -> None:
    """Equal to `relative` of the largest value."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= relative * np.abs(expected).max()


CASES = [("lstm_coarse", False), ("lstm_layer", False), ("lstm_group", True), ("seq_layer", False)]


@pytest.mark.parametrize(("name", "whole"), CASES)
def test_an_untrained_network_says_nothing(name, whole):
    model = trained(name, whole=whole)
    found = np.asarray(model.forward(model.first, window_of(whole=whole)))
    assert found.shape == (BATCH, LEADS, *((1, 1) if whole else ODD), OUTPUTS)
    assert not found.any()


@pytest.mark.parametrize(("name", "whole"), CASES)
def test_every_weight_has_a_share_in_the_forecast(name, whole):
    weights = jax.tree_util.tree_leaves_with_path(trained(name, whole=whole).weights)
    shares = gradient(name, window_of(whole=whole), whole=whole)
    for (path, _), share in zip(weights, shares, strict=True):
        assert np.abs(share).max() > 0, jax.tree_util.keystr(path)


def test_the_gradient_goes_through_the_forecasts_that_are_fed_back():
    model, window = trained("seq_layer"), window_of()
    leaves, tree = jax.tree.flatten(model.weights)
    way = [random(*p.shape, seed=50 + i) for i, p in enumerate(leaves)]

    def loss(step: float) -> float:
        moved = jax.tree.unflatten(tree, [p + step * w for p, w in zip(leaves, way, strict=True)])
        return float((np.asarray(model.forward(moved, window), np.float64) ** 2).sum())

    slope = (loss(1e-3) - loss(-1e-3)) / 2e-3
    along = sum(
        float((g * w).sum()) for g, w in zip(gradient("seq_layer", window), way, strict=True)
    )
    assert abs(along - slope) < 2e-3 * abs(slope)


# The same networks as plain loops over cells, in float64.


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def convolved(x: np.ndarray, conv: Any, *, wraps: bool) -> np.ndarray:
    """A convolution over [batch lat lon channel] as a sum over kernel cells."""
    kernel = np.asarray(conv.kernel[...], np.float64)
    south, north, (lat, lon) = (len(kernel) - 1) // 2, len(kernel) // 2, x.shape[1:3]
    out = np.zeros((*x.shape[:3], kernel.shape[-1])) + np.asarray(conv.bias[...], np.float64)
    for y in range(lat):
        for z in range(lon):
            for dy in range(-south, north + 1):
                for dz in range(-south, north + 1):
                    row, column = y + dy, (z + dz) % lon if wraps else z + dz
                    if 0 <= row < lat and 0 <= column < lon:
                        out[:, y, z] += x[:, row, column] @ kernel[dy + south, dz + south]
    return out


def normalised(gates: np.ndarray, norm: Any) -> np.ndarray:
    """All gates of a cell of the grid as one ("layer"), or groups over the grid ("group")."""
    if norm.kind == "none":
        return gates
    axes, groups = {"layer": ((4,), 1), "group": ((1, 2, 4), norm.groups)}[norm.kind]
    x = gates.reshape(*gates.shape[:-1], groups, -1)
    x = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-6)
    return x.reshape(gates.shape) * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def advanced(cells: Any, states: list, x: np.ndarray, *, wraps: bool) -> list:
    """(h, c) of each cell after one frame; gates in the order input, forget, cell, output."""
    after = []
    for cell, (h, c) in zip(cells, states, strict=True):
        gates = convolved(np.concatenate([x, h], axis=-1), cell.gates, wraps=wraps)
        i, f, g, o = np.split(normalised(gates, cell.norm), 4, axis=-1)
        c = sigmoid(f + 1.0) * c + sigmoid(i) * np.tanh(g)
        x = sigmoid(o) * np.tanh(c)
        after.append((x, c))
    return after


def coarsened(x: np.ndarray, block: int, *, wraps: bool) -> np.ndarray:
    """The channels of the cells of each block side by side, row by row."""
    batch, lat, lon, channels = x.shape
    out = np.zeros((batch, -(-lat // block), -(-lon // block), block, block, channels))
    for y, z, i, j in np.ndindex(out.shape[1:5]):
        row, column = y * block + i, z * block + j
        if row < lat and (wraps or column < lon):
            out[:, y, z, i, j] = x[:, row, column % lon]
    return out.reshape(*out.shape[:3], -1)


def refined(x: np.ndarray, block: int, size: tuple[int, int]) -> np.ndarray:
    x = x.reshape(*x.shape[:3], block, block, -1)
    out = np.empty((x.shape[0], *size, x.shape[-1]))
    for y, z in np.ndindex(size):
        out[:, y, z] = x[:, y // block, z // block, y % block, z % block]
    return out


def after_reading(cells: Any, window: Window, block: int, *, wraps: bool) -> list:
    frames = np.asarray(window.frames, np.float64)
    coarse = [coarsened(frames[:, t], block, wraps=wraps) for t in range(frames.shape[1])]
    hidden = [cell.gates.kernel.shape[-1] // 4 for cell in cells]
    states = [(np.zeros((*coarse[0].shape[:3], n)),) * 2 for n in hidden]
    for x in coarse:
        states = advanced(cells, states, x, wraps=wraps)
    return states


def plain_conv_lstm(net: Any, window: Window) -> np.ndarray:
    h, _ = after_reading(net.cells, window, net.downsample, wraps=net.wraps)[-1]
    batch, _, lat, lon, _ = window.frames.shape
    if net.whole:
        fine = np.repeat(np.repeat(h, net.downsample, 1), net.downsample, 2)[:, :lat, :lon]
        inside = np.asarray(window.frames)[0, -1, :, :, -1] > 0
        mean = fine[:, inside].mean(axis=1)
        out = mean @ np.asarray(net.head.kernel[...]) + np.asarray(net.head.bias[...])
        return out.reshape(batch, LEADS, 1, 1, OUTPUTS)
    x = refined(convolved(h, net.head, wraps=net.wraps), net.downsample, (lat, lon))
    return np.moveaxis(x.reshape(batch, lat, lon, LEADS, OUTPUTS), 3, 1)


def plain_seq2seq(net: Any, window: Window) -> np.ndarray:
    states = after_reading(net.encoder, window, net.downsample, wraps=net.wraps)
    frames, ahead, reference = (
        np.asarray(x, np.float64) for x in (window.frames, window.ahead, window.reference)
    )
    mask, before = frames[:, -1, :, :, -1:], frames[:, -1, :, :, :OUTPUTS]
    corrections = []
    for k in range(LEADS):
        x = np.concatenate([before, ahead[:, k]], axis=-1)
        x = coarsened(x, net.downsample, wraps=net.wraps)
        states = advanced(net.decoder, states, x, wraps=net.wraps)
        x = convolved(states[-1][0], net.head, wraps=net.wraps)
        corrections.append(refined(x, net.downsample, frames.shape[2:4]))
        before = (reference[:, k] + corrections[-1]) * mask
        if window.truth is not None:  # all of it is shown
            truth = np.asarray(window.truth)[:, k]
            before = np.where(np.isnan(truth), before, np.where(mask > 0, truth, 0.0))
    return np.stack(corrections, axis=1)


@pytest.mark.parametrize(
    ("name", "wraps", "whole"),
    [
        ("lstm", True, False),
        ("lstm_coarse", True, False),
        ("lstm_coarse", True, True),
        ("lstm_layer", True, False),
        ("lstm_group", False, False),
        ("lstm_even", True, False),
    ],
)
def test_conv_lstm_equals_a_plain_loop_in_float64(name, wraps, whole):
    net = trained(name, wraps=wraps, whole=whole).network
    found = run(name, window_of(whole=whole), wraps=wraps, whole=whole)
    close(found, plain_conv_lstm(net, window_of(whole=whole)), 1e-5)


def truth_of(window: Window) -> jax.Array:
    """A truth that lacks in some cells and everywhere off the mask."""
    truth = random(*window.reference.shape, seed=11)
    truth[np.random.default_rng(12).random(truth.shape) < 0.2] = np.nan
    inside = np.asarray(window.frames)[:, -1:, :, :, -1:] > 0
    return jnp.asarray(np.where(inside, truth, np.nan))


def in_training(truth: jax.Array, rate: float = 1.0, *, seed: int = 0) -> Window:
    return window_of()._replace(truth=truth, truth_rate=jnp.float32(rate), key=jax.random.key(seed))


@pytest.mark.parametrize(("name", "wraps"), [("seq", False), ("seq_coarse", True)])
def test_seq2seq_equals_a_plain_loop_in_float64(name, wraps):
    net = trained(name, wraps=wraps).network
    window = window_of()
    close(run(name, window, wraps=wraps), plain_seq2seq(net, window), 1e-5)


def test_seq2seq_shown_all_truth_equals_a_plain_loop_that_falls_back_where_it_lacks():
    window = in_training(truth_of(window_of()))
    found = run("seq_coarse", window)
    close(found, plain_seq2seq(trained("seq_coarse").network, window), 1e-5)
    assert np.abs(found - run("seq_coarse", window_of())).max() > 1e-2


def test_truth_off_the_mask_is_not_looked_at():
    truth = truth_of(window_of())
    land = window_of().frames[:, -1:, :, :, -1:] == 0
    np.testing.assert_array_equal(
        run("seq_coarse", in_training(jnp.where(land, 9.0, truth))),
        run("seq_coarse", in_training(truth)),
    )


def test_truth_that_is_never_shown_never_known_or_not_asked_for_changes_nothing():
    truth = truth_of(window_of())
    own = run("seq_coarse", window_of())
    close(run("seq_coarse", in_training(truth, 0.0)), own)
    close(run("seq_coarse", in_training(jnp.full_like(truth, jnp.nan))), own)
    np.testing.assert_array_equal(run("seq_coarse", in_training(truth)._replace(key=None)), own)
    blind = run("seq_blind", window_of())
    np.testing.assert_array_equal(run("seq_blind", in_training(truth)), blind)
    assert blind.any()


def test_gradients_are_finite_where_the_truth_lacks():
    for share in gradient("seq_coarse", in_training(truth_of(window_of()))):
        assert np.isfinite(share).all()


def test_the_truth_of_a_lead_reaches_later_leads_only():
    truth = truth_of(window_of())
    before = run("seq_coarse", in_training(truth))
    for lead in range(LEADS):
        after = run("seq_coarse", in_training(truth.at[:, lead].add(1.0)))
        differs = (after != before).any(axis=(2, 3, 4))
        assert not differs[:, : lead + 1].any()
        assert differs[:, lead + 1 :].all()


def test_each_sample_and_lead_draws_by_itself_whether_it_sees_the_truth():
    truth = truth_of(window_of())
    outcomes = []
    for first, second in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        part = truth if first else truth.at[:, 0].set(jnp.nan)
        part = part if second else part.at[:, 1].set(jnp.nan)
        outcomes.append(run("seq_coarse", in_training(part)))
    drawn = np.zeros((64, BATCH), int)
    for seed in range(len(drawn)):
        found = run("seq_coarse", in_training(truth, 0.25, seed=seed))
        same = np.array([np.abs(found - o).max(axis=(1, 2, 3, 4)) < 1e-6 for o in outcomes])
        np.testing.assert_array_equal(same.sum(axis=0), 1)
        drawn[seed] = same.argmax(axis=0)
    # Two draws of a quarter each: 9, 3, 3 and 1 sixteenths.
    shares = np.bincount(drawn.ravel(), minlength=4) / drawn.size
    np.testing.assert_allclose(shares, [9 / 16, 3 / 16, 3 / 16, 1 / 16], atol=0.12)
    assert (drawn[:, 0] != drawn[:, 1]).any()


MISSING = ["lstm_coarse", pytest.param("seq_layer", marks=pytest.mark.family)]


@pytest.mark.parametrize("name", MISSING)
def test_padded_frames_at_the_front_change_nothing(name):
    window = window_of()
    padding = jnp.full_like(window.frames[:, :2], 9.0)
    padded = window._replace(
        frames=jnp.concatenate([padding, window.frames], axis=1),
        present=jnp.arange(TIME + 2)[None].repeat(BATCH, 0) >= 2,
    )
    close(run(name, padded), run(name, window))
    for found, expected in zip(gradient(name, padded), gradient(name, window), strict=True):
        close(found, expected)


@pytest.mark.parametrize("name", MISSING)
def test_a_frame_masked_in_the_middle_is_as_if_it_were_not_there(name):
    window = window_of()
    present = jnp.ones((BATCH, TIME), bool).at[0, 1].set(False)
    masked = window._replace(present=present)
    found = run(name, masked)
    garbage = run(name, masked._replace(frames=window.frames.at[0, 1].set(-7.0)))
    np.testing.assert_array_equal(garbage, found)
    shorter = run(name, window._replace(frames=window.frames[:, jnp.array([0, 2, 3])]))
    close(found[0], shorter[0])
    close(found[1], run(name, window)[1])
    assert np.abs(found[0] - run(name, window)[0]).max() > 1e-3
    assert np.abs(found[1] - shorter[1]).max() > 1e-3


def turned(window: Window, by: int) -> Window:
    """The grid begun at another longitude."""
    return window._replace(
        **{
            name: jnp.roll(getattr(window, name), by, axis=3)
            for name in ("frames", "ahead", "reference")
        }
    )


@pytest.mark.parametrize("name", ["lstm_coarse", "seq_layer"])
@pytest.mark.parametrize("wraps", [True, False])
def test_only_on_a_ring_it_does_not_matter_where_longitude_starts(name, wraps):
    window = window_of(EVEN)
    straight = run(name, window, wraps=wraps)
    error = np.abs(run(name, turned(window, 4), wraps=wraps) - np.roll(straight, 4, axis=3)).max()
    assert error < 1e-5 if wraps else error > 1e-3


def test_one_answer_for_a_ring_does_not_depend_on_where_longitude_starts():
    window = window_of(EVEN, whole=True)
    close(
        run("lstm_coarse", turned(window, 4)._replace(reference=window.reference), whole=True),
        run("lstm_coarse", window, whole=True),
    )


def test_one_answer_for_a_window_looks_at_the_mask_only():
    window = window_of(whole=True)
    inside = window.frames[:, :, :, :, -1:] > 0
    values = jnp.arange(CHANNELS) < CHANNELS - 1
    before = run("lstm_cell", window, whole=True)
    land = window._replace(frames=jnp.where(~inside & values, 9.0, window.frames))
    np.testing.assert_array_equal(run("lstm_cell", land, whole=True), before)
    ocean = window._replace(frames=jnp.where(inside & values, 9.0, window.frames))
    assert np.abs(run("lstm_cell", ocean, whole=True) - before).max() > 1e-3


def test_one_answer_for_a_window_off_the_mask_and_its_gradient_are_finite():
    window = window_of(whole=True)
    window = window._replace(frames=window.frames.at[..., -1].set(0.0))
    assert np.isfinite(run("lstm_cell", window, whole=True)).all()
    assert all(np.isfinite(g).all() for g in gradient("lstm_cell", window, whole=True))


def test_seq2seq_refuses_one_answer_for_a_window():
    with pytest.raises(ConfigError, match="conv_seq2seq") as raised:
        network("seq", ODD, wraps=True, whole=True)
    assert "target.mean_over" in str(raised.value)


@pytest.mark.parametrize("name", ["lstm_dropout", "seq_dropout"])
def test_dropout_needs_a_key_and_follows_it(name):
    window = window_of()
    without = run(name, window)
    one, again, other = (run(name, window._replace(key=jax.random.key(k))) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert (one != without).any()
    if name == "lstm_dropout":
        np.testing.assert_array_equal(without, run("lstm", window))


def test_dropout_of_seq2seq_leaves_out_the_same_features_at_all_leads():
    model = trained("seq_dropout", (1, 1))
    window = window_of((1, 1))._replace(key=jax.random.key(3))
    # How the first sample's forecast of each lead depends on the head's weights.
    by_lead = jax.jit(jax.jacrev(lambda w: model.forward(w, window)[0, :, 0, 0, 0]))
    head = np.asarray(by_lead(model.weights)["head"]["kernel"][...])
    used = (head != 0).any(axis=(1, 2, 4))
    assert used.shape == (LEADS, 12)
    assert 2 <= used[0].sum() <= 10
    np.testing.assert_array_equal(used, np.broadcast_to(used[0], used.shape))
