"""What every stage that fine-tunes hands to the training loop, and what it never looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.compress.channels.stage import PruneConfig, prune_channels
from bloodedge.compress.quantize import QatConfig, quantize
from bloodedge.compress.sparsity import SparsityConfig, sparsify
from bloodedge.compress.targets import SoftLabels
from bloodedge.compress.teaching import TeachingConfig
from bloodedge.data.dataset import Dataset
from bloodedge.files import sha256_of
from bloodedge.runs import Run
from bloodedge.train.config import FitConfig
from bloodedge.train.loop import predict_logits
from bloodedge.train.modelio import load_model

FIT = FitConfig(epochs=1, batch=16)


def channels(model: str, taught: TeachingConfig, data: Dataset) -> Run:
    options: Any = {"ratio": 0.8, "importance": "l1", "teaching": taught}
    return prune_channels(PruneConfig(model, "tuned", FIT, **options), data)


# As clusters, by way of the same `finetune`.
def zeros(model: str, taught: TeachingConfig, data: Dataset) -> Run:
    return sparsify(SparsityConfig(model, "tuned", FIT, taught, sparsity=0.5), data)


def int8(model: str, taught: TeachingConfig, data: Dataset) -> Run:
    return quantize(QatConfig(model, FIT, "tuned", taught, per_class=4), data)


@pytest.mark.parametrize("stage", [channels, zeros, int8])
def test_a_stage_trains_on_train_chooses_by_val_and_heeds_the_teacher(
    stage: Any, tiny_file: Path, colours_without_test: Dataset, monkeypatch: pytest.MonkeyPatch
):
    use_backend()
    given: list[Any] = []

    def fit(net: Any, *handed: Any, **options: Any) -> None:
        given.extend(handed)
        raise KeyboardInterrupt

    monkeypatch.setattr("bloodedge.train.stage.fit", fit)
    monkeypatch.setattr("bloodedge.compress.quantize.fit", fit)
    data = colours_without_test
    with pytest.raises(KeyboardInterrupt):
        stage(str(tiny_file), TeachingConfig((str(tiny_file),), views=1), data)
    train, val, targets, _, _, settings = given
    assert train is data["train"]
    assert val is data["val"]
    # By these a fit that is continued is told from one of other models or images.
    digest = sha256_of(tiny_file)
    shaped_by = {"parent": digest, "teacher": digest, "data": data.fingerprint}
    assert settings.items() >= shaped_by.items()
    assert isinstance(targets, SoftLabels)
    first = np.arange(8)
    answers = targets.for_batch(first, np.zeros(8, np.int64))[:, 3:]
    logits = predict_logits(load_model(tiny_file), train.images[:8])
    np.testing.assert_allclose(answers, logits, atol=2e-3 * np.abs(logits).max())
