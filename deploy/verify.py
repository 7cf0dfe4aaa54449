"""Does an exported model answer as its parent does? Gates that stop an export that does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bloodedge.data.calibration import calibration_indices
from bloodedge.deploy.agreement import Comparison
from bloodedge.deploy.audit import CALIBRATED
from bloodedge.errors import ConfigError, VerificationError

# A parent up to this size answers all of val in seconds; a larger one a balanced sample.
SMALL_PARAMETERS = 1_000_000
SAMPLE_IMAGES = 512
# Below, a few images that happen to lie on a boundary can fail a file that lost nothing.
_FEW = 200
# One image, with room for the rounding of shares: two are far from it.
_ONE = 1.25


@dataclass(frozen=True)
class Gate:
    """What an export must keep of its parent.

    Limits hold for the figures as measured, not for the ends of their intervals: on a few hundred
    val images those would refuse files that changed nothing. The intervals are recorded beside.

    Attributes:
        agreement: least share of images with the same most probable class.
        accuracy_drop: largest loss of accuracy, as a fraction (0.01 is one point).
        max_difference: largest difference of any probability, or None for no limit.
        tie: parent probabilities this close count as equal: either class agrees.
        class_drop: largest loss of recall of any one cell type. An average hides a rare type,
            and a rare type may be the finding; a twentieth is two or three images of 50.
        ece_rise: largest rise of the expected calibration error (`Comparison.ece_rise`). A
            probability that is read as one must not become bolder on the way; 0.02 is less than
            what a reader would notice.
        given: which of these are the user's, and so hold to the image. What a single image does
            to one of the others never fails, however few there are (but float32's agreement: the
            same arithmetic has no image to lose).
    """

    agreement: float
    accuracy_drop: float
    max_difference: float | None = None
    tie: float = 0.0
    class_drop: float = 0.05
    ece_rise: float = 0.02
    given: tuple[str, ...] = ()


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
    "mixed": Gate(agreement=0.97, accuracy_drop=0.01),
    # Activations to 16 bits leave the rounding of the weights alone.
    "int16x8": Gate(agreement=0.98, accuracy_drop=0.01),
}


def limits(
    variant: str,
    *,
    max_drop: float | None = None,
    max_class_drop: float | None = None,
    max_ece: float | None = None,
) -> Gate:
    """Return a variant's gate with the limits that were given instead of its own.

    Raises:
        ConfigError: a limit is no fraction.
    """
    given = {"accuracy_drop": max_drop, "class_drop": max_class_drop, "ece_rise": max_ece}
    options = ("--max-drop", "--max-class-drop", "--max-ece")
    for option, value in zip(options, given.values(), strict=True):
        if value is not None and not 0.0 <= value <= 1.0:
            raise ConfigError(f"{option} {value}", expected="a fraction, as 0.01 for one point")
    asked = {name: value for name, value in given.items() if value is not None}
    return replace(GATES[variant], **asked, given=tuple(asked))


def failures(gate: Gate, found: Comparison, class_names: Sequence[str] = ()) -> list[str]:
    """Return what a child lost beyond its gate, one line each; empty when it passes."""
    lines = []

    def at_most(figure: str, value: float, limit: str, images: int = 0, counts: int = 1) -> None:
        """Note a figure beyond its limit; one image, which may count for more, is spared."""
        most = getattr(gate, limit)
        spared = counts * _ONE / images if images and limit not in gate.given else 0.0
        # `not <=` refuses NaN as well.
        if most is not None and not value <= most and not value <= spared:
            lines.append(f"the {figure} is {value:.4g}, expected at most {most:g}")

    at_most("largest difference of a probability", found.max_difference, "max_difference")
    spared = 0.0 if gate.agreement == 1 else _ONE / max(found.images, 1)
    if not found.agreement >= gate.agreement and not 1 - found.agreement <= spared:
        lines.append(
            f"the agreement with the parent is {found.agreement:.4g} of {found.images} images, "
            f"expected at least {gate.agreement:g}"
        )
    at_most("loss of accuracy", found.accuracy_drop, "accuracy_drop", found.images)
    for index, (drop, images) in enumerate(zip(found.recall_drop, found.class_images, strict=True)):
        name = class_names[index] if index < len(class_names) else f"class {index}"
        at_most(f"loss of recall of {name}", drop, "class_drop", images)
    # An image that is now wrong, and surer, counts nearly twice.
    at_most("rise of the calibration error", found.ece_rise, "ece_rise", found.images, 2)
    return lines


def check(variant: str, lines: Sequence[str], images: int) -> None:
    """Stop an export that differs from its parent by more than its gate allows.

    Args:
        variant: which.
        lines: its `failures`.
        images: on how many it was compared.

    Raises:
        VerificationError: naming each figure that failed, its value and the limit.
    """
    if not lines:
        return
    better = (
        "more --calibration-per-class may help, if train has more; "
        if variant in CALIBRATED
        else ""
    )
    few = f" ({images} images are few to tell by)" if images < _FEW else ""
    raise VerificationError(
        f"{variant}: {'; '.join(lines)}{few}; nothing was written",
        fix=f"{better}`bloodedge export` can leave the variant out of --variants, or write it "
        "marked as failing with --allow-failing",
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
