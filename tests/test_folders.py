from __future__ import annotations

import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodedge.data.dataset import SPLITS, Dataset, class_counts
from bloodedge.data.sources import is_official, load_data
from bloodedge.data.splitting import crossing, divide
from bloodedge.errors import DataError


def paint(path: Path, value: int, side: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((side, side, 3), value % 256, np.uint8)
    pixels[0, 0] = (value // 256, 7, 9)
    cv2.imwrite(str(path), pixels)


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    for label, name in enumerate(("blast", "mono", "seg")):
        for k in range(10 * (label + 1)):
            paint(tmp_path / "cells" / name / f"{k:03}.png", 100 * label + k)
    return tmp_path / "cells"


@pytest.fixture
def split_cells(tmp_path: Path) -> Path:
    for s, split in enumerate(SPLITS):
        for c, name in enumerate(("a", "b")):
            for k in range(s + 1):
                paint(tmp_path / "given" / split / name / f"{k}.png", 40 * s + 10 * c + k)
    return tmp_path / "given"


def contents(data: Dataset, split: str) -> set[bytes]:
    return {image.tobytes() for image in data[split].images}


def test_seeded_split_is_stratified_reproducible_and_disjoint(cells: Path) -> None:
    data = load_data(str(cells), size=8, seed=1)
    assert data.class_names == ("blast", "mono", "seg")
    assert {s: class_counts(data[s].labels, 3) for s in SPLITS} == {
        "train": [7, 14, 21],
        "val": [1, 2, 3],
        "test": [2, 4, 6],
    }
    assert len(set.union(*(contents(data, s) for s in SPLITS))) == 60
    assert data.fingerprint == load_data(str(cells), size=8, seed=1).fingerprint
    assert data.fingerprint != load_data(str(cells), size=8, seed=2).fingerprint
    facts = data.describe()
    assert facts["split_seed"] == 1
    assert facts["fractions"] == {"train": 0.7, "val": 0.1, "test": 0.2}
    assert (facts["files"], facts["skipped_files"], facts["duplicate_files"]) == (60, 0, 0)


def test_default_size_and_loose_files(cells: Path) -> None:
    for name in (".DS_Store", "blast/.hidden", "mono/Thumbs.db", "readme.txt"):
        (cells / name).write_text("no image")
    data = load_data(str(cells))
    assert data.size == 64
    assert data.describe()["skipped_files"] == 4


def test_files_of_other_names_are_left_out_and_told_once(
    cells: Path, split_cells: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, inside in ((cells, "mono"), (split_cells, "test/b")):
        before = load_data(str(folder), size=8)
        assert "left out" not in capsys.readouterr().err
        for name in ("notes.txt", "found.csv", "000.xml", "Thumbs.db"):
            (folder / inside / name).write_text("no image")
        data = load_data(str(folder), size=8)
        assert (data.fingerprint, data.describe()["skipped_files"]) == (before.fingerprint, 4)
        told = f"{folder}: 3 files left out, named as no image, or in no class folder"
        assert capsys.readouterr().err.splitlines() == [told]


@pytest.mark.parametrize("number", [2, 12])
def test_all_files_that_cannot_be_read_are_one_error(cells: Path, number: int) -> None:
    bad = sorted((cells / "mono").iterdir())[:number]
    for path in bad:
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError) as caught:
        load_data(str(cells), size=8)
    names = ", ".join(f"mono/{path.name}" for path in bad[:10])
    more = " and 2 more" if number == 12 else ""
    start = f"{number} of 60 files cannot be used: {names}{more}; the first: {bad[0]} cannot be"
    assert str(caught.value).startswith(start)


def test_given_splits_are_kept(split_cells: Path) -> None:
    data = load_data(str(split_cells), size=8)
    assert [class_counts(data[s].labels, 2) for s in SPLITS] == [[1, 1], [2, 2], [3, 3]]
    assert "as given" in data.title
    assert "split_seed" not in data.describe()
    assert data["val"].images[0, 4, 4].tolist() == [40, 40, 40]


def test_copies_stay_together(cells: Path) -> None:
    for k in range(5):
        for copy in range(4):
            shutil.copy(cells / "seg" / f"{k:03}.png", cells / "seg" / f"copy{k}-{copy}.png")
    for seed in range(5):
        data = load_data(str(cells), size=8, seed=seed)
        assert data.describe()["images_in_several_splits"] == 0
        assert data.describe()["duplicate_files"] == 20
        splits = [contents(data, s) for s in SPLITS]
        assert sum(map(len, splits)) == len(set.union(*splits)) == 60


def test_a_copy_in_another_format_stays_together(cells: Path) -> None:
    for path in list((cells / "seg").iterdir()):
        cv2.imwrite(str(path.with_suffix(".bmp")), cv2.imread(str(path)))
    data = load_data(str(cells), size=8)
    assert data.describe()["duplicate_files"] == 30
    splits = [contents(data, s) for s in SPLITS]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 60


def test_one_image_in_two_classes_goes_to_train(
    cells: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(cells / "seg" / "000.png", cells / "blast" / "same.png")
    data = load_data(str(cells), size=8)
    assert "1 image filed under several classes, taken for train" in capsys.readouterr().err
    twins = [image.tobytes() for image in data["train"].images]
    assert max(Counter(twins).values()) == 2


def test_copies_across_given_splits_are_reported(
    split_cells: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(split_cells / "train/a/0.png", split_cells / "test/a/0.png")
    assert load_data(str(split_cells), size=8).describe()["images_in_several_splits"] == 1
    assert "more than one split" in capsys.readouterr().err


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=40), min_size=2, max_size=4))
def test_division_holds_for_any_copies(kinds: list[list[int]]) -> None:
    labels = np.array([c for c, rows in enumerate(kinds) for _ in rows])
    digests = [f"{c}-{kind}" for c, rows in enumerate(kinds) for kind in rows]
    names = [str(c) for c in range(len(kinds))]
    if min(len(set(rows)) for rows in kinds) < 3:
        with pytest.raises(DataError, match="different images"):
            divide(labels, digests, names, 0)
        return
    where = divide(labels, digests, names, 0)
    assert crossing(digests, where) == 0
    for c in range(len(kinds)):
        assert {split for split, label in zip(where, labels, strict=True) if label == c} == set(
            SPLITS
        )


@pytest.mark.parametrize("seed", range(20))
def test_many_copies_of_one_image_go_to_train(seed: int) -> None:
    # Ten files of which two are to be test: seven copies do not fit, though one more would.
    where = divide(np.zeros(10, np.int64), ["a", "b", "c", *["d"] * 7], ["only"], seed)
    assert Counter(where) == {"train": 8, "val": 1, "test": 1}
    assert set(where[3:]) == {"train"}


def spoil(cells: Path, case: str) -> str:
    """Break the folder in one way and return what the error must say."""
    blast = cells / "blast"
    if case == "empty class":
        for path in blast.iterdir():
            path.unlink()
        return "blast holds no images"
    if case == "small class":
        for path in sorted(blast.iterdir())[2:]:
            path.unlink()
        return "blast holds 2 images"
    if case == "only copies":
        for path in blast.iterdir():
            shutil.copy(cells / "seg" / "000.png", path)
        shutil.rmtree(cells / "seg")
        return "'blast' has 1 different images"
    if case == "one class":
        shutil.rmtree(cells / "seg")
        shutil.rmtree(cells / "mono")
        return "has 1 sub-folder;"
    if case == "no class":
        for name in ("blast", "mono", "seg"):
            shutil.rmtree(cells / name)
        return "has no sub-folders"
    if case == "no image":
        for path in blast.iterdir():
            path.rename(path.with_suffix(".txt"))
        return r"blast holds no images beside 10 files of other names; expected .* named \.png"
    if case == "one image":
        for path in sorted(blast.iterdir())[1:]:
            path.unlink()
        return "blast holds 1 image; expected at least 3 of each class$"
    if case == "stack":
        cv2.imwritemulti(str(blast / "z.tif"), [np.zeros((9, 9, 3), np.uint8)] * 5)
        return r"z\.tif is a TIFF of 5 pages"
    if case == "truncated":
        path = blast / "004.png"
        path.write_bytes(path.read_bytes()[:50])
        return r"004\.png cannot be read as an image"
    if case == "broken link":
        (blast / "gone.png").symlink_to(cells / "nowhere.png")
        return r"gone\.png is not a file"
    if case == "nested":
        (blast / "more").mkdir()
        return "inside a class folder"
    (cells / "train").mkdir()
    return "has train, but no test and no val"


CASES = "empty class,small class,only copies,one class,no class,no image,one image,stack,"
CASES += "truncated,broken link,nested,train alone"


@pytest.mark.parametrize("case", CASES.split(","))
def test_bad_folders(cells: Path, case: str) -> None:
    message = spoil(cells, case)
    with pytest.raises(DataError, match=message):
        load_data(str(cells), size=8)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "\udcff", " "])
