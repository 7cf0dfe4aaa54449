from __future__ import annotations

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.errors import ConfigError, ModelError
from bloodedge.train.modelio import entry_config, fixed_size, load_model, model_entry, save_model
from bloodedge.train.registry import ModelConfig, ModelSpec, build, models, register, spec

# Narrow versions: the properties do not depend on the width, the time does.
WIDTHS = {"vgg16": 0.1, "cnn_se": 0.5}
PARAMETERS = {"vgg16": 14_731_464, "cnn_se": 59_316}


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


@pytest.fixture(params=sorted(models()))
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return ModelConfig(request.param, 8, 32, WIDTHS[request.param])


@pytest.mark.parametrize("name", sorted(models()))
def test_full_size_parameters_are_as_documented(name: str):
    assert build(ModelConfig(name, 8), size=64).count_params() == PARAMETERS[name]


def test_any_size_in_logits_out(config: ModelConfig):
    model = build(config)
    for size in (32, 64):
        out = np.asarray(model(np.zeros((2, size, size, 3), np.float32)))
        assert out.shape == (2, 8)
    sums = np.exp(np.asarray(model(np.full((1, 32, 32, 3), 200.0, np.float32)))).sum()
    assert abs(sums - 1) > 1e-3, "a softmax is inside the model"


def test_scaling_is_inside_the_model(config: ModelConfig):
    model = build(config)
    scaled = model.get_layer("scale")(np.array([[[[0.0, 127.5, 255.0]]]], np.float32))
    np.testing.assert_allclose(np.asarray(scaled).ravel(), [-1, 0, 1], atol=1e-6)


def test_a_fixed_size_changes_no_output(config: ModelConfig):
    model = build(config)
    images = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    fixed = fixed_size(model, config)
    assert fixed.input_shape == (None, 32, 32, 3)
    np.testing.assert_allclose(np.asarray(fixed(images)), np.asarray(model(images)), atol=1e-5)


def test_the_saved_model_is_the_same_model(config: ModelConfig, tmp_path):
    model = build(config, size=32)
    save_model(model, tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    for before, after in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert entry_config(model_entry(config, again, ("a",) * 8)) == config


def test_width_scales_the_parameters(config: ModelConfig):
    wider = ModelConfig(config.name, 8, 32, config.width * 2)
    assert build(wider).count_params() > 2 * build(config).count_params()


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
