from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bloodedge.data import npz
from bloodedge.data.dataset import MAX_CLASSES, SPLITS, fingerprint, images_licence
from bloodedge.data.npz import KnownSet, load_npz, read_arrays
from bloodedge.errors import DataError

Arrays = dict[str, NDArray[Any]]
COUNTS = {"train": 6, "val": 4, "test": 5}


def arrays(size: int = 8, classes: int = 3, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    made: Arrays = {}
    for split, count in COUNTS.items():
        made[f"{split}_images"] = rng.integers(0, 256, (count, size, size, 3), np.uint8)
        made[f"{split}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    return made


def write(path: Path, content: Arrays) -> Path:
    np.savez(path, **content)  # type: ignore[arg-type]
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "cells.npz", arrays())


def test_reads_what_was_written(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_npz(file)
    for split in SPLITS:
        np.testing.assert_array_equal(data[split].images, arrays()[f"{split}_images"])
        np.testing.assert_array_equal(data[split].labels, arrays()[f"{split}_labels"][:, 0])
        assert data[split].labels.dtype == np.int64
    assert data.class_names == ("class 0", "class 1", "class 2")
    assert "holds no class_names: its classes are called class 0 to class 2" in (
        capsys.readouterr().err
    )
    assert (data.origin, data.size, data.synthetic) == ("npz", 8, False)


def test_a_known_set_has_its_names_and_licence(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = KnownSet("ours", ("x", "y", "z"), "CC BY 4.0, somebody")
    monkeypatch.setitem(npz.KNOWN_SETS, load_npz(file).fingerprint, known)
    capsys.readouterr()
    data = load_npz(file)
    assert (data.title, data.class_names) == ("ours", ("x", "y", "z"))
    assert images_licence(data.describe()) == "CC BY 4.0, somebody"
    assert not capsys.readouterr().err


def test_a_wrong_label_that_makes_empty_classes_is_noticed(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_npz(file)
    assert "has no image of" not in capsys.readouterr().err
    content = arrays()
    content["train_labels"][0] = 9
    path = write(tmp_path / "odd.npz", content)
    assert len(load_npz(path).class_names) == 10
    said = capsys.readouterr().err
    assert f"{path}: train has no image of 6 of 10 classes, such as 'class 3'" in said


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.npz does not exist"):
        load_npz(tmp_path / "no.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_not_a_zip(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cells.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        load_npz(path)


def test_folder_called_npz(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_npz(tmp_path)


@pytest.mark.parametrize("share", [0.2, 0.9, 0.999])
def test_truncated(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match="cannot be read"):
        load_npz(file)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, 10**6), value=st.integers(0, 255), cut=st.booleans())
def test_damage_is_one_kind_of_error_or_none(file: Path, at: int, value: int, cut: bool) -> None:
    whole = bytearray(file.read_bytes())
    at %= len(whole)
    damaged = file.with_name("damaged.npz")
    if cut:
        del whole[at : at + value]
    else:
        whole[at] = value
    damaged.write_bytes(whole)
    # Anything else that is raised fails the test.
    with suppress(DataError):
        load_npz(damaged)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(header=st.text("{}()[],:'\"0123456789-udescrfortanhpe<|OUV TFlsa\n", max_size=80))
def test_any_header_is_an_array_or_one_kind_of_error(tmp_path: Path, header: str) -> None:
    # Inside a valid zip, so that the checksum does not stop it before the parser.
    text = header.encode()
    body = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    with pytest.raises(DataError, match="cannot be read"):
        read_arrays(put_member(tmp_path / "cells.npz", body))


def put_member(path: Path, body: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", body)
    return path


@pytest.mark.parametrize(
    "shape", ["(4000000000,)", "(10**9,)", "(-5,)", f"({10**308}, {10**308})", f"({2**63}, 0)"]
)
def test_header_that_lies_about_the_size(tmp_path: Path, shape: str) -> None:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    body = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16)
    with pytest.raises(DataError, match="cannot be read"):
        read_arrays(put_member(tmp_path / "cells.npz", body))


def put_beside(path: Path) -> None:
    """Add what an archive may hold beside its arrays."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("__MACOSX")
        archive.writestr("__MACOSX/._train_images.npy", b"\0\5\x16\7")
        archive.writestr("README.txt", "x" * 10_000)


def test_what_is_no_array_may_be_packed_in_any_way(file: Path) -> None:
    before = read_arrays(file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("README.txt", "x")
    data = bytearray(file.read_bytes())
    # The method of compression, in the member's own header and in the list at the end: Zstandard.
    for sign, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        struct.pack_into("<H", data, data.rindex(sign) + place, 93)
    file.write_bytes(data)
    with zipfile.ZipFile(file) as archive, pytest.raises((NotImplementedError, RuntimeError)):
        archive.read("README.txt")
    assert list(read_arrays(file)) == list(before)


def test_what_is_no_array_is_left_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_arrays(file)
    # All that is read fits; what is not read does not count.
    unpacked = sum(info.file_size for info in zipfile.ZipFile(file).infolist())
    put_beside(file)
    monkeypatch.setattr(npz, "MAX_BYTES", unpacked)
    after = read_arrays(file)
    assert list(after) == list(before)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    monkeypatch.setattr(npz, "MAX_BYTES", unpacked - 1)
    with pytest.raises(DataError, match="unpacks to"):
        read_arrays(file)


def test_an_archive_without_arrays_is_told_what_it_lacks(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.npz", "w") as archive:
        archive.writestr("photo.jpg", b"\xff\xd8")
    with pytest.raises(DataError, match=r"lacks train_images, .* MedMNIST's layout"):
        load_npz(tmp_path / "photos.npz")


@pytest.mark.parametrize("last", [False, True])
def test_an_array_whose_name_is_damaged_is_not_skipped(file: Path, last: bool) -> None:
    """Its name is in front of it and in the directory behind all; either may be damaged."""
    content = bytearray(file.read_bytes())
    find = content.rfind if last else content.find
    content[find(b"train_images.npy") + len("train_images.np")] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_arrays(file)


def test_encrypted_member(file: Path) -> None:
    content = bytearray(file.read_bytes())
    # Bit 0 of a member's flags, in its own header and in the central directory.
    content[6] |= 1
    content[content.find(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        load_npz(file)


def test_pickled_objects_are_not_unpickled(tmp_path: Path) -> None:
    content = arrays() | {"train_labels": np.array([print, None, 1], object)}
    with pytest.raises(DataError, match="pickled objects"):
        load_npz(write(tmp_path / "cells.npz", content))


def test_declared_size_is_limited(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="unpacks to"):
        load_npz(file)


def drop(key: str) -> Callable[[Arrays], None]:
    return lambda content: content.__delitem__(key)


def change(key: str, how: Callable[[NDArray[Any]], Any]) -> Callable[[Arrays], None]:
    return lambda content: content.update({key: np.asarray(how(content[key]))})


BAD: dict[str, tuple[Callable[[Arrays], None], str]] = {
    "no val": (drop("val_images"), "lacks val_images"),
    "no labels": (drop("test_labels"), "lacks test_labels"),
    "float images": (change("train_images", lambda a: a / 255), "type float64"),
    "16-bit images": (change("train_images", lambda a: a.astype("u2")), "type uint16"),
    "dates as images": (change("train_images", lambda a: a.astype("M8[s]")), "type datetime64"),
    "one image": (change("train_images", lambda a: a[0, 0, 0]), "shape"),
    "a number": (change("train_images", lambda a: 3), "shape"),
    "4 channels": (change("val_images", lambda a: np.repeat(a, 2, 3)[..., :4]), "8, 8, 4"),
    "not square": (change("test_images", lambda a: a[:, :, :6]), "8x6 pixels"),
    "too small": (change("test_images", lambda a: a[:, :4, :4]), "4x4 pixels"),
    "3D": (change("train_images", lambda a: np.repeat(a[..., None], 3, 4)), "shape"),
    "sizes differ": (
        change("val_images", lambda a: a.repeat(2, 1).repeat(2, 2)),
        "differ in image size",
    ),
    "fewer labels": (change("train_labels", lambda a: a[:-1]), "6 images and 5 labels"),
    "empty": (change("val_labels", lambda a: a[:0]), "4 images and 0 labels"),
    "float labels": (change("train_labels", lambda a: a.astype(float)), "type float64"),
    "bool labels": (change("train_labels", lambda a: a > 0), "type bool"),
    "multi-label": (change("train_labels", lambda a: a.repeat(3, 1)), r"\(6, 3\)"),
    "scalar label": (change("train_labels", lambda a: 1), r"shape \(\)"),
    "negative label": (change("test_labels", lambda a: a.astype("i2") - 1), "range from -1"),
    "label past 1000": (change("test_labels", lambda a: a.astype("i8") + 10**12), "range from"),
    "label past int64": (change("test_labels", lambda a: a + np.uint64(2**63)), "range from"),
    "one class": (change("train_labels", lambda a: a * 0), ""),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_contents(tmp_path: Path, case: str) -> None:
    spoil, message = BAD[case]
    content = arrays()
    spoil(content)
    if case == "one class":
        content |= {f"{s}_labels": content[f"{s}_labels"] * 0 for s in SPLITS}
        message = "every label is 0"
    with pytest.raises(DataError, match=message):
        load_npz(write(tmp_path / "cells.npz", content))


def test_grey_images_become_rgb(tmp_path: Path) -> None:
    content = arrays()
    grey = {f"{s}_images": content[f"{s}_images"][..., 0] for s in SPLITS}
    data = load_npz(write(tmp_path / "grey.npz", content | grey))
    for split in SPLITS:
        for channel in range(3):
            np.testing.assert_array_equal(data[split].images[..., channel], grey[f"{split}_images"])


def test_own_class_names(tmp_path: Path) -> None:
    names = np.array(["round", "ragged", "größer"])
    data = load_npz(write(tmp_path / "a.npz", arrays() | {"class_names": names}))
    assert data.class_names == ("round", "ragged", "größer")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], "range from 0 to 2"),
        (["a", "b", "a"], "repeats"),
        (["a", "", "b"], "printable"),
        (["a", "\x1b[2J", "b"], "printable"),
        (["a", "b" * 300, "c"], "printable"),
        (["a"], "class_names has shape"),
        ([1, 2, 3], "class_names has shape"),
        (["a"] * (MAX_CLASSES + 1), "class_names has shape"),
    ],
)
def test_wrong_class_names(tmp_path: Path, names: list[Any], message: str) -> None:
    path = write(tmp_path / "a.npz", arrays() | {"class_names": np.array(names)})
    with pytest.raises(DataError, match=message):
        load_npz(path)


def test_given_names_win_and_limit_the_labels(file: Path) -> None:
    assert load_npz(file, ("x", "y", "z")).class_names == ("x", "y", "z")
    with pytest.raises(DataError, match="range from 0 to 2"):
        load_npz(file, ("x", "y"))


def test_synthetic_files_stay_synthetic(tmp_path: Path) -> None:
    content = arrays() | {"synthetic": np.array("synthetic cells, seed 3")}
    data = load_npz(write(tmp_path / "a.npz", content))
    assert data.synthetic
    assert data.title == "synthetic cells, seed 3"
    assert data.describe()["synthetic"] is True


def test_fingerprint_is_of_the_contents_alone(tmp_path: Path, file: Path) -> None:
    print_of_file = load_npz(file).fingerprint
    packed = tmp_path / "packed.npz"
    content = arrays()
    for split in SPLITS:
        content[f"{split}_labels"] = content[f"{split}_labels"].reshape(-1).astype(">i4")
        content[f"{split}_images"] = np.asfortranarray(content[f"{split}_images"])
    np.savez_compressed(packed, **content)  # type: ignore[arg-type]
    assert load_npz(packed).fingerprint == print_of_file
    assert len(print_of_file) == 64


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(SPLITS), st.data())
def test_fingerprint_changes_with_one_value(split: str, draw: st.DataObject) -> None:
    content = arrays()
    before = fingerprint_of(content)
    part = draw.draw(st.sampled_from(("images", "labels")))
    values = content[f"{split}_{part}"].reshape(-1)
    values[draw.draw(st.integers(0, values.size - 1))] ^= 1
    assert fingerprint_of(content) != before


def fingerprint_of(content: Arrays) -> str:
    from bloodedge.data.dataset import Split

    return fingerprint(
        {
            s: Split(content[f"{s}_images"], content[f"{s}_labels"].reshape(-1).astype(np.int64))
            for s in SPLITS
        }
    )


def test_fingerprint_tells_splits_apart(tmp_path: Path, file: Path) -> None:
    content = arrays()
    for part in ("images", "labels"):
        val, test = content[f"val_{part}"], content[f"test_{part}"]
        content[f"val_{part}"], content[f"test_{part}"] = test, val
    assert load_npz(write(tmp_path / "b.npz", content)).fingerprint != load_npz(file).fingerprint
