"""What int8 is calibrated on: the drawn images, and varied ones where the model was trained so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bloodedge.train.augment import AugmentConfig, draw


def as_trained(
    images: NDArray[np.uint8], trained: AugmentConfig | None, seed: int
) -> NDArray[np.uint8]:
    """Return calibration images, followed by the same varied as in training if that was wide.

    A model that was trained for dark and noisy images has other ranges on them; calibrated on the
    data set's own alone, its int8 file saturates where the float model still answers.

    Args:
        images: `(N, S, S, 3)`.
        trained: how the model's images varied; None if that is not known.
        seed: fixes how they vary.
    """
    if trained is None or not trained.wide:
        return images
    config = replace(trained, views=1, shift=0.0, scale=0.0, mixup=0.0, cutmix=0.0)
    from keras import ops

    from bloodedge.train.augment_ops import augment

    draws = draw(config, len(images), images.shape[1], np.random.default_rng(seed))
    # PyTorch reckons with no mixture of its arrays and NumPy's.
    tensors = {name: ops.convert_to_tensor(values) for name, values in draws.items()}
    varied = ops.convert_to_numpy(augment(images, tensors, config))
    return np.concatenate([images, np.rint(varied).astype(np.uint8)])
