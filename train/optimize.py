"""The optimizer and its schedule."""

from __future__ import annotations

import math
from typing import Any

from bloodedge.train.adamw import fused_adamw
from bloodedge.train.config import FitConfig
from bloodedge.train.muon import muon


def make_optimizer(config: FitConfig, steps: int) -> Any:
    """Return the Keras optimizer with a linear warm-up and a cosine decay.

    Args:
        config: the fit's settings.
        steps: steps an epoch.
    """
    import keras

    total, warmup = _lengths(config, steps)
    rises = {"warmup_target": config.learning_rate, "warmup_steps": warmup} if warmup else {}
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else config.learning_rate,
        max(1, total - warmup),
        alpha=config.final_rate,
        **rises,
    )
    kind, options = _kind(config)
    if config.ema:
        options |= {"use_ema": True, "ema_momentum": config.ema}
    optimizer = _keeping_weights(kind)(rate, clipnorm=config.clip, **options)
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _kind(config: FitConfig) -> tuple[Any, dict[str, Any]]:
    """Return the optimizer's class and its own options."""
    import keras

    decay = config.weight_decay
    if config.optimizer == "sgd":
        return keras.optimizers.SGD, {
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": decay or None,
        }
    if config.optimizer == "muon":
        # The only decay that Keras heeds: ours leaves all weights to AdamW in its eyes.
        return muon(), {"adam_weight_decay": decay}
    if keras.backend.backend() == "tensorflow":
        return fused_adamw(), {"weight_decay": decay}
    return keras.optimizers.AdamW, {"weight_decay": decay}


def learning_rate(config: FitConfig, steps: int, step: int) -> float:
    """Return the rate that the schedule has reached after `step` steps of all epochs.

    Keras would compute it on the device, and JAX compile that anew each time.
    """
    total, warmup = _lengths(config, steps)
    if step < warmup:
        return config.learning_rate * step / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    cosine = (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * cosine)


def _lengths(config: FitConfig, steps: int) -> tuple[int, int]:
    """Return the steps of all epochs, and how many of them warm up: one at least, if any.

    The first step of a warm-up has a rate of 0: a fit's only step is none.
    """
    total = steps * config.epochs
    warms_up = config.warmup and total > 1
    return total, max(1, round(config.warmup * total)) if warms_up else 0


def _keeping_weights(kind: Any) -> Any:
    """Return a kind of optimizer that leaves the averages of the weights apart from the weights.

    Keras puts them in the weights' place at the end of each `fit`, and each of our epochs is one:
    training would go on from the averages.
    """

    class Keeping(kind):  # type: ignore[misc]
        def finalize_variable_values(self, var_list: list[Any]) -> None:
            """Leave the weights as they are."""

    return Keeping


def use_averages(optimizer: Any, weights: list[Any]) -> None:
    """Put the averages, where the optimizer keeps some, in the place of trainable weights.

    Averages are of weights as they are before their constraints, which they are to fulfil as well.
    """
    import keras

    keras.optimizers.Optimizer.finalize_variable_values(optimizer, weights)
    for weight in weights:
        if weight.constraint is not None:
            weight.assign(weight.constraint(weight))
