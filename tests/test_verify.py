"""`bloodedge verify` on pairs whose difference is known: one constant of the graph is changed."""

from __future__ import annotations

import csv
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodedge.cli.app import app
from bloodedge.cli.verifying import _print_run
from bloodedge.data.dataset import Dataset
from bloodedge.deploy import interpreter
from bloodedge.deploy.agreement import compare
from bloodedge.deploy.card import _recalls
from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.tree import Vector
from bloodedge.deploy.flat.writer import write_tables
from bloodedge.deploy.labels import append_labels
from bloodedge.deploy.verify import GATES, verification_indices
from bloodedge.deploy.verify_pair import VerifyConfig, verify_pair
from bloodedge.errors import ConfigError, ModelError
from bloodedge.references import ModelReference
from bloodedge.runs import load_run

FLOAT32 = 0


def with_factor(content: bytes, factor: float) -> bytes:
    """Multiply the constant that scales the channels' means before the softmax."""
    model = read_model(content).model
    (graph,) = model.tables("subgraphs")
    changed = 0
    for tensor in graph.tables("tensors"):
        buffer = model.tables("buffers")[tensor.number("buffer")]
        data = buffer.vector("data")
        if tensor.number("type") == FLOAT32 and data is not None and len(data.data) == 4:
            (value,) = struct.unpack("<f", bytes(data.data))
            buffer.fields["data"] = Vector(struct.pack("<f", value * factor), 1)
            changed += 1
    assert changed == 1
    return write_tables(model)


@pytest.fixture
def pair(
    tmp_path: Path, brightest_tflite: bytes, monkeypatch: pytest.MonkeyPatch
) -> dict[str, ModelReference]:
    monkeypatch.setattr("bloodedge.deploy.interpreter.probe", interpreter.check_file)
    contents = {
        "parent": brightest_tflite,
        "same": with_factor(brightest_tflite, 1.0),
        "wrong": with_factor(brightest_tflite, -1.0),
        "unsure": with_factor(brightest_tflite, 0.5),
    }
    made = {}
    for name, content in contents.items():
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(content)
        made[name] = ModelReference(name, path, {})
    return made


@pytest.mark.slow
def test_an_equal_child_loses_nothing(pair: dict[str, Any], colours: Dataset) -> None:
    run = verify_pair(VerifyConfig(pair["parent"], pair["same"]), colours)
    found = run.manifest["metrics"]["val"]
    assert run.manifest["metrics"]["failed"] == []
    assert (found["agreement"], found["max_difference"]) == (1.0, 0.0)
    assert found["accuracy"] == found["parent_accuracy"] == 1.0
    assert found["images"] == 60
    assert (run.path / "changed.csv").read_text().splitlines() == [
        "index,truth,parent,parent_p,child,child_p"
    ]
    assert not (run.path / "changed.png").exists()


