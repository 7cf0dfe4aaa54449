"""The ways to train: ours, ours for images from elsewhere, and as the original study did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from bloodedge.errors import ConfigError
from bloodedge.train.augment import NO_AUGMENTATION, AugmentConfig
from bloodedge.train.config import FitConfig
from bloodedge.train.registry import spec


def strong(model: str) -> FitConfig:
    """Return our recipe; benchmarks/results/recipe_ablation.md tells what each choice brings.

    AdamW with warm-up and a cosine, the eight flips and turns, small shifts, a little colour.
    Small students want a higher rate and more patience than the large references, and the study's
    basic CNN, which has no batch norm, more patience. The two smallest learn by Muon what they do
    not by AdamW, the smallest at twice the rate.
    """
    if model == "cnn_se_pico":
        return FitConfig(epochs=200, learning_rate=4e-2, optimizer="muon")
    if model == "cnn_se_nano":
        return FitConfig(epochs=200, learning_rate=2e-2, optimizer="muon")
    if spec(model).role == "student":
        return FitConfig(epochs=100, learning_rate=5e-3)
    if model == "study_cnn4":
        return FitConfig(epochs=100, learning_rate=1e-3)
    return FitConfig(epochs=40, learning_rate=1e-3)


def robust(model: str) -> FitConfig:
    """Return our recipe for images that another camera or laboratory takes.

    Exposure, colour, stain and noise vary far more than among the images of one data set, so that
    there is more to learn: `cnn_se` has Muon and twice the epochs for it.
    benchmarks/results/robust_recipe.md says what that brings there, and costs here.
    """
    wide = AugmentConfig(colour=0.1, exposure=0.4, noise=0.12, stain=0.1)
    base = strong(model)
    if model == "cnn_se":
        base = replace(base, epochs=200, learning_rate=2e-2, optimizer="muon")
    return replace(base, augment=wide)


def study(model: str) -> FitConfig:
    """Return the original study's recipe: 20 epochs of Adam at 1e-3, no augmentation.

    The study names no batch size and no schedule: a cosine is assumed, and 32, Keras' default, or
    128 for VGG-16, which has no batch norm: with dropout it is 2.6 points better on val so.
    Its ResNet took SGD with a cosine decay, whose rate it does not give: 0.1 is assumed.
    """
    plain = FitConfig(
        epochs=20,
        batch=128 if model.startswith("study_vgg16") else 32,
        weight_decay=0.0,
        clip=None,
        warmup=0.0,
        augment=NO_AUGMENTATION,
    )
    if model == "study_resnet":
        return replace(plain, optimizer="sgd", learning_rate=0.1)
    return plain


def wide_augmentation(manifest: Mapping[str, Any]) -> AugmentConfig | None:
    """Return how a model's images varied in training; None if not widely, as by `robust`.

    What is calibrated or trained further on the data set's own images alone would unlearn the
    others.

    Args:
        manifest: of the model; it may come from anywhere.
    """
    augment: Any = manifest
    for key in ("config", "fit", "augment"):
        augment = augment.get(key) if isinstance(augment, dict) else None
    if not isinstance(augment, dict):
        return None
    known = {name: type(value) for name, value in asdict(NO_AUGMENTATION).items()}
    try:
        config = AugmentConfig(**{k: known[k](v) for k, v in augment.items() if k in known})
    except (ConfigError, TypeError, ValueError):
        return None
    return config if config.wide else None


def fine_tuning(**changes: Any) -> FitConfig:
    """Return the settings to go on with weights that are trained already, such as pruned ones.

    The full rate, as to begin with, recovers more than a small one (Renda et al. 2020).

    Args:
        changes: other settings; None leaves ours.

    Raises:
        ConfigError: a value out of range.
    """
    return _changed(FitConfig(epochs=20, learning_rate=1e-3), changes)


def cluster_tuning(**changes: Any) -> FitConfig:
    """Return the settings to go on with weights that share values; changes as `fine_tuning`.

    Below the rate of other fine-tuning: every step moves all weights that share a value.
    """
    return _changed(fine_tuning(learning_rate=3e-4), changes)


def qat_tuning(**changes: Any) -> FitConfig:
    """Return the settings to go on with weights while simulating int8.

    A fifth of the usual rate, and no decay: it would pull the folded kernels towards other scales.
    Averages and half precision would leave the int8 grids.

    Args:
        changes: other settings; None leaves ours.

    Raises:
        ConfigError: a value out of range.
    """
    usual = FitConfig(epochs=10, learning_rate=2e-4, weight_decay=0.0, precision="float32")
    return _changed(usual, changes)


def _changed(config: FitConfig, changes: dict[str, Any]) -> FitConfig:
    return replace(config, **{key: value for key, value in changes.items() if value is not None})


RECIPES: dict[str, Callable[[str], FitConfig]] = {
    "strong": strong,
    "robust": robust,
    "study": study,
}


def fit_config(recipe: str, model: str, **changes: Any) -> FitConfig:
    """Return a recipe's settings for a model, with the changes that are not None.

    Raises:
        ConfigError: an unknown recipe, or a value out of range.
        ModelError: an unknown model.
    """
    if recipe not in RECIPES:
        raise ConfigError(f"unknown recipe {recipe!r}", expected=" or ".join(RECIPES))
    return _changed(RECIPES[recipe](model), changes)
