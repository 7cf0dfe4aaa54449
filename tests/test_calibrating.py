"""Models trained on widely varied images are calibrated on such images, and trained further."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodedge.backend import use_backend
from bloodedge.cli.app import app
from bloodedge.compress.chain.recipe import RecipeConfig
from bloodedge.compress.chain.steps import training_links
from bloodedge.compress.quantize import QatConfig, quantize
from bloodedge.compress.sensitivity import SensitivityConfig, sensitivity
from bloodedge.compress.simulate import Simulation
from bloodedge.data.dataset import Dataset
from bloodedge.deploy import variant
from bloodedge.deploy.convert import convert
from bloodedge.deploy.export import ExportConfig, export
from bloodedge.errors import ConfigError
from bloodedge.train.augment import AugmentConfig, draw
from bloodedge.train.augment_ops import augment
from bloodedge.train.calibrating import as_trained
from bloodedge.train.recipes import fit_config, wide_augmentation
from bloodedge.train.stage import TrainConfig, train
from bloodedge.variants import Recipe


@pytest.fixture(autouse=True, scope="module")
def backend() -> None:
    use_backend()


def augmentation(recipe: str) -> AugmentConfig:
    return fit_config(recipe, "cnn_se").augment


IMAGES = np.random.default_rng(0).integers(60, 200, (40, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("recipe", ["strong", "study"])
def test_other_recipes_calibrate_on_the_images_themselves(recipe: str) -> None:
    assert as_trained(IMAGES, augmentation(recipe), 0) is IMAGES


def test_a_robust_model_sees_the_images_and_varied_ones() -> None:
    found = as_trained(IMAGES, augmentation("robust"), 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[:40], IMAGES)
    means = found[40:].mean(axis=(1, 2, 3)) / IMAGES.mean(axis=(1, 2, 3))
    assert means.min() < 0.75
    assert means.max() > 1.2
    np.testing.assert_array_equal(found, as_trained(IMAGES, augmentation("robust"), 3))
    assert (found != as_trained(IMAGES, augmentation("robust"), 4)).any()


def test_varied_images_are_rounded_and_not_moved() -> None:
    config = replace(augmentation("robust"), views=1, shift=0.0, scale=0.0, mixup=0.0, cutmix=0.0)
    draws = draw(config, 40, 16, np.random.default_rng(3))
    exact = np.asarray(augment(IMAGES, draws, config))
    found = as_trained(IMAGES, augmentation("robust"), 3)[40:]
    assert np.abs(found - exact).max() <= 0.5


@pytest.mark.parametrize(
    "broken",
    [{}, {"config": 3}, {"config": {"fit": {"augment": {"exposure": "much"}}}},
     {"config": {"fit": {"augment": {"exposure": 9.0}}}}],
)  # fmt: skip
def test_a_manifest_that_makes_no_sense_changes_nothing(broken: dict[str, Any]) -> None:
    assert wide_augmentation(broken) is None
    assert as_trained(IMAGES, None, 0) is IMAGES


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


def test_what_simulates_int8_takes_ranges_from_the_images_of_the_export(
    colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def converted(model: Any, kind: str, images: Any, **options: Any) -> bytes:
        seen.append(images)
        return convert(model, kind, images, **options)

    def observed(twin: Simulation, images: Any) -> Any:
        seen.append(images)
        return observe(twin, images)

    observe = Simulation.observe
    monkeypatch.setattr(variant, "convert", converted)
    monkeypatch.setattr(Simulation, "observe", observed)
    fit = replace(fit_config("robust", "cnn_se", epochs=1), batch=16)
    train(TrainConfig("cnn_se", fit, "net", 0.25), colours)
    quantize(QatConfig("net", fit, "tuned", per_class=4), colours)
    sensitivity(SensitivityConfig("tuned", "layers", per_class=4), colours)
    export(ExportConfig("tuned", "tuned-int8", ("int8",), 4, allow_failing=True), colours)
    assert len(seen) == 5
    assert len(seen[0]) == 2 * 12
    for images in seen[1:]:
        np.testing.assert_array_equal(images, seen[0])


@pytest.mark.parametrize("recipe", ["strong", "robust"])
def test_fine_tuning_varies_images_as_training_did(
    recipe: str, colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = replace(fit_config(recipe, "cnn_se", epochs=1), batch=16)
    train(TrainConfig("cnn_se", trained, "net", 0.25), colours)
    expected = trained.augment if recipe == "robust" else AugmentConfig()
    chain = training_links(RecipeConfig("net", Recipe.parse("slim75+sparse50+cluster16+qat")))
    assert [link.config.fit.augment for link in chain] == 4 * [expected]

    seen: list[Any] = []

    def stop(config: Any, data: Any) -> None:
        seen.append(config.fit.augment)
        raise ConfigError("enough")

    monkeypatch.setattr("bloodedge.data.sources.load_data", lambda data, size: None)
    for stage in ("sparsity.sparsify", "clustering.cluster", "quantize.quantize"):
        monkeypatch.setattr(f"bloodedge.compress.{stage}", stop)
    monkeypatch.setattr("bloodedge.compress.channels.stage.prune_channels", stop)
    for line in (
        "prune net --channels --macs 0.5",
        "prune net --weights --sparsity 0.5",
        "cluster net",
        "quantize net --mode qat",
    ):
        CliRunner().invoke(app, [*line.split(), "--data", "synthetic"])
    assert seen == 4 * [expected]