def test_class_names_that_no_label_can_hold(cells: Path, name: str) -> None:
    (cells / "blast").rename(cells / name)
    with pytest.raises(DataError, match="expected a name that can be printed"):
        load_data(str(cells), size=8)


def test_blanks_around_a_class_name_are_no_part_of_it(cells: Path) -> None:
    (cells / "blast").rename(cells / "blast ")
    assert load_data(str(cells), size=8).class_names == ("blast", "mono", "seg")
    shutil.copytree(cells / "blast ", cells / "blast")
    with pytest.raises(DataError, match="'blast' twice"):
        load_data(str(cells), size=8)


def test_a_class_has_one_name_on_every_system(cells: Path) -> None:
    # A Mac writes the second; sorted by their letters as written, the order would differ, too.
    composed, apart = (unicodedata.normalize(form, "Übergang") for form in ("NFC", "NFD"))
    (cells / "mono").rename(cells / composed)
    names = load_data(str(cells), size=8).class_names
    (cells / composed).rename(cells / apart)
    assert load_data(str(cells), size=8).class_names == names == ("blast", "seg", composed)
    shutil.copytree(cells / apart, cells / composed)
    with pytest.raises(DataError, match=f"{composed!r} twice"):
        load_data(str(cells), size=8)


@pytest.mark.parametrize(
    "names", [("Train", "Validation", "Test"), ("training", "valid", "testing")]
)
def test_splits_may_have_other_usual_names(split_cells: Path, names: tuple[str, ...]) -> None:
    before = load_data(str(split_cells), size=8)
    for split, name in zip(SPLITS, names, strict=True):
        (split_cells / split).rename(split_cells / name)
    data = load_data(str(split_cells), size=8)
    assert data.fingerprint == before.fingerprint


