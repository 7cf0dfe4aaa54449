from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.data import medmnist_files, synthetic_set
from bloodedge.data.dataset import SPLITS, class_counts
from bloodedge.data.medmnist_files import (
    BLOODMNIST_MD5,
    SIZES,
    medmnist_info,
    official_file,
    supported_names,
)
from bloodedge.data.npz import BLOODMNIST_CLASSES
from bloodedge.data.sources import load_data
from bloodedge.data.synthetic_set import load_synthetic, write_npz
from bloodedge.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMNIST_ROOT", str(tmp_path / "medmnist"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_supported_sets_have_one_label_an_image_in_2d() -> None:
    names = supported_names()
    assert "bloodmnist" in names
    assert "chestmnist" not in names
    assert not [name for name in names if "3d" in name]
    assert len(names) == 11


@pytest.mark.parametrize("name", supported_names())
@pytest.mark.parametrize("size", SIZES)
def test_official_files_are_fully_described(name: str, size: int) -> None:
    file = official_file(name, size)
    assert file.path.name == (f"{name}.npz" if size == 28 else f"{name}_{size}.npz")
    assert file.url.startswith("https://zenodo.org/")
    assert file.path.name in file.url
    assert len(file.md5) == 32
    assert len(set(file.class_names)) == len(medmnist_info()[name]["label"]) >= 2


def test_blood_classes_and_digests_agree_with_medmnist() -> None:
    assert official_file("bloodmnist", 64).class_names == BLOODMNIST_CLASSES
    for ours, theirs in zip(
        BLOODMNIST_CLASSES, medmnist_info()["bloodmnist"]["label"].values(), strict=True
    ):
        assert theirs.startswith(ours)
    assert {s: official_file("bloodmnist", s).md5 for s in SIZES} == BLOODMNIST_MD5


@pytest.mark.parametrize(
    ("reference", "size", "message"),
    [
        ("chestmnist", None, "multi-label"),
        ("organmnist3d", None, "3D volumes"),
        ("bloodmnist", 32, "28, 64, 128 or 224"),
        ("bloodmist", None, r"did you mean 'bloodmnist'\?"),
        ("Blood-MNIST", None, r"did you mean 'bloodmnist'\?"),
        ("syntetic", None, r"did you mean 'synthetic'\?"),
        ("qqqq", None, "see bloodedge data list"),
        ("", None, "unknown data ''"),
        ("./no/folder", None, "does not exist"),
        ("~nobody-at-all/x", None, "does not exist"),
        ("no.npz", None, "no.npz does not exist"),
        ("synthetic:", None, "does not say how many"),
        ("synthetic:ten", None, "does not say how many"),
        ("synthetic:0", None, "1 to 10000"),
        ("synthetic:99999", None, "1 to 10000"),
        ("synthetic:1", 4, "16 pixels or more"),
        ("synthetic:10000", 1024, "take more than 16 GiB"),
        ("synthetic:1", 100_000, "24 images of 100000x100000 pixels take more than 16 GiB"),
    ],
)
def test_what_cannot_be_loaded_says_why(reference: str, size: int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(reference, size=size)


def test_without_medmnist_only_its_names_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medmnist_files, "medmnist_info", _not_installed)
    with pytest.raises(ConfigError, match="pip install"):
        load_data("bloodmnist")
    with pytest.raises(DataError, match="did you mean 'bloodmnist'"):
        load_data("blodmnist")
    assert load_data("synthetic:1", size=16).synthetic


def _not_installed() -> Any:
    raise ConfigError("medmnist is not installed", fix="pip install medmnist")


def test_npz_needs_neither_opencv_nor_medmnist(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, load_synthetic(1, 16))
    code = (
        "import sys; from bloodedge.data.sources import load_data\n"
        "load_data(sys.argv[1])\n"
        "heavy = {'cv2', 'medmnist', 'sklearn', 'tensorflow', 'keras', 'pandas', 'torch'}\n"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_synthetic_counts_and_title() -> None:
    data = load_data("synthetic:3", size=16)
    assert [class_counts(data[s].labels, 8) for s in SPLITS] == [[3] * 8] * 3
    assert data.class_names == BLOODMNIST_CLASSES
    assert data.synthetic
    assert "synthetic" in data.title
    assert synthetic_set.synthetic_counts(250) == {"train": 250, "val": 60, "test": 60}
    assert synthetic_set.synthetic_counts(10) == {"train": 10, "val": 10, "test": 10}


def test_synthetic_splits_and_seeds_share_no_image() -> None:
    first, second = load_data("synthetic:2", size=16), load_data("synthetic:2", size=16, seed=1)
    seen = [image.tobytes() for data in (first, second) for s in SPLITS for image in data[s].images]
    assert len(set(seen)) == len(seen) == 2 * 3 * 16
    assert first.fingerprint == load_data("synthetic:2", size=16).fingerprint
    assert first.fingerprint != second.fingerprint


def test_large_synthetic_sets_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_set, "_CACHE_ABOVE", 0)
    drawn = load_data("synthetic:1", size=16)
    (kept,) = (tmp_path / "cache" / "bloodedge").iterdir()
    monkeypatch.setattr(synthetic_set, "_draw", None)
    assert load_data("synthetic:1", size=16).describe() == drawn.describe()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(synthetic_set, "_CACHE_ABOVE", 0)
    kept.write_bytes(kept.read_bytes()[:1000])
    assert load_data("synthetic:1", size=16).fingerprint == drawn.fingerprint
    assert kept.stat().st_size > 1000


def test_cache_that_cannot_be_written_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic_set, "_CACHE_ABOVE", 0)
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(load_data("synthetic:1", size=16)["train"]) == 8


def test_without_a_home_folder_synthetic_sets_are_drawn_and_others_end_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    for variable in ("XDG_CACHE_HOME", "MEDMNIST_ROOT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(synthetic_set, "_CACHE_ABOVE", 0)
    assert len(load_data("synthetic:1", size=16)["train"]) == 8
    assert "set HOME, or XDG_CACHE_HOME; the set is drawn, and not kept" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="set HOME, or MEDMNIST_ROOT"):
        load_data("bloodmnist")


def test_written_sets_read_back_the_same(tmp_path: Path) -> None:
    data = load_synthetic(2, 16, seed=3)
    write_npz(tmp_path / "a.npz", data)
    back = load_data(str(tmp_path / "a.npz"))
    assert back.fingerprint == data.fingerprint
    assert (back.class_names, back.title, back.synthetic) == (data.class_names, data.title, True)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        assert stored["train_labels"].shape == (16, 1)
        assert stored["train_labels"].dtype == np.uint8
    with pytest.raises(ConfigError, match=r"end in \.npz"):
        write_npz(tmp_path / "a.bin", data)


def test_size_of_an_npz_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, load_synthetic(1, 16))
    assert load_data(str(path), size=16).size == 16
    with pytest.raises(DataError, match="16x16 pixels, not 64x64"):
        load_data(str(path), size=64)
