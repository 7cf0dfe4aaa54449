"""The optimizer and its schedule, and what the device it runs on allows."""

from __future__ import annotations

import sys
from typing import Any

from bloodedge.train.config import FitConfig


def make_optimizer(config: FitConfig, steps: int) -> Any:
    """Return the Keras optimizer with a linear warm-up and a cosine decay to 0.

    Args:
        config: the fit's settings.
        steps: steps an epoch.
    """
    import keras

    total = steps * config.epochs
    warmup = max(1, round(config.warmup * total))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, total - warmup),
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
    )
    average: dict[str, Any] = {}
    if config.ema:
        average = {"use_ema": True, "ema_momentum": config.ema}
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=config.weight_decay or None,
            clipnorm=config.clip,
            **average,
        )
    else:
        optimizer = keras.optimizers.AdamW(
            rate, weight_decay=config.weight_decay, clipnorm=config.clip, **average
        )
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def has_accelerator() -> bool:
    """Return whether Keras computes on something else than the CPU."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    if backend == "jax":
        import jax

        return bool(jax.default_backend() != "cpu")
    return bool(sys.modules["torch"].cuda.is_available())


def use_jit() -> bool:
    """Return whether to compile with XLA.

    It pays on a GPU; on a CPU, TensorFlow's own oneDNN kernels are at least as fast and start
    sooner. JAX knows nothing else.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        return has_accelerator()
    return bool(keras.backend.backend() == "jax")
