"""What matters and how much stays: importance against closed forms, budgets met to the letter."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from importlib import util
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.backend import use_backend
from bloodedge.compress.channels import taylor as taylor_module
from bloodedge.compress.channels.budget import Budget, Gauge, floor_of, next_down, search
from bloodedge.compress.channels.graph import ChannelGraph, trace
from bloodedge.compress.channels.importance import Scores, bn, criterion, l1, taylor
from bloodedge.compress.channels.plan import describe, make_plan
from bloodedge.compress.channels.size import LayerSize, Length, Tensor, layer_sizes
from bloodedge.compress.channels.surgery import cut
from bloodedge.data.dataset import Split
from bloodedge.errors import ConfigError, ModelError
from bloodedge.metrics import softmax
from bloodedge.train.cost import count_macs
from bloodedge.train.registry import ModelConfig, blueprint, models

NO_IMAGES = Split(np.zeros((0, 4, 4, 3), np.uint8), np.zeros(0, np.int64))


@pytest.fixture(autouse=True, scope="module")
def keras() -> Any:
    return use_backend()


def images(count: int, classes: int = 3) -> Split:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return Split(pixels, rng.integers(0, classes, count))


def randomised(model: Any) -> Any:
    """Give all weights values of either sign, but for variances."""
    rng = np.random.default_rng(0)
    drawn = [(w.name, rng.normal(0, 0.5, w.shape)) for w in model.weights]
    model.set_weights([v**2 + 0.1 if name == "moving_variance" else v for name, v in drawn])
    return model


def linear(keras: Any, hidden: int = 16) -> Any:
    """Mean pixels, a hidden layer without activation, logits."""
    image = keras.Input((4, 4, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Dense(hidden, name="hidden")(x)
    model = keras.Model(image, keras.layers.Dense(3, name="logits")(x))
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(0, 1, w.shape) for w in model.get_weights()])
    return model


def stage(keras: Any) -> Any:
    """Two coupled convolutions, one of them with batch norm, then one with another."""
    image = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(16, 3, padding="same", use_bias=False, name="a")(image)
    x = keras.layers.BatchNormalization(name="a_bn")(x)
    y = keras.layers.Conv2D(16, 3, padding="same", name="b")(x)
    x = keras.layers.Add()([x, y])
    x = keras.layers.Conv2D(32, 1, name="c")(x)
    x = keras.layers.BatchNormalization(name="c_bn")(x)
    x = keras.layers.Flatten()(keras.layers.ReLU()(x))
    x = keras.layers.Dense(20, activation="relu", name="d")(x)
    return randomised(keras.Model(image, keras.layers.Dense(3, name="logits")(x)))


def kernel(model: Any, name: str) -> NDArray[np.float64]:
    return np.asarray(model.get_layer(name).get_weights()[0], np.float64)


def test_l1_adds_the_norms_of_coupled_layers(keras: Any):
    model = stage(keras)
    scores = l1(trace(model), NO_IMAGES, 0)
    both = np.abs(kernel(model, "a")).sum((0, 1, 2)) + np.abs(kernel(model, "b")).sum((0, 1, 2))
    np.testing.assert_allclose(scores["a"], both / both.sum(), rtol=1e-5)
    alone = np.abs(kernel(model, "d")).sum(0)
    np.testing.assert_allclose(scores["d"], alone / alone.sum(), rtol=1e-5)


def test_l1_adds_all_that_a_layer_makes_of_one_channel(keras: Any):
    image = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(16, 1, name="stem")(image)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="twice")(x)
    x = keras.layers.Dense(3, name="logits")(keras.layers.GlobalAveragePooling2D()(x))
    model = randomised(keras.Model(image, x))
    scores = l1(trace(model), NO_IMAGES, 0)["stem"]
    expected = np.abs(kernel(model, "stem")).sum((0, 1, 2))
    expected += np.abs(kernel(model, "twice")).sum((0, 1, 3))
    np.testing.assert_allclose(scores, expected / expected.sum(), rtol=1e-5)


def test_batch_norm_scale_ranks_only_what_has_one(keras: Any):
    model = stage(keras)
    graph = trace(model)
    scores = bn(graph, NO_IMAGES, 0)
    gamma = np.abs(kernel(model, "a_bn"))
    np.testing.assert_allclose(scores["a"], gamma / gamma.sum(), rtol=1e-5)
    assert set(scores) == {"a", "c"}
    plan = make_plan(graph, scores, Budget("ratio", 0.7), 0.1)
    assert {row.name: row.why_not for row in plan.layers}["d"] == "nothing to rank its channels by"


def test_taylor_of_a_linear_net_is_the_hand_made_gradient(keras: Any):
    model, split = linear(keras), images(64)
    before = model.get_weights()
    scores = taylor(trace(model), split, 7)["hidden"]
    w, b, v, c = (np.asarray(weight, np.float64) for weight in model.get_weights())
    order = np.random.default_rng(7).permutation(64).reshape(2, 32)
    expected = np.zeros(16)
    for batch in order:
        h = (split.images[batch] / 255).mean(axis=(1, 2)) @ w + b
        slope = (softmax(h @ v + c) - np.eye(3)[split.labels[batch]]) / 32 @ v.T
        expected += (h * slope).sum(axis=0) ** 2 / 2
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-9)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_taylor_takes_the_batch_norm_behind_a_convolution(keras: Any):
    """With a constant added behind it: scale and shift, both, carry a channel."""
    image = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(16, 1, name="conv")(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = randomised(keras.Model(image, keras.layers.Dense(3, name="logits")(x)))
    split = images(16)
    scores = taylor(trace(model), split, 0)["conv"]
    k, kb, gamma, beta, mean, variance, v, c = (np.asarray(w, float) for w in model.get_weights())
    y = (split.images / 255).mean(axis=(1, 2)) @ k[0, 0] + kb
    epsilon = model.get_layer("norm").epsilon
    y = gamma * (y - mean) / np.sqrt(variance + epsilon) + beta
    slope = (softmax(y @ v + c) - np.eye(3)[split.labels]) / 16 @ v.T
    np.testing.assert_allclose(scores, (y * slope).sum(axis=0) ** 2, rtol=1e-3, atol=1e-9)


def test_taylor_counts_what_passes_by_the_batch_norm(keras: Any):
    """In a residual net that normalises first, the stem's channels reach the sum directly, too."""
    layers = keras.layers
    image = keras.Input((4, 4, 3))
    stem = layers.Conv2D(16, 1, name="stem")(layers.Rescaling(1 / 255)(image))
    normed = layers.BatchNormalization(name="norm")(stem)
    x = layers.Add()([stem, layers.Conv2D(16, 1, name="inner")(normed)])
    x = layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x))
    graph = trace(randomised(keras.Model(image, x)))
    assert not graph.members["stem"].normalised
    # With neither scale nor shift nothing goes through the norm: all of it passes by.
    norm = graph.model.get_layer("norm")
    norm.set_weights([w * (i > 1) for i, w in enumerate(norm.get_weights())])
    inner = graph.model.get_layer("inner")
    inner.set_weights([w * 0 for w in inner.get_weights()])
    assert (taylor(graph, images(16), 0)["stem"] > 0).all()


