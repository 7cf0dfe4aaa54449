"""`bloodedge export`: a trained model as verified .tflite files, in a run folder."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge._version import __version__
from bloodedge.console import say
from bloodedge.data.calibration import calibration_indices
from bloodedge.data.dataset import Dataset, Split
from bloodedge.deploy import verify
from bloodedge.deploy.agreement import Comparison, compare
from bloodedge.deploy.audit import CALIBRATED, audit
from bloodedge.deploy.c_array import c_header
from bloodedge.deploy.card import write_card
from bloodedge.deploy.compat import check_compatible
from bloodedge.deploy.convert import convert
from bloodedge.deploy.export_config import ExportConfig
from bloodedge.deploy.flat.lean import lean
from bloodedge.deploy.interpreter import find_runtime, predict_parallel, probe
from bloodedge.deploy.labels import append_labels
from bloodedge.deploy.metadata import About, notes
from bloodedge.errors import ModelError
from bloodedge.files import atomic_path, gzip_size, write_text
from bloodedge.metrics import Floats, softmax
from bloodedge.references import TFLITE_SUFFIX, ModelReference, find_model
from bloodedge.runs import Manifest, Run, RunFolder, Stopwatch, open_run
from bloodedge.train.loop import predict_logits
from bloodedge.train.restore import restore

__all__ = ["ExportConfig", "export"]
# The finished file, with its metadata, must still answer as the one that was checked.
_SEAL_IMAGES = 16


@dataclass(frozen=True)
class _Parent:
    """The model to convert, with what its conversions are checked against."""

    reference: ModelReference
    model: Any
    class_names: tuple[str, ...]
    calibration: NDArray[np.int64]
    val: Split
    probabilities: Floats


@dataclass(frozen=True)
class _Made:
    """A variant's file, how it compares with its parent, and what the gate says of it."""

    content: bytes
    saved: int
    found: Comparison
    failed: list[str]


