"""Class names behind the flatbuffer. The model is the smallest bytes that look like one."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from bloodedge.benchmarks import runner
from bloodedge.deploy.labels import LABELS_FILE, MAX_LABELS_BYTES, append_labels, read_labels
from bloodedge.errors import ModelError

MODEL = b"\x1c\0\0\0TFL3" + bytes(100)


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    return path


def with_member(content: bytes, name: str = LABELS_FILE) -> bytes:
    return with_members({name: content})


def with_members(contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO(MODEL)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file.getvalue()


def test_names_come_back_and_the_model_stays_in_front(tmp_path: Path) -> None:
    names = ("basophil", "immature granulocyte", "Zelle größer")
    content = append_labels(MODEL, names)
    assert content.startswith(MODEL)
    path = write(tmp_path, content)
    assert read_labels(path) == names
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo(LABELS_FILE).compress_type == zipfile.ZIP_STORED
        assert archive.testzip() is None


def test_bytes_do_not_depend_on_the_day() -> None:
    first = append_labels(MODEL, ("a", "b"))
    assert first == append_labels(MODEL, ("a", "b"))
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.getinfo(LABELS_FILE).date_time == (1980, 1, 1, 0, 0, 0)


@pytest.mark.parametrize("content", [MODEL, b"", with_member(b"x", "other.json")])
def test_a_model_without_labels_has_none(tmp_path: Path, content: bytes) -> None:
    assert read_labels(write(tmp_path, content)) == ()


@pytest.mark.parametrize(
    ("meant", "members"),
    [
        ("labelmap.txt", "labelmap.txt"),
        ("probability-labels.txt", "a.txt probability-labels.txt"),
        ("dict.txt", "dict.txt a.txt notes.json"),
        ("sub/labels.txt", "readme.txt sub/labels.txt"),
        ("labels.txt", "labels_de.txt a.txt labels.txt"),
        ("labels_de.txt", "a.txt labels_de.txt labels_fr.txt"),
    ],
)
def test_labels_are_the_same_here_and_on_devices_whatever_their_file_is_called(
    tmp_path: Path, meant: str, members: str
) -> None:
    contents = {**dict.fromkeys(members.split(), b"other\n"), meant: b"blast\nmonocyte\n"}
    path = write(tmp_path, with_members(contents))
    assert read_labels(path) == tuple(runner.model_labels(path)) == ("blast", "monocyte")


def test_the_mark_that_windows_puts_in_front_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = write(tmp_path, with_member("\ufeffblast\r\nmonocyte\r\n".encode()))
    assert read_labels(path) == tuple(runner.model_labels(path)) == ("blast", "monocyte")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\x1b[31mb\n", b"a\n" * (1 << 20)])
def test_labels_that_are_refused_here_are_none_on_devices(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, with_member(content, "dict.txt"))
    assert runner.model_labels(path) == []
    with pytest.raises(ModelError):
        read_labels(path)


def test_blank_lines_and_blanks_around_labels_are_no_part_of_them(tmp_path: Path) -> None:
    path = write(tmp_path, with_member(b" basophil \r\n\r\nmonocyte\r\n\n"))
    assert read_labels(path) == ("basophil", "monocyte")


@pytest.mark.parametrize(
    "content",
    [
        with_member(b"a\n" * (MAX_LABELS_BYTES // 2 + 1)),
        with_member(b"a\n" * 1001),
        with_member(b"\xff\xfe"),
        with_member(b"a\x1b[31mb\n"),
        append_labels(MODEL, ("aaaa", "bbbb")).replace(b"aaaa", b"aaab"),
    ],
    ids=["too large", "too many", "no text", "escape sequence", "wrong checksum"],
)
def test_damaged_labels_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelError):
        read_labels(write(tmp_path, content))


def test_as_many_labels_as_there_may_be_are_read(tmp_path: Path) -> None:
    names = tuple(f"class {i}" for i in range(1000))
    assert read_labels(write(tmp_path, append_labels(MODEL, names))) == names


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing"):
        read_labels(tmp_path / "nothing.tflite")


@pytest.mark.parametrize("name", ["", " ", "two\nlines", "bell\a"])
def test_names_that_are_no_line_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="class name"):
        append_labels(MODEL, ("good", name))


def test_labels_are_not_appended_twice() -> None:
    with pytest.raises(ModelError, match="already"):
        append_labels(append_labels(MODEL, ("a",)), ("b",))