@pytest.mark.slow
@pytest.mark.skipif(util.find_spec("jax") is None, reason="jax is not installed")
def test_taylor_is_the_same_on_another_backend():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        [*command, "-k", "hand_made_gradient"],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout


def test_taylor_of_a_frozen_layer_is_one_clear_error(keras: Any):
    model = linear(keras)
    model.get_layer("hidden").trainable = False
    with pytest.raises(ModelError, match=r"hidden is frozen.*--importance l1"):
        taylor(trace(model), images(8), 0)


def test_taylor_of_weights_too_large_for_gradients_is_one_clear_error(keras: Any):
    model = linear(keras)
    layer = model.get_layer("hidden")
    weights, bias = layer.get_weights()
    weights[:, 0] = 3e38
    layer.set_weights([weights, bias])
    graph = trace(model)
    with pytest.raises(ModelError, match=r"hidden .* gradients are not finite.*--importance l1$"):
        taylor(graph, images(8), 0)
    # What the message names ranks it.
    plan = make_plan(graph, l1(graph, NO_IMAGES, 0), Budget("ratio", 0.5), 0.1)
    assert 0 in plan.kept["hidden"]


def test_taylor_looks_at_a_limited_draw(keras: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(taylor_module, "IMAGES", 32)
    model, split = linear(keras), images(500)
    drawn = np.random.default_rng(3).permutation(500)[:32]
    few = Split(split.images[drawn], split.labels[drawn])
    scores, same = taylor(trace(model), split, 3), taylor(trace(model), few, 0)
    np.testing.assert_allclose(scores["hidden"], same["hidden"], rtol=1e-4)


def test_an_unknown_criterion_is_refused():
    with pytest.raises(ConfigError, match="l1, bn, taylor"):
        criterion("random")


def ranked(graph: ChannelGraph) -> Scores:
    rng = np.random.default_rng(5)
    return {group.name: rng.random(len(group)) for group in graph.groups}


@pytest.mark.parametrize(
    "budget", [Budget("macs", 0.5), Budget("macs", 0.3), Budget("kb", 5.0), Budget("ratio", 0.6)]
)
def test_a_budget_is_met_and_what_is_promised_is_built(keras: Any, budget: Budget):
    graph = trace(stage(keras))
    scores = ranked(graph)
    plan = make_plan(graph, scores, budget, 0.1)
    smaller, totals = cut(graph, graph.mask(plan.kept)), plan.totals()
    assert totals["macs_left"] == count_macs(smaller)
    assert totals["bytes_left"] == describe(trace(smaller), {}).totals()["bytes"]
    channels = {row.name: (row.channels, row.channels_left) for row in plan.layers}
    assert all(left % 8 == 0 for before, left in channels.values() if left < before)
    free = [channels[name] for name in ("a", "c", "d")]
    shares = {
        "macs": totals["macs_left"] / totals["macs"],
        "kb": totals["bytes_left"] / 1000,
        "ratio": sum(left for _, left in free) / sum(before for before, _ in free),
    }
    assert shares[budget.kind] <= budget.value
    assert channels["a"] == channels["b"]
    assert channels["logits"] == (3, 3)
    for name, places in plan.kept.items():
        removed = np.setdiff1d(np.arange(len(scores[name])), places)
        assert scores[name][removed].max() < scores[name][places].min()


DEEP = {"resnet50", "inception_v3", "study_inception", "mobilenet_v3_small", "vit_tiny"}
DEEP |= {"mobilenet_v2_035"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in DEEP else ()) for n in models()]
)
def test_every_model_meets_a_budget_in_multiples_of_8(name: str):
    graph = trace(blueprint(ModelConfig(name, 8)))
    plan = make_plan(graph, ranked(graph), Budget("macs", 0.8), 0.1)
    totals = plan.totals()
    assert totals["macs"] == count_macs(graph.model)
    assert 0.5 * totals["macs"] < totals["macs_left"] <= 0.8 * totals["macs"]
    sizes = {group.name: len(group) for group in graph.groups}
    assert plan.kept
    for group, places in plan.kept.items():
        assert len(places) % 8 == 0
        assert floor_of(sizes[group], 0.1) <= len(places) < sizes[group]


