from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from bloodedge.cli.app import app
from bloodedge.deploy import interpreter
from bloodedge.deploy.flat.lean import lean
from bloodedge.deploy.interpreter import probe
from bloodedge.deploy.labels import append_labels
from bloodedge.deploy.metadata import STANDARD, About, notes, standard_metadata
from bloodedge.deploy.predict import (
    PredictConfig,
    _checked,
    class_names,
    image_files,
    open_model,
    predict,
)
from bloodedge.errors import BloodedgeError, ConfigError, DataError, ModelError
from bloodedge.references import ModelReference, find_model
from bloodedge.runs import runs_root

SIDE = 16
NAMES = ("red", "green", "blue")


@pytest.fixture(autouse=True)
def quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no child for each model made here; tests of damaged files take the real probe back."""
    monkeypatch.setattr(interpreter, "probe", interpreter.check_file)


@pytest.fixture(scope="module")
def content(brightest_tflite: bytes) -> bytes:
    return brightest_tflite


@pytest.fixture
def model(content: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "brightest.tflite"
    path.write_bytes(content)
    return path


def image(path: Path, colour: tuple[int, int, int], side: int = 40) -> Path:
    """Write an image of one RGB colour."""
    path.parent.mkdir(exist_ok=True)
    pixels = np.full((side, side, 3), colour[::-1], np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    image(folder / "b.png", (20, 20, 200))
    image(folder / "a.PNG", (200, 20, 20), side=7)
    image(folder / "c.bmp", (20, 200, 20), side=16)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def make_zoo(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Return what makes a zoo of one model that is an export, and returns its folder."""

    def make(name: str) -> Path:
        folder = tmp_path / "zoo" / name
        folder.mkdir(parents=True)
        (folder / f"{name}.tflite").write_bytes(content)
        manifest = {"schema_version": 1, "kind": "export", "name": name, "data": {}, "metrics": {}}
        manifest |= {"model": {"class_names": NAMES}, "files": {f"{name}.tflite": {}}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        monkeypatch.setenv("BLOODEDGE_ZOO", str(folder.parent))
        return folder.parent

    return make


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)], env={"COLUMNS": "150"})


# ---- the stage ----


def test_the_class_is_the_brightest_channel(model: Path, images: Path) -> None:
    found, unread = predict(PredictConfig(str(model), (images,)))
    assert unread == []
    assert [(p.image.name, p.ranked[0][0]) for p in found] == [
        ("a.PNG", "class 0"),
        ("b.png", "class 2"),
        ("c.bmp", "class 1"),
    ]
    e = np.exp(np.array([200, 20, 20]) / 32.0)
    for prediction in found:
        values = [p for _, p in prediction.ranked]
        assert values == sorted(values, reverse=True)
        assert values == pytest.approx(sorted(e / e.sum(), reverse=True), abs=1e-5)


def test_names_come_from_the_manifest_then_the_file(model: Path, content: bytes) -> None:
    reference = find_model(str(model))
    assert class_names(reference, 3) == ("class 0", "class 1", "class 2")
    model.write_bytes(append_labels(content, NAMES))
    assert class_names(reference, 3) == NAMES
    manifest = {"model": {"class_names": ["A", "B", "C"]}}
    assert class_names(ModelReference("x", model, manifest), 3) == ("A", "B", "C")


@pytest.mark.parametrize("names", [["A", "B"], ["A", "A", "B"], ["A", "", "B"], "AB", []])
def test_names_that_do_not_fit_are_not_used(names: object, model: Path) -> None:
    reference = ModelReference("x", model, {"model": {"class_names": names}})
    assert class_names(reference, 3) == ("class 0", "class 1", "class 2")


