"""What training and distilling hand to a fit, seen without a step of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.compress.distill import DistillConfig, distill
from bloodedge.compress.teaching import TeachingConfig
from bloodedge.data.dataset import Dataset, Split
from bloodedge.errors import RunError
from bloodedge.references import find_model
from bloodedge.runs import Run
from bloodedge.train.config import FitConfig
from bloodedge.train.registry import ModelConfig, build
from bloodedge.train.restore import restore
from bloodedge.train.stage import TrainConfig, train
from bloodedge.train.trainer import Trainer

FIT = FitConfig(epochs=1, batch=16)


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


@pytest.fixture(autouse=True)
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let epochs pass without a step; who would have taken them is kept."""
    kept: list[Any] = []

    def train_epoch(self: Trainer, epoch: int, size: int) -> dict[str, float]:
        kept.append(self)
        # A checkpoint holds what it keeps of the weights.
        self.optimizer.build(self._answering.trainable_variables)
        row = {"size": size, "learning_rate": 0.0, "train_loss": 1.0, "train_accuracy": 0.5}
        return {"epoch": epoch + 1, **row}

    monkeypatch.setattr(Trainer, "train_epoch", train_epoch)
    monkeypatch.setattr("bloodedge.train.stage.can_draw", lambda: False)
    return kept


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> list[Split]:
    """Validate without a prediction, in training and after it; on which images is kept."""
    kept: list[Split] = []

    def validate(net: Any, val: Split, size: int) -> dict[str, float]:
        kept.append(val)
        return {"val_loss": 1.0, "val_accuracy": 0.5}

    monkeypatch.setattr("bloodedge.train.loop._validate", validate)
    monkeypatch.setattr("bloodedge.train.stage.val_figures", lambda *given: {"val": {}})
    return kept


def trained(data: Dataset, name: str, fit: FitConfig = FIT, **options: Any) -> Run:
    return train(TrainConfig("cnn_se", fit, name, 0.25, **options), data)


def distilled(data: Dataset, name: str, fit: FitConfig = FIT, **options: Any) -> Run:
    teaching = TeachingConfig(("first",), live=True)
    return distill(DistillConfig(teaching, "cnn_se", fit, name, 0.25, **options), data)


def test_val_alone_chooses_the_epoch_and_is_reported(colours_without_test: Dataset):
    run = trained(colours_without_test, "small")
    assert len(run.manifest["metrics"]["val"]["confusion"]) == 3


def test_each_epoch_is_judged_on_val(colours: Dataset, validated: list[Split]):
    trained(colours, "first")
    distilled(colours, "second")
    assert len(validated) == 2 * FIT.epochs
    assert all(split is colours["val"] for split in validated)


@pytest.mark.usefixtures("validated")
@pytest.mark.parametrize(("stage", "role"), [(trained, "init"), (distilled, "teacher")])
def test_a_fit_is_not_continued_on_other_images_or_from_another_model(
    stage: Callable[..., Run],
    role: str,
    colours: Dataset,
    interrupted: Callable[[], AbstractContextManager[None]],
):
    options = {"init": "first"} if role == "init" else {}
    trained(colours, "first")
    with interrupted():
        stage(colours, "second", **options)
    other = replace(colours, splits={**colours.splits, "val": colours["test"]})
    with pytest.raises(RunError, match="started with another data;"):
        stage(other, "second", resume=True, **options)
    trained(colours, "first", replace(FIT, seed=1), force=True)
    with pytest.raises(RunError, match=f"started with another {role};"):
        stage(colours, "second", resume=True, **options)


@pytest.mark.usefixtures("validated")
def test_the_seed_fixes_the_initial_weights_and_is_recorded(colours: Dataset):
    import keras

    kernels = []
    for seed in (1, 2):
        run = trained(colours, f"seed{seed}", replace(FIT, seed=seed))
        assert run.manifest["seed"] == seed
        keras.utils.set_random_seed(seed)
        expected = build(ModelConfig("cnn_se", 3, 16, 0.25)).get_weights()
        kernels.append(restore(find_model(run.name)).get_weights()[0])
        np.testing.assert_array_equal(kernels[-1], expected[0])
    assert (kernels[0] != kernels[1]).any()


@pytest.mark.usefixtures("validated")
def test_the_model_has_the_attention_that_was_asked_for(colours: Dataset):
    sizes = {a: build(ModelConfig("cnn_se", 3, 16, 0.25, a)).count_params() for a in ("", "cbam")}
    assert sizes["cbam"] != sizes[""]
    for stage, name in ((trained, "first"), (distilled, "second")):
        run = stage(colours, name, attention="cbam")
        assert run.manifest["model"]["parameters"] == sizes["cbam"]


@pytest.mark.usefixtures("validated")
def test_labels_are_smoothed_as_asked(colours: Dataset, trainers: list[Any]):
    trained(colours, "small", replace(FIT, label_smoothing=0.3))
    rows = trainers[0]._targets.for_batch(np.arange(4), np.zeros(4, np.int64))
    expected = 0.7 * np.eye(3)[colours["train"].labels[:4]] + 0.1
    np.testing.assert_allclose(rows, expected, atol=1e-6)
