"""What int8 is calibrated on: the drawn images, and varied ones where the model was trained so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.errors import ConfigError
from bloodedge.train.augment import AugmentConfig, draw

# What makes ranges wider than those of the data set's own images.
_WIDE = ("exposure", "noise")
_KEPT = (*_WIDE, "colour", "brightness", "stain")


def widely_trained(manifest: Mapping[str, Any]) -> AugmentConfig | None:
    """Return how a model's images varied in training, without moves; None if it was not widely."""
    augment: Any = manifest
    for key in ("config", "fit", "augment"):
        augment = augment.get(key) if isinstance(augment, dict) else None
    if not isinstance(augment, dict):
        return None
    try:
        varied = {name: float(augment.get(name, 0.0)) for name in _KEPT}
        config = AugmentConfig(views=1, shift=0.0, **varied)
    except (ConfigError, TypeError, ValueError):
        return None
    return config if any(varied[name] for name in _WIDE) else None


def as_trained(
    images: NDArray[np.uint8], manifest: Mapping[str, Any], seed: int
) -> NDArray[np.uint8]:
    """Return calibration images, followed by the same varied as in training if that was wide.

    A model that was trained for dark and noisy images has other ranges on them; calibrated on the
    data set's own alone, its int8 file saturates where the float model still answers.

    Args:
        images: `(N, S, S, 3)`.
        manifest: of the model that is converted.
        seed: fixes how they vary.
    """
    config = widely_trained(manifest)
    if config is None:
        return images
    from keras import ops

    from bloodedge.train.augment_ops import augment

    draws = draw(config, len(images), images.shape[1], np.random.default_rng(seed))
    varied = ops.convert_to_numpy(augment(images, draws, config))
    return np.concatenate([images, np.rint(varied).astype(np.uint8)])
