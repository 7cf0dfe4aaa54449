"""The bundle's `classify.py` reads pictures as `bloodedge predict` does, with Pillow and NumPy."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import TiffImagePlugin

from bloodedge.benchmarks.bundle import BundleConfig, bundle
from bloodedge.data.dataset import Dataset
from bloodedge.deploy import interpreter
from bloodedge.deploy.predict import class_names
from bloodedge.errors import DataError
from bloodedge.images import IMAGE_SUFFIXES, read_image
from bloodedge.references import find_model

Write = Callable[..., Path]


@pytest.fixture
def device(
    tmp_path: Path, brightest_tflite: bytes, colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setattr("bloodedge.deploy.interpreter.probe", interpreter.check_file)
    model = tmp_path / "brightest.tflite"
    model.write_bytes(brightest_tflite)
    return bundle(BundleConfig((str(model),), tmp_path / "device", images=3), colours)


def run(device: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(device / "classify.py"), *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=device.parent, timeout=120
    )


def picture(path: Path, *shape: int, dtype: Any = np.uint8, seed: int = 0) -> Path:
    """Write smooth random pixels, as OpenCV writes them."""
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1.0
    noise = cv2.GaussianBlur(rng.random(shape), (0, 0), 3)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    assert cv2.imwrite(str(path), (noise * top).astype(dtype))
    return path


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("shrunk.png", (363, 360, 3), np.uint8),
        ("barely.png", (65, 80, 3), np.uint8),
        ("same.bmp", (64, 64, 3), np.uint8),
        ("enlarged.png", (28, 31, 3), np.uint8),
        ("tiny.png", (1, 1, 3), np.uint8),
        ("photo.jpg", (300, 200, 3), np.uint8),
        ("grey.png", (100, 90), np.uint8),
        ("alpha.png", (100, 90, 4), np.uint8),
        ("deep.png", (100, 90), np.uint16),
        ("deep.tif", (100, 90), np.uint16),
        ("float.tif", (100, 90), np.float32),
        ("strips.tif", (100, 90, 3), np.uint8),
    ],
)
def test_pictures_come_out_as_predict_reads_them(
    classify: ModuleType, name: str, shape: tuple[int, ...], dtype: Any, tmp_path: Path
) -> None:
    path = picture(tmp_path / name, *shape, dtype=dtype)
    ours, theirs = classify.read_picture(path, 64, None), read_image(path, 64)
    assert ours.shape == theirs.shape == (64, 64, 3)
    # JPEG is decoded by another library there.
    most = 3 if name.endswith("jpg") else 1
    assert np.abs(ours.astype(int) - theirs).max() <= most


def test_the_same_files_of_a_folder_are_pictures(classify: ModuleType) -> None:
    assert classify.SUFFIXES == IMAGE_SUFFIXES


def test_the_crop_is_the_same_square(classify: ModuleType, tmp_path: Path) -> None:
    path = picture(tmp_path / "large.png", 363, 360, 3)
    assert (
        np.abs(classify.read_picture(path, 64, 201).astype(int) - read_image(path, 64, 201)).max()
        <= 1
    )
    with pytest.raises(classify.PictureError, match="360x363 pixels, less than 361"):
        classify.read_picture(path, 64, 361)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.png", b""),
        ("text.png", b"no picture"),
        ("cut.png", "cut"),
        ("folder.png", None),
        ("dark.png", "twelve bits"),
    ],
)
def test_what_is_no_picture_is_refused_here_as_there(
    classify: ModuleType, name: str, content: bytes | str | None, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is None:
        path.mkdir()
    elif content == "cut":
        whole = picture(path, 100, 100, 3).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif content == "twelve bits":
        cv2.imwrite(str(path), np.full((9, 9), 4095, np.uint16))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(classify.PictureError):
        classify.read_picture(path, 64, None)
    with pytest.raises(DataError):
        read_image(path, 64)


@pytest.mark.parametrize("limit", [9_999, 4_999])  # Pillow warns, and refuses twice as many
def test_too_many_pixels_are_refused_unread(
    classify: ModuleType, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = picture(tmp_path / "large.png", 100, 100, 3)
    monkeypatch.setattr(classify, "MOST_PIXELS", limit)
    monkeypatch.setattr(classify.Image, "MAX_IMAGE_PIXELS", None)
    with warnings.catch_warnings():
        classify.limit_pixels()
        with pytest.raises(classify.PictureError, match="megapixels"):
            classify.read_picture(path, 64, None)


def test_a_small_memory_takes_smaller_pictures(
    classify: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classify.Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(
        classify.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 18}.get
    )
    with warnings.catch_warnings():
        classify.limit_pixels()
    assert 12e6 < classify.Image.MAX_IMAGE_PIXELS < 30e6


@pytest.mark.parametrize("name", ["dark.png", "dark.tif"])
def test_colour_of_twelve_bits_in_sixteen_is_refused_here_as_there(
    classify: ModuleType, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    cv2.imwrite(str(path), np.full((70, 70, 3), 4095, np.uint16))
    with pytest.raises(DataError, match="16 bits"):
        read_image(path, 64)
    # Pillow reads no such TIFF at all in some versions.
    with pytest.raises(classify.PictureError, match=r"16 bits|no picture"):
        classify.read_picture(path, 64, None)


@pytest.mark.parametrize("kind", ["tif", "gif", "png", "webp"])
def test_several_pictures_in_a_file_are_refused_here_as_there(
    classify: ModuleType, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"cells.{kind}"
    pages = [
        classify.Image.open(picture(tmp_path / f"{i}.png", 70, 70, 3, seed=i)) for i in range(3)
    ]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(classify.PictureError, match=r"of 3 (pages|frames): save each as a file"):
        classify.read_picture(path, 64, None)
    with pytest.raises(DataError, match=r"of 3 (pages|frames); expected one picture"):
        read_image(path, 64)
    pages[0].save(path)
    assert classify.read_picture(path, 64, None).shape == (64, 64, 3)


@pytest.mark.parametrize(("tag", "kind", "value"), [(254, 4, 1), (255, 3, 2)])
def test_a_thumbnail_and_a_mask_are_no_further_pages(
    classify: ModuleType, tmp_path: Path, tag: int, kind: int, value: int
) -> None:
    # What is compressed Pillow writes by libtiff, which leaves the older tag out.
    path, tiff = tmp_path / "cells.tif", classify.Image.open(picture(tmp_path / "a.png", 70, 70, 3))
    smaller, mask = tiff.resize((20, 20)), tiff.convert("1")
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[tag] = kind
    tags[tag] = value
    smaller.encoderinfo, mask.encoderinfo = {"tiffinfo": tags}, {"tiffinfo": {254: 4, 262: 4}}
    tiff.save(path, save_all=True, append_images=[smaller, mask])
    # Pillow has no pixels of a mask.
    with classify.Image.open(path) as saved, pytest.raises(SyntaxError):
        saved.seek(2)
    assert (
        np.abs(classify.read_picture(path, 64, None).astype(int) - read_image(path, 64)).max() <= 1
    )


def test_what_says_of_a_page_nothing_that_is_a_number_says_nothing(
    classify: ModuleType, tmp_path: Path
) -> None:
    path, tiff = tmp_path / "cells.tif", classify.Image.open(picture(tmp_path / "a.png", 70, 70, 3))
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[254] = 1
    tags[254] = b"\1"
    other = tiff.copy()
    other.encoderinfo = {"tiffinfo": tags}
    tiff.save(path, save_all=True, append_images=[other])
    with pytest.raises(classify.PictureError, match="of 2 pages"):
        classify.read_picture(path, 64, None)
    with pytest.raises(DataError, match="of 2 pages"):
        read_image(path, 64)


def test_no_program_is_started_for_a_picture(classify: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "cell.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(classify.PictureError, match="EPS: save it as PNG"):
        classify.read_picture(path, 64, None)


class Says:
    """An interpreter that says the same of every picture."""

    def __init__(self, *said: float) -> None:
        self.said = np.array([said], np.float32)

    def set_tensor(self, index: int, values: Any) -> None: ...

    def invoke(self) -> None: ...

    def get_tensor(self, index: int) -> Any:
        return self.said


@pytest.mark.parametrize("said", [(9.0, -3.0), (np.nan, 1.0), (0.2, 0.2), (1.2, -0.2)])
def test_what_are_no_probabilities_is_refused(
    classify: ModuleType, said: tuple[float, ...]
) -> None:
    taken = {"index": 0, "shape": [1, 8, 8, 3], "dtype": np.float32}
    model = classify.Model(Says(*said), taken, {"index": 1, "quantization": (0.0, 0)}, ["a", "b"])
    with pytest.raises(classify.runner.RunnerError, match="no probabilities"):
        classify.probabilities(model, np.zeros((8, 8, 3), np.uint8))
    good = model._replace(interpreter=Says(0.25, 0.75))
    assert classify.probabilities(good, np.zeros((8, 8, 3), np.uint8)).tolist() == [0.25, 0.75]


class Loaded(Says):
    """An interpreter of a model with such an input and so many outputs."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(0.25, 0.75)
        self.shape, self.outputs = shape, outputs

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"index": 0, "shape": np.array(self.shape), "dtype": np.float32}]

    def get_output_details(self) -> list[dict[str, Any]]:
        detail = {"index": 1, "shape": np.array([1, 2]), "quantization": (0.0, 0)}
        return [detail] * self.outputs


