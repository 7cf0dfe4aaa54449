"""Quantization-aware training as a stage: learns, resumes, keeps zeros and clusters, refuses."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.backend import use_backend
from bloodedge.compress.fold import fold
from bloodedge.compress.preserve import clusters_of, constraints, preserve
from bloodedge.compress.quantize import QatConfig, quantize
from bloodedge.compress.simulate import Simulation
from bloodedge.compress.targets import KdConfig
from bloodedge.compress.teaching import TeachingConfig
from bloodedge.data.dataset import Dataset
from bloodedge.deploy.convert import convert
from bloodedge.deploy.interpreter import predict_parallel
from bloodedge.errors import ConfigError, ModelError, RunError
from bloodedge.files import sha256_of
from bloodedge.metrics import softmax
from bloodedge.references import find_model
from bloodedge.runs import runs_root
from bloodedge.train.checkpoint import Checkpoints
from bloodedge.train.config import FitConfig
from bloodedge.train.device import conditions
from bloodedge.train.loop import predict_logits
from bloodedge.train.modelio import load_model, save_model
from bloodedge.train.recipes import qat_tuning
from bloodedge.train.restore import restore
from bloodedge.train.stage import TrainConfig, train

FIT = qat_tuning(epochs=3, batch=16, learning_rate=1e-3)


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


@pytest.fixture(scope="module")
def parent(colours: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parent")
    fit = FitConfig(epochs=20, batch=16, learning_rate=5e-3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLOODEDGE_RUNS", str(root))
        return train(TrainConfig("cnn_se", fit, "parent", 0.25), colours).path / "model.keras"


def tune(parent: Path, data: Dataset, name: str = "tuned", **options: Any):
    return quantize(QatConfig(str(parent), FIT, name, per_class=8, **options), data)


def weights(name: str) -> list[NDArray[np.float32]]:
    return restore(find_model(name)).get_weights()


def changed(parent: Path, folder: Path, change: Any) -> Path:
    """Save a copy of the parent whose kernels were changed."""
    model = load_model(parent)
    for layer in model.layers:
        values = layer.get_weights()
        if values and values[0].ndim > 1:
            layer.set_weights([change(values[0]), *values[1:]])
    save_model(model, folder / "changed.keras")
    return folder / "changed.keras"


def halved(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, kernel)


def clustered(kernel: NDArray[np.float32], count: int = 8) -> NDArray[np.float32]:
    edges = np.quantile(kernel, np.linspace(0, 1, count + 1)[1:-1])
    place = np.digitize(kernel, edges)
    means = [kernel[place == k].mean() if (place == k).any() else 0 for k in range(count)]
    return np.asarray(means, np.float32)[place]


def test_fine_tuning_writes_an_ordinary_model_with_the_figures_of_int8(
    parent: Path, colours: Dataset
):
    before = sha256_of(parent)
    run = tune(parent, colours)
    assert sha256_of(parent) == before
    manifest = run.manifest
    assert manifest["kind"] == "quantize"
    assert manifest["config"]["mode"] == "qat"
    assert manifest["parents"] == {"parent": find_model(str(parent)).sha256}
    model = restore(find_model("tuned"))
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    assert model.count_params() == manifest["model"]["parameters"]
    # What is saved, simulated anew, has the recorded ranges and accuracy.
    twin = Simulation(fold(model))
    index = manifest["config"]["calibration"]["indices"]
    assert np.bincount(colours["train"].labels[index]).tolist() == [8, 8, 8]
    ranges = twin.observe(colours["train"].images[index])
    assert {"device": "cpu", "devices": 1}.items() <= manifest["hardware"].items()
    recorded = manifest["config"]["activation_ranges"]
    assert list(ranges) == list(recorded)
    for name, span in ranges.items():
        np.testing.assert_allclose(span, recorded[name], rtol=1e-4, atol=1e-5)
    logits = predict_logits(twin.net, colours["val"].images)
    accuracy = (logits.argmax(axis=1) == colours["val"].labels).mean()
    assert accuracy == pytest.approx(manifest["metrics"]["val_int8"]["accuracy"], abs=0.02)
    assert manifest["metrics"]["val_int8"]["accuracy"] > 0.9
    # The epoch was chosen, and its loss measured, with the ranges of its own weights.
    picked = softmax(logits)[np.arange(len(logits)), colours["val"].labels]
    rows = list(csv.DictReader((run.path / "history.csv").open()))
    best = rows[manifest["metrics"]["best_epoch"] - 1]
    assert float(best["val_loss"]) == pytest.approx(-np.log(picked).mean(), rel=1e-3)
    assert not [p for p in run.path.iterdir() if p.name.startswith(".")]


@pytest.mark.slow
def test_the_exported_int8_file_answers_as_the_simulation(
    parent: Path, colours: Dataset, tmp_path: Path
):
    run = tune(parent, colours)
    model = restore(find_model("tuned"))
    chosen = colours["train"].images[run.manifest["config"]["calibration"]["indices"]]
    twin = Simulation(fold(model))
    twin.observe(chosen)
    (tmp_path / "int8.tflite").write_bytes(convert(model, "int8", chosen))
    images = np.concatenate([colours["val"].images, colours["test"].images])
    found = predict_parallel(tmp_path / "int8.tflite", images)
    simulated = softmax(predict_logits(twin.net, images))
    assert (found.argmax(axis=1) == simulated.argmax(axis=1)).mean() >= 0.99
    # The file gives probabilities in steps of 1/256.
    assert np.abs(found - simulated).mean() < 1 / 128


def test_a_killed_fine_tuning_resumes_to_the_same_weights(
    parent: Path, colours: Dataset, monkeypatch: pytest.MonkeyPatch
):
    tune(parent, colours, "whole")

    def save_and_stop(self, progress):
        self.save(progress)
        if progress.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_if_due", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            tune(parent, colours, "killed")
    assert (runs_root() / ".killed.partial").exists()
    with pytest.raises(RunError, match="another preserve"):
        tune(parent, colours, "killed", resume=True, preserve="none")
    with monkeypatch.context() as patch:
        patch.setattr("bloodedge.compress.quantize.conditions", lambda: {"backend": "another"})
        with pytest.raises(RunError, match="another backend;"):
            tune(parent, colours, "killed", resume=True)
    run = tune(parent, colours, "killed", resume=True)
    assert run.manifest["resumed"] == 1
    assert run.manifest["config"]["backend"] == conditions()["backend"]
    for expected, found in zip(weights("whole"), weights("killed"), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_zeros_stay_zero_and_1x1_layers_stay_whole(parent: Path, colours: Dataset, tmp_path: Path):
    sparse = changed(parent, tmp_path, halved)
    before = fold(load_model(sparse)).model
    run = tune(sparse, colours, teaching=TeachingConfig((str(parent),)), preserve="sparsity")
    assert set(run.manifest["parents"]) == {"parent", "teacher"}
    after = restore(find_model("tuned"))
    for layer in ("stem", "conv1", "conv3", "se1_a", "se1_b", "logits"):
        old, new = (m.get_layer(layer).get_weights()[0] for m in (before, after))
        assert 0.4 < (old == 0).mean() < 0.6
        np.testing.assert_array_equal(new == 0, old == 0)
        assert (new != old).any()
        assert layer in run.manifest["config"]["preserved"]


def test_clusters_stay_clusters(parent: Path, colours: Dataset, tmp_path: Path):
    source = changed(parent, tmp_path, clustered)
    folded = fold(load_model(source))
    run = tune(source, colours)
    after = restore(find_model("tuned"))
    for layer in ("stem", "conv1", "conv3", "se1_b", "logits"):
        old, new = (m.get_layer(layer).get_weights()[0] for m in (folded.model, after))
        gain = folded.gains.get(layer, np.ones(1, np.float32))
        found = clusters_of(new, gain)
        assert found is not None
        assert found[1] <= 8
        assert np.abs(new - old).max() > 1e-4
        assert "clusters" in run.manifest["config"]["preserved"][layer]
    # Without batch norm behind it, a kernel has the same few values itself.
    assert len(np.unique(after.get_layer("logits").get_weights()[0])) <= 8


def test_the_cluster_constraint_is_the_least_squares_projection():
    _, keep_clusters = constraints()
    rng = np.random.default_rng(0)
    gain = rng.uniform(0.5, 2, 6).astype(np.float32)
    place = rng.integers(0, 4, (3, 3, 2, 6))
    kernel = np.asarray([0.0, -1.0, 0.5, 2.0], np.float32)[place] * gain
    keep = keep_clusters(kernel, place, 4, gain)
    np.testing.assert_allclose(keep(kernel), kernel, rtol=1e-5)
    noisy = (kernel + rng.normal(0, 0.1, kernel.shape)).astype(np.float32)
    spread = np.broadcast_to(gain, kernel.shape)
    expected = np.zeros_like(kernel)
    for k in range(1, 4):
        inside = place == k
        value = (noisy[inside] * spread[inside]).sum() / (spread[inside] ** 2).sum()
        expected[inside] = value * spread[inside]
    np.testing.assert_allclose(keep(noisy), expected, rtol=1e-4, atol=1e-6)


def test_an_ordinary_model_has_nothing_to_preserve(parent: Path):
    folded = fold(load_model(parent))
    assert preserve(folded, "auto") == {}
    for what, wanted in (("sparsity", "pruned"), ("clusters", "clustered")):
        message = f"the model has none; expected a {wanted} model; to mend it: --preserve auto$"
        with pytest.raises(ConfigError, match=message):
            preserve(folded, what)
    with pytest.raises(ConfigError, match="expected auto"):
        preserve(folded, "everything")


def test_what_else_could_be_preserved_is_named(parent: Path, tmp_path: Path):
    for change, has, asked, wanted in (
        (halved, "sparsity", "clusters", "clustered"),
        (clustered, "clusters", "sparsity", "pruned"),
    ):
        folded = fold(load_model(changed(parent, tmp_path, change)))
        message = f"expected a {wanted} model; to mend it: --preserve {has} or auto$"
        with pytest.raises(ConfigError, match=message):
            preserve(folded, asked)
        assert preserve(folded, has)


def test_bad_settings_and_foreign_models_are_refused(parent: Path, colours: Dataset):
    for changes, message in [
        ({"preserve": "zeros"}, "--preserve 'zeros'"),
        ({"per_class": 0}, "--calibration-per-class"),
        ({"fit": replace(FIT, ema=0.9)}, "--ema"),
        ({"fit": replace(FIT, precision="bfloat16")}, "bfloat16"),
        ({"teaching": TeachingConfig(("x",), KdConfig(method="feature"))}, "--method feature"),
    ]:
        with pytest.raises(ConfigError, match=message):
            QatConfig(**{"model": "x", "fit": FIT, "name": "y", **changes})
    with pytest.raises(RunError, match="run's name"):
        QatConfig("x", FIT, "../y")
    with pytest.raises(ModelError, match="has 3 classes, the data 4"):
        tune(parent, replace(colours, class_names=("a", "b", "c", "d")))
    assert not (runs_root() / "tuned").exists()


@pytest.mark.slow
@pytest.mark.skipif(util.find_spec("jax") is None, reason="jax is not installed")
def test_jax_fine_tunes_as_tensorflow_does(parent: Path, colours: Dataset, tmp_path: Path):
    arrays = {f"{n}_images": s.images for n, s in colours.splits.items()}
    arrays |= {f"{n}_labels": s.labels[:, None] for n, s in colours.splits.items()}
    np.savez(tmp_path / "colours.npz", **arrays)
    sparse = changed(parent, tmp_path, halved)
    command = ["quantize", str(sparse), "--mode", "qat", "--epochs", "2", "--batch", "16"]
    command += ["--calibration-per-class", "8", "--data", str(tmp_path / "colours.npz")]
    for backend in ("jax", "tensorflow"):
        done = subprocess.run(
            [sys.executable, "-m", "bloodedge", *command, "--backend", backend, "--name", backend],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert "in int8" in done.stdout
    one, other = (
        json.loads((runs_root() / b / "manifest.json").read_text()) for b in ("jax", "tensorflow")
    )
    for name, span in one["config"]["activation_ranges"].items():
        np.testing.assert_allclose(
            span, other["config"]["activation_ranges"][name], rtol=0.05, atol=0.02
        )
    assert one["metrics"]["val_int8"]["accuracy"] == pytest.approx(
        other["metrics"]["val_int8"]["accuracy"], abs=0.05
    )
    kernel = restore(find_model("jax")).get_layer("conv1").get_weights()[0]
    assert 0.4 < (kernel == 0).mean() < 0.6
