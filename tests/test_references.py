from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodedge import references
from bloodedge.backend import use_backend
from bloodedge.cli.app import app
from bloodedge.errors import ModelError, RunError
from bloodedge.references import (
    find_keras,
    find_model,
    find_models,
    known_names,
    latest_run,
    packaged_zoo,
    zoo_models,
)
from bloodedge.runs import MANIFEST, Manifest, open_run
from bloodedge.train.modelio import save_model
from bloodedge.train.restore import restore


def make_run(name: str, kind: str = "train", files: tuple[str, ...] = ("model.keras",)) -> Path:
    with open_run(name) as run:
        for file in files:
            (run.path / file).write_bytes(b"content of " + file.encode())
        manifest = Manifest(kind, name, {}, {}, {}, {"class_names": ["a", "b"]}, {}, 0, 1.0)
        return run.commit(manifest).path


def test_a_run_is_found_by_name_by_folder_and_by_file():
    path = make_run("vgg16")
    for reference in ("vgg16", str(path), str(path / "model.keras")):
        found = find_model(reference)
        assert found.name == "vgg16"
        assert found.path == path / "model.keras"
        assert found.class_names == ("a", "b")
        assert not found.is_tflite


def test_a_folder_here_does_not_take_a_runs_name(
    tmp_path: Path, isolated_runs: Path, monkeypatch: pytest.MonkeyPatch
):
    made = make_run("s-tflite", "export", ("s-int8.tflite",))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "s-tflite")
    for name in ("s-tflite", "s-tflite/s-int8.tflite"):
        assert find_model(name).path == made / "s-int8.tflite"
        here = find_model(f"./{name}").path
        assert here.resolve() == tmp_path / "s-tflite/s-int8.tflite"


def test_an_export_run_means_all_its_variants():
    path = make_run("s-tflite", "export", ("s-int8.tflite", "s-float32.tflite", "notes.txt"))
    assert [m.name for m in find_models("s-tflite")] == ["s-float32", "s-int8"]
    with pytest.raises(ModelError, match="2 models"):
        find_model("s-tflite")
    for reference in (str(path / "s-int8.tflite"), "s-tflite/s-int8.tflite"):
        assert find_model(reference).path == path / "s-int8.tflite"


def export_of(source: str, name: str, *forms: str) -> Path:
    files = tuple(f"{name}-{form}.tflite" for form in forms)
    with open_run(f"{name}-tflite") as run:
        for file in files:
            (run.path / file).write_bytes(b"content of " + file.encode())
        return run.commit(
            Manifest("export", run.name, {"model": source}, {}, {}, {}, {}, 0, 1)
        ).path


@pytest.mark.parametrize("forms", [("int8",), ("float32", "int8")])
def test_where_a_keras_model_is_needed_an_exports_parent_is_named(forms: tuple[str, ...]):
    made = make_run("q")
    path = export_of("q", "q", *forms)
    assert find_keras("q").path == made / "model.keras"
    for reference in ("q-tflite", str(path / f"q-{forms[0]}.tflite")):
        with pytest.raises(ModelError, match=r"is no Keras model; .*: name its Keras model, q$"):
            find_keras(reference)
    with pytest.raises(ModelError, match=r"name its Keras model, q$"):
        restore(find_models("q-tflite")[0])
    shutil.rmtree(made)
    with pytest.raises(ModelError, match=r"train one: q, from which it was made, is not here$"):
        find_keras("q-tflite")


def test_a_tflite_of_which_nothing_is_known_is_no_keras_model(tmp_path: Path):
    (tmp_path / "other.tflite").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"is no Keras model; expected a \.keras file or a run$"):
        find_keras(str(tmp_path / "other.tflite"))


@pytest.mark.parametrize(
    "command",
    [
        ["quantize", "q-tflite", "--mode", "qat"],
        ["quantize", "q-tflite", "--mode", "int8"],
        ["sensitivity", "q-tflite"],
        ["prune", "q-tflite", "--channels", "--macs", "0.5"],
        ["prune", "q-tflite", "--weights"],
        ["cluster", "q-tflite"],
        ["export", "q-tflite"],
        ["compress", "q-tflite", "--recipe", "qat", "--dry-run"],
        ["compress", "q-tflite", "--recipe", "kd", "--dry-run"],
    ],
)
def test_every_command_that_trains_names_an_exports_parent(command: list[str]):
    make_run("q")
    export_of("q", "q", "float32", "int8")
    done = CliRunner().invoke(app, [*command, "--data", "synthetic:8"])
    assert isinstance(done.exception, ModelError)
    assert str(done.exception).endswith("to mend it: name its Keras model, q")


