"""Bad input, as a user meets it: one line, an exit code that is not 0, nothing half-written."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bloodedge.benchmarks import bundle, runner
from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.tree import Vector
from bloodedge.deploy.flat.writer import write_tables

RUNNER = Path(runner.__file__)
QUICK = ("--quick", "--repeats", "1", "--seconds", "0.02", "--warmup", "0.01")
# The standard library and NumPy are there, and no runtime.
BARE = f"""
import importlib.util, runpy, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: find(name) if name == "numpy" else None
runpy.run_path({str(RUNNER)!r}, run_name="__main__")
"""


def command(folder: Path, *words: str, start: tuple[str, ...] = (str(RUNNER),)) -> list[str]:
    return [sys.executable, *start, *words, "--out", str(folder / "r.json")]


def start(words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)


def refused(done: subprocess.CompletedProcess[str], said: str, folder: Path) -> None:
    """One line that says what it is, exit code 2, and no file that was not there before."""
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert done.stdout == ""
    assert not (folder / "r.json").exists()
    assert not (folder / "r.json.partial").exists()


@pytest.fixture
def model(brightest_tflite: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "m.tflite"
    path.write_bytes(brightest_tflite)
    return path


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "s.npz"
    images = np.zeros((4, 16, 16, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=np.zeros(4, dtype=np.int64))
    return path


def test_no_runtime(model: Path, tmp_path: Path) -> None:
    done = start(command(tmp_path, str(model), start=("-c", BARE)))
    refused(done, "no TFLite runtime found: pip install ai-edge-litert", tmp_path)


def test_wrong_numpy(model: Path, tmp_path: Path) -> None:
    """A `tflite_runtime` beside NumPy 2, as pip leaves it there."""
    (tmp_path / "site/tflite_runtime").mkdir(parents=True)
    (tmp_path / "site/tflite_runtime/__init__.py").touch()
    words = command(tmp_path, str(model), "--runtime", "tflite_runtime")
    done = start(words, PYTHONPATH=str(tmp_path / "site"))
    refused(done, f"tflite-runtime needs numpy<2, found numpy {np.__version__}: pip", tmp_path)


def test_missing_model(tmp_path: Path) -> None:
    path = tmp_path / "absent.tflite"
    refused(start(command(tmp_path, str(path))), f"model {path} does not exist", tmp_path)


def test_corrupt_sample(model: Path, sample: Path, tmp_path: Path) -> None:
    content = bytearray(sample.read_bytes())
    content[len(content) // 2] ^= 0xFF
    sample.write_bytes(content)
    done = start(command(tmp_path, str(model), "--sample", str(sample)))
    refused(done, f"sample {sample} cannot be read: images.npy in it is damaged", tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="no such file")
def test_a_sample_is_an_ordinary_file(model: Path, tmp_path: Path) -> None:
    # Of /dev/zero, which never ends, all would be read.
    done = start(command(tmp_path, str(model), "--sample", os.devnull))
    refused(done, f"sample {os.devnull} cannot be read: it is no ordinary file", tmp_path)
    done = start(command(tmp_path, str(model), "--facts", os.devnull))
    refused(done, f"{os.devnull} is no ordinary file", tmp_path)


def test_a_pickle_for_a_sample_is_not_run(model: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (os.rename, (str(model), str(tmp_path / "stolen")))

    path = tmp_path / "s.npz"
    path.write_bytes(pickle.dumps(Hostile()))
    done = start(command(tmp_path, str(model), "--sample", str(path)))
    refused(done, f"sample {path} cannot be read", tmp_path)
    np.savez(path, images=np.zeros((1, 2, 2, 3), np.uint8), labels=np.array([Hostile()]))
    done = start(command(tmp_path, str(model), "--sample", str(path)))
    refused(done, f"sample {path} cannot be read", tmp_path)
    assert model.exists()


@pytest.mark.parametrize("content", [b"", b"no model", None], ids=["empty", "text", "cut"])
def test_corrupt_model(
    content: bytes | None, model: Path, brightest_tflite: bytes, tmp_path: Path
) -> None:
    """It costs only itself: one line of its own, exit code 1, and the others' figures."""
    bad = tmp_path / "bad.tflite"
    half = brightest_tflite[: len(brightest_tflite) // 2]
    bad.write_bytes(half if content is None else content)
    done = start(command(tmp_path, str(bad), str(model), *QUICK))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert line.startswith("error: bad.tflite threads=1: ")
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert rows[0]["error"]
    assert (rows[0]["error"] in line, rows[1]["error"]) == (True, None)
    assert rows[1]["median_us"] > 0


def test_a_model_of_any_size_is_not_timed_on_one_pixel(
    brightest_tflite: bytes, sample: Path, tmp_path: Path
) -> None:
    model = read_model(brightest_tflite).model
    (graph,) = model.tables("subgraphs")
    image = graph.tables("tensors")[graph.numbers("inputs")[0]]
    image.fields["shape"] = Vector(struct.pack("<4i", 1, 1, 1, 3), 4)
    image.fields["shape_signature"] = Vector(struct.pack("<4i", 1, -1, -1, 3), 4)
    path = tmp_path / "any.tflite"
    path.write_bytes(write_tables(model))
    done = start(command(tmp_path, str(path), "--sample", str(sample), *QUICK))
    assert done.returncode != 0
    (row,) = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert row["error"] == "the model takes images of any size; export it with one"


def test_no_permission_to_pin(model: Path, tmp_path: Path) -> None:
    """A note, and not in the figures' way: a system may forbid it to everyone."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(
        "import os\ndef refuse(pid, cpus):\n    raise PermissionError(1, 'not permitted')\n"
        "os.sched_setaffinity = refuse\n"
    )
    done = start(command(tmp_path, str(model), *QUICK), PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 0
    note = "processes were not bound to CPUs: the system does not allow it"
    assert done.stderr.count(note) == 1
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["notes"] == [note]
    assert (result["environment"]["pinned"], result["rows"][0]["error"]) == (False, None)
    assert result["rows"][0]["runs"][0]["cpus"] == []


# ---- wrong Python ----


def test_what_starts_a_bundle_is_read_by_every_python_3() -> None:
    ast.parse(bundle.START.read_text(encoding="utf-8"), feature_version=(3, 5))
    tree = ast.parse(bundle.START.read_text(encoding="utf-8"))
    # Python 3.6 brought these, and knows the future import no more than 3.5 does.
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr | ast.AnnAssign)]
    assert not [n for n in ast.walk(tree) if getattr(n, "module", None) == "__future__"]


@pytest.mark.parametrize("version", ["3.5", "3.6", "3.7"])
def test_wrong_python(
    version: str, installed_python: Callable[[str], Path], tmp_path: Path
) -> None:
    python = str(installed_python(version))
    shutil.copy(bundle.START, tmp_path / "run.py")
    done = start([python, str(tmp_path / "run.py"), "--quick"])
    refused(done, f"Python 3.8 or newer is needed, this is {version}.", tmp_path)
    if version == "3.7":
        done = start([python, str(RUNNER), "m.tflite", "--out", str(tmp_path / "r.json")])
        refused(done, "Python 3.8 or newer and NumPy are needed", tmp_path)
