"""Two thousand damaged and hostile files: one clear line each, no crash, no hang, nothing outside.

What pure Python reads is read here. What native code loads is loaded as the commands do it, by
`isolated.check_here` in a child; to make thousands of children cheap, one process imports the
runtime and forks for each file. Every file follows from its number.
"""

from __future__ import annotations

import io
import json
import re
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge import isolated
from bloodedge.benchmarks.bundle import zip_of
from bloodedge.benchmarks.bundle_check import check_bundle, unpack_bundle
from bloodedge.deploy.compat import check_compatible
from bloodedge.deploy.cpp import cpp_class
from bloodedge.deploy.flat.bytemap import map_bytes
from bloodedge.deploy.flat.lean import lean
from bloodedge.deploy.interpreter import check_file
from bloodedge.deploy.kotlin import kotlin_class
from bloodedge.deploy.labels import LABELS_FILE, append_labels, read_labels
from bloodedge.deploy.metadata import read_metadata
from bloodedge.errors import BloodedgeError, ModelError
from bloodedge.references import ModelReference, packaged_zoo
from bloodedge.train import modelio
from bloodedge.train.restore import restore

LIMIT_S = 10.0
WORDS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFC, 0x10000, 0x7FFF)
NUMBERS = (-1, 0, 3, 10**5, 2**31, 10**12, 10**30, 0.5, None, "x", [], {})
HOSTILE_NAMES = (
    "../x", "/x", "a/../../x", "C:x", "a\\..\\x", "", "/", ".", "x\0y", "é" * 300, "a//b"
)  # fmt: skip
# How many of each kind: all, and in the quick suite.
COUNTS = {"tflite": 1000, "keras": 150, "bundle": 550, "labels": 300}
QUICK = {"tflite": 40, "keras": 12, "bundle": 40, "labels": 20}
SHARES = [QUICK, pytest.param(COUNTS, marks=pytest.mark.slow)]


def test_there_are_two_thousand() -> None:
    assert sum(COUNTS.values()) == 2000


# ---- mutations ----


def mutated(content: bytes, number: int) -> bytes:
    """Return the content changed in one to eight places, or cut."""
    rng = np.random.default_rng(number)
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        at = int(rng.integers(0, max(1, len(data))))
        match int(rng.integers(0, 7)):
            case 0:
                data[at : at + 1] = rng.bytes(1)
            case 1:
                data[at : at + 1] = bytes([data[at] ^ 1 << int(rng.integers(0, 8))])
            case 2:
                word = WORDS[int(rng.integers(0, len(WORDS)))]
                data[at & ~3 : (at & ~3) + 4] = word.to_bytes(4, "little")
            case 3:
                del data[at : at + int(rng.integers(1, 64))]
            case 4:
                data[at:at] = data[: int(rng.integers(1, 64))]
            case 5:
                data[at : at + 32] = bytes(len(data[at : at + 32]))
            case _ if rng.random() < 0.2:
                del data[at:]
        data = data or bytearray(b"\0")
    return bytes(data)


def front_mutated(content: bytes, number: int) -> bytes:
    """Change what lies in front, where most of a flatbuffer's tables are, every other time."""
    if number % 2:
        return mutated(content, number)
    return mutated(content[:2048], number) + content[2048:]


def mutated_json(text: str, number: int) -> str:
    """Replace a few of the numbers in a JSON text, or swap two of its names."""
    rng = np.random.default_rng(number)
    if number % 4 == 0:
        names = re.findall(r'"class_name": "(\w+)"', text)
        old, new = rng.choice(names, 2)
        return text.replace(f'"class_name": "{old}"', f'"class_name": "{new}"', 1)
    places = list(re.finditer(r"(?<=[ \[:])\d+(?:\.\d+)?(?=[,\]} ])", text))
    for place in sorted(rng.choice(len(places), 2, replace=False), reverse=True):
        found = places[int(place)]
        value = json.dumps(NUMBERS[int(rng.integers(0, len(NUMBERS)))])
        text = text[: found.start()] + value + text[found.end() :]
    return text


def mutated_zip(content: bytes, number: int) -> bytes:
    """Change a zip's bytes, or one of its members and its sums with it."""
    if number % 3 == 0:
        return mutated(content, number)
    rng = np.random.default_rng(number)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = str(rng.choice(sorted(files)))
    if number % 3 == 1:
        text = name.endswith("config.json")
        changed = mutated_json(files[name].decode(), number).encode() if text else None
        files[name] = changed or mutated(files[name], number)
    else:
        files[str(rng.choice(HOSTILE_NAMES))] = files.pop(name)
    return zip_of(files)


# ---- in this process ----


