"""`--force` never lets a run take the place of a model that it is made from."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from bloodedge.backend import use_backend
from bloodedge.benchmarks.elsewhere import DriverConfig, benchmark_elsewhere
from bloodedge.benchmarks.stage import BenchmarkStageConfig, benchmark
from bloodedge.compress.channels.stage import PruneConfig, prune_channels
from bloodedge.compress.clustering import ClusterConfig, cluster
from bloodedge.compress.distill import DistillConfig, distill
from bloodedge.compress.quantize import QatConfig, quantize
from bloodedge.compress.sensitivity import SensitivityConfig, sensitivity
from bloodedge.compress.sparsity import SparsityConfig, sparsify
from bloodedge.compress.teaching import TeachingConfig
from bloodedge.data.dataset import Dataset
from bloodedge.deploy import interpreter
from bloodedge.deploy.evaluate import EvaluateConfig, evaluate
from bloodedge.deploy.export import ExportConfig, export
from bloodedge.deploy.verify_pair import VerifyConfig, verify_pair
from bloodedge.errors import RunError
from bloodedge.files import sha256_of
from bloodedge.references import find_model
from bloodedge.runs import Manifest, open_run
from bloodedge.train.config import FitConfig
from bloodedge.train.recipes import qat_tuning
from bloodedge.train.stage import TrainConfig, train

FIT = FitConfig(epochs=1, batch=16)
QAT = qat_tuning(epochs=1, batch=16)
BY_RUN = TeachingConfig(("mine",), views=1)
# How each stage is told to write the run `mine`, from which it takes the model of that role;
# what else it takes is the model `other`. `train` is the kind of run that a Keras model is in.
KERAS: dict[str, Callable[[str, Dataset], Any]] = {
    "train, start": lambda other, data: train(
        TrainConfig("cnn_se", FIT, "mine", 0.25, init="mine", force=True), data
    ),
    "distill, teacher": lambda other, data: distill(
        DistillConfig(BY_RUN, "cnn_se", FIT, "mine", 0.25, force=True), data
    ),
    "prune, parent": lambda other, data: prune_channels(
        PruneConfig("mine", "mine", FIT, ratio=0.9, force=True), data
    ),
    "prune, teacher": lambda other, data: prune_channels(
        PruneConfig(other, "mine", FIT, ratio=0.9, teaching=BY_RUN, force=True), data
    ),
    "sparsify, parent": lambda other, data: sparsify(
        SparsityConfig("mine", "mine", FIT, force=True), data
    ),
    "sparsify, teacher": lambda other, data: sparsify(
        SparsityConfig(other, "mine", FIT, BY_RUN, force=True), data
    ),
    "cluster, parent": lambda other, data: cluster(
        ClusterConfig("mine", "mine", FIT, force=True), data
    ),
    "quantize, parent": lambda other, data: quantize(
        QatConfig("mine", QAT, "mine", force=True), data
    ),
    "quantize, teacher": lambda other, data: quantize(
        QatConfig(other, QAT, "mine", BY_RUN, force=True), data
    ),
    "sensitivity": lambda other, data: sensitivity(
        SensitivityConfig("mine", "mine", force=True), data
    ),
    "export": lambda other, data: export(ExportConfig("mine", "mine", force=True), data),
}
TFLITE: dict[str, Callable[[str, Dataset], Any]] = {
    "verify, parent": lambda other, data: verify_pair(
        VerifyConfig(find_model("mine"), find_model(other), name="mine", force=True), data
    ),
    "verify, child": lambda other, data: verify_pair(
        VerifyConfig(find_model(other), find_model("mine"), name="mine", force=True), data
    ),
    "evaluate": lambda other, data: evaluate(EvaluateConfig("mine", name="mine", force=True), data),
    "benchmark": lambda other, data: benchmark(
        BenchmarkStageConfig(("mine",), "mine", force=True), data
    ),
    "benchmark elsewhere": lambda other, data: benchmark_elsewhere(
        DriverConfig(("mine",), "mine", force=True), data, Mock()
    ),
}


@pytest.fixture(autouse=True)
def quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no child for each model made here."""
    monkeypatch.setattr(interpreter, "probe", interpreter.check_file)


def refused(make: Callable[[str, Dataset], Any], kind: str, model: Path, data: Dataset) -> None:
    """Put a model into the run `mine`, have it overwritten, and expect it as it was."""
    with open_run("mine") as run:
        shutil.copy(model, run.path / f"model{model.suffix}")
        entry = {"class_names": list(data.class_names)}
        run.commit(Manifest(kind, "mine", {}, data.describe(), {}, entry, {}, 0, 0.0))
    before = sha256_of(model)
    other = shutil.copy(model, run.final.parent.parent / f"other{model.suffix}")
    if model.suffix == ".keras":
        with zipfile.ZipFile(other, "a") as archive:
            archive.comment = b"another file"
    else:
        # What follows the model's end is no part of it.
        other.write_bytes(model.read_bytes() + b"another file")
    assert sha256_of(other) != before
    with pytest.raises(RunError, match="which is read here"):
        make(str(other), data)
    assert sha256_of(find_model("mine").path) == before


@pytest.mark.parametrize("stage", KERAS)
def test_no_stage_takes_the_place_of_a_keras_model_it_reads(
    stage: str, tiny_file: Path, colours: Dataset
) -> None:
    use_backend()
    refused(KERAS[stage], "train", tiny_file, colours)


@pytest.mark.parametrize("stage", TFLITE)
def test_no_stage_takes_the_place_of_a_tflite_file_it_reads(
    stage: str, brightest_tflite: bytes, tmp_path: Path, colours: Dataset
) -> None:
    path = tmp_path / "brightest.tflite"
    path.write_bytes(brightest_tflite)
    refused(TFLITE[stage], "export", path, colours)
