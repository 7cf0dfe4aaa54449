"""Every model of the registry, and the files models are kept in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.backend import use_backend
from bloodedge.deploy.convert import convert
from bloodedge.deploy.interpreter import Classifier
from bloodedge.errors import ConfigError, ModelError
from bloodedge.metrics import softmax
from bloodedge.train.cost import Cost, model_cost
from bloodedge.train.modelio import entry_config, fixed_size, load_model, model_entry, save_model
from bloodedge.train.models.spec import ATTENTION, ModelSpec
from bloodedge.train.registry import ModelConfig, blueprint, build, models, register, spec

# Parameters, those that are not trainable, and MACs at 64x64 with 8 classes.
COSTS = {
    "vgg16": (14_731_464, 8_448, 1_252_790_272),
    "resnet18": (11_190_216, 9_600, 148_049_920),
    "resnet50": (23_604_104, 53_120, 314_785_792),
    "inception_v3": (21_819_176, 34_432, 730_669_408),
    "vit_tiny": (5_389_448, 0, 360_973_824),
    "mobilenet_v3_small": (943_736, 12_112, 4_907_264),
    "mobilenet_v2_035": (420_456, 14_080, 4_745_408),
    "cnn_se": (53_225, 384, 5_579_664),
    "cnn_se_nano": (17_992, 208, 3_526_848),
    "cnn_se_pico": (7_496, 128, 1_523_840),
    "study_vgg16": (5_787_560, 0, 317_071_360),
    "study_vgg16_dropout": (5_787_560, 0, 317_071_360),
    "study_vgg16_se": (5_807_414, 0, 317_090_432),
    "study_vgg16_cbam": (5_800_994, 0, 317_193_696),
    "study_resnet": (11_195_016, 9_600, 148_049_920),
    "study_cnn_bn": (626_024, 992, 16_451_584),
    "study_cnn_se": (287_807, 352, 11_469_984),
    "study_cnn4": (130_792, 0, 9_403_072),
    "study_inception": (10_313_288, 25_280, 726_516_736),
}
NAMES = tuple(models())
# Narrow versions: the properties do not depend on the width, the time does.
WIDTHS = {
    "cnn_se": 0.5,
    "cnn_se_nano": 0.5,
    "cnn_se_pico": 0.5,
    "mobilenet_v3_small": 0.25,
    "vit_tiny": 0.125,
    "study_cnn_se": 0.5,
}
ATTENTIVE = [(name, kind) for name in NAMES for kind in spec(name).attention if kind != "none"]
# Each test of these takes about ten seconds.
DEEP = {"resnet50", "inception_v3", "study_inception"}
# The converter takes seconds on each model, half a minute on the deep ones.
QUICK = {"study_cnn_bn", "study_cnn4"}


def params(names: Iterable[str], slow: Callable[[str], bool]) -> list[Any]:
    return [pytest.param(n, marks=pytest.mark.slow if slow(n) else ()) for n in names]


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def small_config(name: str, attention: str = "") -> ModelConfig:
    entry = spec(name)
    width = WIDTHS.get(name, 0.1) if entry.scalable else 1.0
    return ModelConfig(name, 8, entry.min_size, width, attention)


@cache
def small(name: str, attention: str = "") -> Any:
    """A narrow model with its size open, if it can be. Tests leave its weights as they are."""
    return build(small_config(name, attention))


def noise(size: int, count: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def outputs(model: Any, images: NDArray[Any]) -> NDArray[np.float32]:
    import keras

    logits = model(images.astype(np.float32), training=False)
    return np.asarray(keras.ops.convert_to_numpy(logits))


@pytest.fixture(params=params(NAMES, DEEP.__contains__))
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return small_config(request.param)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_model_costs_is_as_documented(name: str):
    model = blueprint(ModelConfig(name, 8))
    assert model_cost(model) == Cost(*COSTS[name])
    assert model.count_params() == COSTS[name][0]


@pytest.mark.parametrize(
    "name", params([name for name in NAMES if spec(name).any_size], DEEP.__contains__)
)
def test_any_size_in_logits_out(name: str):
    size = small_config(name).size
    for side in (size, size + 24):
        assert outputs(small(name), noise(side)).shape == (3, 8)


def test_a_model_tied_to_one_size_is_built_for_its_own(config: ModelConfig):
    expected = None if spec(config.name).any_size else config.size
    assert small(config.name).input_shape == (None, expected, expected, 3)
    assert small(config.name).output_shape == (None, 8)


@pytest.mark.parametrize("name", ["mobilenet_v2_035", "mobilenet_v3_small"])
def test_statistics_of_the_peers_follow_within_an_epoch(name: str):
    import keras

    model = blueprint(ModelConfig(name, 8))
    norms = [n for n in model.layers if isinstance(n, keras.layers.BatchNormalization)]
    assert len(norms) > 30
    assert {norm.momentum for norm in norms} == {0.9}
    assert {norm.get_config()["momentum"] for norm in norms} == {0.9}


def test_no_softmax_is_inside(config: ModelConfig):
    import keras

    model = keras.models.clone_model(small(config.name))
    logits = model.get_layer("logits")
    logits.set_weights([np.zeros_like(logits.get_weights()[0]), np.arange(8.0)])
    np.testing.assert_allclose(outputs(model, noise(config.size, 1)), [np.arange(8)], atol=1e-6)


def test_scaling_is_inside_the_model(config: ModelConfig):
    scale = small(config.name).get_layer("scale")
    scaled = np.asarray(scale(np.array([[[[0.0, 127.5, 255.0]]]], np.float32)))
    low = 0 if config.name.startswith("study_") else -1
    np.testing.assert_allclose(scaled.ravel(), [low, (low + 1) / 2, 1], atol=1e-6)
    assert scale.input is small(config.name).input


def test_a_fixed_size_changes_no_output_even_the_smallest(config: ModelConfig):
    model, images = small(config.name), noise(config.size)
    fixed = fixed_size(model, config, batch=3)
    assert all(side for layer in fixed.layers for side in layer.output.shape)
    assert fixed.input_shape == (3, config.size, config.size, 3)
    np.testing.assert_allclose(outputs(fixed, images), outputs(model, images), atol=1e-5)


def test_the_saved_model_is_the_same_model(config: ModelConfig, tmp_path: Path):
    model = small(config.name)
    save_model(model, tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    for before, after in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    images = noise(config.size)
    np.testing.assert_allclose(outputs(again, images), outputs(model, images), atol=1e-5)
    assert entry_config(model_entry(config, again, ("a",) * 8)) == config


@pytest.mark.parametrize("name", [name for name in NAMES if spec(name).scalable])
def test_width_scales_the_parameters(name: str):
    narrow = small_config(name)
    wider = ModelConfig(name, 8, narrow.size, narrow.width * 2)
    assert build(wider).count_params() > 2 * small(name).count_params()


@pytest.mark.parametrize("name", [name for name in NAMES if not spec(name).scalable])
def test_a_width_for_a_model_that_has_one_is_one_clear_error(name: str):
    with pytest.raises(ConfigError, match=f"{name} has one width.*drop --width"):
        ModelConfig(name, 8, 64, 0.5)


def kernels_without_gradient(model: Any, images: NDArray[np.uint8]) -> list[str]:
    """The kernels (of biases before batch norm and of keys, the gradient is nought by right)."""
    import keras
    import tensorflow as tf

    for layer in model.layers:
        # A bottleneck of one or two units may happen to be off for every image.
        if layer.name.endswith("_a") and layer.name[:2] in ("se", "at", "ch"):
            layer.bias.assign(5 * np.ones(layer.bias.shape))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    weights = [weight for weight in model.trainable_weights if len(weight.shape) > 1]
    with tf.GradientTape() as tape:
        value = loss(np.arange(len(images)) % 8, model(images.astype(np.float32), training=True))
    gradients = tape.gradient(value, [weight.value for weight in weights])
    pairs = zip(weights, gradients, strict=True)
    return [weight.path for weight, slope in pairs if slope is None or not np.any(slope)]


def test_gradients_reach_every_kernel(config: ModelConfig):
    import keras

    keras.utils.set_random_seed(1)
    model = build(config, size=config.size)
    assert kernels_without_gradient(model, noise(config.size, 16)) == []


def converted(model: Any, size: int, path: Path) -> Classifier:
    path.write_bytes(convert(model, "float32", noise(size, 1)))
    return Classifier(path)


def check_tflite(config: ModelConfig, path: Path) -> None:
    """A fresh model answers every image nearly alike: the test spreads its logits first."""
    model = build(config, size=config.size)
    images = noise(config.size, 4)
    images[1:] //= np.array([2, 4, 8], np.uint8)[:, None, None, None]
    logits = model.get_layer("logits")
    spread = max(outputs(model, images).std(axis=0).mean(), 1e-3)
    logits.set_weights([weight / spread for weight in logits.get_weights()])
    expected = softmax(outputs(model, images))
    np.testing.assert_allclose(
        converted(model, config.size, path).predict(images), expected, atol=2e-4
    )


@pytest.mark.parametrize("name", params(NAMES, lambda name: name not in QUICK))
def test_tflite_computes_the_same(name: str, tmp_path: Path):
    check_tflite(small_config(name), tmp_path / "model.tflite")


@pytest.mark.parametrize("kind", ["se", "cbam"])
def test_tflite_computes_the_same_with_each_attention(kind: str, tmp_path: Path):
    check_tflite(small_config("cnn_se", kind), tmp_path / "model.tflite")


def gates(model: Any) -> list[str]:
    return [layer.name for layer in model.layers if layer.name.endswith("_scale")]


@pytest.mark.parametrize(("name", "kind"), ATTENTIVE)
def test_gradients_reach_every_attention(name: str, kind: str):
    import keras

    keras.utils.set_random_seed(1)
    config = small_config(name, kind)
    model = build(config, size=config.size)
    assert gates(model)
    assert any("spatial" in gate for gate in gates(model)) == (kind == "cbam")
    assert kernels_without_gradient(model, noise(config.size, 16)) == []


@pytest.mark.parametrize("name", ["cnn_se", "study_cnn_se", "vgg16"])
def test_attention_can_be_left_out(name: str):
    assert gates(build(small_config(name, "none"))) == []


def test_a_model_with_attention_is_saved_and_recorded(tmp_path: Path):
    config = small_config("cnn_se", "cbam")
    model, images = build(config), noise(config.size)
    save_model(model, tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(outputs(again, images), outputs(model, images), atol=1e-5)
    assert entry_config(model_entry(config, again, ("a",) * 8)) == config


@pytest.mark.parametrize("name", [name for name in NAMES if not spec(name).attention])
@pytest.mark.parametrize("kind", ATTENTION)
def test_an_attention_a_model_does_not_take_is_one_clear_error(name: str, kind: str):
    with pytest.raises(ConfigError, match=f"{name} does not take --attention {kind}"):
        ModelConfig(name, 8, 64, attention=kind)


def test_an_unknown_attention_is_one_clear_error():
    with pytest.raises(ConfigError, match="none, se, cbam"):
        ModelConfig("cnn_se", 8, attention="eca")


def test_images_too_small_for_a_model_are_one_clear_error():
    with pytest.raises(ConfigError, match="32 or more"):
        ModelConfig("vgg16", 8, 16)
    with pytest.raises(ConfigError, match="multiple of 8"):
        build(ModelConfig("vit_tiny", 8, 60))


def test_an_older_manifest_without_attention_is_read():
    config = {"name": "cnn_se", "classes": 8, "size": 64, "width": 1.0}
    assert entry_config({"config": config}) == ModelConfig("cnn_se", 8)


def test_cbam_gates_by_mean_and_maximum():
    import keras

    from bloodedge.train.models.blocks import channel_gate, spatial_gate

    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 4))
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    channels = keras.Model(image, channel_gate(image, "c", hidden=3))
    (w1, b1), (w2, b2) = (channels.get_layer(f"c_{part}").get_weights() for part in "ab")

    def mlp(v: NDArray[Any]) -> NDArray[Any]:
        return np.maximum(v @ w1[0, 0] + b1, 0) @ w2[0, 0] + b2

    gate = 1 / (1 + np.exp(-mlp(x.mean(axis=(1, 2))) - mlp(x.max(axis=(1, 2)))))
    np.testing.assert_allclose(outputs(channels, x), x * gate[:, None, None], atol=1e-5)

    positions = keras.Model(image, spatial_gate(image, "s"))
    (kernel,) = positions.get_layer("s_conv").get_weights()
    both = np.stack([x.mean(axis=-1), x.max(axis=-1)], axis=-1)
    windows = np.pad(both, ((0, 0), (3, 3), (3, 3), (0, 0)))
    sums = [(windows[:, i : i + 6, j : j + 6] @ kernel[i, j]) for i in range(7) for j in range(7)]
    gate = 1 / (1 + np.exp(-np.sum(sums, axis=0)))
    np.testing.assert_allclose(outputs(positions, x), x * gate, atol=1e-5)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ModelError, match="did you mean 'vgg16'"):
        spec("vgg-16")


def test_a_name_cannot_be_registered_twice():
    entry = models()["vgg16"]
    with pytest.raises(ConfigError, match="twice"):
        register(ModelSpec("vgg16", entry.purpose, entry.role, entry.build))


@pytest.mark.parametrize("bad", [{"width": 0}, {"width": 100}, {"classes": 1}, {"size": 4}])
def test_bad_configurations_are_refused_when_built(bad: dict[str, float]):
    with pytest.raises(ConfigError):
        ModelConfig(**{"name": "cnn_se", "classes": 8, **bad})


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(100)])
def test_a_corrupt_keras_file_is_one_clear_error(content: bytes, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot be loaded"):
        load_model(path)


def test_a_truncated_keras_file_is_one_clear_error(tmp_path):
    path = tmp_path / "model.keras"
    save_model(build(ModelConfig("cnn_se", 3, 16, 0.25), size=16), path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(path)


def test_a_keras_file_that_carries_code_is_refused(tmp_path):
    import keras

    inputs = keras.Input((16, 16, 3))
    outputs = keras.layers.Lambda(lambda x: x[:, 0, 0, :])(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "evil.keras")
    with pytest.raises(ModelError, match=r"(?i)lambda"):
        load_model(tmp_path / "evil.keras")


def test_a_missing_keras_file_is_one_clear_error(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        load_model(tmp_path / "none.keras")
