"""Models that were trained on widely varied images are calibrated on such images."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.data.dataset import Dataset
from bloodedge.deploy import variant
from bloodedge.deploy.calibrating import as_trained, widely_trained
from bloodedge.deploy.convert import convert
from bloodedge.deploy.export import ExportConfig, export
from bloodedge.train.recipes import fit_config
from bloodedge.train.stage import TrainConfig, train


@pytest.fixture(autouse=True, scope="module")
def backend() -> None:
    use_backend()


def manifest(recipe: str) -> dict[str, Any]:
    return {"config": {"fit": asdict(fit_config(recipe, "cnn_se"))}}


IMAGES = np.random.default_rng(0).integers(60, 200, (40, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("recipe", ["strong", "study"])
def test_other_recipes_calibrate_on_the_images_themselves(recipe: str) -> None:
    assert as_trained(IMAGES, manifest(recipe), 0) is IMAGES


def test_a_robust_model_sees_the_images_and_varied_ones() -> None:
    found = as_trained(IMAGES, manifest("robust"), 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[:40], IMAGES)
    means = found[40:].mean(axis=(1, 2, 3)) / IMAGES.mean(axis=(1, 2, 3))
    assert means.min() < 0.75
    assert means.max() > 1.2
    np.testing.assert_array_equal(found, as_trained(IMAGES, manifest("robust"), 3))
    assert (found != as_trained(IMAGES, manifest("robust"), 4)).any()


@pytest.mark.parametrize(
    "broken",
    [{}, {"config": 3}, {"config": {"fit": {"augment": {"exposure": "much"}}}},
     {"config": {"fit": {"augment": {"exposure": 9.0}}}}],
)  # fmt: skip
def test_a_manifest_that_makes_no_sense_changes_nothing(broken: dict[str, Any]) -> None:
    assert widely_trained(broken) is None
    assert as_trained(IMAGES, broken, 0) is IMAGES


@pytest.mark.parametrize(("recipe", "times"), [("strong", 1), ("robust", 2)])
def test_an_export_is_calibrated_as_its_model_was_trained(
    recipe: str, times: int, colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def watched(model: Any, kind: str, images: Any, **options: Any) -> bytes:
        seen.append(len(images))
        return convert(model, kind, images, **options)

    monkeypatch.setattr(variant, "convert", watched)
    fit = replace(fit_config(recipe, "cnn_se", epochs=1), batch=16)
    train(TrainConfig("cnn_se", fit, "net", 0.25), colours)
    run = export(ExportConfig("net", "net-int8", ("int8",), 4, allow_failing=True), colours)
    calibration = run.manifest["config"]["calibration"]
    assert calibration["varied"] is (times == 2)
    assert seen == [times * len(calibration["indices"])]
