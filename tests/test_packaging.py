"""The wheel holds the folders on disk: an editable install would hide what is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("train", "compress", "deploy", "benchmarks")


def modules_on_disk() -> set[str]:
    found = {p.relative_to(ROOT).as_posix() for p in (ROOT / "bloodedge").rglob("*.py")}
    for stage in STAGES:
        paths = (ROOT / stage).rglob("*.py")
        found |= {f"bloodedge/{p.relative_to(ROOT).as_posix()}" for p in paths}
    return found


def test_every_package_folder_is_declared():
    declared = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    on_disk = {str(Path(name).parent).replace("/", ".") for name in modules_on_disk()}
    assert declared == on_disk


@pytest.mark.slow
def test_the_wheel_holds_what_is_on_disk(tmp_path: Path):
    # setuptools copies into build/lib and never clears it: a deleted module would live on there.
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
    ]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
    assert {n for n in names if n.endswith(".py")} == modules_on_disk()
    assert "bloodedge/py.typed" in names
    zoo = {p.relative_to(ROOT).as_posix() for p in (ROOT / "bloodedge" / "zoo").glob("[!_]*/*")}
    assert any(name.endswith(".tflite") for name in zoo)
    assert zoo <= names
    page = {p.relative_to(ROOT).as_posix() for p in (ROOT / "benchmarks/browser/page").iterdir()}
    assert {f"bloodedge/{name}" for name in page} <= names
    assert "bloodedge/benchmarks/result.schema.json" in names
    assert all(n.startswith("bloodedge/") for n in names)


def test_the_constraints_hold_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    assert not [line for line in lines if "://" in line or "==" not in line]
    names = {line.split("==")[0] for line in lines}
    assert "medmnist" in names
    assert not {"torch", "torchvision"} & names
