"""Ranges, scales in the file, layers left in float, 16-bit activations, and the audit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bloodedge.backend import use_backend
from bloodedge.data.calibration import calibration_indices, pinned, usable_range
from bloodedge.data.dataset import Dataset, Split
from bloodedge.deploy import audit as audit_module
from bloodedge.deploy.audit import audit, summary
from bloodedge.deploy.convert import convert
from bloodedge.deploy.ends import read_ends
from bloodedge.deploy.export import ExportConfig, export
from bloodedge.deploy.interpreter import Classifier, predict_parallel
from bloodedge.deploy.post_training import gain_of_float
from bloodedge.deploy.ranges import (
    MINMAX,
    Histogram,
    RangeConfig,
    measure,
    mse_range,
    percentile_range,
    squared_error,
)
from bloodedge.errors import ConfigError
from bloodedge.metrics import softmax
from bloodedge.quiet import quiet
from bloodedge.train.loop import predict_logits
from bloodedge.train.modelio import save_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SIZE = 16


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def histogram(values: NDArray[Any], bins: int = 2048) -> Histogram:
    counts, edges = np.histogram(values, bins)
    return Histogram(counts, float(edges[0]), float(edges[-1]))


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(90, 100))
def test_percentile_leaves_out_no_more_than_the_tails(seed: int, percentile: float):
    values = np.random.default_rng(seed).normal(size=5000) ** 3
    found = histogram(values)
    low, high = percentile_range(found, percentile)
    tail = 1 - percentile / 100
    assert (values < low).mean() <= tail + 1e-9
    assert (values > high + 1e-9).mean() <= tail + 1e-9
    # One bin narrower on either side would leave out more.
    assert high >= np.quantile(values, 1 - tail, method="lower") - 1e-9
    assert high <= np.quantile(values, 1 - tail, method="higher") + 2 * found.width
    assert low >= np.quantile(values, tail, method="lower") - 2 * found.width


def test_percentile_100_is_the_whole_range():
    values = np.random.default_rng(0).normal(size=1000)
    assert percentile_range(histogram(values), 100) == pytest.approx((values.min(), values.max()))


def test_mse_keeps_a_uniform_range_and_drops_an_outlier():
    uniform = np.linspace(0, 1, 100_000)
    low, high = mse_range(histogram(uniform))
    assert low == 0
    # Rounding alone: the error of a uniform variable is a twelfth of the step squared.
    assert high == pytest.approx(1, abs=0.011)
    assert squared_error(histogram(uniform), (0.0, 1.0)) == pytest.approx(
        (1 / 255) ** 2 / 12, rel=0.05
    )
    # One value of 4 in a million: (4 - h)^2 / n + (h / 255)^2 / 12 is least at h = 4 / (1 + k).
    count = 1_000_000
    outlier = np.append(np.linspace(0, 1, count - 1), 4.0)
    low, high = mse_range(histogram(outlier))
    assert low == 0
    assert high == pytest.approx(4 / (1 + count / (12 * 255**2)), rel=0.05)


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_mse_is_never_worse_than_the_whole_range(seed: int):
    found = histogram(np.random.default_rng(seed).standard_t(3, size=3000))
    assert squared_error(found, mse_range(found)) <= squared_error(found, (found.low, found.high))


def test_a_range_of_zeros_is_replaced_and_others_are_kept():
    assert usable_range(0.0, 0.0) == (0.0, 1.0)
    assert usable_range(-0.5, -0.2) == (-0.5, -0.2)


def test_settings_that_nothing_heeds_are_refused():
    for make, message in [
        (lambda: RangeConfig("kl"), "--calibration 'kl'"),
        (lambda: RangeConfig("percentile", 40), "--percentile 40"),
        (
            lambda: ExportConfig("m", "n", ranges=RangeConfig("mse"), variants=("float16",)),
            "mse is for",
        ),
        (lambda: ExportConfig("m", "n", float_layers=2), "is for mixed"),
        (lambda: ExportConfig("m", "n", ("mixed",), float_layers=0), "--float-layers 0"),
        (lambda: ExportConfig("m", "n", ("dynamic",), audit=5), "no calibration images"),
        (lambda: ExportConfig("m", "n", audit=101), "--audit 101"),
    ]:
        with pytest.raises(ConfigError, match=message):
            make()


def test_the_audit_summarises_its_draws():
    rows = [{"seed": s, "accuracy_val": a} for s, a in enumerate((0.9, 0.92, 0.97))]
    found = summary(rows)
    assert found["mean"] == pytest.approx(0.93)
    assert found["std"] == pytest.approx(np.std([0.9, 0.92, 0.97], ddof=1))
    assert (found["min"], found["max"]) == (0.9, 0.97)
    # One draw deviates from nothing.
    assert summary(rows[:1])["std"] is None


def test_draws_of_all_there_is_have_no_deviation(capsys, monkeypatch):
    labels = np.array([0, 0, 0, 1, 1], np.int64)
    split = Split(np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones(3, np.uint8), labels)
    drawn: list[list[int]] = []

    def make(images: np.ndarray) -> bytes:
        drawn.append(images[:, 0, 0, 0].tolist())
        return b""

    monkeypatch.setattr("bloodedge.deploy.audit._accuracy", lambda content, val: 0.9)
    found = audit(make, split, split, per_class=3, seed=7)
    assert drawn == [[0, 1, 2, 3, 4]]
    assert found["draws"] == [{"seed": 7, "accuracy_val": 0.9}]
    assert (found["mean"], found["std"]) == (0.9, None)
    told = "every draw is all of train, so they cannot differ; give a smaller --calibration-per"
    assert told in capsys.readouterr().err
    # With one image less a class the draws differ again.
    assert audit(make, split, split, per_class=2, seed=7)["std"] == 0
    assert len(drawn) == 1 + 5
    assert "all of train" not in capsys.readouterr().err


def small_model() -> Any:
    """Add and multiply behind convolutions, as residual and attention blocks do."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(1)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = layers.Conv2D(8, 4, strides=4, activation="relu", name="stem")(x)
    y = layers.Conv2D(8, 3, padding="same", name="branch")(x)
    x = layers.Add(name="add")([x, y])
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="mean")(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="gate")(gate)
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Multiply(name="scale")([x, gate]))
    return keras.Model(image, layers.Dense(3, name="logits")(x))