@pytest.mark.slow
def test_a_broken_child_is_shown_image_by_image(pair: dict[str, Any], colours: Dataset) -> None:
    run = verify_pair(VerifyConfig(pair["parent"], pair["wrong"], "test", images=30), colours)
    found = run.manifest["metrics"]["test"]
    assert (found["accuracy"], found["broken"], found["mended"]) == (0.0, 30, 0)
    assert found["mcnemar_p"] == pytest.approx(2 / 2**30)
    assert found["class_images"] == [10, 10, 10]
    reasons = " ".join(run.manifest["metrics"]["failed"])
    for figure in ("agreement", "loss of accuracy", "recall of red", "recall of blue"):
        assert figure in reasons
    with (run.path / "changed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    for row in rows:
        assert row["truth"] == colours.class_names[colours["test"].labels[int(row["index"])]]
        assert row["parent"] == row["truth"] != row["child"]
    assert (run.path / "changed.png").read_bytes().startswith(b"\x89PNG")
    assert load_run(run.path).manifest["parents"]["child"] == pair["wrong"].sha256


@pytest.mark.slow
def test_less_sure_but_right_fails_on_calibration_alone(
    pair: dict[str, Any], colours: Dataset
) -> None:
    run = verify_pair(VerifyConfig(pair["parent"], pair["unsure"], max_ece=0.01), colours)
    (reason,) = run.manifest["metrics"]["failed"]
    assert "calibration error" in reason
    relaxed = VerifyConfig(pair["parent"], pair["unsure"], max_ece=1.0, force=True)
    assert verify_pair(relaxed, colours).manifest["metrics"]["failed"] == []


@pytest.mark.slow
def test_other_images_are_refused(pair: dict[str, Any], colours: Dataset) -> None:
    halves = {
        name: type(split)(np.ascontiguousarray(split.images[:, ::2, ::2]), split.labels)
        for name, split in colours.splits.items()
    }
    small = Dataset(colours.name, colours.origin, colours.title, colours.class_names, halves, {})
    with pytest.raises(ModelError, match="takes 16x16 images"):
        verify_pair(VerifyConfig(pair["parent"], pair["same"]), small)


@pytest.mark.slow
@pytest.mark.parametrize(("parent", "child"), [("parent", "same"), ("same", "parent")])
def test_labels_in_another_order_are_refused(
    pair: dict[str, Any], parent: str, child: str, colours: Dataset
) -> None:
    path = pair["same"].path
    path.write_bytes(append_labels(path.read_bytes(), ("green", "red", "blue")))
    with pytest.raises(ModelError, match="in another order"):
        verify_pair(VerifyConfig(pair[parent], pair[child]), colours)


@pytest.mark.slow
def test_the_draw_is_that_of_the_seed_and_the_file_that_of_the_child(
    pair: dict[str, Any], colours: Dataset
) -> None:
    config = VerifyConfig(pair["parent"], pair["wrong"], "test", images=30, seed=5)
    run = verify_pair(config, colours)
    with (run.path / "changed.csv").open() as file:
        shown = sorted(int(row["index"]) for row in csv.DictReader(file))
    labels = colours["test"].labels
    assert shown == verification_indices(labels, 30, 0, 5).tolist()
    assert shown != verification_indices(labels, 30, 0, 0).tolist()
    assert run.manifest["model"]["file"]["sha256"] == pair["wrong"].sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "all"}, "--split"),
        ({"images": -1}, "--images"),
        ({"seed": -1}, "--seed -1"),
        ({"max_drop": 2.0}, "--max-drop"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    models = [ModelReference(name, Path(f"{name}.tflite"), {}) for name in "ab"]
    with pytest.raises(ConfigError, match=message):
        VerifyConfig(*models, **changes)
    with pytest.raises(ConfigError, match="itself"):
        VerifyConfig(models[0], models[0])


def test_limits_that_are_given_are_the_gates() -> None:
    models = [ModelReference(name, Path(f"{name}.tflite"), {}) for name in "ab"]
    gate = VerifyConfig(*models, max_drop=0.1, max_class_drop=0.2, max_ece=0.3).gate()
    assert (gate.accuracy_drop, gate.class_drop, gate.ece_rise) == (0.1, 0.2, 0.3)
    usual = VerifyConfig(*models).gate()
    assert usual == GATES["int8"]


def test_a_backend_for_no_keras_model_is_refused(tmp_path: Path) -> None:
    files = [tmp_path / "a.tflite", tmp_path / "b.tflite"]
    for file in files:
        file.write_bytes(b"x")
    done = CliRunner().invoke(app, ["verify", *map(str, files), "--backend", "jax"])
    assert isinstance(done.exception, ConfigError)
    assert "--backend without a Keras model" in str(done.exception)


def test_a_class_without_images_has_no_recall(capsys: pytest.CaptureFixture[str]) -> None:
    one_hot = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    figures = compare(one_hot, one_hot, np.array([0, 0, 1])).figures()
    figures["parent_accuracy"], figures["accuracy"] = 1.0, 1.0
    names = ["red", "green", "blue"]
    metrics = {"val": figures, "failed": [], "variants": {"int8": figures}}
    about = {"model": {"class_names": names}, "data": {"title": "drawn [cells]"}}
    manifest = {"metrics": metrics, **about}
    _print_run(cast(Any, SimpleNamespace(path="x", manifest=manifest)), "val")
    shown = capsys.readouterr().out
    assert "drawn [cells], val" in shown
    (line,) = [line for line in shown.splitlines() if "blue" in line]
    assert line.count("no image") == 2
    assert "0.00" not in line
    card = _recalls(cast(Any, SimpleNamespace(metrics=metrics, model={"class_names": names})))
    assert card.splitlines()[-1] == "| blue (0) |  |"


@pytest.mark.slow
def test_the_command_exits_with_1_when_the_gate_fails(
    pair: dict[str, Any], colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bloodedge.data.sources.load_data", lambda name, size=None: colours)

    def run(child: str) -> Any:
        return CliRunner().invoke(
            app, ["verify", str(pair["parent"].path), str(pair[child].path), "--data", "x"]
        )

    good, bad = run("same"), run("wrong")
    assert (good.exit_code, bad.exit_code) == (0, 1), (good.output, bad.output)
    assert "agreement 100.00 %" in good.stdout
    assert "failed: the agreement" in bad.stdout
    assert "recall % of red" in bad.stdout
