from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodedge.benchmarks.report.stage import ReportConfig, report
from bloodedge.cli.app import app
from bloodedge.data.dataset import Dataset, Split
from bloodedge.deploy import interpreter
from bloodedge.deploy.evaluate import EvaluateConfig, evaluate, told_apart
from bloodedge.errors import BloodedgeError, ConfigError, ModelError, RunError
from bloodedge.files import gzip_size, sha256_of
from bloodedge.metrics import classification_metrics, softmax
from bloodedge.references import ModelReference
from bloodedge.runs import Manifest, Run, load_run, open_run
from bloodedge.train.loop import predict_logits
from bloodedge.train.modelio import model_entry, save_model
from bloodedge.train.registry import ModelConfig, build
from bloodedge.train.restore import save_half_weights

SIDE = 16
CONFIG = ModelConfig("cnn_se", 3, SIDE, 0.25)


@pytest.fixture(autouse=True)
def quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no child for each model made here; tests of damaged files take the real probe back."""
    monkeypatch.setattr(interpreter, "probe", interpreter.check_file)


@pytest.fixture
def tflite(brightest_tflite: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "brightest.tflite"
    path.write_bytes(brightest_tflite)
    return path


@pytest.fixture(scope="module")
def untrained() -> Any:
    return build(CONFIG, size=SIDE)


@pytest.fixture
def trained(untrained: Any, colours: Dataset) -> Run:
    return save(untrained, colours, "small", "model.keras")


def save(model: Any, data: Dataset, name: str, file: str) -> Run:
    with open_run(name) as run:
        if file.endswith(".keras"):
            save_model(model, run.path / file)
        else:
            save_half_weights(model, run.path / file)
        entry = model_entry(CONFIG, model, data.class_names)
        return run.commit(Manifest("train", name, {}, data.describe(), {}, entry, {}, 0, 0.0))


def test_without_matplotlib_a_model_is_evaluated_and_no_figure_drawn(
    trained: Run, colours: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As on a bare GPU host, where `reproduce study` evaluates each row that it trains."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("bloodedge.deploy.evaluate.can_draw", lambda: False)
    run = evaluate(EvaluateConfig(trained.name), colours)
    assert "accuracy" in run.manifest["metrics"]["test"]
    assert not list(run.path.glob("*.png"))
    assert "no figure: matplotlib is not installed" in capsys.readouterr().err


def predictions(run: Run) -> tuple[np.ndarray, np.ndarray]:
    with np.load(run.path / "predictions.npz", allow_pickle=False) as arrays:
        return arrays["probabilities"], arrays["labels"]


@pytest.mark.parametrize("variants", [5, {"int8": "x"}, {"int8": {"file": []}}])
def test_damaged_metrics_beside_a_file_do_not_hinder(
    variants: object, tflite: Path, colours: Dataset
) -> None:
    with open_run("exported") as run:
        shutil.copy(tflite, run.path / "a.tflite")
        names = {"class_names": list(colours.class_names)}
        metrics: Any = {"variants": variants}
        run.commit(Manifest("export", "exported", {}, {}, {}, names, metrics, 0, 0.0))
    made = evaluate(EvaluateConfig("exported"), colours)
    assert made.manifest["model"]["run"] == {"kind": "export", "name": "exported"}


def test_a_tflite_file(tflite: Path, colours: Dataset) -> None:
    run = evaluate(EvaluateConfig(str(tflite)), colours)
    assert (run.name, run.manifest["kind"]) == ("brightest-test", "evaluate")
    assert sorted(run.manifest["files"]) == ["confusion_test.png", "predictions.npz"]
    p, labels = predictions(run)
    assert p.dtype == np.float32
    assert p.shape == (60, 3)
    np.testing.assert_array_equal(labels, colours["test"].labels)
    means = colours["test"].images.mean(axis=(1, 2))
    np.testing.assert_allclose(p, softmax(means / 32), atol=1e-5)
    metrics = run.manifest["metrics"]["test"]
    # The manifest's figures are exactly those of the predictions that were written.
    assert {k: metrics[k] for k in metrics if k not in ("images_per_s", "workers")} == (
        classification_metrics(labels, p)
    )
    assert metrics["accuracy"] == 1.0
    assert metrics["images_per_s"] > 0
    assert metrics["workers"] >= 1


def test_the_file_is_recorded_with_its_digest_and_sizes(tflite: Path, colours: Dataset) -> None:
    run = evaluate(EvaluateConfig(str(tflite), split="val", workers=2), colours)
    assert run.manifest["model"]["file"] == {
        "name": "brightest.tflite",
        "bytes": tflite.stat().st_size,
        "gzip_bytes": gzip_size(tflite),
        "sha256": sha256_of(tflite),
    }
    assert run.manifest["parents"] == {"model": sha256_of(tflite)}
    assert run.manifest["data"]["fingerprint"] == colours.fingerprint
    assert run.manifest["metrics"]["val"]["workers"] == 2
    assert list(run.manifest["metrics"]) == ["val"]


def test_keras_and_half_precision_weights(trained: Run, untrained: Any, colours: Dataset) -> None:
    expected = softmax(predict_logits(untrained, colours["test"].images))
    run = evaluate(EvaluateConfig("small"), colours)
    np.testing.assert_allclose(predictions(run)[0], expected, atol=1e-6)
    assert run.manifest["parents"] == {"model": sha256_of(trained.path / "model.keras")}
    assert run.manifest["model"]["config"]["name"] == "cnn_se"
    assert run.manifest["model"]["run"] == {"kind": "train", "name": "small"}
    half = save(untrained, colours, "zoo", "weights.f16.npz")
    found = evaluate(EvaluateConfig("zoo"), colours)
    np.testing.assert_allclose(predictions(found)[0], expected, atol=2e-2)
    assert half.name == "zoo"


def test_a_model_for_other_data_is_refused(tflite: Path, colours: Dataset) -> None:
    four = replace(colours, class_names=("red", "green", "blue", "grey"))
    with pytest.raises(ModelError, match="3 classes, the data 4"):
        evaluate(EvaluateConfig(str(tflite)), four)
    small = {s: Split(colours[s].images[:, :8, :8], colours[s].labels) for s in colours.splits}
    for origin, fix in (("folder", "add --size 16"), ("npz", "name an .npz of that size")):
        other = replace(colours, splits=small, origin=origin)
        with pytest.raises(ModelError, match=fix):
            evaluate(EvaluateConfig(str(tflite)), other)
    for names in (["blue", "green", "red"], ["Blue", "green", "grey"]):
        turned = ModelReference("turned", tflite, {"model": {"class_names": names}})
        with pytest.raises(ModelError, match=r"another order, such as '[Bb]lue'"):
            evaluate(EvaluateConfig(turned), colours)


def test_settings_are_checked_first() -> None:
    with pytest.raises(ConfigError, match="--split 'all'"):
        EvaluateConfig("x", split="all")
    with pytest.raises(ConfigError, match="--workers 0"):
        EvaluateConfig("x", workers=0)
    with pytest.raises(RunError, match="cannot be a run's name"):
        EvaluateConfig("x", name="../x")


def test_a_run_is_replaced_only_when_asked(tflite: Path, colours: Dataset) -> None:
    odd = tflite.rename(tflite.with_name("odd name (1).tflite"))
    assert evaluate(EvaluateConfig(str(odd)), colours).name == "odd_name_1_-test"
    with pytest.raises(RunError, match="exists"):
        evaluate(EvaluateConfig(str(odd)), colours)
    assert evaluate(EvaluateConfig(str(odd), force=True), colours).name == "odd_name_1_-test"


# ---- the command, and the report on what it wrote ----


@pytest.fixture
def npz(colours: Dataset, tmp_path: Path) -> Path:
    path = tmp_path / "colours.npz"
    arrays = {f"{s}_images": colours[s].images for s in colours.splits}
    arrays |= {f"{s}_labels": colours[s].labels[:, None] for s in colours.splits}
    np.savez(path, class_names=np.array(colours.class_names), **arrays)
    return path


def command(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.usefixtures("trained")
def test_several_models_in_one_command(
    tflite: Path, npz: Path, tmp_path: Path, isolated_runs: Path
) -> None:
    done = command("evaluate", tflite, "small", "--data", npz)
    assert done.exit_code == 0, done.output
    assert re.search(r"brightest .* 100\.00 \[93\.98, 100\.00\] .* 1\.0000 ", done.stdout)
    for name in ("brightest-test", "small-test"):
        assert str(isolated_runs / name) in done.stdout
        assert (isolated_runs / name / "manifest.json").is_file()
    made = report(ReportConfig(out=tmp_path / "report"))
    # The data came from another source than in training, but its fingerprint is the same.
    assert {(r.model, r.variant) for r in made.rows} == {
        ("brightest", "tflite"),
        ("small", "keras"),
    }
    assert all(row.scores and row.scores.images == 60 for row in made.rows)


def test_files_of_one_name_are_told_apart_by_their_folders(
    tflite: Path, npz: Path, tmp_path: Path, isolated_runs: Path
) -> None:
    for folder in ("a-narrow-table-old", "a-narrow-table-new"):
        (tmp_path / folder).mkdir()
        shutil.copy(tflite, tmp_path / folder / "net.tflite")
    files = tmp_path.glob("*/net.tflite")
    found = command("evaluate", tflite, *files, "--data", npz)
    assert found.exit_code == 0, found.output
    names = {"brightest", "a-narrow-table-old-net", "a-narrow-table-new-net"}
    first = [line.split("  ")[0] for line in found.stdout.splitlines()]
    assert [first.count(name) for name in names] == [1, 1, 1]
    made = {p.name: load_run(p).manifest for p in isolated_runs.iterdir()}
    assert {m["model"]["reference"] for m in made.values()} == names
    assert set(made) == {f"{name}-test" for name in names}


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (("a/x.tflite", "b/y.tflite"), ["x", "y"]),
        (("a/x.tflite", "b/x.tflite", "b/y.tflite"), ["a-x", "b-x", "y"]),
        # Two names for one run's: spaces become underscores.
        (("a/x 1.tflite", "b/x_1.tflite"), ["a-x 1", "b-x_1"]),
        (("a/x.keras", "a/x.tflite"), None),
        (("a/x.tflite", "b/x.tflite", "c/a-x.tflite"), None),
    ],
)
def test_models_that_cannot_be_told_apart_are_refused(
    paths: tuple[str, ...], names: list[str] | None
) -> None:
    models = [ModelReference(Path(path).stem, Path(path), {}) for path in paths]
    if names is not None:
        assert [model.name for model in told_apart(models)] == names
        return
    with pytest.raises(ConfigError, match=r"two models are called a-x; .*--name"):
        told_apart(models)


def test_what_was_finished_is_shown_before_the_error(
    tflite: Path, npz: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"text")
    done = command("evaluate", tflite, bad, "--data", npz)
    assert done.exit_code != 0
    assert isinstance(done.exception, ModelError)
    assert "100.00" in done.stdout
    two = command("evaluate", tflite, bad, "--data", npz, "--name", "both")
    assert isinstance(two.exception, ConfigError)


@pytest.mark.usefixtures("trained")
def test_options_that_no_model_heeds_are_refused(tflite: Path, npz: Path) -> None:
    for model, option, message in (
        (tflite, ("--backend", "jax"), "--backend without a Keras model"),
        ("small", ("--workers", "2"), "--workers without a .tflite file"),
    ):
        done = command("evaluate", model, "--data", npz, *option)
        assert isinstance(done.exception, ConfigError)
        assert message in str(done.exception)


def test_an_unknown_model_is_one_line(npz: Path) -> None:
    done = command("evaluate", "nothing", "--data", npz)
    assert done.exit_code != 0
    assert isinstance(done.exception, BloodedgeError)
    assert "no run, file or zoo model 'nothing'" in str(done.exception)
