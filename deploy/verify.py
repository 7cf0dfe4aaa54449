"""Does an exported model answer as its parent does? Gates that stop an export that does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.deploy.calibration import calibration_indices
from bloodedge.errors import ConfigError, VerificationError
from bloodedge.metrics import Floats

# A parent up to this size answers all of val in seconds; a larger one a balanced sample.
SMALL_PARAMETERS = 1_000_000
SAMPLE_IMAGES = 512


@dataclass(frozen=True)
class Gate:
    """What an export must keep of its parent.

    Attributes:
        agreement: least share of images with the same most probable class.
        accuracy_drop: largest loss of accuracy, as a fraction (0.01 is one point).
        max_difference: largest difference of any probability, or None for no limit.
        tie: parent probabilities this close count as equal: either class agrees.
    """

    agreement: float
    accuracy_drop: float
    max_difference: float | None = None
    tie: float = 0.0


GATES: Mapping[str, Gate] = {
    # The same arithmetic in another order: rounding only (1e-6 in practice). Within 1e-4, two
    # probabilities can change places only if they lie within 2e-4 of each other.
    "float32": Gate(agreement=1.0, accuracy_drop=0.002, max_difference=1e-4, tie=2e-4),
    # Weights to 11 bits: only images on the boundary move.
    "float16": Gate(agreement=0.995, accuracy_drop=0.005),
    # Quantization moves doubtful images both ways; more than this is a model that broke
    # (a range that was never calibrated, one scale for very unequal channels).
    "dynamic": Gate(agreement=0.97, accuracy_drop=0.01),
    "int8": Gate(agreement=0.97, accuracy_drop=0.01),
}


@dataclass(frozen=True)
class Comparison:
    """How a child's probabilities compare with its parent's on the same images."""

    images: int
    agreement: float
    max_difference: float
    accuracy_val: float
    parent_accuracy_val: float

    def figures(self) -> dict[str, Any]:
        """Return the figures for a manifest."""
        return asdict(self)


def compare(
    parent: Floats, child: NDArray[np.float32], labels: NDArray[np.int64], *, tie: float = 0.0
) -> Comparison:
    """Compare `(N, C)` probabilities of parent and child on images with labels `(N,)`.

    A class whose parent probability is within `tie` of the highest counts as agreement.
    """
    rows = np.arange(len(labels))
    choice = child.argmax(axis=1)
    same = parent[rows, choice] >= parent.max(axis=1) - tie
    if tie == 0.0:
        same = choice == parent.argmax(axis=1)
    return Comparison(
        images=len(labels),
        agreement=float(same.mean()),
        max_difference=float(np.abs(parent - child).max()),
        accuracy_val=float((choice == labels).mean()),
        parent_accuracy_val=float((parent.argmax(axis=1) == labels).mean()),
    )


def check(variant: str, found: Comparison) -> None:
    """Stop an export that differs from its parent by more than its gate allows.

    Raises:
        VerificationError: naming the figure, its value and the limit.
    """
    gate = GATES[variant]
    drop = found.parent_accuracy_val - found.accuracy_val
    # `not <=` and `not >=` refuse NaN as well.
    if gate.max_difference is not None and not found.max_difference <= gate.max_difference:
        _fail(variant, "largest difference of a probability", found.max_difference, "at most",
              gate.max_difference)  # fmt: skip
    if not found.agreement >= gate.agreement:
        _fail(variant, "agreement with the parent", found.agreement, "at least", gate.agreement)
    if not drop <= gate.accuracy_drop:
        _fail(variant, "loss of accuracy on val", drop, "at most", gate.accuracy_drop)


def _fail(variant: str, figure: str, value: float, relation: str, limit: float) -> None:
    raise VerificationError(
        f"{variant}: the {figure} is {value:.4g}; nothing was written",
        expected=f"{relation} {limit:g}",
        fix="leave the variant out of --variants, or give int8 more --calibration-per-class",
    )


def verification_indices(
    labels: NDArray[np.int64], images: int | None, parameters: int, seed: int
) -> NDArray[np.int64]:
    """Return which val images to compare on, sorted.

    Args:
        labels: `(N,)` class indices of val.
        images: how many, class-balanced; 0 for all; None for all if the parent has fewer than
            `SMALL_PARAMETERS`, else `SAMPLE_IMAGES`.
        parameters: the parent's.
        seed: fixes the draw.

    Raises:
        ConfigError: `images` is negative.
    """
    if images is None:
        images = 0 if parameters < SMALL_PARAMETERS else SAMPLE_IMAGES
    if images < 0:
        raise ConfigError(f"{images} images to verify on", expected="0 for all, or more")
    if images == 0 or images >= len(labels):
        return np.arange(len(labels), dtype=np.int64)
    per_class = -(-images // len(np.unique(labels)))
    return calibration_indices(labels, per_class, seed)
