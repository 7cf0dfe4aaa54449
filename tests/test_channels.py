"""Removing channels: what is coupled, and that the cut model computes what it should."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.backend import use_backend
from bloodedge.compress.channels.graph import ChannelGraph, trace
from bloodedge.compress.channels.plan import describe
from bloodedge.compress.channels.surgery import cut
from bloodedge.deploy.convert import convert
from bloodedge.deploy.interpreter import Classifier
from bloodedge.errors import ModelError
from bloodedge.metrics import softmax
from bloodedge.train.cost import count_macs
from bloodedge.train.modelio import load_model, save_model
from bloodedge.train.registry import ModelConfig, blueprint, build, models, spec

# Wide enough that something can be cut.
WIDTHS = {
    "cnn_se": 0.5,
    "cnn_se_nano": 0.5,
    "cnn_se_pico": 0.5,
    "mobilenet_v3_small": 0.25,
    "vit_tiny": 0.125,
    "study_cnn_se": 0.5,
}
DEEP = {"resnet50", "inception_v3", "study_inception", "mobilenet_v3_small", "mobilenet_v2_035"}
EVERY = [
    pytest.param(name, kind, marks=pytest.mark.slow if name in DEEP else ())
    for name in models()
    for kind in ("", *(kind for kind in spec(name).attention if kind != "none"))
]


@pytest.fixture(autouse=True, scope="module")
def keras() -> Any:
    return use_backend()


def small(name: str, attention: str = "") -> Any:
    entry = spec(name)
    width = WIDTHS.get(name, 0.15) if entry.scalable else 1.0
    config = ModelConfig(name, 8, entry.min_size, width, attention)
    return shaken(build(config, size=config.size))


def shaken(model: Any, seed: int = 0) -> Any:
    """Give every weight beside the kernels a value that is neither 0 nor 1."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for weight in layer.weights:
            if weight.name in ("gamma", "moving_variance"):
                weight.assign(rng.uniform(0.7, 1.3, weight.shape))
            elif "kernel" not in weight.name:
                weight.assign(rng.normal(0, 0.2, weight.shape))
    return model


def outputs(model: Any, images: NDArray[Any]) -> NDArray[np.float32]:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(model(images, training=False)))


def noise(model: Any, count: int = 4) -> NDArray[np.float32]:
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