def export(config: ExportConfig, data: Dataset) -> Run:
    """Convert a model to each variant, check each against its parent, and write the run folder.

    The folder holds `<parent>-<variant>.tflite` with its metadata and the class names, the model
    card, and the manifest. It appears only when every variant has passed its gate, unless the
    config allows failing ones, which are marked in the manifest, the card and the file itself.

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
        variants = {v: _make(v, config, parent, data) for v in config.variants}
        files = {v: _write(run, config, parent, v, made) for v, made in variants.items()}
        metrics: dict[str, Any] = {"variants": files}
        if config.audit:
            metrics["audit"] = _audit(config, parent, data)
        manifest = _manifest(config, parent, data, metrics, watch)
        write_card(run.path, manifest, reference)
        return run.commit(manifest)


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


def _audit(config: ExportConfig, parent: _Parent, data: Dataset) -> dict[str, Any]:
    """Return what `audit` finds for each variant that is calibrated."""
    return {
        variant: audit(
            lambda images, v=variant: _convert(v, parent, images, config),  # type: ignore[misc]
            data["train"],
            parent.val,
            per_class=config.per_class,
            seed=config.seed,
            draws=config.audit,
        )
        for variant in config.variants
        if variant in CALIBRATED
    }


def _convert(
    variant: str, parent: _Parent, images: NDArray[np.uint8], config: ExportConfig
) -> bytes:
    return convert(
        parent.model,
        variant,
        images,
        batch=config.batch,
        io=config.io,
        ranges=config.ranges,
        float_layers=config.float_layers,
    )


def _make(variant: str, config: ExportConfig, parent: _Parent, data: Dataset) -> _Made:
    """Convert and check one variant, beside the run folder."""
    say(f"{variant}: converting")
    images = data["train"].images[parent.calibration]
    converted = _convert(variant, parent, images, config)
    if config.compat:
        check_compatible(converted, config.compat)
    slim = lean(converted)
    child = _answers(slim, parent.val.images, check=True)
    gate = config.gate(variant)
    found = compare(parent.probabilities, child, parent.val.labels, tie=gate.tie, seed=config.seed)
    failed = verify.failures(gate, found, parent.class_names)
    if not config.allow_failing:
        verify.check(variant, failed)
    for line in failed:
        say(f"{variant}: {line}; written all the same, marked as failing")
    about = _about(variant, config, parent, data)
    own = _provenance(variant, parent, data, found, failed)
    content = append_labels(lean(converted, notes(about, own)), parent.class_names)
    if not np.array_equal(_answers(content, parent.val.images[:_SEAL_IMAGES]),
                          child[:_SEAL_IMAGES]):  # fmt: skip
        raise ModelError(f"{variant}: the file answers otherwise once its metadata is in it")
    say(
        f"{variant}: {len(content) / 1000:.1f} KB, agreement {100 * found.agreement:.2f} %, "
        f"largest difference {found.max_difference:.2g}"
    )
    return _Made(content, len(converted) - len(slim), found, failed)


def _answers(
    content: bytes, images: NDArray[np.uint8], *, check: bool = False
) -> NDArray[np.float32]:
    with tempfile.TemporaryDirectory(prefix="bloodedge-") as folder:
        path = Path(folder) / f"model{TFLITE_SUFFIX}"
        path.write_bytes(content)
        if check:
            # A tensor that is constantly 0 can make a file that ends the process which loads it.
            probe(path)
        return predict_parallel(path, images)


def _about(variant: str, config: ExportConfig, parent: _Parent, data: Dataset) -> About:
    types = len(parent.class_names)
    description = f"Tells {types} types apart, trained on {data.title}; research use only."
    name = f"{parent.reference.name}-{variant}"
    return About(name, description, f"bloodedge {__version__}", config.author, config.licence)


def _provenance(
    variant: str, parent: _Parent, data: Dataset, found: Comparison, failed: list[str]
) -> dict[str, Any]:
    """Return what the file itself carries of its manifest."""
    return {
        "variant": variant,
        "parent": parent.reference.sha256,
        "data": data.fingerprint,
        "synthetic": data.synthetic,
        "val": {
            "images": found.images,
            "accuracy": round(found.accuracy_val, 4),
            "parent_accuracy": round(found.parent_accuracy_val, 4),
            "agreement": round(found.agreement, 4),
        },
        "failed": failed,
    }


def _write(
    run: RunFolder, config: ExportConfig, parent: _Parent, variant: str, made: _Made
) -> dict[str, Any]:
    path = run.path / f"{parent.reference.name}-{variant}{TFLITE_SUFFIX}"
    with atomic_path(path) as temporary:
        temporary.write_bytes(made.content)
    if config.c_array:
        header = c_header(path.stem, made.content, parent.class_names)
        write_text(path.with_suffix(".h"), header)
    sizes = {"bytes": len(made.content), "gzip_bytes": gzip_size(path), "saved_bytes": made.saved}
    return {"file": path.name, **sizes, **made.found.figures(), "failed": made.failed}


def _manifest(
    config: ExportConfig, parent: _Parent, data: Dataset, metrics: dict[str, Any], watch: Stopwatch
) -> Manifest:
    recorded = {
        **asdict(config),
        "calibration": {"split": "train", "indices": parent.calibration.tolist()},
        "gates": {v: asdict(config.gate(v)) for v in config.variants},
        "verified_on": {"split": "val", "images": len(parent.val), **_runtime()},
    }
    entry = {
        **parent.reference.manifest.get("model", {}),
        "class_names": list(parent.class_names),
        "parameters": int(parent.model.count_params()),
        "input": f"RGB pixel values 0..255, static batch {config.batch}; scaling is inside",
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


def _runtime() -> dict[str, str]:
    runtime = find_runtime()
    return {"runtime": f"{runtime.name} {runtime.version}"}