@pytest.mark.parametrize(
    ("shape", "outputs", "said"),
    [
        ((1, 8, 8, 3), 2, "2 outputs, expected one"),
        ((8, 8, 8, 3), 1, "a batch of 8 pictures; export it with a batch of 1"),
        ((1, 8, 6, 3), 1, r"\(1, 8, 6, 3\), expected a square picture"),
    ],
)
def test_a_model_that_it_cannot_use_is_refused(
    classify: ModuleType,
    shape: tuple[int, ...],
    outputs: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(classify.runner, "load", lambda *_: (Loaded(shape, outputs), 0))
    with pytest.raises(classify.runner.RunnerError, match=said):
        classify.open_model(tmp_path / "m.tflite", tmp_path / "labels.txt")


def test_its_classes_are_those_of_predict_whatever_the_labels_file_is_called(
    classify: ModuleType, brightest_tflite: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(brightest_tflite)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("sub/labelmap.txt", "R\nG\nB\n")
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    names = classify.open_model(path, tmp_path / "labels.txt").names
    assert tuple(names) == class_names(find_model(str(path)), 3) == ("R", "G", "B")


def test_a_table_is_no_formula_even_behind_a_carriage_return(classify: ModuleType) -> None:
    line = classify.csv_line(["q\r=cmd", "=1", 0.5, "a,b"])
    assert next(csv.reader([line])) == ["q\r=cmd", "'=1", "0.5", "a,b"]


def test_it_says_what_is_in_pictures_and_keeps_every_probability(
    device: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "my cells"
    folder.mkdir()
    for i, name in enumerate(("red.png", "green.png", "blue.png")):
        pixels = np.zeros((90, 80, 3), np.uint8)
        pixels[..., 2 - i] = 255
        cv2.imwrite(str(folder / name), pixels)
    (folder / "._red.png").write_bytes(b"of a Mac")
    (folder / "notes.txt").write_text("none of it")
    before = {path: path.read_bytes() for path in device.rglob("*") if path.is_file()}
    done = run(device, folder, "--csv", "cells.csv")
    assert done.returncode == 0, done.stderr
    names = [line.split("  ")[1] for line in done.stdout.splitlines()]
    assert names == ["blue", "green", "red"]
    with (tmp_path / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["image"]).stem for row in rows] == [row["class"] for row in rows] == names
    for row in rows:
        p = [float(row[name]) for name in ("blue", "green", "red")]
        assert sum(p) == pytest.approx(1, abs=0.02)
        assert float(row["probability"]) == max(p) == float(row[row["class"]])
    # The bundle is as it was, or it could not be replaced or checked.
    assert {path: path.read_bytes() for path in device.rglob("*") if path.is_file()} == before
    again = run(device, folder, "--csv", "cells.csv")
    assert (again.returncode, "cells.csv: it exists" in again.stderr) == (2, True)


def test_the_table_is_written_whoever_reads_the_screen(device: Path, tmp_path: Path) -> None:
    cells = [picture(tmp_path / name, 70, 70, 3) for name in ("a.png", "zell\xe9.png")]
    command = [sys.executable, str(device / "classify.py"), *map(str, cells), "--csv", "cells.csv"]
    child = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert child.stdout
    child.stdout.close()
    assert child.wait(timeout=120) in (0, 120)  # the second where Python cannot flush at its end
    with (tmp_path / "cells.csv").open(newline="", encoding="utf-8") as file:
        assert [row["image"] for row in csv.DictReader(file)] == list(map(str, cells))


def test_what_cannot_be_read_is_a_line_and_the_others_are_classified(
    device: Path, tmp_path: Path
) -> None:
    good = picture(tmp_path / "good.png", 80, 80, 3)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    done = run(device, bad, tmp_path / "none.png", good, "--csv", "cells.csv")
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [Path(line.split(": ")[1]).name for line in errors] == ["bad.png", "none.png"]
    assert done.stdout.startswith(str(good))
    with (tmp_path / "cells.csv").open(newline="") as file:
        assert [row["class"] == "" for row in csv.DictReader(file)] == [True, True, False]


def test_pictures_that_come_are_classified_once_they_are_whole(
    device: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "camera"
    folder.mkdir()
    content = picture(tmp_path / "cell.png", 80, 80, 3).read_bytes()
    command = [
        sys.executable,
        str(device / "classify.py"),
        str(folder),
        "--watch",
        "--csv",
        "a.csv",
    ]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, cwd=tmp_path, text=True, stdout=pipe, stderr=pipe)
    assert child.stdout
    assert child.stderr
    slow = folder / "slow.png"
    slow.touch()
    # It is empty, and then grows, for longer than the program waits between two looks.
    for end in range(0, len(content) + 1, -(-len(content) // 8)):
        time.sleep(0.25)
        slow.write_bytes(content[:end])
    slow.write_bytes(content)
    assert child.stdout.readline().startswith(str(folder / "slow.png"))
    # Of this one it saw a part that did not grow for a while; it comes again when it is whole.
    (folder / "next.png").write_bytes(content[:-40])
    time.sleep(2)
    (folder / "next.png").write_bytes(content)
    assert child.stdout.readline().startswith(str(folder / "next.png"))
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=60) == 0
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [Path(row["image"]).name for row in csv.DictReader(file)] == ["slow.png", "next.png"]
    assert "next.png" in child.stderr.read()


def test_what_it_needs_is_said_in_a_line(device: Path, tmp_path: Path) -> None:
    cell = picture(tmp_path / "cell.png", 80, 80, 3)
    (tmp_path / "empty").mkdir()
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(b"TFL3")
    for words, said in (
        ([tmp_path / "empty"], "no pictures there"),
        ([cell, "--crop", "0"], "--crop 0"),
        ([cell, "--model", "none.tflite"], "none.tflite is no file"),
        ([cell, "--model", damaged], "damaged.tflite"),
        ([cell, "--csv", "nowhere/a.csv"], "nowhere/a.csv: No such file"),
        ([cell, "--csv", tmp_path / "empty", "--force"], "it is a folder"),
        ([cell, "--csv", cell, "--force"], "it is read"),
        ([cell, "--csv", device / "models" / "brightest.tflite", "--force"], "it is read"),
    ):
        done = run(device, *words)
        assert done.returncode != 0
        assert said in done.stderr.splitlines()[-1]
    (device / "models" / "second.tflite").write_bytes(b"")
    done = run(device, cell)
    assert "models/brightest.tflite, models/second.tflite" in done.stderr.splitlines()[-1]


def test_without_pillow_it_says_how_to_get_it(device: Path) -> None:
    code = "import sys, runpy; sys.modules['PIL'] = None; sys.path[0] = sys.argv[1]\n"
    code += "runpy.run_path(sys.argv[1] + '/classify.py', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(device)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "python3-pil" in done.stderr