def half_of(graph: ChannelGraph, seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """Half the channels of every group that can be cut, drawn."""
    rng = np.random.default_rng(seed)
    groups = [group for group in graph.groups if not group.locked and len(group) > 1]
    return {g.name: np.sort(rng.permutation(len(g))[: len(g) // 2]) for g in groups}


def zero_removed(graph: ChannelGraph, mask: NDArray[np.bool_]) -> None:
    """Make removed channels zero where they are made: kernel, bias, scale, shift and mean."""
    for member in graph.members.values():
        removed = ~mask[member.out]
        weights = member.layer.get_weights()
        # Without a scale, batch norm makes zero of zero only if the mean is zero, too.
        means = [i for i, w in enumerate(member.layer.weights) if w.name == "moving_mean"]
        for i in (*member.outputs, *means):
            flat = weights[i].reshape(-1, len(removed))
            flat[:, removed] = 0
            weights[i] = flat.reshape(weights[i].shape)
        member.layer.set_weights(weights)


def int8_bytes(model: Any) -> int:
    """A byte for each weight, four for each bias, that of batch norm in the layer before it."""
    total = 0
    for layer in model.layers:
        if type(layer).__name__ != "BatchNormalization":
            for weight in layer.weights:
                total += prod(weight.shape) * (4 if weight.name in ("bias", "gamma", "beta") else 1)
            if not getattr(layer, "use_bias", True):
                total += 4 * layer.output.shape[-1]
    return total


def check_cut(model: Any, tolerance: float = 1e-4) -> Any:
    """Cut half of everything; compare with zeros in the whole model, and with the plan."""
    graph = trace(model)
    kept = half_of(graph)
    mask = graph.mask(kept)
    images = noise(model)
    whole, before = outputs(model, images), model.get_weights()
    smaller = cut(graph, mask)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    totals = describe(graph, kept).totals()
    assert (totals["macs"], totals["bytes"]) == (count_macs(model), int8_bytes(model))
    assert (totals["macs_left"], totals["bytes_left"]) == (count_macs(smaller), int8_bytes(smaller))
    assert totals["macs_left"] < totals["macs"]
    zero_removed(graph, mask)
    expected, found = outputs(model, images), outputs(smaller, images)
    scale = np.abs(expected).max()
    assert np.abs(whole - expected).max() > 10 * tolerance * scale, "the cut changes nothing"
    np.testing.assert_allclose(found, expected, atol=tolerance * scale)
    return smaller


@pytest.mark.parametrize(("name", "attention"), EVERY)
def test_removing_channels_is_zeroing_them(name: str, attention: str):
    model = small(name, attention)
    if attention == "cbam" and "resnet" in name:
        # The maximum over channels is that over the rest and zeros only if it is not negative.
        for layer in model.layers:
            if layer.name.endswith("_b_bn"):
                layer.gamma.assign(0.05 * np.ones(layer.gamma.shape))
                layer.beta.assign(5 * np.ones(layer.beta.shape))
    check_cut(model)


@pytest.mark.parametrize(("name", "attention"), [("cnn_se", "cbam"), ("vit_tiny", "")])
def test_a_cut_model_is_an_ordinary_keras_file(name: str, attention: str, tmp_path: Path):
    graph = trace(small(name, attention))
    model = cut(graph, graph.mask(half_of(graph)))
    save_model(model, tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        outputs(again, noise(model)), outputs(model, noise(model)), atol=1e-5
    )


def test_a_cut_model_converts_to_tflite(tmp_path: Path):
    graph = trace(small("cnn_se", "cbam"))
    model = cut(graph, graph.mask(half_of(graph)))
    images = noise(model)
    path = tmp_path / "model.tflite"
    path.write_bytes(convert(model, "float32", images.astype(np.uint8)))
    found = Classifier(path).predict(images.astype(np.uint8))
    np.testing.assert_allclose(found, softmax(outputs(model, images)), atol=1e-5)


Head = Callable[[Any, Any], Any]


def net(keras: Any, body: Head, channels: int = 4) -> Any:
    """A net of 8x8 images, whose body works on a convolution's 16 channels."""
    image = keras.Input((8, 8, channels))
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(image)
    x = body(keras, x)
    if len(x.shape) > 2:
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return shaken(keras.Model(image, keras.layers.Dense(5, name="logits")(x)))


def groups(model: Any) -> dict[str, tuple[tuple[str, ...], int]]:
    return {g.name: (g.layers, len(g)) for g in trace(model).groups if not g.locked}


def conv(keras: Any, x: Any, filters: int, name: str, **options: Any) -> Any:
    return keras.layers.Conv2D(filters, 3, padding="same", name=name, **options)(x)


def residual(keras: Any, x: Any) -> Any:
    return keras.layers.Add()([x, conv(keras, x, 16, "branch")])


def concatenated(keras: Any, x: Any) -> Any:
    both = keras.layers.Concatenate()([x, conv(keras, x, 24, "branch")])
    return conv(keras, both, 12, "after")


def concatenated_and_added(keras: Any, x: Any) -> Any:
    both = keras.layers.Concatenate()([x, conv(keras, x, 24, "branch")])
    return keras.layers.Add()([both, conv(keras, x, 40, "wide")])


def twice(keras: Any, x: Any) -> Any:
    shared = keras.layers.Conv2D(16, 3, padding="same", name="shared")
    return shared(shared(x))


def twice_alone(keras: Any, x: Any) -> Any:
    """Layers without a mix of channels, called again: their weights are one channel for both."""
    other = conv(keras, x, 16, "other")
    each = keras.layers.DepthwiseConv2D(3, padding="same", name="each")
    return keras.layers.Concatenate()([each(x), each(other)])


def factorised(keras: Any, x: Any) -> Any:
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = keras.layers.LeakyReLU(name="leaky")(x)
    x = keras.layers.SeparableConv2D(24, 3, depth_multiplier=3, name="separable")(x)
    return keras.layers.BatchNormalization(scale=False, name="bn")(x)


def rearranged(keras: Any, x: Any) -> Any:
    x = keras.layers.Reshape((16, 4, 16), name="reshape")(x)
    x = keras.layers.Permute((2, 1, 3), name="permute")(x)
    x = keras.layers.MaxPooling2D(2, name="smaller")(keras.layers.ZeroPadding2D(1)(x))
    return keras.layers.Dense(12, name="dense")(keras.layers.Flatten(name="flatten")(x))


def spatial_mean(keras: Any, x: Any) -> Any:
    return keras.layers.Dense(12, name="dense")(keras.ops.mean(x, axis=(1, 2)))


def channel_mean(keras: Any, x: Any) -> Any:
    mean = keras.ops.mean(x, axis=-1, keepdims=True)
    mean = keras.layers.AveragePooling2D(3, strides=1, padding="same", name="smooth")(mean)
    return conv(keras, keras.layers.Concatenate()([x, mean, mean]), 12, "after")


def channel_sum(keras: Any, x: Any) -> Any:
    total = keras.ops.sum(x, axis=-1, keepdims=True)
    return conv(keras, keras.layers.Concatenate()([total, x]), 12, "after")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (residual, {"stem": (("stem", "branch"), 16)}),
        (concatenated, {"stem": (("stem",), 16), "branch": (("branch",), 24)}),
        (
            concatenated_and_added,
            {"stem": (("stem", "wide"), 16), "branch": (("branch", "wide"), 24)},
        ),
        (twice, {"stem": (("stem", "shared"), 16)}),
        (twice_alone, {"stem": (("stem", "other"), 16)}),
        (factorised, {"stem": (("stem",), 16), "separable": (("separable",), 24)}),
        (rearranged, {"stem": (("stem",), 16), "dense": (("dense",), 12)}),
        (spatial_mean, {"stem": (("stem",), 16), "dense": (("dense",), 12)}),
        (channel_mean, {"stem": (("stem",), 16), "after": (("after",), 12)}),
        (channel_sum, {"stem": (("stem",), 16), "after": (("after",), 12)}),
    ],
)
def test_what_is_coupled_is_cut_together(
    keras: Any, body: Head, expected: dict[str, tuple[tuple[str, ...], int]]
):
    model = net(keras, body)
    assert {name: g for name, g in groups(model).items() if name in expected} == expected
    check_cut(model)


def test_concatenated_channels_are_cut_at_their_offset(keras: Any):
    graph = trace(net(keras, concatenated))
    kept = {"stem": np.array([3, 5]), "branch": np.array([0, 23])}
    smaller = cut(graph, graph.mask(kept))
    kernel = graph.model.get_layer("after").get_weights()[0]
    np.testing.assert_array_equal(
        smaller.get_layer("after").get_weights()[0], kernel[:, :, [3, 5, 16, 39]]
    )


def test_a_flattened_channel_owns_a_row_for_each_position(keras: Any):
    def body(keras: Any, x: Any) -> Any:
        return keras.layers.Dense(12, name="dense")(keras.layers.Flatten()(x))

    graph = trace(net(keras, body))
    smaller = cut(graph, graph.mask({"stem": np.array([2, 9])}))
    rows = np.arange(8 * 8 * 16).reshape(64, 16)[:, [2, 9]].ravel()
    kernel = graph.model.get_layer("dense").get_weights()[0]
    np.testing.assert_array_equal(smaller.get_layer("dense").get_weights()[0], kernel[rows])


def softmaxed(keras: Any, x: Any) -> Any:
    return keras.layers.Softmax(name="soft")(x)


def activated_softmax(keras: Any, x: Any) -> Any:
    return keras.layers.Activation("softmax", name="soft")(x)


def layer_normed(keras: Any, x: Any) -> Any:
    return keras.layers.LayerNormalization(name="norm")(x)


def grouped(keras: Any, x: Any) -> Any:
    return conv(keras, x, 16, "grouped", groups=4)


def with_array(keras: Any, x: Any) -> Any:
    return keras.ops.add(x, np.ones((8, 8, 16), np.float32))


def bent_mean(keras: Any, x: Any) -> Any:
    mean = keras.ops.sigmoid(keras.ops.mean(x, axis=-1, keepdims=True))
    return keras.layers.Multiply()([x, mean])


def with_its_mean(keras: Any, x: Any) -> Any:
    mean = keras.ops.mean(x, axis=-1, keepdims=True)
    return keras.layers.Concatenate()([x, mean])


def filtered_mean(keras: Any, x: Any) -> Any:
    return keras.layers.DepthwiseConv2D(3, name="each")(with_its_mean(keras, x))


def separated_mean(keras: Any, x: Any) -> Any:
    return keras.layers.SeparableConv2D(12, 3, name="separable")(with_its_mean(keras, x))


def normed_mean(keras: Any, x: Any) -> Any:
    return keras.layers.BatchNormalization(name="bn")(with_its_mean(keras, x))


def mixed_rows(keras: Any, x: Any) -> Any:
    return keras.layers.Reshape((8, 16, 8), name="mixed")(x)


def normed_rows(keras: Any, x: Any) -> Any:
    return keras.layers.BatchNormalization(axis=1, name="rows")(x)


def flat_mean(keras: Any, x: Any) -> Any:
    return keras.layers.Flatten()(keras.ops.mean(x, axis=-1))


def scaled_each(keras: Any, x: Any) -> Any:
    return keras.layers.Rescaling(list(range(1, 17)), name="each")(x)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (softmaxed, "softmax over channels"),
        (activated_softmax, "softmax of soft mixes"),
        (layer_normed, "norm normalises over channels"),
        (grouped, "grouped is a grouped convolution"),
        (with_array, "array of fixed length"),
        (bent_mean, "another mean over fewer channels"),
        (filtered_mean, "each would see another mean over fewer"),
        (separated_mean, "separable would see another mean over fewer"),
        (normed_mean, "bn would see another mean over fewer"),
        (mixed_rows, "mixed spreads channels"),
        (normed_rows, "rows normalises another axis"),
        (flat_mean, "drops the axis of channels"),
        (scaled_each, "each scales each channel"),
    ],
)
def test_what_cannot_be_cut_exactly_is_kept_with_the_reason(keras: Any, body: Head, reason: str):
    (stem,) = [g for g in trace(net(keras, body)).groups if g.name == "stem"]
    assert reason in stem.locked