@contextmanager
def one_line_in_time(what: int) -> Iterator[None]:
    """Pass what works, and errors of ours on one line, within the time."""
    start = time.perf_counter()
    said = "fine"
    try:
        yield
    except BloodedgeError as error:
        said = str(error)
    assert len(said.splitlines()) == 1, what
    assert time.perf_counter() - start < LIMIT_S, what


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.fixture(scope="module")
def student() -> bytes:
    (path,) = (packaged_zoo() / "cnn_se").glob("*.tflite")
    return append_labels(lean(path.read_bytes()[: -len(tail(path))]), ("a", "b"))


def tail(path: Path) -> bytes:
    """What follows the flatbuffer in the shipped file: its labels."""
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = min(entry.header_offset for entry in archive.infolist())
    return content[start:]


@pytest.fixture
def sources(student: bytes, request: pytest.FixtureRequest) -> list[bytes]:
    """What is changed: the shipped student, and among all files mostly a small one of floats."""
    if request.node.callspec.params["counts"] is QUICK:
        return [student]
    return [student, *[request.getfixturevalue("brightest_tflite")] * 3]


READERS: tuple[Callable[[bytes], Any], ...] = (
    map_bytes,
    lean,
    read_metadata,
    lambda content: check_compatible(content, "tflite-runtime"),
    lambda content: kotlin_class("m", content, ("a", "b")),
    lambda content: cpp_class("m", content, ("a", "b")),
)


@pytest.mark.parametrize("counts", SHARES, ids=["quick", "all"])
def test_readers_of_tflite_answer_or_refuse(sources: list[bytes], counts: dict[str, int]) -> None:
    refused = 0
    for number in range(counts["tflite"]):
        content = front_mutated(sources[number % len(sources)], number)
        for read in READERS:
            with one_line_in_time(number):
                try:
                    read(content)
                except ModelError:
                    refused += 1
                    raise
    # Most of them must have met a refusal, or the mutations would test nothing.
    assert refused > len(READERS) * counts["tflite"] // 4


@pytest.mark.parametrize("counts", SHARES, ids=["quick", "all"])
def test_labels_are_read_or_refused(student: bytes, tmp_path: Path, counts: dict[str, int]) -> None:
    path = tmp_path / "m.tflite"
    for number in range(counts["labels"]):
        if number % 2:
            path.write_bytes(student[:-400] + mutated(student[-400:], number))
        else:
            labels = zip_of({LABELS_FILE: mutated(b"red\ngreen\n", number)})
            path.write_bytes(mutated(labels, number) if number % 4 else labels)
        with one_line_in_time(number):
            names = read_labels(path)
            assert all(name.isprintable() for name in names), number
    assert everything(tmp_path) == [path]


@pytest.fixture(scope="module")
def bundle() -> bytes:
    """A bundle without a model: what is in it is not looked at, its names and sums are."""
    from hashlib import sha256

    files = {"run.sh": b"#!/bin/sh\n", "models/a.tflite": bytes(64), "README.md": b"read me\n"}
    sums = "".join(f"{sha256(c).hexdigest()}  {n}\n" for n, c in sorted(files.items()))
    return zip_of({**files, "SHA256SUMS": sums.encode()})


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("counts", SHARES, ids=["quick", "all"])
def test_bundles_write_all_or_nothing(
    bundle: bytes, tmp_path: Path, counts: dict[str, int]
) -> None:
    path, out = tmp_path / "in" / "bundle.zip", tmp_path / "inner" / "out"
    path.parent.mkdir()
    out.parent.mkdir()
    before = everything(tmp_path)
    refused = 0
    for number in range(counts["bundle"]):
        path.write_bytes(mutated_zip(bundle, number))
        with one_line_in_time(number):
            try:
                checked = check_bundle(path)
            except BloodedgeError:
                refused += 1
                with pytest.raises(BloodedgeError):
                    unpack_bundle(path, out)
                assert [p for p in everything(tmp_path) if p != path and p not in before] == []
                raise
            # What came through is the bundle as it was made.
            assert set(checked.files) == set(names_in(bundle)), number
    assert refused > counts["bundle"] // 2


