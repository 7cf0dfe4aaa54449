"""`bloodedge prune --weights`: single weights set to zero, in a pattern or by magnitude alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from bloodedge.compress.bridge.runtime import tfmot
from bloodedge.compress.choice import choose_layers
from bloodedge.compress.finetune import FinetuneConfig, Method, finetune, load_parent
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError, check_range
from bloodedge.runs import Run
from bloodedge.train.device import batch_parts
from bloodedge.train.feed import steps_per_epoch

KIND = "sparsify"
PATTERNS = ("unstructured", "2:4")
# Sparsity rises over this share of the steps; the rest of them recover.
_RAMP = 0.5
_UPDATES = 20
_POWER = 3


@dataclass(frozen=True)
class SparsityConfig(FinetuneConfig):
    """What `bloodedge prune --weights` sets to zero; see `FinetuneConfig` for the rest.

    Attributes:
        pattern: `unstructured` (the smallest weights of each kernel), or `2:4`: two of every four
            weights in a row along the input channels, which is tfmot's convention and the order in
            which TFLite stores them.
        sparsity: the share of each kernel that becomes zero; 2:4 is always 0.5.

    Raises:
        ConfigError: an unknown pattern, or a sparsity out of range.
    """

    pattern: str = "unstructured"
    sparsity: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pattern not in PATTERNS:
            raise ConfigError(f"--pattern {self.pattern!r}", expected=" or ".join(PATTERNS))
        check_range("--sparsity", self.sparsity, 0.01, 0.99)
        if self.pattern == "2:4" and self.sparsity != 0.5:
            raise ConfigError(
                f"--pattern 2:4 with --sparsity {self.sparsity}", fix="drop --sparsity"
            )


@dataclass(frozen=True)
class Schedule:
    """The sparsity at each step, which is counted from 1 (Zhu & Gupta 2017).

    From `begin` on, every `every` steps until `end`, masks are drawn anew for a sparsity of
    `final (1 - (1 - (step - begin) / (end - begin))^3)`; then they stay.
    """

    final: float
    begin: int
    end: int
    every: int

    def at(self, step: int) -> float:
        """Return the sparsity of the masks drawn at a step."""
        p = min(1.0, max(0.0, (step - self.begin) / (self.end - self.begin)))
        return self.final * (1 - (1 - p) ** _POWER)


def make_schedule(final: float, steps: int) -> Schedule:
    """Spread the rise of sparsity over the first half of a fit.

    Args:
        final: the sparsity in the end.
        steps: steps of the whole fit.

    Raises:
        ConfigError: there are too few steps to rise in.
    """
    if steps < 4:
        raise ConfigError(
            f"{steps} steps of fine-tuning", expected="4 or more", fix="raise --epochs"
        )
    end = round(_RAMP * steps)
    every = max(1, (end - 1) // _UPDATES)
    # The last update falls on `end`, so that the final sparsity is reached exactly.
    return Schedule(final, 1 + (end - 1) % every, end, every)


def check_whole_batches(devices: str) -> None:
    """Refuse batches in parts: tfmot counts a step, and draws masks, at every call of the model.

    Args:
        devices: as `--devices` takes it.

    Raises:
        ConfigError: several devices would share a batch.
    """
    if devices != "1":
        raise ConfigError(
            f"--devices {devices} with weights to prune: the schedule would run once a part of "
            "each batch",
            expected="--devices 1",
        )


def sparsify(config: SparsityConfig, data: Dataset) -> Run:
    """Set weights of a trained model to zero while it is fine-tuned, and write its run folder.

    The weights that are kept are the best by val after the sparsity has reached its end. Zeros
    shrink what gzip makes of the weights; the size on the device and the latency stay.

    Raises:
        ConfigError: too few steps, batches in parts, or Keras runs on another backend than
            TensorFlow.
        ModelError: the model or the teacher is missing, damaged, does not fit the data, or has
            layers without a twin.
        RunError: the run exists, or cannot be resumed.
    """
    check_whole_batches(str(batch_parts()))
    parent = load_parent(config, data)
    fours = config.pattern == "2:4"
    choices = choose_layers(parent.model, config.layers, _no_fours if fours else _any_shape)
    steps = steps_per_epoch(len(data["train"]), config.fit.batch)
    if fours:
        options, search_from = _two_of_four(), 0
    else:
        schedule = make_schedule(config.sparsity, steps * config.fit.epochs)
        options = polynomial_options(schedule)
        search_from = (schedule.end - 1) // steps
    strip = tfmot().sparsity.keras.strip_pruning
    method = Method(KIND, choices, partial(wrap_layer, options), strip, search_from)
    return finetune(config, parent, method, data)


def wrap_layer(options: dict[str, Any], layer: Any) -> Any:
    """Return a tf_keras layer, called before, with tfmot's wrapper around it."""
    wrapper = tfmot().sparsity.keras.prune_low_magnitude(layer, **options)
    wrapper.build(layer.input_shape)
    # Its own callback would do that; it refuses to train from -1.
    wrapper.pruning_step.assign(0)
    return wrapper


def polynomial_options(schedule: Schedule) -> dict[str, Any]:
    """Return tfmot's options for sparsity that rises as scheduled."""
    polynomial = tfmot().sparsity.keras.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=schedule.final,
        begin_step=schedule.begin,
        end_step=schedule.end,
        power=_POWER,
        frequency=schedule.every,
    )
    return {"pruning_schedule": polynomial}


def _two_of_four() -> dict[str, Any]:
    """Return the options for masks that are drawn once, at the first step."""
    once = tfmot().sparsity.keras.ConstantSparsity(0.5, begin_step=1, end_step=1, frequency=1)
    return {"pruning_schedule": once, "sparsity_m_by_n": (2, 4)}


def _any_shape(kernel: Any) -> str:
    return ""


def _no_fours(kernel: Any) -> str:
    """Return why a kernel cannot be pruned 2:4: its input channels make no whole groups."""
    inputs = kernel.shape[-2]
    return f"{inputs} input channels make no whole groups of four" if inputs % 4 else ""