def sigmoid(keras: Any, x: Any) -> Any:
    return keras.layers.Activation("sigmoid", name="bend")(x)


def softplus(keras: Any, x: Any) -> Any:
    return keras.ops.softplus(x)


def exponential(keras: Any, x: Any) -> Any:
    return keras.layers.Activation("exponential")(x)


def hard_sigmoid(keras: Any, x: Any) -> Any:
    return keras.layers.Activation("hard_sigmoid")(x)


def above_half(keras: Any, x: Any) -> Any:
    return keras.ops.clip(x, 0.5, 1)


def offset(keras: Any, x: Any) -> Any:
    return keras.layers.Rescaling(2.0, offset=0.5)(x)


def raised(keras: Any, x: Any) -> Any:
    return x + 0.5


def rest_of_one(keras: Any, x: Any) -> Any:
    return 1 - x


def at_least(keras: Any, x: Any) -> Any:
    return keras.ops.maximum(x, 0.3)


def reciprocal(keras: Any, x: Any) -> Any:
    return 1 / (1 + x * x)


def own_ratio(keras: Any, x: Any) -> Any:
    return x / x


def raised_by_a_channel(keras: Any, x: Any) -> Any:
    return keras.layers.Add()([x, conv(keras, x, 1, "one")])


def added_to_its_gate(keras: Any, x: Any) -> Any:
    return keras.layers.Add()([x, sigmoid(keras, x)])


