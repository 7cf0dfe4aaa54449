"""The files of the loading matrix: every variant of one small net, trained for a moment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloodedge.data.dataset import Dataset
from bloodedge.errors import ModelError
from bloodedge.runs import Run, load_run, runs_root

MODEL, WIDTH, SIDE, PER_CLASS = "cnn_se", 1.0, 32, 10
COMPAT = "tflite-runtime"
# How many images every runtime answers.
IMAGES = 16


@dataclass(frozen=True)
class Row:
    """One file of the matrix.

    Attributes:
        name: what it is.
        path: the file.
        compat: whether `--compat tflite-runtime` writes it.
    """

    name: str
    path: Path
    compat: bool


def make_files(folder: Path) -> tuple[list[Row], Any]:
    """Train, compress and export into `folder`; return the files and images to answer.

    What loads does not depend on what a net has learnt, so that a few steps on synthetic cells are
    enough; gates may fail.
    """
    from bloodedge.backend import use_backend

    use_backend("tensorflow")
    from bloodedge.data.synthetic_set import load_synthetic
    from bloodedge.deploy.convert import ALL_VARIANTS

    data = load_synthetic(PER_CLASS, SIDE)
    with _runs_in(folder):
        _train(data)
        rows = [*_exported("parent", data, tuple(ALL_VARIANTS))]
        for io in ("int8", "float32"):
            rows += _exported("parent", data, ("int8",), io=io)
        for name in ("qat", "channels", "sparse", "clustered"):
            rows += _exported(name, data, ("float32", "int8"))
        _check_compat(data, [row for row in rows if row.path.parent.name == "parent-uint8"])
    return rows, data["test"].images[:IMAGES]


@contextmanager
def _runs_in(folder: Path) -> Iterator[None]:
    before = os.environ.get("BLOODEDGE_RUNS")
    os.environ["BLOODEDGE_RUNS"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["BLOODEDGE_RUNS"]
        else:
            os.environ["BLOODEDGE_RUNS"] = before


def _train(data: Dataset) -> None:
    from bloodedge.compress.channels.stage import PruneConfig, prune_channels
    from bloodedge.compress.clustering import ClusterConfig, cluster
    from bloodedge.compress.quantize import QatConfig, quantize
    from bloodedge.compress.sparsity import SparsityConfig, sparsify
    from bloodedge.train.config import FitConfig
    from bloodedge.train.recipes import qat_tuning
    from bloodedge.train.stage import TrainConfig, train

    moment = FitConfig(1, 16, 1e-3)
    train(TrainConfig(MODEL, FitConfig(2, 16, 5e-3), "parent", WIDTH), data)
    prune_channels(PruneConfig("parent", "channels", moment, ratio=0.7, fine_tune=False), data)
    sparsify(SparsityConfig("parent", "sparse", moment, sparsity=0.5), data)
    cluster(ClusterConfig("parent", "clustered", moment, clusters=8), data)
    quantize(QatConfig("parent", qat_tuning(epochs=1, batch=16), "qat", per_class=4), data)


def _exported(
    model: str, data: Dataset, variants: tuple[str, ...], io: str = "uint8"
) -> Iterator[Row]:
    from bloodedge.deploy.compat import check_compatible

    run = _export(model, f"{model}-{io}", data, variants, io=io)
    for variant in variants:
        path = run.path / str(_files(run)[variant]["file"])
        try:
            check_compatible(path.read_bytes(), COMPAT)
            compat = True
        except ModelError:
            compat = False
        yield Row(_title(model, variant, io), path, compat)


def _export(model: str, name: str, data: Dataset, variants: tuple[str, ...], **how: Any) -> Run:
    from bloodedge.deploy.export import ExportConfig, export

    settings = {"per_class": 4, "allow_failing": True, **how}
    return export(ExportConfig(model, name, variants, **settings), data)


def _title(model: str, variant: str, io: str) -> str:
    kinds = {
        "parent": "",
        "qat": "QAT, ",
        "channels": "channels pruned, ",
        "sparse": "weights pruned, ",
        "clustered": "clustered, ",
    }
    ends = f", {io} in and out" if variant == "int8" else ""
    return f"{kinds[model]}{variant}{ends}"


def _check_compat(data: Dataset, rows: list[Row]) -> None:
    """Make sure that `--compat` writes those files, byte for byte, and refuses the others.

    Raises:
        ModelError: it writes others.
    """
    written = _files(load_run(runs_root() / "parent-uint8"))
    for row in rows:
        variant = next(v for v, found in written.items() if found["file"] == row.path.name)
        try:
            run = _export("parent", f"compat-{variant}", data, (variant,), compat=COMPAT)
        except ModelError:
            if not row.compat:
                continue
            raise
        content = (run.path / str(_files(run)[variant]["file"])).read_bytes()
        if not row.compat or content != row.path.read_bytes():
            raise ModelError(f"--compat {COMPAT} writes another {variant}")


def _files(run: Run) -> Mapping[str, Any]:
    found: Mapping[str, Any] = run.manifest["metrics"]["variants"]
    return found