def test_a_run_whose_replacement_was_cut_short_is_said_to_be_there(isolated_runs: Path):
    make_run("mine").rename(isolated_runs / ".mine.replaced")
    with pytest.raises(ModelError, match=r"cut short: mv .*/\.mine\.replaced .*/mine$"):
        find_model("mine")
    for nothing in ("/", "", ".."):
        with pytest.raises(ModelError, match="no run, file or zoo model"):
            find_model(nothing)


def test_another_tools_manifest_is_no_run(
    isolated_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("mine")
    for root in (isolated_runs, tmp_path / "zoo"):
        (root / "site").mkdir(parents=True)
        (root / "site" / MANIFEST).write_text('{"name": "a web app", "icons": []}')
        (root / "odd" / MANIFEST).mkdir(parents=True)
    monkeypatch.setenv("BLOODEDGE_ZOO", str(tmp_path / "zoo"))
    assert latest_run(("train",)) == "mine"
    assert "cnn_se" in [model.path.parent.name for model in zoo_models()]
    assert not {"site", "odd"} & set(known_names())
    with pytest.raises(
        ModelError, match=r"no run, file or zoo model 'odd'(?!.*did you mean 'odd')"
    ):
        find_model("odd")
    (isolated_runs / "cut").mkdir()
    (isolated_runs / "cut" / MANIFEST).write_text('{"schema_version": 1')
    with pytest.raises(RunError, match=r"cut is not a finished run .*; to mend it: move it away"):
        latest_run(("train",))


def test_what_only_a_checkout_has_is_said_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "zoo_folders", lambda: [references.packaged_zoo()])
    for command in (["compress", "--recipe", "kd+qat", "--dry-run"], ["evaluate", "vgg16"]):
        done = CliRunner().invoke(app, [*command, "--data", "synthetic:1"])
        assert isinstance(done.exception, ModelError)
        assert "bloodedge train --model vgg16; a checkout has it in zoo/" in str(done.exception)


def test_a_bare_file_has_no_manifest(tmp_path: Path):
    (tmp_path / "other.tflite").write_bytes(b"x")
    found = find_model(str(tmp_path / "other.tflite"))
    assert (found.name, found.class_names, dict(found.manifest)) == ("other", (), {})


def test_a_file_beside_somebody_elses_manifest_does_not_take_it(isolated_runs: Path):
    path = make_run("vgg16")
    (path / "stray.tflite").write_bytes(b"x")
    assert dict(find_model(str(path / "stray.tflite")).manifest) == {}


def test_a_zoo_folder_comes_after_the_runs(tmp_path: Path, monkeypatch):
    run = make_run("vgg16", files=("vgg16.f16.npz",))
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    run.rename(zoo / "vgg16")
    monkeypatch.setenv("BLOODEDGE_ZOO", str(zoo))
    assert find_model("vgg16").path == zoo / "vgg16" / "vgg16.f16.npz"
    path = make_run("vgg16")
    assert find_model("vgg16").path == path / "model.keras"


def test_the_zoo_is_listed_with_what_is_known_of_each_file(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = make_run("cnn_se", "export", ("cnn_se.tflite",))
    monkeypatch.setenv("BLOODEDGE_ZOO", str(own.parent))
    # The first zoo's model is the one its name means; those of the package follow.
    assert [m.path.parent for m in zoo_models() if m.path.parent.name == "cnn_se"] == [own]
    monkeypatch.delenv("BLOODEDGE_ZOO")
    done = CliRunner().invoke(app, ["zoo", "--json"])
    rows = {row["name"]: row for row in json.loads(done.output)}
    for name, most in (("cnn_se", 64_000), ("cnn_se_nano", 24_000), ("cnn_se_pico", 12_000)):
        assert rows[name]["path"] == str(packaged_zoo() / name / f"{name}.tflite")
        assert rows[name]["bytes"] <= most
        assert 0.97 < rows[name]["val_accuracy"] < 1
        assert rows[name]["data"] == "PBC re-split (BloodMNIST protocol)"
    shown = CliRunner().invoke(app, ["zoo"]).output
    assert f"{100 * rows['cnn_se_pico']['val_accuracy']:.2f}" in shown


@pytest.mark.parametrize(
    "variants", [["int8"], {"int8": 5}, {"int8": {"bytes": 24, "accuracy_val": "high"}}]
)
def test_a_damaged_manifest_of_the_zoo_is_one_line(variants, monkeypatch):
    own = make_run("cnn_se", "export", ("cnn_se.tflite",))
    assert (own / "cnn_se.tflite").stat().st_size == 24
    manifest = json.loads((own / "manifest.json").read_text())
    damaged = {**manifest, "metrics": {"variants": variants}}
    (own / "manifest.json").write_text(json.dumps(damaged))
    monkeypatch.setenv("BLOODEDGE_ZOO", str(own.parent))
    done = CliRunner().invoke(app, ["zoo"])
    assert isinstance(done.exception, RunError)
    assert f"{own / 'manifest.json'} is damaged" in str(done.exception)


def test_an_unknown_name_suggests_the_nearest():
    make_run("cnn_se-kd")
    with pytest.raises(ModelError, match="did you mean 'cnn_se-kd'"):
        find_model("cnn_se-dk")


def test_other_files_and_runs_without_models_are_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ModelError, match="is no model"):
        find_model(str(tmp_path / "notes.txt"))
    make_run("eval", "evaluate", ("predictions.npz",))
    with pytest.raises(ModelError, match="holds no model"):
        find_model("eval")