def beside_its_gate(keras: Any, x: Any) -> Any:
    """Flattened to rows that hold a channel both ways."""
    both = keras.layers.Concatenate()([x, sigmoid(keras, x)])
    return conv(keras, keras.layers.Reshape((8, 16, 16))(both), 12, "after")


def normed_gate(keras: Any, x: Any) -> Any:
    return keras.layers.BatchNormalization(scale=False)(sigmoid(keras, x))


def bent_as_it_leaves(keras: Any, x: Any) -> Any:
    return keras.layers.DepthwiseConv2D(3, activation="sigmoid")(x)


ROWS = (softplus, exponential, hard_sigmoid, above_half, offset, raised, rest_of_one, at_least)
ROWS += (reciprocal, own_ratio, raised_by_a_channel, added_to_its_gate, beside_its_gate)
ROWS += (sigmoid, normed_gate, bent_as_it_leaves)


@pytest.mark.parametrize("body", ROWS)
def test_channels_that_would_not_be_zero_are_kept(keras: Any, body: Head):
    (stem,) = [g for g in trace(net(keras, body)).groups if g.name == "stem"]
    assert re.fullmatch(r"\w+ would miss what \w+ makes of zero", stem.locked)


def separated(keras: Any, x: Any) -> Any:
    return keras.layers.SeparableConv2D(12, 3, name="after")(x)


def summed(keras: Any, x: Any) -> Any:
    return conv(keras, keras.ops.sum(x, axis=-1, keepdims=True), 12, "of_sum")


def convolved(keras: Any, x: Any) -> Any:
    return conv(keras, x, 12, "after")


@pytest.mark.parametrize(
    ("taker", "name"), [(separated, "after"), (convolved, "after"), (summed, "sum")]
)
def test_all_that_add_up_channels_keep_those_that_would_not_be_zero(
    keras: Any, taker: Head, name: str
):
    """The reason names what takes them, and what made something of their zeros."""
    model = net(keras, lambda keras, x: taker(keras, sigmoid(keras, x)))
    (stem,) = [g for g in trace(model).groups if g.name == "stem"]
    assert stem.locked.startswith(name)
    assert stem.locked.endswith("would miss what bend makes of zero")


