from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.compress.bank import BankKey, teacher_logits
from bloodedge.compress.distill import DistillConfig, distill
from bloodedge.compress.targets import KdConfig, SoftLabels
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError, DataError, ModelError, RunError
from bloodedge.references import find_model
from bloodedge.runs import load_run
from bloodedge.train.augment import view_of
from bloodedge.train.checkpoint import Checkpoints
from bloodedge.train.config import FitConfig, parse_phases
from bloodedge.train.loop import predict_logits
from bloodedge.train.restore import restore, save_half_weights
from bloodedge.train.stage import TrainConfig, train
from bloodedge.train.targets import HardLabels

QUICK = FitConfig(epochs=3, batch=16, learning_rate=5e-3)


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def quick_train(data: Dataset, name: str = "small", fit: FitConfig = QUICK, **options):
    return train(TrainConfig("cnn_se", fit, name, 0.25, **options), data)


def test_training_learns_and_leaves_a_whole_run(colours: Dataset):
    run = quick_train(colours)
    assert run.manifest["metrics"]["val"]["accuracy"] > 0.9
    names = {p.name for p in run.path.iterdir()}
    assert names == {
        "model.keras",
        "manifest.json",
        "history.csv",
        "learning_curves.png",
        "confusion_val.png",
    }
    assert run.manifest["data"]["fingerprint"] == colours.fingerprint
    assert run.manifest["data"]["synthetic"] is True
    assert set(run.manifest["files"]) == names - {"manifest.json"}
    assert not [p for p in run.path.parent.iterdir() if p.name != "small"]


def test_the_manifest_figures_are_those_of_the_saved_model(colours: Dataset):
    run = quick_train(colours)
    logits = predict_logits(restore(find_model("small")), colours["val"].images)
    accuracy = (logits.argmax(axis=1) == colours["val"].labels).mean()
    assert accuracy == pytest.approx(run.manifest["metrics"]["val"]["accuracy"])


def test_an_interrupted_run_resumes_to_the_same_weights(colours: Dataset, monkeypatch):
    whole = quick_train(colours, "whole")
    save = Checkpoints.save_if_due

    def stop_after_two(self, progress):
        save(self, progress)
        if progress.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_if_due", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            quick_train(colours, "broken")
    assert not (whole.path.parent / "broken").exists()
    with pytest.raises(RunError, match="--resume"):
        quick_train(colours, "broken")
    with pytest.raises(RunError, match="epochs"):
        quick_train(colours, "broken", FitConfig(4, 16, 5e-3), resume=True)
    resumed = quick_train(colours, "broken", resume=True)
    assert resumed.manifest["resumed"] == 1
    first, second = (restore(find_model(n)).get_weights() for n in ("whole", "broken"))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_existing_run_is_kept_unless_forced(colours: Dataset):
    run = quick_train(colours)
    before = (run.path / "manifest.json").read_bytes()
    with pytest.raises(RunError, match="--force"):
        quick_train(colours)
    assert (run.path / "manifest.json").read_bytes() == before
    quick_train(colours, fit=FitConfig(1, 16), force=True)
    assert load_run(run.path).manifest["config"]["fit"]["epochs"] == 1


def test_progressive_phases_choose_the_best_epoch_at_the_full_size(colours: Dataset):
    fit = FitConfig(epochs=3, batch=16, learning_rate=5e-3, progressive=((2, 8),))
    run = quick_train(colours, fit=fit)
    sizes = [row.split(",")[1] for row in (run.path / "history.csv").read_text().splitlines()[1:]]
    assert sizes == ["8", "8", "16"]
    assert run.manifest["metrics"]["best_epoch"] == 3


def test_training_can_start_from_the_weights_of_a_run(colours: Dataset):
    first = quick_train(colours, "first")
    barely = FitConfig(1, 16, learning_rate=1e-8)
    second = quick_train(colours, "second", barely, init="first")
    assert second.manifest["parents"] == {"init": find_model("first").sha256}
    scores = [run.manifest["metrics"]["val"]["accuracy"] for run in (first, second)]
    assert scores[1] == pytest.approx(scores[0], abs=0.05)
    with pytest.raises(ModelError, match="do not fit"):
        train(TrainConfig("cnn_se", QUICK, "wider", 0.5, "first"), colours)


@pytest.mark.parametrize("text", ["8", "8x", "x32", "0x32", "8x4", "8x32;2x16"])
def test_bad_phases_are_refused(text: str):
    with pytest.raises(ConfigError, match="EPOCHSxPIXELS"):
        parse_phases(text)


def test_phases_must_leave_an_epoch_at_the_full_size():
    assert parse_phases("6x16,4x32") == ((6, 16), (4, 32))
    with pytest.raises(ConfigError, match="full size"):
        FitConfig(epochs=8, progressive=((8, 32),))


