"""Weight pruning: which layers, how sparse at each step, and what is left in the file."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.compress import sparsity as stage
from bloodedge.compress.choice import GATE, HEAD, SMALL_GATE, STEM, choose_layers
from bloodedge.compress.figures import _int8, weight_sizes
from bloodedge.compress.sparsity import Schedule, SparsityConfig, make_schedule, sparsify
from bloodedge.compress.teaching import TeachingConfig
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError, ModelError, RunError
from bloodedge.files import sha256_of
from bloodedge.runs import Run
from bloodedge.train import loop
from bloodedge.train.checkpoint import Checkpoints
from bloodedge.train.config import FitConfig
from bloodedge.train.modelio import load_model
from bloodedge.train.registry import ModelConfig, blueprint

# 12 steps an epoch: sparsity rises until step 24, the end of the second.
FIT = FitConfig(4, 16, 2e-3, ema=0.5)
CHANGED = ("conv", "point", "hidden")
ALONE = {"stem": STEM, "se_a": SMALL_GATE, "se_b": SMALL_GATE, "logits": HEAD}


def denser_is_better(patch: pytest.MonkeyPatch) -> None:
    """Make val prefer epochs with fewer zeros, as it usually does, but certainly."""
    validate = loop._validate

    def fake(model: Any, val: Any, size: int) -> dict[str, float]:
        score = validate(model, val, size)
        kernels = [w for w in model.get_weights() if w.ndim > 1 and not set(np.unique(w)) <= {0, 1}]
        share = sum(np.count_nonzero(k) for k in kernels) / sum(k.size for k in kernels)
        return score | {"val_accuracy": float(share), "val_loss": 1.0}

    patch.setattr(loop, "_validate", fake)


def config(path: Path, name: str, **options: Any) -> SparsityConfig:
    return SparsityConfig(str(path), name, FIT, **{"sparsity": 0.8, **options})


@pytest.fixture(scope="module")
def sparse(
    colours: Dataset, tiny_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """A run of 80 % sparsity, where val would rather have kept an earlier epoch."""
    use_backend()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLOODEDGE_RUNS", str(tmp_path_factory.mktemp("runs")))
        denser_is_better(patch)
        yield sparsify(config(tiny_file, "sparse"), colours)


def kernels(path: Path) -> dict[str, np.ndarray]:
    model = load_model(path)
    return {n: model.get_layer(n).kernel.numpy() for n in (*CHANGED, *ALONE)}


def test_batches_in_parts_are_refused(tiny_file: Path, colours: Dataset, monkeypatch):
    # tfmot would draw masks, and count steps, once a part.
    monkeypatch.setattr("bloodedge.compress.sparsity.batch_parts", lambda: 2)
    with pytest.raises(ConfigError, match="--devices 2 with weights to prune"):
        sparsify(config(tiny_file, "parts"), colours)


def test_each_kernel_has_exactly_the_sparsity_asked_for(sparse: Run):
    found = kernels(sparse.path / "model.keras")
    for name in CHANGED:
        left = round(0.2 * found[name].size)
        assert np.count_nonzero(found[name]) == left, name
    for name in ALONE:
        assert np.all(found[name] != 0), name
    # Step 24 is the last of epoch 2: epoch 1 was denser, and so better by val, but cannot win.
    assert sparse.manifest["metrics"]["best_epoch"] == 2


def test_the_manifest_says_what_became_of_every_layer(sparse: Run, tiny_file: Path):
    entry = sparse.manifest["model"]["weights"]
    found = kernels(sparse.path / "model.keras")
    rows = {row["name"]: row for row in entry["layers"]}
    assert {name: row["reason"] for name, row in rows.items() if row["reason"]} == ALONE
    for name, row in rows.items():
        assert row["sparsity"] == pytest.approx((found[name] == 0).mean())
        assert row["weights"] == found[name].size
    model = load_model(sparse.path / "model.keras")
    packed = b"".join(w.tobytes() for layer in model.layers for w in layer.get_weights())
    after = entry["sizes"]["after"]
    assert after["float32"] == {
        "bytes": 4 * model.count_params(),
        "gzip_bytes": len(zlib.compress(packed, 9, 31)),
    }
    assert after["float32"]["gzip_bytes"] < 0.6 * entry["sizes"]["before"]["float32"]["gzip_bytes"]
    assert "not the file on the device and not the latency" in entry["note"]


def test_the_run_holds_an_ordinary_model_and_the_parent_is_as_it_was(
    sparse: Run, tiny_file: Path, colours: Dataset
):
    assert sparse.manifest["kind"] == "sparsify"
    assert sparse.manifest["parents"] == {"parent": sha256_of(tiny_file)}
    parent, child = load_model(tiny_file), load_model(sparse.path / "model.keras")
    assert [w.shape for w in child.get_weights()] == [w.shape for w in parent.get_weights()]
    assert [type(layer) for layer in child.layers] == [type(layer) for layer in parent.layers]
    logits = loop.predict_logits(child, colours["val"].images)
    accuracy = (logits.argmax(axis=1) == colours["val"].labels).mean()
    assert accuracy == pytest.approx(sparse.manifest["metrics"]["val"]["accuracy"])
    names = {path.name for path in sparse.path.iterdir()}
    assert {"history.csv", "learning_curves.png"} <= names
    assert not [name for name in names if name.startswith(".")]


def test_layers_pruned_before_keep_their_zeros(sparse: Run, colours: Dataset, monkeypatch):
    first = kernels(sparse.path / "model.keras")
    denser_is_better(monkeypatch)
    again = config(sparse.path / "model.keras", "again", sparsity=0.5, layers=("stem",))
    run = sparsify(again, colours)
    found = kernels(run.path / "model.keras")
    assert (found["stem"] == 0).mean() == pytest.approx(0.5, abs=0.01)
    for name in CHANGED:
        np.testing.assert_array_equal(found[name] == 0, first[name] == 0, name)
        assert np.any(found[name] != first[name]), name


def test_a_run_stopped_after_an_epoch_resumes_to_the_same_weights(
    sparse: Run, colours: Dataset, tiny_file: Path, monkeypatch
):
    save = Checkpoints.save

    def save_and_stop(self, progress):
        save(self, progress)
        raise KeyboardInterrupt

    denser_is_better(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_if_due", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            sparsify(config(tiny_file, "sparse"), colours)
    with pytest.raises(RunError, match="another sparsity"):
        sparsify(config(tiny_file, "sparse", sparsity=0.7, resume=True), colours)
    run = sparsify(config(tiny_file, "sparse", resume=True), colours)
    assert run.manifest["resumed"] == 1
    first, second = (load_model(r.path / "model.keras").get_weights() for r in (sparse, run))
    for expected, found in zip(first, second, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_schedule_is_that_of_zhu_and_gupta_and_tfmot_follows_it():
    import tf_keras

    schedule = Schedule(0.9, begin=2, end=10, every=4)
    # s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3 with s_i = 0.
    assert [schedule.at(t) for t in (1, 2, 6, 10, 99)] == pytest.approx(
        [0, 0, 0.9 * (1 - 0.5**3), 0.9, 0.9]
    )
    x = np.ones((1, 40), np.float32)
    layer = tf_keras.layers.Dense(25)
    layer(tf_keras.Input((40,)))
    wrapper = stage.wrap_layer(stage.polynomial_options(schedule), layer)
    for step in range(1, 13):
        wrapper(x, training=True)
        drawn = max(2, step - (step - 2) % 4) if step < 10 else 10
        left = round(1000 * (1 - schedule.at(drawn)))
        assert np.count_nonzero(layer.kernel) == left, step


@pytest.mark.parametrize("steps", [4, 7, 48, 100, 3741])
def test_the_last_update_falls_on_the_end_of_the_first_half(steps: int):
    schedule = make_schedule(0.8, steps)
    assert schedule.end == round(steps / 2)
    assert 1 <= schedule.begin < schedule.end
    assert (schedule.end - schedule.begin) % schedule.every == 0
    updates = (schedule.end - schedule.begin) // schedule.every
    assert updates >= min(20, schedule.end - schedule.begin)
    assert schedule.at(schedule.end) == 0.8


@pytest.mark.parametrize(
    ("name", "attention", "gates"),
    [
        ("cnn_se", "", {"se1_a", "se1_b", "se3_a", "se3_b"}),
        ("mobilenet_v3_small", "", None),
        ("study_vgg16_cbam", "", None),
        ("vgg16", "none", set()),
    ],
)
def test_gates_stem_and_head_are_left_alone(name: str, attention: str, gates: set[str] | None):
    use_backend()
    model = blueprint(ModelConfig(name, 8, attention=attention))
    choices = {c.name: c for c in choose_layers(model, (), stage._any_shape)}
    found = {n for n, c in choices.items() if c.reason in (GATE, SMALL_GATE)}
    by_name = r"\bse\d|squeeze_excite|channel\d_[ab]|spatial"
    assert found == ({n for n in choices if re.search(by_name, n)} if gates is None else gates)
    assert bool(found) == (attention != "none")
    assert [n for n, c in choices.items() if c.reason == HEAD] == ["logits"]
    assert [n for n, c in choices.items() if c.reason == STEM] == [next(iter(choices))]
    other = {c.kind for c in choices.values() if "only kernels of" in c.reason}
    assert other == ({"DepthwiseConv2D"} if name.startswith("mobilenet") else set())


@pytest.mark.parametrize("first", ["gated", "gate"])
def test_a_gate_is_one_in_either_order_of_the_product(first: str):
    keras = use_backend()
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="stem")(image)
    x = keras.layers.Conv2D(4, 3, name="gated")(x)
    gate = keras.layers.Conv2D(4, 1, activation="sigmoid", name="gate")(x)
    product = keras.layers.Multiply()([x, gate] if first == "gated" else [gate, x])
    logits = keras.layers.Dense(3, name="logits")(keras.layers.Flatten()(product))
    choices = choose_layers(keras.Model(image, logits), (), stage._any_shape)
    reasons = {"stem": STEM, "gated": "", "gate": SMALL_GATE, "logits": HEAD}
    assert {c.name: c.reason for c in choices} == reasons


def test_layers_can_be_asked_for(tiny_file: Path):
    use_backend()
    model = load_model(tiny_file)
    chosen = choose_layers(model, ("stem", "se_a"), stage._any_shape)
    assert [c.name for c in chosen if not c.reason] == ["stem", "se_a"]
    for wanted, why in ((("sten",), "did you mean 'stem'"), (("norm",), "no layer with a kernel")):
        with pytest.raises(ConfigError, match=why):
            choose_layers(model, wanted, stage._any_shape)
    with pytest.raises(ConfigError, match="'point' cannot be changed: 14 input channels"):
        choose_layers(model, ("point",), stage._no_fours)
    with pytest.raises(ModelError, match=r"no layer to change.*too odd.*--layer"):
        choose_layers(model, (), lambda shape: "too odd")


def test_int8_sizes_count_kernels_as_bytes_and_a_scale_per_channel(tiny_file: Path):
    use_backend()
    model = load_model(tiny_file)
    shapes = [w.shape for layer in model.layers for w in layer.get_weights()]
    expected = sum(np.prod(s) + 4 * s[-1] if len(s) > 1 else 4 * np.prod(s) for s in shapes)
    assert weight_sizes(model)["int8"]["bytes"] == expected


def test_each_output_of_a_depthwise_kernel_has_its_scale():
    keras = use_backend()
    layers = keras.layers
    image = keras.Input((8, 8, 8))
    each = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)
    one = keras.Model(image, each(image))
    assert weight_sizes(one)["int8"]["bytes"] == 3 * 3 * 16 + 4 * 16
    # Outputs alike but for their size have the same codes, whose repetition gzip finds.
    kernel = np.random.default_rng(0).normal(size=(3, 3, 8, 1)).astype(np.float32)
    data = _int8(np.concatenate([kernel, kernel / 64], axis=3), depthwise=True)
    codes = np.frombuffer(data[4 * 16 :], np.int8).reshape(3, 3, 8, 2)
    np.testing.assert_array_equal(codes[..., 0], codes[..., 1])
    assert (np.abs(codes).max(axis=(0, 1)) == 127).all()
    # A separable convolution has such a kernel and a pointwise one.
    both = layers.SeparableConv2D(5, 3, depth_multiplier=2, use_bias=False)
    two = keras.Model(image, both(image))
    assert weight_sizes(two)["int8"]["bytes"] == 3 * 3 * 16 + 4 * 16 + 16 * 5 + 4 * 5


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"pattern": "4:8"}, "4:8.*unstructured or 2:4"),
        ({"sparsity": 1.0}, "0.01 to 0.99"),
        ({"sparsity": 0.0}, "0.01 to 0.99"),
        ({"pattern": "2:4", "sparsity": 0.8}, "drop --sparsity"),
        ({"fit": replace(FIT, progressive=((1, 8),))}, "drop --progressive"),
        ({"fit": replace(FIT, precision="bfloat16")}, "--precision float32"),
    ],
)
def test_bad_settings_are_refused_when_built(bad: dict[str, Any], why: str):
    with pytest.raises(ConfigError, match=why):
        SparsityConfig(**{"model": "m", "name": "n", "fit": FIT, **bad})
    assert SparsityConfig("m", "n", FIT).fit.precision == "float32"


def test_what_cannot_be_pruned_leaves_no_run(colours: Dataset, tiny_file: Path):
    use_backend()
    short = SparsityConfig(str(tiny_file), "short", replace(FIT, epochs=1, batch=192))
    with pytest.raises(
        ConfigError, match=r"steps of fine-tuning; expected 4 or more.*raise --epochs"
    ):
        sparsify(short, colours)
    two = {n: type(s)(s.images, s.labels % 2) for n, s in colours.splits.items()}
    with pytest.raises(ModelError, match="3 classes, the data 2"):
        sparsify(config(tiny_file, "two"), Dataset("two", "npz", "two", ("a", "b"), two, {}))
    with pytest.raises(ConfigError, match="did you mean 'stem'"):
        sparsify(config(tiny_file, "named", layers=("sten",)), colours)
    with pytest.raises(ModelError, match="no run, file or zoo model 'nothing'"):
        sparsify(config(tiny_file, "taught", teaching=TeachingConfig(("nothing",))), colours)
    assert not list(Path(os.environ["BLOODEDGE_RUNS"]).glob("*"))