@dataclass(frozen=True)
class Trained:
    model: Any
    path: Path
    data: Dataset

    @property
    def calibration(self) -> NDArray[np.uint8]:
        train = self.data["train"]
        return train.images[calibration_indices(train.labels, 8, 0)]


@pytest.fixture(scope="module")
def trained(colours: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    import keras

    use_backend()
    model, split = small_model(), colours["train"]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss=loss)
    # So short that its probabilities, far from 0 and 1, move with whatever is rounded.
    model.fit(split.images.astype("f4"), split.labels, batch_size=32, epochs=2, verbose=0)
    assert 0.4 < softmax(predict_logits(model, colours["val"].images)).max(axis=1).mean() < 0.9
    path = tmp_path_factory.mktemp("trained") / "net.keras"
    save_model(model, path)
    return Trained(model, path, colours)


def scales(content: bytes) -> dict[str, tuple[float, int]]:
    """Return scale and zero point of every computed tensor, by the operation that gives it."""
    import tensorflow as tf

    with quiet():
        runner = tf.lite.Interpreter(model_content=content)
    details = {d["index"]: d for d in runner.get_tensor_details()}
    found: dict[str, tuple[float, int]] = {}
    for op in runner._get_ops_details():
        detail = details[op["outputs"][0]]
        found.setdefault(f"{op['op_name']} {len(found)}", detail["quantization"])
    return found


