from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.compress.distill import DistillConfig
from bloodedge.compress.teaching import TeachingConfig
from bloodedge.data.dataset import Dataset, Split
from bloodedge.errors import ConfigError, ModelError, RunError, TrainingError
from bloodedge.references import find_model
from bloodedge.runs import load_run
from bloodedge.train.augment import AugmentConfig
from bloodedge.train.checkpoint import Checkpoints, Progress
from bloodedge.train.config import FitConfig, parse_phases
from bloodedge.train.device import conditions, resolve_precision
from bloodedge.train.finished import settings_that_differ
from bloodedge.train.loop import _keep_best, _record, _validate, _write_history, predict_logits
from bloodedge.train.optimize import make_optimizer, use_averages
from bloodedge.train.renorm import IMAGES, renorm
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
    run = quick_train(colours, fit=replace(QUICK, epochs=15))
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


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_interrupted_run_resumes_to_the_same_weights(
    optimizer: str, colours: Dataset, monkeypatch
):
    fit = replace(QUICK, optimizer=optimizer)
    whole = quick_train(colours, "whole", fit)
    save = Checkpoints.save_if_due

    def stop_after_two(self, progress):
        save(self, progress)
        if progress.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_if_due", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            quick_train(colours, "broken", fit)
    assert not (whole.path.parent / "broken").exists()
    with pytest.raises(RunError, match="--resume"):
        quick_train(colours, "broken", fit)
    with pytest.raises(RunError, match=r"another epochs; .* --force and without --resume$"):
        quick_train(colours, "broken", replace(fit, epochs=4), resume=True, force=True)
    resumed = quick_train(colours, "broken", fit, resume=True)
    assert resumed.manifest["resumed"] == 1
    first, second = (restore(find_model(n)).get_weights() for n in ("whole", "broken"))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_of_a_version_with_fewer_settings_is_continued(colours: Dataset, monkeypatch):
    def without_exposure(settings: dict[str, Any]) -> None:
        settings["augment"] = {k: v for k, v in settings["augment"].items() if k != "exposure"}

    with monkeypatch.context() as patch:
        stopped_as(patch, without_exposure)
        with pytest.raises(KeyboardInterrupt):
            quick_train(colours, "older")
    wide = replace(QUICK, augment=AugmentConfig(exposure=0.3))
    with pytest.raises(RunError, match="another augment"):
        quick_train(colours, "older", wide, resume=True)
    assert quick_train(colours, "older", resume=True).manifest["resumed"] == 1