def test_what_matters_least_for_what_it_saves_goes_first(keras: Any):
    graph = trace(stage(keras))
    scores = {"a": np.full(16, 9.0), "c": np.full(32, 9.0), "d": np.full(20, 9.0)}
    scores["c"][8:24] = 0.1
    # 68 channels, of which 52 stay: the sixteen of c, and nothing else.
    plan = make_plan(graph, scores, Budget("ratio", 52 / 68), 0.1)
    assert set(plan.kept) == {"c"}
    np.testing.assert_array_equal(plan.kept["c"], [*range(8), *range(24, 32)])
    # All alike: one of `a` saves more MACs than one of `d`.
    alike = {name: np.ones(len(s)) for name, s in scores.items()}
    row = {r.name: r for r in make_plan(graph, alike, Budget("macs", 0.9), 0.1).layers}
    assert row["a"].channels_left == 8
    assert row["d"].channels_left == 20


def test_the_thinner_a_group_the_dearer_are_its_channels(keras: Any):
    """Two groups alike in all but their width end at the same width, not at the floor."""
    image = keras.Input((4, 4, 3))
    x = keras.layers.Dense(64, name="wide")(keras.layers.Flatten()(image))
    x = keras.layers.Dense(40, name="narrow")(x)
    graph = trace(keras.Model(image, keras.layers.Dense(3, name="logits")(x)))
    scores = {"wide": np.full(64, 1 / 64), "narrow": np.full(40, 1 / 40)}
    plan = make_plan(graph, scores, Budget("ratio", 32 / 104), 0.0)
    assert {name: len(places) for name, places in plan.kept.items()} == {"wide": 16, "narrow": 16}
    nothing = {name: np.zeros_like(s) for name, s in scores.items()}
    assert make_plan(graph, nothing, Budget("ratio", 0.5), 0.0).totals()["macs_left"] > 0