def test_labels_that_do_not_match_are_told_in_one_line(
    model: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    model.write_bytes(append_labels(content, ("red", "green")))
    assert class_names(find_model(str(model)), 3) == ("class 0", "class 1", "class 2")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{model}: its labels do not name 3 classes; they are numbered"


def test_metadata_of_another_tool_is_told_in_one_line(
    model: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    block = standard_metadata(About("elsewhere"))
    model.write_bytes(lean(content, {STANDARD: block}))
    open_model(find_model(str(model)))
    (line,) = capsys.readouterr().err.splitlines()
    assert "metadata of another tool; pixels are given as 0..255" in line
    model.write_bytes(lean(content, {STANDARD: block[:20]}))
    open_model(find_model(str(model)))
    (line,) = capsys.readouterr().err.splitlines()
    assert "its metadata was not read: " in line
    model.write_bytes(lean(content, notes(About("ours"), {"failed": []})))
    open_model(find_model(str(model)))
    assert capsys.readouterr().err == ""


def test_damaged_labels_do_not_keep_a_model_from_predicting(
    model: Path, content: bytes, images: Path
) -> None:
    model.write_bytes(append_labels(content, NAMES).replace(b"green", b"gre\x1bn"))
    found, _ = predict(PredictConfig(str(model), (images,), top=1))
    assert [len(p.ranked) for p in found] == [1, 1, 1]
    assert found[0].ranked[0][0] == "class 0"


def test_files_stay_in_order_and_folders_give_their_images(images: Path) -> None:
    first = images / "c.bmp"
    assert [p.name for p in image_files([first, images])] == ["c.bmp", "a.PNG", "b.png", "c.bmp"]


def test_a_folder_may_hold_other_things(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "._a.PNG").write_bytes(b"of a Mac")
    (images / "more.png").mkdir()
    assert [p.name for p in image_files([images])] == ["a.PNG", "b.png", "c.bmp"]
    left = len(list(images.iterdir())) - 4
    assert f"{left} items left out, named as no image" in capsys.readouterr().err
    (images / "more.png").rmdir()
    image_files([images])
    assert "1 item left out, named as no image" in capsys.readouterr().err


def test_a_folder_of_class_folders_names_them(images: Path, tmp_path: Path) -> None:
    parent = tmp_path / "my cells"
    (parent / "empty").mkdir(parents=True)
    (parent / ".hidden").mkdir()
    image(parent / ".hidden" / "a.png", (1, 2, 3))
    with pytest.raises(DataError, match=r"my cells holds no images; expected \.png"):
        image_files([parent])
    images.rename(parent / "blast")
    with pytest.raises(
        DataError, match=r"holds no images, but 1 sub-folder with some; .*cells'/\*/"
    ):
        image_files([parent])


def test_logits_are_refused(logits_tflite: bytes, tmp_path: Path, images: Path) -> None:
    path = tmp_path / "logits.tflite"
    path.write_bytes(logits_tflite)
    with pytest.raises(ModelError, match=r"no probabilities.* to mend it: end .* with a softmax"):
        predict(PredictConfig(str(path), (images,)))


def test_nan_is_refused_without_a_remedy_that_would_not_help(model: Path) -> None:
    p = np.full((2, 3), np.nan, np.float32)
    with pytest.raises(ModelError, match=r"no probabilities; expected 0\.\.1, summing to 1$"):
        _checked(p, model)


def test_an_int8_input_made_for_scaled_pixels_is_told_in_one_line(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(interpreter.Classifier, "takes_shifted_bytes", True)
    open_model(find_model(str(model)))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{model}: int8 input for scaled pixels; it gets bytes less 128"


def test_many_images_give_what_each_gives_alone(model: Path) -> None:
    loaded = open_model(find_model(str(model)))
    many = np.random.default_rng(0).integers(0, 256, (300, SIDE, SIDE, 3), dtype=np.uint8)
    alone = np.concatenate([loaded.probabilities(chunk) for chunk in np.split(many, 3)])
    np.testing.assert_array_equal(loaded.probabilities(many), alone)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="no image"):
        PredictConfig("x", ())
    with pytest.raises(ConfigError, match="--top 0"):
        PredictConfig("x", (Path("a.png"),), top=0)


# ---- the command ----


def test_json(model: Path, images: Path) -> None:
    done = run(model, images / "b.png", "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    assert (found["image"], found["class"]) == (str(images / "b.png"), "class 2")
    assert found["probability"] == found["probabilities"]["class 2"] > 0.98
    assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    (top,) = json.loads(run(model, images / "b.png", "--json", "--top", 1).stdout)
    assert list(top["probabilities"]) == ["class 2"]


def test_the_csv_holds_every_probability(model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.csv"
    done = run(model, images, "--csv", out, "--top", 1, "--json")
    assert done.exit_code == 0, done.output
    assert [len(p["probabilities"]) for p in json.loads(done.stdout)] == [1, 1, 1]
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["image"]).name for row in rows] == ["a.PNG", "b.png", "c.bmp"]
    assert [row["class"] for row in rows] == ["class 0", "class 2", "class 1"]
    for row in rows:
        values = [float(row[f"class {i}"]) for i in range(3)]
        assert sum(values) == pytest.approx(1, abs=1e-5)
        assert float(row["probability"]) == max(values)
    again = run(model, images, "--csv", out)
    assert isinstance(again.exception, ConfigError)
    assert run(model, images, "--csv", out, "--force").exit_code == 0


def test_what_is_read_is_not_replaced(model: Path, images: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in (model, *image_files([images]))}
    for words in (["--csv", images / "b.png"], ["--csv", model], ["--sheet", images / "b.png"]):
        done = run(model, images, *words, "--force")
        assert "is read, and would be replaced" in str(done.exception)
    done = run(model, images, "--sheet", images / "new.png")
    assert "would be one of the images" in str(done.exception)
    assert {path: path.read_bytes() for path in before} == before


def test_an_empty_name_is_not_this_folder(model: Path) -> None:
    done = run(model, "")
    assert done.exit_code == 2
    assert "an empty name" in done.output


def test_one_file_is_not_both_table_and_sheet(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bloodedge.deploy.predict.open_model", lambda _: pytest.fail("opened"))
    monkeypatch.chdir(tmp_path)
    done = run(model, images, "--csv", "x.png", "--sheet", tmp_path / "x.png", "--force")
    assert isinstance(done.exception, ConfigError)
    assert "--csv and --sheet are both" in str(done.exception)


def test_the_sheet_shows_the_least_sure_first(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image(images / "d.png", (100, 100, 110))
    drawn: list[list[str]] = []
    monkeypatch.setattr(
        "bloodedge.deploy.predict_files.contact_sheet",
        lambda shown, captions, title, path: drawn.append([*captions, title]),
    )
    assert run(model, images, "--sheet", tmp_path / "x.png").exit_code == 0
    (captions,) = drawn
    assert captions[0].startswith("d.png\nclass 2 0.")
    assert captions[-1] == "4 images, the least sure first"
    wrong = run(model, images, "--sheet", tmp_path / "x.jpg")
    assert isinstance(wrong.exception, ConfigError)


def test_a_crop_classifies_and_shows_the_middle_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.full((24, 24, 3), (20, 20, 200), np.uint8)  # OpenCV's BGR: red around blue
    pixels[8:16, 8:16] = (200, 20, 20)
    cv2.imwrite(str(tmp_path / "cell.png"), pixels)
    shown: list[Any] = []
    monkeypatch.setattr(
        "bloodedge.deploy.predict_files.contact_sheet",
        lambda images, captions, title, path: shown.extend(images),
    )
    found = {}
    for name, options in {"whole": (), "cut": ("--crop", 8)}.items():
        ran = run(model, tmp_path / "cell.png", "--json", "--sheet", tmp_path / "x.png", *options)
        found[name] = json.loads(ran.stdout)[0]["class"]
    assert found == {"whole": "class 0", "cut": "class 2"}
    assert len(np.unique(shown[0].reshape(-1, 3), axis=0)) > 1
    assert np.unique(shown[1].reshape(-1, 3), axis=0).tolist() == [[20, 20, 200]]
    assert isinstance(run(model, tmp_path / "cell.png", "--crop", 0).exception, ConfigError)
    assert "expected at least 25x25" in run(model, tmp_path / "cell.png", "--crop", 25).stderr


def test_a_contact_sheet_is_a_picture_of_its_rows(tmp_path: Path) -> None:
    from bloodedge.deploy.gallery import contact_sheet

    heights = []
    for count in (1, 9):
        pictures = [np.zeros((SIDE, SIDE, 3), np.uint8)] * count
        contact_sheet(pictures, ["$x_1\n50 %"] * count, "a_b$", tmp_path / f"{count}.png")
        heights.append(cv2.imread(str(tmp_path / f"{count}.png")).shape[0])
    assert heights[1] - heights[0] == round(1.9 * 120)


def test_more_images_than_are_read_at_once(
    model: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = predict(PredictConfig(str(model), (images,)))
    monkeypatch.setattr("bloodedge.deploy.predict._AT_ONCE", 2)
    gone = tuple(images / f"gone{i}.png" for i in range(3))
    # Of the second two none can be read.
    parts, unread = predict(PredictConfig(str(model), (images / "a.PNG", *gone, images)))
    assert parts.pop(0).image.name == "a.PNG"
    assert [str(error).split()[0] for error in unread] == list(map(str, gone))
    assert [(p.image, p.ranked) for p in parts] == [(p.image, p.ranked) for p in whole]


def test_the_table(model: Path, content: bytes, images: Path) -> None:
    model.write_bytes(append_labels(content, ("[red]", "green", "blue")))
    done = run(model, images)
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stdout.splitlines() if ".PNG" in line]
    assert len(lines) == 1
    assert "[red]" in lines[0]
    assert "99.3" in lines[0]


def test_the_table_leaves_out_what_would_be_0(model: Path, images: Path) -> None:
    # e^-5.6 to 1 is 0.4 %, e^-8 is 0.03 %.
    image(images / "a.PNG", (255, 75, 0))
    shown = run(model, images / "a.PNG").stdout
    assert "class 1 0.4" in shown
    assert "class 2" not in shown
    assert "class 1 0.4, class 2 0.0" in run(model, images / "a.PNG", "--top", 3).stdout
    image(images / "a.PNG", (255, 0, 0))
    sure = run(model, images / "a.PNG").stdout
    assert ("class 0" in sure, "then" in sure) == (True, False)


def test_the_table_names_images_without_the_folders_that_all_share(
    model: Path, images: Path, tmp_path: Path
) -> None:
    def named(*paths: Path) -> list[str]:
        return [line.split()[0] for line in run(model, *paths).stdout.splitlines()[-len(paths) :]]

    b, c = images / "b.png", images / "c.bmp"
    assert named(b, c) == ["b.png", "c.bmp"]
    other = image(tmp_path / "other" / "b.png", (1, 2, 3))
    assert named(b, other) == ["images/b.png", "other/b.png"]
    table = tmp_path / "found.csv"
    assert run(model, b, "--csv", table).exit_code == 0
    assert f"\n{b}," in table.read_text()


def test_which_file_answers_is_said_beside_the_results(
    model: Path,
    images: Path,
    make_zoo: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zoo, runs = make_zoo("tiny"), runs_root()
    for name, said in (
        (model, f"model: {model}"),
        ("tiny", f"model: {zoo}/tiny/tiny.tflite (zoo; no run tiny in {runs})"),
        (f"{zoo}/tiny/tiny.tflite", f"model: {zoo}/tiny/tiny.tflite"),
    ):
        done = run(name, images / "b.png")
        assert said in done.stderr.splitlines()
        assert "model:" not in done.stdout
    shutil.copytree(zoo / "tiny", runs / "tiny")
    assert f"model: {runs}/tiny/tiny.tflite" in run("tiny", images / "b.png").stderr.splitlines()
    monkeypatch.setenv("BLOODEDGE_RUNS", str(zoo))
    assert f"model: {zoo}/tiny/tiny.tflite" in run("tiny", images / "b.png").stderr.splitlines()


def test_a_backend_for_no_keras_model_is_refused(model: Path, images: Path) -> None:
    done = run(model, images, "--backend", "jax")
    assert isinstance(done.exception, ConfigError)
    assert "--backend without a Keras model" in str(done.exception)


def test_a_model_of_the_zoo_by_name(images: Path, make_zoo: Callable[[str], Path]) -> None:
    make_zoo("tiny")
    done = run("tiny", images / "b.png", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["class"] == "blue"


def test_what_cannot_be_read_is_a_line_and_the_others_are_classified(
    model: Path, images: Path, tmp_path: Path
) -> None:
    bad = {name: images / name for name in ("missing.png", "cut.png", "stack.tif", "text.png")}
    bad["text.png"].write_text("not an image")
    bad["cut.png"].write_bytes((images / "b.png").read_bytes()[:30])
    cv2.imwritemulti(str(bad["stack.tif"]), [np.zeros((9, 9, 3), np.uint8)] * 5)
    table, sheet = tmp_path / "found.csv", tmp_path / "found.png"
    done = run(model, bad["missing.png"], images, "--csv", table, "--sheet", sheet)
    assert done.exit_code == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [Path(line.split()[1]).name for line in errors] == list(bad)
    assert "stack.tif is a TIFF of 5 pages" in errors[2]
    names = ["a.PNG", "b.png", "c.bmp"]
    with table.open(newline="") as file:
        assert [Path(row["image"]).name for row in csv.DictReader(file)] == names
    assert [name for name in names if name in done.stdout] == names
    assert sheet.is_file()
    found = json.loads(run(model, images, "--json").stdout)
    assert [Path(one["image"]).name for one in found] == names


def test_where_nothing_can_be_read_nothing_is_written(model: Path, tmp_path: Path) -> None:
    gone, table, sheet = (tmp_path / name for name in ("gone.png", "found.csv", "found.png"))
    done = run(model, gone, "--csv", table, "--sheet", sheet)
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"error: {gone} is not a file" in done.stderr
    assert not table.exists()
    assert not sheet.exists()


def test_an_empty_folder_stops_all_before_anything_is_printed(model: Path, images: Path) -> None:
    (images / "empty").mkdir()
    done = run(model, images / "b.png", images / "empty")
    assert isinstance(done.exception, DataError)
    assert (done.stdout, f"{images / 'empty'} holds no images" in str(done.exception)) == ("", True)


def test_the_model_comes_first(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for first in (images / "b.png", images):
        done = run(first, "brightest.tflite")
        assert isinstance(done.exception, ModelError)
        said = f"{first} is no model, but brightest.tflite is; expected the model first"
        assert said in str(done.exception)
    done = run(images / "b.png", images / "c.bmp")
    said = "b.png is no model; expected a file ending in .keras, .tflite or .f16.npz"
    assert str(done.exception).endswith(said)
    assert "no run, file or zoo model 'nowhere'" in str(run("nowhere", model).exception)


@pytest.mark.parametrize("damage", ["missing", "text", "cut"])
def test_a_damaged_model_is_one_line(
    damage: str, model: Path, content: bytes, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, "probe", probe)
    path = model.with_name(f"{damage}.tflite")
    if damage != "missing":
        path.write_bytes(b"text" if damage == "text" else content[: len(content) // 2])
    done = run(path, images / "b.png")
    assert done.exit_code != 0
    assert isinstance(done.exception, BloodedgeError)
    assert "\n" not in str(done.exception)
