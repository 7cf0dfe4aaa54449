"""`bloodedge export`: a trained model as verified .tflite files, in a run folder."""

from __future__ import annotations

import difflib
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.console import say
from bloodedge.data.dataset import Dataset, Split
from bloodedge.deploy import verify
from bloodedge.deploy.calibration import calibration_indices
from bloodedge.deploy.convert import VARIANTS, convert
from bloodedge.deploy.interpreter import predict_parallel, probe
from bloodedge.deploy.labels import append_labels
from bloodedge.errors import ConfigError, ModelError
from bloodedge.files import atomic_path, gzip_size
from bloodedge.metrics import Floats, softmax
from bloodedge.references import TFLITE_SUFFIX, ModelReference, find_model
from bloodedge.runs import Manifest, Run, RunFolder, Stopwatch, check_name, open_run
from bloodedge.train.loop import predict_logits
from bloodedge.train.restore import restore


@dataclass(frozen=True)
class ExportConfig:
    """What `bloodedge export` converts and where it puts it.

    Attributes:
        model: the parent: a run, a file or a zoo model.
        name: the run to write.
        variants: of `VARIANTS`.
        per_class: calibration images of each class, drawn from train.
        seed: fixes the draws.
        verify_images: val images to compare on: see `verify.verification_indices`.
        force: replace a run of that name.

    Raises:
        ConfigError: an unknown or repeated variant, or a number out of range.
        RunError: a name that no run can have.
    """

    model: str
    name: str
    variants: tuple[str, ...] = tuple(VARIANTS)
    per_class: int = 32
    seed: int = 0
    verify_images: int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        for variant in self.variants:
            _check_variant(variant)
        if not self.variants or len(set(self.variants)) < len(self.variants):
            raise ConfigError(
                f"--variants {','.join(self.variants)!r}",
                expected="each variant once, one at least",
            )
        if not 1 <= self.per_class <= 10_000:
            raise ConfigError(
                f"--calibration-per-class {self.per_class} is out of range", expected="1 to 10000"
            )
        if self.verify_images is not None and self.verify_images < 0:
            raise ConfigError(f"{self.verify_images} images to verify on", expected="0 or more")
        if not 0 <= self.seed <= 2**31:
            raise ConfigError(f"--seed {self.seed} is out of range", expected="0 to 2**31")


def _check_variant(variant: str) -> None:
    if variant in VARIANTS:
        return
    near = difflib.get_close_matches(variant, VARIANTS, n=1, cutoff=0.3)
    raise ConfigError(
        f"unknown variant {variant!r}",
        expected=", ".join(VARIANTS),
        fix=f"did you mean {near[0]!r}?" if near else "",
    )


@dataclass(frozen=True)
class _Parent:
    """The model to convert, with what its conversions are checked against."""

    reference: ModelReference
    model: Any
    class_names: tuple[str, ...]
    calibration: NDArray[np.int64]
    val: Split
    probabilities: Floats


def export(config: ExportConfig, data: Dataset) -> Run:
    """Convert a model to each variant, check each against its parent, and write the run folder.

    The folder holds `<parent>-<variant>.tflite` with the class names appended, and the manifest.
    It appears only when every variant has passed its gate.

    Raises:
        ModelError: no such model, one that does not fit the data, or one that does not convert.
        VerificationError: a variant differs from its parent by more than its gate allows.
        RunError: the run exists.
        ConfigError: Keras runs on another backend than TensorFlow.
    """
    reference = find_model(config.model)
    watch = Stopwatch()
    with open_run(config.name, force=config.force) as run:
        parent = _load_parent(config, reference, data)
        variants = {v: _make(v, parent, data) for v in config.variants}
        metrics = {v: _write(run, parent, v, *made) for v, made in variants.items()}
        return run.commit(_manifest(config, parent, data, {"variants": metrics}, watch))


def _load_parent(config: ExportConfig, reference: ModelReference, data: Dataset) -> _Parent:
    model = restore(reference)
    _check_fit(reference, model, data)
    val = data["val"]
    parameters = int(model.count_params())
    index = verify.verification_indices(val.labels, config.verify_images, parameters, config.seed)
    chosen = Split(val.images[index], val.labels[index])
    say(f"{config.name}: {reference.name}, {parameters:,} parameters, on {len(index):,} val images")
    return _Parent(
        reference,
        model,
        reference.class_names or data.class_names,
        calibration_indices(data["train"].labels, config.per_class, config.seed),
        chosen,
        softmax(predict_logits(model, chosen.images, label="parent")),
    )


def _check_fit(reference: ModelReference, model: Any, data: Dataset) -> None:
    shape, classes = model.input_shape, model.output_shape[-1]
    names = reference.class_names
    if classes != len(data.class_names) or (names and len(names) != classes):
        raise ModelError(
            f"{reference.name} tells {classes} classes apart, {data.name} has "
            f"{len(data.class_names)}",
            fix="name the data set it was trained on with --data",
        )
    if len(shape) != 4 or shape[3] != 3 or any(n not in (None, data.size) for n in shape[1:3]):
        raise ModelError(
            f"{reference.name} takes images of shape {shape[1:]}, {data.name} has "
            f"({data.size}, {data.size}, 3)",
            fix="choose the size with --size",
        )


def _make(variant: str, parent: _Parent, data: Dataset) -> tuple[bytes, verify.Comparison]:
    """Convert and check one variant, beside the run folder."""
    say(f"{variant}: converting")
    content = convert(parent.model, variant, data["train"].images[parent.calibration])
    with tempfile.TemporaryDirectory(prefix="bloodedge-") as folder:
        path = Path(folder) / f"{variant}{TFLITE_SUFFIX}"
        # With the labels, so that what is checked is what is written.
        path.write_bytes(append_labels(content, parent.class_names))
        # A tensor that is constantly 0 can make a file that ends the process which loads it.
        probe(path)
        child = predict_parallel(path, parent.val.images)
        content = path.read_bytes()
    tie = verify.GATES[variant].tie
    found = verify.compare(parent.probabilities, child, parent.val.labels, tie=tie)
    say(
        f"{variant}: {len(content) / 1000:.1f} KB, agreement {100 * found.agreement:.2f} %, "
        f"largest difference {found.max_difference:.2g}"
    )
    verify.check(variant, found)
    return content, found


def _write(
    run: RunFolder, parent: _Parent, variant: str, content: bytes, found: verify.Comparison
) -> dict[str, Any]:
    path = run.path / f"{parent.reference.name}-{variant}{TFLITE_SUFFIX}"
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    sizes = {"bytes": len(content), "gzip_bytes": gzip_size(path)}
    return {"file": path.name, **sizes, **found.figures()}


def _manifest(
    config: ExportConfig, parent: _Parent, data: Dataset, metrics: dict[str, Any], watch: Stopwatch
) -> Manifest:
    recorded = {
        **asdict(config),
        "calibration": {"split": "train", "indices": parent.calibration.tolist()},
        "verified_on": {"split": "val", "images": len(parent.val)},
    }
    entry = {
        **parent.reference.manifest.get("model", {}),
        "class_names": list(parent.class_names),
        "parameters": int(parent.model.count_params()),
        "input": "RGB pixel values 0..255, static batch 1; scaling is inside",
        "output": "probabilities",
    }
    return Manifest(
        kind="export",
        name=config.name,
        config=recorded,
        data=data.describe(),
        parents={"parent": parent.reference.sha256},
        model=entry,
        metrics=metrics,
        seed=config.seed,
        duration_s=watch.seconds(),
    )