def activations(trained: Trained, layer: str) -> NDArray[np.float32]:
    import keras

    inner = keras.Model(trained.model.inputs, trained.model.get_layer(layer).output)
    return np.asarray(inner.predict_on_batch(pinned(trained.calibration)))


def expected_scales(trained: Trained, choose: Any) -> dict[str, float]:
    spans = {
        name: choose(activations(trained, name)) for name in ("stem", "branch", "add", "scale")
    }
    return {n: (max(high, 0) - min(low, 0)) / 255 for n, (low, high) in spans.items()}


@pytest.mark.slow
def test_the_file_has_the_ranges_that_were_chosen(trained: Trained):
    choices = {
        MINMAX: lambda v: (float(v.min()), float(v.max())),
        RangeConfig("percentile", 99.0): lambda v: percentile_range(histogram(v), 99.0),
        RangeConfig("mse"): lambda v: mse_range(histogram(v)),
    }
    widths = {}
    for config, choose in choices.items():
        found = scales(convert(trained.model, "int8", trained.calibration, ranges=config))
        convs = [scale for name, scale in found.items() if name.startswith("CONV_2D")]
        picked = {name.split()[0]: scale for name, scale in found.items()}  # the last of each kind
        first = *convs[:2], picked["ADD"], picked["MUL"]
        expected = expected_scales(trained, choose)
        for (scale, _), wanted in zip(first, expected.values(), strict=True):
            # A histogram's bin, and the order of additions in another runtime.
            assert scale == pytest.approx(wanted, rel=2e-2 if config != MINMAX else 1e-4)
        assert picked["LOGISTIC"] == (1 / 256, -128)
        widths[config.method] = picked["ADD"][0]
    assert widths["percentile"] < 0.95 * widths["minmax"]
    assert widths["mse"] <= widths["minmax"]


@pytest.mark.slow
def test_every_variant_loads_and_agrees_and_16_bits_match_float_closely(
    trained: Trained, tmp_path: Path
):
    val = trained.data["val"].images
    plain = softmax(predict_logits(trained.model, val))
    worst = {}
    for variant in ("int8", "mixed", "int16x8"):
        path = tmp_path / f"{variant}.tflite"
        path.write_bytes(convert(trained.model, variant, trained.calibration, float_layers=2))
        p = predict_parallel(path, val)
        assert (p.argmax(axis=1) == plain.argmax(axis=1)).mean() >= 0.97
        worst[variant] = np.abs(p - plain).mean()
        details = Classifier(path)._interpreter.get_tensor_details()
        kernels = [
            d["dtype"] for d in details if len(d["shape"]) == 4 and "conv" in d["name"].lower()
        ]
        assert np.int8 in kernels
        if variant == "mixed":
            assert np.float32 in kernels
    assert worst["int16x8"] < 0.5 * worst["int8"]
    assert worst["mixed"] <= worst["int8"] * 1.05


@pytest.mark.slow
def test_more_float_layers_than_there_are_is_an_error(trained: Trained):
    with pytest.raises(ConfigError, match="--float-layers 5; expected at most 4"):
        convert(trained.model, "mixed", trained.calibration, float_layers=5)