def test_a_damaged_manifest_is_one_clear_error():
    path = make_run("vgg16")
    (path / "manifest.json").write_text(json.dumps({"schema_version": 1}))
    with pytest.raises(RunError, match="lacks kind"):
        find_model("vgg16")


@pytest.mark.parametrize("damage", [{"model": None}, {"files": 5}, {"metrics": []}])
def test_a_manifest_of_other_types_is_one_clear_error(damage: dict[str, object]):
    path = make_run("vgg16")
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | damage))
    with pytest.raises(RunError, match="is no JSON object"):
        find_model("vgg16")
    # Beside a file that it does not list it may be anything.
    (path / "own.tflite").write_bytes(b"x")
    assert dict(find_model(str(path / "own.tflite")).manifest) == {}


def test_class_names_that_are_no_list_are_unknown():
    path = make_run("vgg16")
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"model": {"class_names": 5}}))
    assert find_model(str(path / "model.keras")).class_names == ()


def test_the_latest_run_of_a_kind():
    # By time, whose order is not that of the names.
    for name, kind, seconds in (("old", "train", 1e9), ("new", "distill", 2e9)):
        os.utime(make_run(name, kind) / "manifest.json", (seconds, seconds))
    os.utime(make_run("newer", "export", ("a.tflite",)) / "manifest.json", (3e9, 3e9))
    assert latest_run(("train", "distill")) == "new"
    assert latest_run(("train",)) == "old"
    with pytest.raises(ModelError, match="no benchmark run"):
        latest_run(("benchmark",))


def test_the_latest_run_is_the_one_that_was_made_last_whenever_it_was_copied():
    for name, day in (("new", "2026-02-01"), ("old", "2026-01-01")):
        path = make_run(name) / MANIFEST
        path.write_text(json.dumps({**json.loads(path.read_text()), "created": day}))
    assert latest_run(("train",)) == "new"


def test_the_latest_run_is_found_after_its_folder_was_renamed(isolated_runs: Path):
    make_run("cnn").rename(isolated_runs / "renamed")
    found = latest_run(("train",))
    assert found == "renamed"
    assert find_model(found).path == isolated_runs / "renamed" / "model.keras"


def test_every_packaged_model_is_whole():
    folders = [p for p in packaged_zoo().iterdir() if (p / "manifest.json").is_file()]
    for folder in folders:
        found = find_model(str(folder))
        recorded = found.manifest["files"][found.path.name]
        assert found.sha256 == recorded["sha256"]
        assert len(found.class_names) == found.manifest["model"]["config"]["classes"]


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_the_name_of_the_first_layer(
    tmp_path: Path, value: float
):
    keras = use_backend()
    image = keras.Input((4, 4, 3))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Flatten()(image))
    x = keras.layers.Dense(4, name="hidden")(x)
    model = keras.Model(image, keras.layers.Dense(2, name="logits")(x))
    path = tmp_path / "m.keras"
    for layer, place in (("logits", 0), ("hidden", 1), ("norm", 3)):
        weights = model.get_layer(layer).get_weights()
        weights[place].ravel()[-1] = value
        model.get_layer(layer).set_weights(weights)
        save_model(model, path)
        with pytest.raises(ModelError, match=rf"not finite, first in {layer}/.*; to mend it: "):
            restore(find_model(str(path)))