def test_what_a_neighbours_channels_save_falls_with_ones_own():
    """A layer between two groups: cutting one halves what cutting the other would save."""
    length = {name: Length(0, ((name, 1),)) for name in "abc"}
    sizes = {
        "between": LayerSize((Tensor((length["a"], length["b"]), 1, 1),)),
        "alone": LayerSize((Tensor((length["c"], Length(16)), 1, 1),)),
    }
    full = dict.fromkeys("abc", 16)
    gauge = Gauge(Budget("macs", 0.65), sizes, full, ("a", "b", "c"))
    scores = {name: np.full(16, total / 16) for name, total in zip("abc", (1, 2, 3), strict=True)}
    # 180 of the 512 MACs have to go. b costs 2 for 128 of them at first, less than c's 3; once a is
    # cut, 2 for 64, which with a's 128 would be enough.
    assert search(gauge, scores, 0.0) == {"a": 8, "b": 16, "c": 8}


def separate(**macs: int) -> dict[str, LayerSize]:
    """Layers that share no group, each with its MACs for one channel."""
    return {
        name: LayerSize((Tensor((Length(0, ((name, 1),)),), each, 1),))
        for name, each in macs.items()
    }


def test_what_the_last_step_saved_too_much_is_given_back():
    """The cheaper one goes first, and saves too little; once the other has gone it fits again."""
    full = {"small": 16, "large": 16}
    gauge = Gauge(Budget("macs", 0.6), separate(small=1, large=9), full, tuple(full))
    scores = {"small": np.full(16, 1e-3), "large": np.full(16, 1.0)}
    # 64 of the 160 MACs have to go: `small` gives 8, `large` 72.
    assert search(gauge, scores, 0.0) == {"small": 16, "large": 8}


def test_the_dearest_step_is_given_back_first_and_others_where_they_fit():
    full = dict.fromkeys("abcd", 16)
    sizes = separate(a=1, b=1, c=1, d=27)
    # All are cut, d last. That leaves 240 of the 480 MACs: 16 can come back, 8 for each but d.
    gauge = Gauge(Budget("macs", 256 / 480), sizes, full, ("a", "b", "c", "d"))
    scores = {g: np.full(16, v / 16) for g, v in zip("abcd", (0.1, 0.3, 0.2, 20.0), strict=True)}
    assert search(gauge, scores, 0.0) == {"a": 8, "b": 16, "c": 16, "d": 8}


