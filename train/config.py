"""The settings of one fit: what the training loop does, whatever the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bloodedge.errors import ConfigError, check_range
from bloodedge.train.augment import AugmentConfig

PRECISIONS = ("auto", "float32", "bfloat16")
OPTIMIZERS = ("adamw", "sgd", "muon")
Phases = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class FitConfig:
    """How long and how a model is trained.

    Attributes:
        epochs: passes over train.
        batch: images a step.
        learning_rate: the peak, reached after the warm-up and then decayed by a cosine.
        final_rate: the share of the peak that the cosine ends at; 1 keeps the rate as it is.
        optimizer: `adamw` (Adam where there is no decay), `sgd` (Nesterov momentum 0.9), or `muon`
            for the kernels of convolutions and AdamW for all else (`bloodedge.train.muon`).
        weight_decay: the decoupled decay (Loshchilov & Hutter 2019); biases and batch-norm
            parameters are exempt.
        clip: the largest norm of a weight's gradient; None for no limit.
        ema: the momentum of the running average of the weights that val sees and that is kept;
            0 for none.
        warmup: the fraction of all steps in which the rate rises linearly.
        label_smoothing: the share of each target spread over all classes.
        balance: how far rare classes are drawn more often, from 0 (every image once an epoch) to
            1 (every class alike); an image's odds are the size of its class to the power of
            minus `balance`.
        augment: how the images vary.
        progressive: `(epochs, size)` phases trained on smaller images before the full size, which
            saves most of a large model's time (Howard's progressive resizing).
        precision: of the activations: `float32`, `bfloat16`, or `auto` for the second where there
            is an accelerator; weights and loss stay float32.
        seed: fixes order, augmentation and initial weights.

    Raises:
        ConfigError: a value out of range.
    """

    epochs: int
    batch: int = 64
    learning_rate: float = 1e-3
    final_rate: float = 0.0
    optimizer: str = "adamw"
    weight_decay: float = 0.02
    clip: float | None = 1.0
    ema: float = 0.0
    warmup: float = 0.05
    label_smoothing: float = 0.0
    balance: float = 0.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    progressive: Phases = ()
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("--epochs", self.epochs, 1, 100_000)
        check_range("--batch", self.batch, 1, 65_536)
        check_range("--lr", self.learning_rate, 1e-8, 10)
        check_range("final rate", self.final_rate, 0, 1)
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"optimizer {self.optimizer!r}", expected=" or ".join(OPTIMIZERS))
        if self.precision not in PRECISIONS:
            raise ConfigError(f"--precision {self.precision!r}", expected=" or ".join(PRECISIONS))
        check_range("--ema", self.ema, 0, 0.99999)
        check_range("--balance", self.balance, 0, 1)
        check_range("weight decay", self.weight_decay, 0, 1)
        check_range("warm-up", self.warmup, 0, 0.5)
        check_range("label smoothing", self.label_smoothing, 0, 0.5)
        check_range("--seed", self.seed, 0, 2**31)
        if sum(epochs for epochs, _ in self.progressive) >= self.epochs:
            raise ConfigError(
                f"--progressive takes all of the {self.epochs} epochs",
                expected="at least one epoch at the full size",
            )

    @property
    def smaller_sizes(self) -> tuple[int, ...]:
        """The image sides of the progressive phases."""
        return tuple(size for _, size in self.progressive)

    def size_at(self, epoch: int, full: int) -> int:
        """Return the image side trained on in `epoch` (counted from 0)."""
        for epochs, size in self.progressive:
            if epoch < epochs:
                return size
            epoch -= epochs
        return full


def switched_on(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings, as JSON has them, without what is off, in groups of them, too.

    So they can be compared with those of an earlier version: what it did not have was off then.
    """
    inner = {k: switched_on(v) if isinstance(v, dict) else v for k, v in settings.items()}
    return {key: value for key, value in inner.items() if value}


def parse_phases(text: str) -> Phases:
    """Read `--progressive`, for example `8x32` or `6x16,4x32`: epochs x pixels.

    Raises:
        ConfigError: the text has another form.
    """
    try:
        pairs = [part.split("x") for part in text.split(",") if part]
        phases = tuple((int(epochs), int(size)) for epochs, size in pairs)
    except ValueError:
        phases = ((0, 0),)
    if any(epochs < 1 or size < 8 for epochs, size in phases):
        raise ConfigError(
            f"--progressive {text!r}", expected="EPOCHSxPIXELS, with commas between, such as 8x32"
        )
    return phases