def stopped_as(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]) -> None:
    """End fits after their first checkpoint, whose settings are changed as if long ago."""
    save = Checkpoints.save

    def stop(self: Checkpoints, progress: Any) -> None:
        settings = dict(progress.settings)
        change(settings)
        save(self, replace(progress, settings=settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", stop)


def test_a_fit_is_not_continued_on_another_backend(colours: Dataset, monkeypatch):
    with monkeypatch.context() as patch:
        stopped_as(patch, lambda settings: settings.update(backend="another"))
        with pytest.raises(KeyboardInterrupt):
            quick_train(colours, "moved")
    with pytest.raises(RunError, match="started with another backend;"):
        quick_train(colours, "moved", resume=True)


def test_a_fit_of_a_version_that_did_not_write_its_backend_is_continued(
    colours: Dataset, monkeypatch
):
    with monkeypatch.context() as patch:
        stopped_as(patch, lambda settings: settings.pop("backend"))
        with pytest.raises(KeyboardInterrupt):
            quick_train(colours, "older")
    run = quick_train(colours, "older", resume=True)
    assert run.manifest["resumed"] == 1
    assert run.manifest["config"]["backend"] == conditions()["backend"]
    # A pipeline uses a finished run whatever it was made on.
    config = TrainConfig("cnn_se", QUICK, "older", 0.25)
    assert settings_that_differ(config, run.manifest, colours) == []


def test_the_manifest_tells_what_the_automatic_precision_became(colours: Dataset):
    config = quick_train(colours).manifest["config"]
    assert (config["fit"]["precision"], config["precision"]) == ("auto", resolve_precision("auto"))


def test_an_existing_run_is_kept_unless_forced(colours: Dataset):
    run = quick_train(colours)
    before = (run.path / "manifest.json").read_bytes()
    with pytest.raises(RunError, match="--force"):
        quick_train(colours)
    assert (run.path / "manifest.json").read_bytes() == before
    quick_train(colours, fit=FitConfig(1, 16), force=True)
    assert load_run(run.path).manifest["config"]["fit"]["epochs"] == 1


def test_progressive_phases_choose_the_best_epoch_at_the_full_size(
    colours: Dataset, monkeypatch: pytest.MonkeyPatch
):
    def validate(net: Any, val: Split, size: int) -> dict[str, float]:
        return {"val_loss": 0.1, "val_accuracy": 0.9 if size == 8 else 0.8}

    monkeypatch.setattr("bloodedge.train.loop._validate", validate)
    fit = FitConfig(epochs=3, batch=16, learning_rate=5e-3, progressive=((2, 8),))
    run = quick_train(colours, fit=fit)
    sizes = [row.split(",")[1] for row in (run.path / "history.csv").read_text().splitlines()[1:]]
    assert sizes == ["8", "8", "16"]
    assert run.manifest["metrics"]["best_epoch"] == 3


def test_a_later_phase_that_cannot_work_is_refused_before_the_first_step(
    colours: Dataset, isolated_runs: Path
):
    fit = replace(QUICK, progressive=((1, 8), (1, 12)))
    with pytest.raises(ConfigError, match="cannot shrink 16 pixels to 12"):
        quick_train(colours, fit=fit)
    assert not list(isolated_runs.iterdir())


@pytest.mark.parametrize("losses", [(0.3, 0.2, 0.4), (0.4, 0.3, 0.2), (0.2, 0.3, 0.4)])
def test_of_epochs_alike_in_accuracy_the_one_of_the_least_loss_is_kept(losses: tuple[float, ...]):
    progress = Progress({})
    rows = [
        {"epoch": epoch, "val_accuracy": 0.9, "val_loss": loss}
        for epoch, loss in enumerate(losses, 1)
    ]
    # The least loss of all, but less accurate.
    rows = [{"epoch": 0, "val_accuracy": 0.8, "val_loss": 0.1}, *rows]
    for row in rows:
        net = SimpleNamespace(get_weights=lambda row=row: [row["epoch"]])
        _keep_best(net, progress, row, phase_starts=row["epoch"] == 0)
    best = 1 + losses.index(min(losses))
    assert (progress.best_epoch, progress.best_weights) == (best, [best])


def test_val_loss_is_the_cross_entropy_and_accuracy_the_share_of_right_answers(
    monkeypatch: pytest.MonkeyPatch,
):
    logits = np.array([[2, 1, 0], [0, 0.5, 1], [3, 0, 1]], np.float32)
    labels = np.array([0, 1, 0])
    monkeypatch.setattr("bloodedge.train.loop.predict_logits", lambda *given, **options: logits)
    found = _validate(None, Split(np.zeros((3, 8, 8, 3), np.uint8), labels), 8)
    each = np.log(np.exp(logits).sum(1)) - logits[np.arange(3), labels]
    assert found["val_loss"] == pytest.approx(each.mean(), rel=1e-5)
    assert found["val_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("kind", "text", "ours"),
    [
        ("JaxRuntimeError", "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.", True),
        ("JaxRuntimeError", "INTERNAL: something else", False),
        ("ResourceExhaustedError", "OOM when allocating", True),
        ("OutOfMemoryError", "CUDA out of memory", True),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory: you tried 9 bytes", True),
        ("RuntimeError", "something else", False),
        ("MemoryError", "", True),
        ("ValueError", "out of memory", False),
    ],
)
@pytest.mark.parametrize("where", ["loop.Trainer.train_epoch", "loop._validate"])
def test_too_little_memory_is_an_error_of_ours_on_every_backend(
    kind: str, text: str, ours: bool, where: str, colours: Dataset, monkeypatch: pytest.MonkeyPatch
):
    plain = {"MemoryError": MemoryError(), "RuntimeError": RuntimeError(text)}
    error = plain.get(kind) or type(kind, (RuntimeError,), {})(text)

    def fails(*_: object):
        raise error

    monkeypatch.setattr("bloodedge.train.loop.Trainer.train_epoch", lambda *_: {})
    monkeypatch.setattr(f"bloodedge.train.{where}", fails)
    wanted = pytest.raises(TrainingError, match=r"does not hold a step of 16 images; .*--batch")
    with wanted if ours else pytest.raises(RuntimeError, match=text):
        quick_train(colours)


def test_the_seconds_of_all_epochs_add_up(tmp_path: Path):
    progress = Progress({}, seconds=1.5)
    figures = dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "val_accuracy"), 0.5)
    for epoch, seconds in ((1, 2.0), (2, 4.0)):
        _record(progress, {"epoch": epoch, **figures, "seconds": seconds}, tmp_path)
    assert (progress.seconds, progress.epoch) == (7.5, 2)


def test_a_history_ends_its_lines_as_every_other_table(tmp_path: Path):
    _write_history(tmp_path / "history.csv", [{"epoch": 1, "val_loss": 0.5}])
    assert (tmp_path / "history.csv").read_bytes() == b"epoch,val_loss\n1,0.5\n"