@pytest.mark.parametrize("kind", ["macs", "kb", "ratio"])
@pytest.mark.parametrize("floor", [0.0, 0.5])
def test_nothing_more_could_be_given_back(keras: Any, kind: str, floor: float):
    graph = trace(blueprint(ModelConfig("cnn_se_pico", 8)))
    free = tuple(g.name for g in graph.groups if not g.locked and len(g) > 8)
    full = {g.name: len(g) for g in graph.groups}
    # Groups that matter little are cut first, down to the floor, and save too little.
    sizes = layer_sizes(graph)
    scores = {g: s * 10.0**i for i, (g, s) in enumerate(ranked(graph).items())}
    least = {**full, **{g: floor_of(full[g], floor) for g in free}}
    reached = 0
    for share in np.linspace(0.05, 0.95, 19):
        whole = Gauge(Budget(kind, 0.5), sizes, full, free)
        value = share * whole.total(full) / 1000 if kind == "kb" else share
        gauge = replace(whole, budget=Budget(kind, float(value)))
        if gauge.total(least) > gauge.limit:
            continue
        reached += 1
        counts = search(gauge, scores, floor)
        assert gauge.total(counts) <= gauge.limit
        assert all(least[g] <= counts[g] <= full[g] for g in full)
        for g in free:
            more = {**counts, g: min(full[g], counts[g] + 8)}
            assert counts[g] == full[g] or gauge.total(more) > gauge.limit
    assert reached > 3


def test_a_budget_out_of_reach_says_the_smallest(keras: Any):
    graph = trace(stage(keras))
    smallest = {"a": np.arange(8), "c": np.arange(8), "d": np.arange(8)}
    totals = describe(graph, smallest).totals()
    share = totals["macs_left"] / totals["macs"]
    with pytest.raises(ConfigError, match=r"smallest reachable is [\d.]+ of the MACs") as caught:
        make_plan(graph, ranked(graph), Budget("macs", 0.01), 0.1)
    said = float(str(caught.value).split(" of the MACs")[0].split()[-1])
    assert share <= said < share + 1e-3
    # What is said can be had.
    assert make_plan(graph, ranked(graph), Budget("macs", said), 0.1).totals() == totals
    kb = totals["bytes_left"] / 1000
    make_plan(graph, ranked(graph), Budget("kb", kb), 0.1)
    with pytest.raises(ConfigError, match="--floor"):
        make_plan(graph, ranked(graph), Budget("kb", kb), 0.5)
    with pytest.raises(ConfigError, match="KB of int8 weights already"):
        make_plan(graph, ranked(graph), Budget("kb", 1000.0), 0.1)


def test_a_model_of_few_channels_is_told_that_none_can_go(keras: Any):
    image = keras.Input((4, 4, 3))
    x = keras.layers.Dense(8, name="thin")(keras.layers.Flatten()(image))
    graph = trace(keras.Model(image, keras.layers.Dense(3, name="logits")(x)))
    with pytest.raises(ConfigError, match="no layer of the model can lose channels"):
        make_plan(graph, {"thin": np.arange(8.0)}, Budget("ratio", 0.5), 0.1)


def test_the_floor_is_a_multiple_of_8_and_keeps_its_share():
    assert [floor_of(n, 0.1) for n in (4, 8, 20, 64, 512)] == [4, 8, 8, 8, 56]
    assert floor_of(12, 1.0) == 12
    assert [next_down(n) for n in (20, 16, 9)] == [16, 8, 8]


def test_int8_bytes_are_a_byte_a_weight_and_four_a_bias(keras: Any):
    convolutions = 3 * 9 * 16 + 16 * 9 * 16 + 16 * 32
    dense = 16 * 32 * 20 + 20 * 3
    totals = describe(trace(stage(keras)), {}).totals()
    assert totals["bytes"] == convolutions + dense + 4 * (16 + 16 + 32 + 20 + 3)


@pytest.mark.parametrize(
    ("kind", "value"), [("macs", 0.0), ("macs", 1.0), ("ratio", 1.5), ("kb", 0.0), ("kb", -1.0)]
)
def test_a_value_that_is_no_budget_is_refused(kind: str, value: float):
    with pytest.raises(ConfigError, match=f"--{kind}"):
        Budget(kind, value)


@pytest.mark.parametrize(
    "kept",
    [
        {"none": np.arange(8)},
        {"logits": np.arange(2)},
        {"a": np.array([3, 3])},
        {"a": np.array([16])},
        {"a": np.array([-1])},
        {"a": np.zeros(0, np.int64)},
        {"a": np.array([0.5])},
    ],
)
def test_a_plan_that_does_not_fit_is_refused(keras: Any, kept: dict[str, Any]):
    with pytest.raises(ModelError, match="do not fit"):
        describe(trace(stage(keras)), kept)