@pytest.mark.parametrize("names", [("valid", "invalid"), ("Control", "Test", "Testing")])
def test_classes_may_be_called_as_splits_are_elsewhere(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    for label, name in enumerate(names):
        for k in range(10):
            paint(tmp_path / "named" / name / f"{k}.png", 100 * label + k)
    assert load_data(str(tmp_path / "named"), size=8).class_names == tuple(sorted(names))


def test_a_folder_beside_given_splits_is_not_passed_over(split_cells: Path) -> None:
    shutil.copytree(split_cells / "test", split_cells / "holdout")
    with pytest.raises(DataError, match="holdout is beside train, val and test"):
        load_data(str(split_cells), size=8)


def test_class_missing_in_a_given_split(split_cells: Path) -> None:
    (split_cells / "val" / "b").rename(split_cells / "val" / "c")
    with pytest.raises(DataError, match=r"train lacks the class 'c'; expected the same classes"):
        load_data(str(split_cells), size=8)


@pytest.mark.parametrize(("size", "seed"), [(4, 0), (0, 0), (5000, 0), (16, -1)])
def test_impossible_sizes_and_seeds(cells: Path, size: int, seed: int) -> None:
    with pytest.raises(DataError, match="8 to 1024"):
        load_data(str(cells), size=size, seed=seed)


def test_a_name_wins_over_a_folder_of_that_name(
    cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells.rename(cells.with_name("bloodmnist"))
    monkeypatch.chdir(cells.parent)
    assert is_official("BloodMNIST")
    assert not is_official("./bloodmnist")
    assert load_data("./bloodmnist", size=8).origin == "folder"
