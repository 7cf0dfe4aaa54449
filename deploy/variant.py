"""One variant of an export: converted, made lean, checked against its parent, and sealed."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge._version import __version__
from bloodedge.console import say
from bloodedge.data.dataset import Dataset, Split
from bloodedge.deploy import verify
from bloodedge.deploy.agreement import Comparison, compare
from bloodedge.deploy.changed import Answers
from bloodedge.deploy.compat import check_compatible
from bloodedge.deploy.convert import convert
from bloodedge.deploy.ends import name_ends
from bloodedge.deploy.export_config import ExportConfig
from bloodedge.deploy.flat.lean import lean
from bloodedge.deploy.interpreter import predict_parallel, probe
from bloodedge.deploy.metadata import About, describe_use, provenance
from bloodedge.deploy.seal import seal
from bloodedge.errors import ModelError
from bloodedge.metrics import Floats
from bloodedge.references import TFLITE_SUFFIX, ModelReference
from bloodedge.train.calibrating import as_trained
from bloodedge.train.recipes import wide_augmentation

# The finished file, with its metadata, must still answer as the one that was checked.
_SEAL_IMAGES = 16
_OWN_CPU_S = 600.0


@dataclass(frozen=True)
class Parent:
    """The model to convert, with what its conversions are checked against."""

    reference: ModelReference
    model: Any
    class_names: tuple[str, ...]
    calibration: NDArray[np.int64]
    index: NDArray[np.int64]
    val: Split
    probabilities: Floats


@dataclass(frozen=True)
class Made:
    """A variant's file, how it compares with its parent, and what the gate says of it."""

    content: bytes
    saved: int
    answers: Answers
    found: Comparison
    failed: list[str]


def converted(
    variant: str, parent: Parent, images: NDArray[np.uint8], config: ExportConfig
) -> bytes:
    """Return a variant as the converter writes it, calibrated on images `(N, S, S, 3)`."""
    return convert(
        parent.model,
        variant,
        as_trained(images, wide_augmentation(parent.reference.manifest), config.seed),
        batch=config.batch,
        io=config.io,
        ranges=config.ranges,
        float_layers=config.float_layers,
        # A microcontroller has no room for a float32 image.
        float_input=not config.c_array,
    )


def make(variant: str, config: ExportConfig, parent: Parent, data: Dataset) -> Made:
    """Convert and check one variant; nothing is written.

    Raises:
        ModelError: it does not convert, or an older runtime that was asked for would refuse it.
        VerificationError: it lost more than its gate allows.
    """
    say(f"{variant}: converting")
    raw = converted(variant, parent, data["train"].images[parent.calibration], config)
    if config.compat:
        check_compatible(raw, config.compat)
    named = name_ends(raw)
    slim = lean(named)
    child = _answers(slim, parent.val.images, check=True)
    gate = config.gate(variant)
    found = compare(parent.probabilities, child, parent.val.labels, tie=gate.tie)
    failed = verify.failures(gate, found, parent.class_names)
    if not config.allow_failing:
        verify.check(variant, failed, found.images)
    for line in failed:
        say(f"{variant}: {line}; written all the same, marked as failing")
    about = _about(variant, config, parent, data)
    own = provenance(
        parent=parent.reference.sha256,
        data=data.fingerprint,
        synthetic=data.synthetic,
        val=_brief(found),
        failed=failed,
        limits=config.own_limits,
    )
    content = seal(named, about, own, parent.class_names)
    if not np.array_equal(_answers(content, parent.val.images[:_SEAL_IMAGES]),
                          child[:_SEAL_IMAGES]):  # fmt: skip
        raise ModelError(f"{variant}: the file answers otherwise once its metadata is in it")
    say(
        f"{variant}: {len(content) / 1000:.1f} KB ({len(raw) - len(slim):,} bytes of the "
        f"converter's left out), agreement {100 * found.agreement:.2f} %, largest difference "
        f"{found.max_difference:.2g}"
    )
    answers = Answers("val", parent.index, parent.probabilities, child.astype(np.float64))
    return Made(content, len(raw) - len(slim), answers, found, failed)


def _answers(
    content: bytes, images: NDArray[np.uint8], *, check: bool = False
) -> NDArray[np.float32]:
    with tempfile.TemporaryDirectory(prefix="bloodedge-") as folder:
        path = Path(folder) / f"model{TFLITE_SUFFIX}"
        path.write_bytes(content)
        if check:
            # A tensor that is constantly 0 can make a file that ends the process which loads it.
            # Our own may be slow: 16x8 of a deep net runs on reference kernels.
            probe(path, cpu_s=_OWN_CPU_S)
        return predict_parallel(path, images)


def _brief(found: Comparison) -> dict[str, float]:
    return {
        "images": found.images,
        "accuracy": round(found.accuracy, 4),
        "parent": round(found.parent_accuracy, 4),
        "agreement": round(found.agreement, 4),
    }


def _about(variant: str, config: ExportConfig, parent: Parent, data: Dataset) -> About:
    description = describe_use(data.title)
    name = f"{parent.reference.name}-{variant}"
    return About(name, description, f"bloodedge {__version__}", config.author, config.licence)
