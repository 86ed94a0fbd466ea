"""CNN encoder, CNN-LSTM and autoencoder: shared weights, norms, gaps, frozen encoders."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from test_lstm import assert_close, random, with_weights

from gridcast.config.models import CnnLstmConfig
from gridcast.models import encoding
from gridcast.models.autoencoder import Autoencoder
from gridcast.models.cnn_lstm import CnnLstm
from gridcast.models.encoder import Encoder, freeze
from gridcast.models.encoding import encode_frames
from gridcast.models.window import Frozen, Sizes, Window

GRID, CHANNELS, TIME = (5, 7), 2, 4
NORMS = ["batch", "group", "layer", "none"]


def settings(**given: Any) -> CnnLstmConfig:
    small = {"channels": [4, 8], "latent": 5, "hidden": [6]}
    return CnnLstmConfig(name="cnn_lstm", **(small | given))


def frozen_settings(**given: Any) -> CnnLstmConfig:
    return settings(encoder_from="a run", freeze_encoder=True, **given)


def sizes(*, whole: bool = False, inputs: int = TIME, leads: int = 2, outputs: int = 1) -> Sizes:
    return Sizes(CHANNELS, 0, inputs, leads, outputs, GRID, whole, wraps=True)


def network(config: CnnLstmConfig, **given: Any) -> CnnLstm:
    return with_weights(lambda: CnnLstm(config, sizes(**given), rngs=nnx.Rngs(0)))


def window(frames: Any, present: Any = None, key: Any = None) -> Window:
    # These networks look neither ahead nor at the reference or the truth.
    nothing = jnp.zeros((1, 1, 1, 1, 1))
    return Window(jnp.asarray(frames), present, nothing, nothing, None, 0.0, key)


KEY = jax.random.key(0)
FRAMES = jnp.asarray(random(3, TIME, *GRID, CHANNELS, seed=1))
apply = jax.jit(lambda net, frames, present=None, key=None: net(window(frames, present, key)))


@jax.jit
def run(net: nnx.Module, frames: Any, present: Any, key: Any) -> Any:
    """(numbers, running moments afterwards, gradients to the weights, and to the frames)"""
    graph, params, others = nnx.split(net, nnx.Param, ...)

    def total(params: Any, frames: Any) -> Any:
        net = nnx.merge(graph, params, others)
        found = net(window(frames, present, key))
        return jnp.sin(found).sum(), (found, nnx.state(net, nnx.BatchStat))

    (_, aux), by = jax.value_and_grad(total, (0, 1), has_aux=True)(params, frames)
    return *aux, *by


@cache
def encoder(norm: str, latent: int | None = 5) -> Encoder:
    config = settings(norm=norm, latent=latent, convolutions=2)
    return with_weights(lambda: Encoder(CHANNELS, GRID, config, wraps=True, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("norm", NORMS)
def test_an_encoder_treats_each_frame_by_itself_with_the_same_weights(norm):
    vectors, features = jax.jit(encode_frames)(encoder(norm), FRAMES)
    assert [f.shape for f in features] == [(3, 3, 4, 4), (3, 2, 2, 8)]
    one = jax.jit(lambda made, frame: made(frame))
    for b, t in [(0, 0), (0, TIME - 1), (2, 1), (2, TIME - 1)]:
        vector, single, _ = one(encoder(norm), FRAMES[b, t])
        np.testing.assert_allclose(vectors[b, t], vector, atol=1e-5)
        for found, expected in zip(features, single, strict=True):
            if t == TIME - 1:  # the decoder sees the last frame alone
                np.testing.assert_allclose(found[b], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "at_once", "loops"),
    [(4, 2, 1), pytest.param(3, 2, 1, marks=pytest.mark.family), (4, 4, 0)],
)
def test_some_windows_at_a_time_give_the_numbers_of_all_at_once(batch, at_once, loops, monkeypatch):
    frames = jnp.asarray(random(batch, TIME, *GRID, CHANNELS, seed=2))
    net = encoder("layer")
    expected = jax.jit(lambda frames: encode_frames(net, frames))(frames)
    monkeypatch.setattr(encoding, "CELLS_AT_A_TIME", at_once * TIME * np.prod(GRID))
    traced = jax.jit(lambda frames: encode_frames(net, frames)).trace(frames)
    for found, whole in zip(
        jax.tree.leaves(traced.lower().compile()(frames)), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(found, whole, atol=1e-6)
    for platform, count in (("cpu", loops), ("cuda", 0)):
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        assert program.count("stablehlo.while") == count


def test_the_gradient_of_the_shared_weights_is_the_sum_over_frames():
    graph, params = nnx.split(encoder("layer"), nnx.Param)

    @jax.jit
    @jax.grad
    def gradient(params: Any, frames: Any) -> Any:
        return (encode_frames(nnx.merge(graph, params), frames)[0] ** 2).sum()

    found = gradient(params, FRAMES)
    each = [gradient(params, frame) for frame in FRAMES.reshape(-1, 1, 1, *GRID, CHANNELS)]
    expected = jax.tree.map(lambda *parts: np.sum(parts, axis=0, dtype=np.float64), *each)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_parameters_of_vgg_blocks_are_those_counted_by_hand():
    config = settings(channels=[64, 128], convolutions=2, norm="none", latent=10)

    def build() -> Encoder:
        return Encoder(3, (32, 32), config, wraps=False, rngs=nnx.Rngs(0))

    made = nnx.eval_shape(build)
    counts = [sum(p.size for p in jax.tree.leaves(nnx.state(s))) for s in made.stages]
    # The first four layers of VGG-16 (Simonyan & Zisserman 2015).
    assert counts == [1_792, 36_928, 73_856, 147_584]
    assert made.dense.kernel.shape == (8 * 8 * 128, 10)
    frame = jax.ShapeDtypeStruct((32, 32, 3), jnp.float32)
    vector, features, _ = jax.eval_shape(lambda x: build()(x), frame)
    assert [f.shape for f in features] == [(16, 16, 64), (8, 8, 128)]
    assert vector.shape == (10,)


def test_a_filter_of_two_cells_keeps_the_grid_and_its_features_go_straight_to_the_lstm():
    config = settings(channels=[1], kernel=2, norm="none", latent=None)
    made = Encoder(1, (10, 10), config, wraps=False, rngs=nnx.Rngs(0))
    kernel = np.array([[1.0, 2.0], [4.0, 8.0]], np.float32)
    made.stages[0].conv.kernel[...] = jnp.asarray(kernel[:, :, None, None])
    made.stages[0].conv.bias[...] = jnp.asarray([0.5])
    frame = random(10, 10)
    vector, (field,), _ = jax.jit(made.__call__)(jnp.asarray(frame[:, :, None]))
    wide = np.pad(frame, ((0, 1), (0, 1)))  # Keras' "same": the odd cell comes after
    sums = sum(kernel[i, j] * wide[i : i + 10, j : j + 10] for i in (0, 1) for j in (0, 1)) + 0.5
    expected = np.maximum(sums, 0.0).reshape(5, 2, 5, 2).max(axis=(1, 3))
    assert made.width == 25
    np.testing.assert_allclose(field[..., 0], expected, atol=1e-5)
    np.testing.assert_array_equal(vector, field.reshape(-1))
    assert sum(p.size for p in jax.tree.leaves(nnx.state(made))) == 5


@pytest.mark.parametrize("gaps", [False, True])
def test_batch_norm_is_that_of_flax_over_the_frames_that_are_there(gaps):
    config = settings(norm="batch", channels=[4], latent=None)
    made = with_weights(lambda: Encoder(CHANNELS, GRID, config, wraps=True, rngs=nnx.Rngs(0)))
    there = np.ones((3, TIME), bool)
    if gaps:
        there[0, :2] = there[1, 1] = False
    theirs = nnx.BatchNorm(4, momentum=0.9, use_fast_variance=False, rngs=nnx.Rngs(0))
    names = {"scale": "scale", "bias": "bias", "mean": "mean", "variance": "var"}
    for ours, other in names.items():
        getattr(theirs, other)[...] = getattr(made.stages[0].norm, ours)[...]
    present = jnp.asarray(there) if gaps else None

    @jax.jit
    def both(made: Encoder, theirs: nnx.BatchNorm) -> Any:
        found = [encode_frames(made, FRAMES, present, training=t)[1][0] for t in (True, False)]
        x = theirs(made.stages[0].conv(FRAMES[there]), use_running_average=False)
        x = jnp.pad(nnx.relu(x), ((0, 0), (0, 1), (0, 0), (0, 0)), constant_values=-jnp.inf)
        x = jnp.concatenate([x, x[:, :, :1]], axis=2)  # an odd longitude wraps round
        x = jnp.max(x.reshape(len(x), 3, 2, 4, 2, 4), axis=(2, 4))
        norm = made.stages[0].norm
        return found, x, (norm.mean[...], norm.variance[...]), (theirs.mean[...], theirs.var[...])

    (training, later), expected, moments, running = both(made, theirs)
    last = np.nonzero(there)[1] == TIME - 1
    np.testing.assert_allclose(training, expected[last], atol=1e-5)
    assert_close(moments, running)
    assert np.abs(training - later).max() > 0.1


@pytest.mark.parametrize("norm", NORMS)
def test_frames_that_lack_change_nothing_even_in_training(norm):
    net = network(settings(norm=norm, channels=[4]))
    there = np.array([0, 0, 1, 0, 1, 1, 0, 1], bool)
    frames = np.empty((3, 8, *GRID, CHANNELS), np.float32)
    frames[:] = 7.0
    frames[:, there] = FRAMES
    present = np.broadcast_to(there, (3, 8))
    numbers, moments, by_weights, by_frames = run(net, frames, present, KEY)
    assert np.abs(numbers).max() > 0.1
    expected = run(net, FRAMES, None, KEY)
    assert_close((numbers, moments, by_weights, by_frames[:, there]), expected)
    assert not np.asarray(by_frames)[:, ~there].any()
    if norm == "batch":
        assert np.abs(numbers - run(net, FRAMES, None, None)[0]).max() > 0.01


CASES = {
    "plain": settings(norm="layer", bidirectional=True),
    "stride": settings(norm="none", pooling="stride"),
    "vgg": settings(norm="layer", convolutions=2, latent=None, sequence=True, hidden=[6, 3]),
    "batch": settings(norm="batch", pooling="mean"),
    "whole": settings(norm="none", channels=[4]),
}


@pytest.mark.parametrize("name", CASES)
def test_every_weight_and_every_frame_has_a_share_in_the_forecast(name):
    whole = name == "whole"
    numbers, _, by_weights, by_frames = run(network(CASES[name], whole=whole), FRAMES, None, KEY)
    assert numbers.shape == ((3, 2, 1, 1, 1) if whole else (3, 2, *GRID, 1))
    for path, gradient in jax.tree_util.tree_leaves_with_path(by_weights):
        where = jax.tree_util.keystr(path)
        # A batch norm takes off again what a bias before it adds.
        if not (name == "batch" and "['conv']['bias']" in where):
            assert np.abs(gradient).max() > 1e-5, where
    assert all(np.abs(by_frames[:, t]).max() > 1e-5 for t in range(TIME))


@pytest.mark.parametrize("whole", [False, True])
def test_an_untrained_network_says_exactly_zero(whole):
    net = CnnLstm(settings(channels=[4]), sizes(whole=whole, outputs=3), rngs=nnx.Rngs(0))
    found = apply(net, FRAMES)
    assert found.shape == ((3, 2, 1, 1, 3) if whole else (3, 2, *GRID, 3))
    assert not np.asarray(found).any()


def test_leads_and_outputs_come_out_in_their_places():
    net = network(settings(), outputs=3)
    head = net.decoder.head
    head.kernel[...] = jnp.zeros(head.kernel.shape)
    head.bias[...] = jnp.arange(6.0)
    found = apply(net, FRAMES)
    np.testing.assert_array_equal(found[0, :, 2, 3], [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])


def test_dropout_acts_in_training_only():
    net = network(settings(dropout=0.5))
    plain = apply(network(settings()), FRAMES)
    np.testing.assert_array_equal(apply(net, FRAMES), plain)
    one, again, other = (apply(net, FRAMES, None, jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert (one != plain).any()


def test_a_frozen_encoder_has_no_gradient_and_its_moments_stay():
    free = network(settings(norm="batch", channels=[4]))
    held = nnx.clone(free)
    freeze(held.encoder)
    numbers, moments, by_weights, _ = run(held, FRAMES, None, KEY)
    expected = run(free, FRAMES, None, None)
    assert_close(numbers, expected[0])
    assert not jax.tree.leaves(moments)
    assert set(by_weights) == {"lstm", "decoder"}
    assert_close(*({part: g[part] for part in by_weights} for g in (by_weights, expected[2])))


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_freeze_encoder_leaves_nothing_of_the_encoder_to_train(norm):
    nets = [
        nnx.eval_shape(lambda c=c: CnnLstm(c, sizes(), rngs=nnx.Rngs(0)))
        for c in (settings(norm=norm), frozen_settings(norm=norm))
    ]
    free, held = (net.encoder for net in nets)
    assert not jax.tree.leaves(nnx.state(held, (nnx.Param, nnx.BatchStat)))
    # The same names, so that trained weights can be put there.
    assert names(nnx.state(held, Frozen)) == names(nnx.state(free))
    assert names(nnx.state(nets[1].lstm, nnx.Param)) == names(nnx.state(nets[0].lstm))


def names(state: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}


def train(net: nnx.Module, target: Any, steps: int) -> Any:
    """(losses, the network after `steps` of Adam), the loop compiled as in training."""
    graph, params, stats, others = nnx.split(net, nnx.Param, nnx.BatchStat, ...)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def loop(params: Any, stats: Any) -> Any:
        def one(i: Any, carry: Any) -> Any:
            params, stats, state, losses = carry

            def loss(params: Any) -> Any:
                net = nnx.merge(graph, params, stats, others)
                error = net(window(FRAMES, None, jax.random.fold_in(KEY, i))) - target
                return (error**2).mean(), nnx.state(net, nnx.BatchStat)

            (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(params)
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), stats, state, losses.at[i].set(value)

        start = (params, stats, optimizer.init(params), jnp.zeros(steps))
        return jax.lax.fori_loop(0, steps, one, start)

    params, stats, _, losses = loop(params, stats)
    return np.asarray(losses), nnx.merge(graph, params, stats, others)


TARGET = FRAMES[:, :2, :, :, :1]


def test_a_training_loop_moves_the_running_moments_to_those_of_the_data():
    net = network(settings(norm="batch", channels=[4]))
    before = np.asarray(net.encoder.stages[0].norm.mean[...])
    losses, after = train(net, TARGET, 60)
    assert losses[-5:].mean() < 0.5 * losses[:5].mean()
    first = after.encoder.stages[0]
    x = first.conv(FRAMES.reshape(-1, *GRID, CHANNELS))
    assert np.abs(first.norm.mean[...] - x.mean(axis=(0, 1, 2))).max() < 0.1
    assert np.abs(before - x.mean(axis=(0, 1, 2))).max() > 0.5


def test_a_training_loop_leaves_a_frozen_encoder_bit_for_bit():
    net = network(settings(norm="batch", channels=[4]))
    freeze(net.encoder)
    losses, after = train(net, TARGET, 30)
    assert losses[-1] < 0.8 * losses[0]
    old, new = (jax.tree.leaves(nnx.state(n.encoder)) for n in (net, after))
    assert all(np.array_equal(a, b) for a, b in zip(old, new, strict=True))


@pytest.mark.family
def test_an_autoencoder_learns_and_its_encoder_fits_a_cnn_lstm():
    config = settings(norm="batch", channels=[6])
    auto = Autoencoder(config, sizes(inputs=1, leads=1), rngs=nnx.Rngs(0))
    assert not np.asarray(apply(auto, FRAMES[:, -1:])).any()
    losses, auto = train(auto, FRAMES[:, -1:, :, :, :1], 100)
    assert losses[-1] < 0.3 * losses[0]
    found = apply(auto, FRAMES[:, -1:])
    assert found.shape == (3, 1, *GRID, 1)
    np.testing.assert_array_equal(found, apply(auto, FRAMES))

    net = network(config)
    learned = nnx.state(auto.encoder)
    assert names(learned) == names(nnx.state(net.encoder))
    nnx.update(net.encoder, learned)
    ours, theirs = (jax.jit(encode_frames)(n.encoder, FRAMES)[0] for n in (net, auto))
    np.testing.assert_array_equal(ours, theirs)


def test_an_autoencoder_has_nothing_but_the_vector():
    auto = with_weights(
        lambda: Autoencoder(settings(), sizes(inputs=1, leads=1, outputs=2), rngs=nnx.Rngs(0))
    )
    frames = FRAMES[:, -1:]
    found = np.asarray(apply(auto, frames))
    assert found.shape == (3, 1, *GRID, 2)
    assert np.abs(found[0] - found[1]).max() > 0.01
    auto.encoder.dense.kernel[...] = jnp.zeros_like(auto.encoder.dense.kernel[...])
    found = np.asarray(apply(auto, frames))
    np.testing.assert_array_equal(found[0], found[1])