def test_val_sees_the_averaged_weights_and_training_goes_on_from_its_own(colours: Dataset):
    def history(name: str, ema: float) -> list[dict[str, str]]:
        folder = quick_train(colours, name, FitConfig(3, 16, 5e-3, ema=ema)).path
        with (folder / "history.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    plain, averaged = history("plain", 0.0), history("averaged", 0.9)
    assert [row["train_loss"] for row in plain] == [row["train_loss"] for row in averaged]
    assert all(a["val_loss"] != b["val_loss"] for a, b in zip(plain, averaged, strict=True))


def test_averaged_weights_have_statistics_of_their_own(colours: Dataset):
    """Those of the last steps are of other weights, and val would judge a net that is none."""
    run = quick_train(colours, "averaged", FitConfig(3, 16, 5e-2, ema=0.98))
    net = restore(find_model("averaged"))
    kept = [np.array(w) for w in net.get_weights()]
    index = np.random.default_rng(0).permutation(len(colours["train"]))[:IMAGES]
    images = colours["train"].images[index]
    renorm(net, images[np.random.default_rng(0).permutation(len(images))])
    for before, after in zip(kept, net.get_weights(), strict=True):
        np.testing.assert_allclose(before, after, rtol=1e-3, atol=1e-4)
    assert run.manifest["config"]["fit"]["ema"] == 0.98


def test_averages_fulfil_the_constraints_of_their_weights():
    import keras

    weight = keras.Variable(np.ones(3, np.float32), name="weight")
    weight.constraint = keras.constraints.NonNeg()
    optimizer = make_optimizer(FitConfig(1, 16, ema=0.9), 4)
    optimizer.build([weight])
    optimizer.apply([keras.ops.ones(3)], [weight])
    optimizer._model_variables_moving_average[0].assign([-1.0, 0.0, 1.0])
    use_averages(optimizer, [weight])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), [0.0, 0.0, 1.0])


def test_training_can_start_from_the_weights_of_a_run(colours: Dataset):
    first = quick_train(colours, "first")
    barely = FitConfig(1, 16, learning_rate=1e-8)
    second = quick_train(colours, "second", barely, init="first")
    assert second.manifest["parents"] == {"init": find_model("first").sha256}
    scores = [run.manifest["metrics"]["val"]["accuracy"] for run in (first, second)]
    assert scores[1] == pytest.approx(scores[0], abs=0.05)
    with pytest.raises(ModelError, match="do not fit"):
        train(TrainConfig("cnn_se", QUICK, "wider", 0.5, "first"), colours)


def test_weights_of_the_same_classes_in_other_places_are_no_start(colours: Dataset):
    barely = FitConfig(1, 16, learning_rate=1e-8)
    quick_train(colours, "first", barely)
    turned = replace(colours, class_names=("blue", "green", "red"))
    with pytest.raises(ModelError, match=r"classes in another order, such as 'red'"):
        quick_train(turned, "second", barely, init="first")


@pytest.mark.parametrize("text", ["8", "8x", "x32", "0x32", "8x4", "8x32;2x16"])
def test_bad_phases_are_refused(text: str):
    with pytest.raises(ConfigError, match="EPOCHSxPIXELS"):
        parse_phases(text)


def test_phases_must_leave_an_epoch_at_the_full_size():
    assert parse_phases("6x16,4x32") == ((6, 16), (4, 32))
    with pytest.raises(ConfigError, match="full size"):
        FitConfig(epochs=8, progressive=((8, 32),))


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        ("vgg16", 16, "--progressive: vgg16 cannot take images of 16 pixels; expected 32 or more"),
        ("mobilenet_v2_035", 24, "cannot take images of 24 pixels"),
        ("vit_tiny", 32, "tied to one image size"),
    ],
)
def test_phases_that_a_model_cannot_have_are_refused(model: str, size: int, message: str):
    fit = FitConfig(epochs=3, progressive=((1, 32), (1, size)))
    with pytest.raises(ConfigError, match=message):
        TrainConfig(model, fit, "small")
    with pytest.raises(ConfigError, match=message):
        DistillConfig(TeachingConfig(("teacher",)), model, fit, "small")


def test_images_that_are_too_small_for_a_model_are_refused(colours: Dataset):
    with pytest.raises(ConfigError, match="vgg16 cannot take images of 16 pixels"):
        train(TrainConfig("vgg16", QUICK, "small", 0.05), colours)


def test_hard_label_loss_is_the_cross_entropy():
    targets = HardLabels(np.array([0, 2]), 3, smoothing=0.3)
    rows = targets.for_batch(np.array([1]), np.array([0]))
    np.testing.assert_allclose(rows, [[0.1, 0.1, 0.8]], atol=1e-6)
    logits = np.array([[1.0, 2.0, 0.5]], np.float32)
    log_p = logits - np.log(np.exp(logits).sum())
    np.testing.assert_allclose(np.asarray(targets.loss(rows, logits)), -(rows * log_p).sum(1), 1e-5)


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
    np.savez(zoo / "small.f16.npz", w0=np.array(["no weight"]))
    with pytest.raises(ModelError, match="does not fit"):
        restore(find_model(str(zoo / "small.f16.npz")))


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"batch": 0},
        {"learning_rate": -1.0},
        {"final_rate": 1.5},
        {"warmup": 0.9},
        {"seed": -1},
    ],
)
def test_bad_fit_settings_are_refused_when_built(bad: dict[str, float]):
    with pytest.raises(ConfigError, match=re.escape(str(next(iter(bad.values()))))):
        FitConfig(**{"epochs": 1, **bad})
