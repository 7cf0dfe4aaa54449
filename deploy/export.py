"""`bloodedge export`: a trained model as verified .tflite files, in a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bloodedge.console import say
from bloodedge.data.calibration import calibration_indices
from bloodedge.data.dataset import Dataset, Split
from bloodedge.data.names import check_names, check_shapes
from bloodedge.deploy import verify
from bloodedge.deploy.agreement import Comparison
from bloodedge.deploy.arena import arena_bytes
from bloodedge.deploy.audit import CALIBRATED, audit
from bloodedge.deploy.c_array import c_header
from bloodedge.deploy.card import write_card
from bloodedge.deploy.changed import CHANGED, write_changed
from bloodedge.deploy.cpp import cpp_class
from bloodedge.deploy.export_config import ExportConfig
from bloodedge.deploy.flat.bytemap import map_bytes
from bloodedge.deploy.kotlin import kotlin_class
from bloodedge.deploy.predict import image_sides
from bloodedge.deploy.runtime_trials import try_runtimes
from bloodedge.deploy.runtimes import find_runtime
from bloodedge.deploy.variant import Made, Parent, converted, make
from bloodedge.errors import ModelError
from bloodedge.files import atomic_path, gzip_size, write_text
from bloodedge.metrics import softmax
from bloodedge.references import TFLITE_SUFFIX, ModelReference, find_keras
from bloodedge.runs import Manifest, Run, RunFolder, Stopwatch, open_run
from bloodedge.train.loop import predict_logits
from bloodedge.train.recipes import wide_augmentation
from bloodedge.train.restore import restore

__all__ = ["ExportConfig", "export"]


def export(config: ExportConfig, data: Dataset) -> Run:
    """Convert a model to each variant, check each against its parent, and write the run folder.

    The folder holds `<parent>-<variant>.tflite` with its metadata and the class names, the images
    whose class changed (`changed-<variant>.csv` and `.png`), the model card, and the manifest. It
    appears only when every variant has passed its gate, unless the config allows failing ones,
    which are marked in the manifest, the card and the file itself.

    Raises:
        ModelError: no such model, one that does not fit the data, or one that does not convert.
        VerificationError: a variant differs from its parent by more than its gate allows.
        RunError: the run exists.
        ConfigError: Keras runs on another backend than TensorFlow.
    """
    reference = find_keras(config.model)
    watch = Stopwatch()
    if config.batch > 1:
        say(
            f"--batch {config.batch}: these files take no single image, so benchmark cannot "
            "measure them, here or in a bundle; predict, evaluate and verify can use them"
        )
    with open_run(config.name, force=config.force, reads=(reference.sha256,)) as run:
        parent = _load_parent(config, reference, data)
        variants = {v: make(v, config, parent, data) for v in config.variants}
        files = {v: _write(run, config, parent, v, made) for v, made in variants.items()}
        for v, made in variants.items():
            if len(made.answers.changed):
                write_changed(run.path, f"{CHANGED}-{v}", data, made.answers)
        metrics: dict[str, Any] = {"variants": files}
        if config.audit:
            metrics["audit"] = _audit(config, parent, data)
        manifest = _manifest(config, parent, data, metrics, watch)
        write_card(run.path, manifest, reference)
        return run.commit(manifest)


def _load_parent(config: ExportConfig, reference: ModelReference, data: Dataset) -> Parent:
    model = restore(reference)
    _check_fit(reference, model, data)
    val = data["val"]
    parameters = int(model.count_params())
    index = verify.verification_indices(val.labels, config.verify_images, parameters, config.seed)
    chosen = Split(val.images[index], val.labels[index])
    say(f"{config.name}: {reference.name}, {parameters:,} parameters, on {len(index):,} val images")
    return Parent(
        reference,
        model,
        reference.class_names or data.class_names,
        calibration_indices(data["train"].labels, config.per_class, config.seed),
        index,
        chosen,
        softmax(predict_logits(model, chosen.images, label="parent")),
    )


def _check_fit(reference: ModelReference, model: Any, data: Dataset) -> None:
    side, classes = image_sides(model, reference.path)
    check_shapes(reference.name, side, classes, data)
    names = reference.class_names
    if names and len(names) != classes:
        raise ModelError(
            f"{reference.name} has {classes} classes, and names {len(names)} in its manifest",
            fix="train it again, or move the manifest away",
        )
    check_names(reference.path, names, data)


def _audit(config: ExportConfig, parent: Parent, data: Dataset) -> dict[str, Any]:
    """Return what `audit` finds for each variant that is calibrated."""
    return {
        variant: audit(
            lambda images, v=variant: converted(v, parent, images, config),  # type: ignore[misc]
            data["train"],
            parent.val,
            per_class=config.per_class,
            seed=config.seed,
            draws=config.audit,
        )
        for variant in config.variants
        if variant in CALIBRATED
    }


def _write(
    run: RunFolder, config: ExportConfig, parent: Parent, variant: str, made: Made
) -> dict[str, Any]:
    path = run.path / f"{parent.reference.name}-{variant}{TFLITE_SUFFIX}"
    with atomic_path(path) as temporary:
        temporary.write_bytes(made.content)
    for suffix, text in _source_code(config, path.stem, made.content, parent.class_names).items():
        write_text(path.with_suffix(suffix), text)
    sizes = {"bytes": len(made.content), "gzip_bytes": gzip_size(path), "saved_bytes": made.saved}
    split = map_bytes(made.content)
    return {
        "file": path.name,
        **sizes,
        "constant_bytes": split.constants,
        "added_bytes": split.added,
        "above_floor_bytes": split.above_floor,
        "runtimes": try_runtimes(path, parent.val.images, made.answers.after),
        **_figures(made.found),
        "failed": made.failed,
    }


def _figures(found: Comparison) -> dict[str, Any]:
    """Return the figures as manifests of exports name them, which do not give the split."""
    names = {"accuracy": "accuracy_val", "parent_accuracy": "parent_accuracy_val"}
    return {names.get(key, key): value for key, value in found.figures().items()}


def _source_code(
    config: ExportConfig, name: str, content: bytes, labels: Sequence[str]
) -> dict[str, str]:
    """Return what was asked for beside a model, by the suffix of its file."""
    files = {}
    if config.c_array:
        files[".h"] = c_header(name, content, labels, arena_bytes(content))
    if config.snippets:
        files[".kt"] = kotlin_class(name, content, labels)
        files[".cc"] = cpp_class(name, content, labels)
    return files


def _manifest(
    config: ExportConfig, parent: Parent, data: Dataset, metrics: dict[str, Any], watch: Stopwatch
) -> Manifest:
    recorded = {
        **asdict(config),
        "calibration": {
            "split": "train",
            "indices": parent.calibration.tolist(),
            "varied": bool(wide_augmentation(parent.reference.manifest)),
        },
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