def test_hard_label_loss_is_the_cross_entropy():
    targets = HardLabels(np.array([0, 2]), 3, smoothing=0.3)
    rows = targets.for_batch(np.array([1]), np.array([0]))
    np.testing.assert_allclose(rows, [[0.1, 0.1, 0.8]], atol=1e-6)
    logits = np.array([[1.0, 2.0, 0.5]], np.float32)
    log_p = logits - np.log(np.exp(logits).sum())
    np.testing.assert_allclose(np.asarray(targets.loss(rows, logits)), -(rows * log_p).sum(1), 1e-5)


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(("alpha", "temperature"), [(0.0, 4.0), (1.0, 1.0), (0.7, 3.0)])
def test_distillation_loss_is_the_published_formula(alpha: float, temperature: float):
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(5, 8, 4)).astype(np.float16)
    labels = np.array([0, 1, 2, 3, 0])
    targets = SoftLabels(labels, bank, KdConfig(temperature, alpha))
    index, views = np.array([3, 1]), np.array([7, 2])
    rows = targets.for_batch(index, views)
    logits = rng.normal(size=(2, 4)).astype(np.float32)
    teacher = bank[index, views].astype(np.float64)
    p, q = softmax(teacher / temperature), softmax(logits / temperature)
    kl = (p * (np.log(p) - np.log(q))).sum(axis=1)
    ce = -np.log(softmax(logits)[np.arange(2), labels[index]])
    expected = (1 - alpha) * ce + alpha * temperature**2 * kl
    np.testing.assert_allclose(np.asarray(targets.loss(rows, logits)), expected, rtol=1e-4)


def test_a_bank_of_fewer_views_drops_the_transpose_first():
    bank = np.arange(4, dtype=np.float16)[None, :, None] * np.ones((1, 4, 2), np.float16)
    rows = SoftLabels(np.array([0]), bank, KdConfig()).for_batch(np.zeros(8, int), np.arange(8))
    np.testing.assert_array_equal(rows[:, 2], [0, 1, 2, 3, 0, 1, 2, 3])


def test_the_bank_holds_the_teachers_logits_of_each_view(colours: Dataset, monkeypatch):
    quick_train(colours, "teacher", FitConfig(1, 16))
    reference = find_model("teacher")
    key = BankKey(reference.sha256, colours.fingerprint, 8)
    teacher = restore(reference)
    bank = teacher_logits(key, teacher, colours)
    images = np.ascontiguousarray(view_of(colours["train"].images, 5))
    np.testing.assert_allclose(bank[:, 5], predict_logits(teacher, images), atol=0.01)

    def refuse(*args, **kwargs):
        raise AssertionError("the teacher ran again")

    monkeypatch.setattr("bloodedge.compress.bank.predict_logits", refuse)
    np.testing.assert_array_equal(teacher_logits(key, teacher, colours), bank)
    key.path.write_bytes(key.path.read_bytes()[:100])
    with pytest.raises(DataError):
        teacher_logits(key, teacher, colours)


def test_distilling_learns_and_records_its_teacher(colours: Dataset):
    quick_train(colours, "teacher")
    # Batch norm's running statistics need some hundred steps.
    longer = FitConfig(epochs=15, batch=16, learning_rate=5e-3)
    run = distill(DistillConfig("teacher", "cnn_se", longer, "student", width=0.25), colours)
    assert run.manifest["kind"] == "distill"
    assert run.manifest["parents"] == {"teacher": find_model("teacher").sha256}
    assert run.manifest["metrics"]["val"]["accuracy"] > 0.9


def test_a_teacher_of_other_classes_or_size_is_refused(colours: Dataset):
    quick_train(colours, "teacher", FitConfig(1, 16))
    config = DistillConfig("teacher", "cnn_se", QUICK, "student", width=0.25)
    two = {name: type(s)(s.images, s.labels % 2) for name, s in colours.splits.items()}
    with pytest.raises(ModelError, match="3 classes, the data 2"):
        distill(config, Dataset("two", "npz", "two", ("a", "b"), two, {}))
    small = {n: type(s)(s.images[:, ::2, ::2], s.labels) for n, s in colours.splits.items()}
    with pytest.raises(ModelError, match="16x16 images, the data has 8"):
        distill(config, Dataset("small", "npz", "small", ("r", "g", "b"), small, {}))
    assert not (load_run(find_model("teacher").path.parent).path.parent / "student").exists()


def test_another_temperature_does_not_continue_an_interrupted_distillation(
    colours: Dataset, monkeypatch
):
    quick_train(colours, "teacher", FitConfig(1, 16))

    save = Checkpoints.save

    def interrupt(self, progress):
        save(self, progress)
        raise KeyboardInterrupt

    config = DistillConfig("teacher", "cnn_se", QUICK, "student", width=0.25)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            distill(config, colours)
    changed = replace(config, kd=KdConfig(temperature=2.0), resume=True)
    with pytest.raises(RunError, match="another kd"):
        distill(changed, colours)


def test_an_unknown_teacher_suggests_the_nearest(colours: Dataset):
    quick_train(colours, "teacher", FitConfig(1, 16))
    with pytest.raises(ModelError, match="did you mean 'teacher'"):
        distill(DistillConfig("teachr", "cnn_se", QUICK, "student"), colours)


def test_half_precision_weights_restore_to_the_same_predictions(colours: Dataset, tmp_path):
    run = quick_train(colours)
    model = restore(find_model("small"))
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    save_half_weights(model, zoo / "small.f16.npz")
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["files"] = {"small.f16.npz": {}}
    (zoo / "manifest.json").write_text(json.dumps(manifest))
    again = restore(find_model(str(zoo / "small.f16.npz")))
    images = colours["val"].images
    np.testing.assert_allclose(
        predict_logits(again, images), predict_logits(model, images), atol=0.05
    )


@pytest.mark.parametrize(
    "bad", [{"epochs": 0}, {"batch": 0}, {"learning_rate": -1.0}, {"warmup": 0.9}, {"seed": -1}]
)
def test_bad_fit_settings_are_refused_when_built(bad: dict[str, float]):
    with pytest.raises(ConfigError, match=re.escape(str(next(iter(bad.values()))))):
        FitConfig(**{"epochs": 1, **bad})