def names_in(content: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.namelist()


# ---- native code, in forks of one process that has imported it ----

FORKS = """
import json, os, sys, tempfile
from pathlib import Path
kind = sys.argv[1]
from bloodedge import isolated
from bloodedge.quiet import quiet
if kind == "tflite":
    from bloodedge.deploy import interpreter
    interpreter.find_runtime()
    def check(path):
        interpreter.check_file(path)
        interpreter._probe_here(path)
    memory = 8 << 30
else:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    from bloodedge.train import modelio
    def check(path):
        with quiet():
            modelio.load_model(path)
    memory = 12 << 30
print("ready", flush=True)
for line in sys.stdin:
    path = Path(line.strip())
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            code = 1
            try:
                code = isolated.check_here(lambda: check(path), path, memory=memory)
                sys.stdout.flush()
            finally:
                os._exit(code)
        _, status, used = os.wait4(child, 0)
        code = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    # Processor time: a busy machine is no hang.
    print(json.dumps([code, used.ru_utime + used.ru_stime, text]), flush=True)
"""


@contextmanager
def forks(kind: str) -> Iterator[Callable[[Path], tuple[int, float, str]]]:
    """Yield what loads a file in a fork and returns exit code, seconds and what was printed."""
    child = subprocess.Popen(
        [sys.executable, "-c", FORKS, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    to, back = child.stdin, child.stdout

    def load(path: Path) -> tuple[int, float, str]:
        to.write(f"{path}\n")
        to.flush()
        code, seconds, text = json.loads(back.readline())
        return code, seconds, text

    try:
        assert back.readline() == "ready\n"
        yield load
    finally:
        to.close()
        child.wait(60)


def judged(found: tuple[int, float, str], number: int) -> str:
    """Return what a child made of a file, in one word, after checking that it is allowed."""
    code, seconds, text = found
    assert seconds < LIMIT_S, (number, seconds)
    if code == isolated.REFUSED:
        assert len(text.strip().splitlines()) == 1, (number, text)
        return "refused"
    # A signal ends the child alone: `check_in_child` makes one line of it.
    assert code <= 0, (number, code, text)
    return "ended" if code else "passed"


@pytest.mark.parametrize("counts", SHARES, ids=["quick", "all"])
def test_runtimes_load_or_refuse_or_end_their_child(
    sources: list[bytes], tmp_path: Path, counts: dict[str, int]
) -> None:
    path = tmp_path / "m.tflite"
    outcomes = {"refused": 0, "ended": 0, "passed": 0}
    with forks("tflite") as load:
        path.write_bytes(sources[0])
        assert judged(load(path), -1) == "passed"
        for number in range(counts["tflite"]):
            path.write_bytes(front_mutated(sources[number % len(sources)], number))
            try:
                # As `probe` does before it starts a child.
                check_file(path)
            except ModelError:
                outcomes["refused"] += 1
                continue
            outcomes[judged(load(path), number)] += 1
    assert outcomes["refused"] > counts["tflite"] // 10
    assert everything(tmp_path) == [path]


@pytest.mark.parametrize("counts", SHARES, ids=["quick", "all"])
def test_keras_files_load_or_are_refused(
    tiny_file: Path, tmp_path: Path, counts: dict[str, int]
) -> None:
    content = tiny_file.read_bytes()
    path = tmp_path / "m.keras"
    outcomes = {"refused": 0, "ended": 0, "passed": 0}
    with forks("keras") as load:
        path.write_bytes(content)
        assert judged(load(path), -1) == "passed"
        for number in range(counts["keras"]):
            path.write_bytes(mutated_zip(content, number))
            outcomes[judged(load(path), number)] += 1
    assert outcomes["refused"] > counts["keras"] // 4
    assert everything(tmp_path) == [path]


# ---- the child that the commands start ----


@pytest.mark.slow
def test_a_foreign_keras_file_is_loaded_in_a_child_first(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bloodedge.train.restore.probe_model", modelio.probe_model)
    monkeypatch.setattr(modelio, "_PROBED", set())
    path = tmp_path / "foreign.keras"
    path.write_bytes(tiny_file.read_bytes())
    reference = ModelReference("foreign", path, {})
    assert restore(reference).output_shape == (None, 3)
    # The same content is not looked at again, another is.
    monkeypatch.setattr("subprocess.run", None)
    restore(reference)
    monkeypatch.undo()
    monkeypatch.setattr("bloodedge.train.restore.probe_model", modelio.probe_model)
    path.write_bytes(with_config(tiny_file.read_bytes(), '"units": 16', '"units": 2000000000'))
    with pytest.raises(ModelError) as caught:
        restore(reference)
    assert "\n" not in str(caught.value)


def with_config(content: bytes, old: str, new: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    text = files["config.json"].decode()
    assert old in text
    return zip_of({**files, "config.json": text.replace(old, new).encode()})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("while True: pass", "too much processor time"),
        ("x = bytearray(64 << 30)", "GiB of memory"),
        ("raise isolated.BloodedgeError('one')", "one"),
    ],
)
def test_time_and_memory_of_a_child_are_bounded(
    body: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile.py").write_text(
        "import sys\nfrom pathlib import Path\nfrom bloodedge import isolated\n"
        f"def check():\n    {body}\n"
        "sys.exit(isolated.check_here(check, Path(__file__), memory=2 << 30, cpu_s=0.2))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    with pytest.raises(ModelError, match=message):
        isolated.check_in_child("hostile", [], tmp_path / "file")


def test_the_other_bounds_hold_where_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, which bounds no address space."""
    held = []

    def setrlimit(kind: int, bounds: tuple[int, int]) -> None:
        if kind == resource.RLIMIT_AS:
            raise ValueError("current limit exceeds maximum limit")
        held.append(kind)

    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    (tmp_path / "file").touch()
    isolated.bound(tmp_path / "file", memory=2 << 30)
    assert held == [resource.RLIMIT_CORE, resource.RLIMIT_CPU]