def gated(keras: Any, x: Any) -> Any:
    return keras.layers.Multiply()([sigmoid(keras, conv(keras, x, 16, "gate")), x])


def swish_by_hand(keras: Any, x: Any) -> Any:
    return x * keras.ops.relu6(x + 3) / 6


def squashed(keras: Any, x: Any) -> Any:
    return x / (1 + keras.ops.absolute(x))


def filtered_gate(keras: Any, x: Any) -> Any:
    return keras.layers.DepthwiseConv2D(3)(sigmoid(keras, x))


def scaled_gate(keras: Any, x: Any) -> Any:
    return keras.layers.BatchNormalization()(sigmoid(keras, x))


def harmless_numbers(keras: Any, x: Any) -> Any:
    return keras.ops.maximum(keras.ops.clip(x, -0.5, 1) / 2 - 0.0, -1.0)


@pytest.mark.parametrize(
    "body", [gated, swish_by_hand, squashed, filtered_gate, scaled_gate, harmless_numbers]
)
def test_what_is_zero_again_is_cut(keras: Any, body: Head):
    model = net(keras, body)
    assert "stem" in groups(model)
    check_cut(model)


@pytest.mark.parametrize(
    ("name", "attention"),
    [(n, kind) for n in models() for kind in ("", *spec(n).attention) if kind != "none"],
)
def test_gates_keep_no_channel_of_our_models(name: str, attention: str):
    graph = trace(blueprint(ModelConfig(name, 8, attention=attention)))
    locked = {group.locked for group in graph.groups} - {""}
    if name == "vit_tiny":
        # What else it keeps, around its heads, a test of its own says.
        assert not any("makes of zero" in why for why in locked)
    else:
        assert locked == {"the logits"}


def test_the_logits_and_the_image_are_never_cut(keras: Any):
    graph = trace(net(keras, residual))
    locked = {group.name: group.locked for group in graph.groups}
    assert locked == {"stem": "", "logits": "the logits"}
    assert graph.members["stem"].slices[0].ids.tolist() not in graph.groups[0].channels.tolist()
    # An image's channels belong to no group, even where they are added to others.
    image = keras.Input((8, 8, 16))
    x = keras.layers.Add()([image, keras.layers.Conv2D(16, 1, name="same")(image)])
    x = keras.layers.Dense(5, name="logits")(keras.layers.Flatten()(x))
    same = trace(keras.Model(image, x)).groups[0]
    assert (same.name, same.locked) == ("same", "the image's channels")


def test_a_transformer_keeps_its_heads_and_gives_up_hidden_units():
    graph = trace(small("vit_tiny"))
    free = {group.name for group in graph.groups if not group.locked}
    assert free == {f"block{i}_mlp1" for i in range(1, 13)}
    assert "heads of block1_attention" in graph.refused["block1_attention"]
    rows = {row.name: row.why_not for row in describe(graph, {}).layers}
    assert "heads" in rows["block3_attention"]
    assert "einsum" in rows["embed"]
    assert "einsum" in rows["block1_mlp2"]


@pytest.mark.parametrize("layer", ["Conv2DTranspose", "LocallyUnknown"])
def test_an_unknown_layer_is_named(keras: Any, layer: str):
    def body(keras: Any, x: Any) -> Any:
        if layer == "Conv2DTranspose":
            return keras.layers.Conv2DTranspose(4, 3, name="up")(x)
        unknown = type(layer, (keras.layers.Layer,), {"call": lambda self, x: x})
        return unknown(name="up")(x)

    with pytest.raises(ModelError, match=rf"up \({layer}\).*compress/channels/rules\.py"):
        trace(net(keras, body))


def test_channels_first_is_refused(keras: Any):
    image = keras.Input((4, 8, 8))
    x = keras.layers.ZeroPadding2D(1, data_format="channels_first", name="pad")(image)
    with pytest.raises(ModelError, match=r"pad .*channels last"):
        trace(keras.Model(image, x))


def test_an_open_image_size_is_refused():
    with pytest.raises(ModelError, match="static image size"):
        trace(build(ModelConfig("cnn_se", 8, 16, 0.5)))


def test_a_subclassed_model_is_refused(keras: Any):
    class Own(keras.Model):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(ModelError, match="functional or sequential"):
        trace(Own(name="own"))


def test_a_sequential_model_is_cut(keras: Any):
    layers = [
        keras.Input((8, 8, 3)),
        keras.layers.Conv2D(16, 3, activation="relu", name="first"),
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dense(12, activation="relu", name="hidden"),
        keras.layers.Dense(4, name="logits"),
    ]
    check_cut(shaken(keras.Sequential(layers)))