@pytest.mark.slow
def test_mixed_keeps_the_layer_in_float_that_int8_harms_most(trained: Trained):
    import keras

    # One channel far above the others: what reads them all cannot hold both in 8 bits.
    model = keras.models.clone_model(trained.model)
    model.set_weights(trained.model.get_weights())
    kernel, bias = model.get_layer("branch").get_weights()
    kernel[..., 0] *= 300
    model.get_layer("branch").set_weights([kernel, bias])
    after = model.get_layer("logits").get_weights()
    after[0][0] /= 300
    model.get_layer("logits").set_weights(after)
    seen: list[dict[str, float]] = []
    with pytest.MonkeyPatch.context() as patch:

        def watch(*args: Any) -> dict[str, float]:
            seen.append(gain_of_float(*args))
            return seen[-1]

        patch.setattr("bloodedge.deploy.post_training.gain_of_float", watch)
        content = convert(model, "mixed", trained.calibration, float_layers=1)
    gains = seen[0]
    assert len(gains) == 4  # stem, branch, gate, logits
    kept = max(gains, key=lambda name: gains[name])
    # No tie, of which the first is taken whatever the order.
    assert gains[kept] > max(0.0, *(gain for name, gain in gains.items() if name != kept))
    assert kept != next(iter(gains))
    import tensorflow as tf

    with quiet():
        runner = tf.lite.Interpreter(model_content=content)
    details = {d["index"]: d for d in runner.get_tensor_details()}
    floats = [
        op for op in runner._get_ops_details()
        if op["op_name"] in ("CONV_2D", "FULLY_CONNECTED")
        and details[op["outputs"][0]]["dtype"] == np.float32
    ]  # fmt: skip
    assert [details[op["outputs"][0]]["name"].split(";")[0] for op in floats] == [
        kept.split(";")[0]
    ]


@pytest.mark.parametrize("config", [MINMAX, RangeConfig("percentile", 99.0), RangeConfig("mse")])
def test_a_pixel_means_the_same_in_dim_images(config: RangeConfig):
    """Bytes are fed as they are, so that their scale is 1 however few pixels are bright."""
    use_backend()
    dim = np.random.default_rng(0).integers(0, 200, (8, SIZE, SIZE, 3)).astype(np.uint8)
    content = convert(small_model(), "int8", dim, ranges=config)
    assert [(end.scale, end.zero_point) for end in read_ends(content)[:1]] == [(1.0, 0)]


@pytest.mark.slow
def test_ranges_are_those_of_each_tensor_alone(trained: Trained):
    """TensorFlow's own calibrator merges the addition's range with its input's."""
    import tensorflow as tf

    from bloodedge.deploy.convert import export_twin

    with quiet():
        twin = export_twin(trained.model, SIZE)
        content = bytes(tf.lite.TFLiteConverter.from_keras_model(twin).convert())
    runner = tf.lite.Interpreter(model_content=content)
    ranges = measure(content, trained.calibration, MINMAX)
    ops = {op["op_name"]: op for op in runner._get_ops_details()}
    for kind, layer in (("ADD", "add"), ("MUL", "scale")):
        values = activations(trained, layer)
        np.testing.assert_allclose(
            ranges[ops[kind]["outputs"][0]], (values.min(), values.max()), rtol=1e-4, atol=1e-5
        )


@pytest.mark.slow
def test_the_audit_records_what_each_draw_gives(
    trained: Trained, capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    drawn: list[bytes] = []

    def watch(content: bytes, val: Split) -> float:
        drawn.append(content)
        return accuracy_of(content, val)

    accuracy_of = audit_module._accuracy
    monkeypatch.setattr(audit_module, "_accuracy", watch)
    config = ExportConfig(str(trained.path), "audited", ("int8",), 4, seed=3, audit=2)
    run = export(config, trained.data)
    found = json.loads((run.path / "manifest.json").read_text())["metrics"]["audit"]["int8"]
    train, val = trained.data["train"], trained.data["val"]
    for content, row in zip(drawn, found["draws"], strict=True):
        chosen = calibration_indices(train.labels, 4, row["seed"])
        path = tmp_path / "draw.tflite"
        path.write_bytes(convert(trained.model, "int8", train.images[chosen]))
        # Whose accuracy may well be that of the other draw.
        assert scales(content) == scales(path.read_bytes())
        accuracy = (predict_parallel(path, val.images).argmax(axis=1) == val.labels).mean()
        assert row["accuracy_val"] == pytest.approx(accuracy)
    assert scales(drawn[0]) != scales(drawn[1])
    assert [row["seed"] for row in found["draws"]] == [3, 4]
    assert found["mean"] == pytest.approx(np.mean([r["accuracy_val"] for r in found["draws"]]))
    assert "audit: draw 4" in capsys.readouterr().err
