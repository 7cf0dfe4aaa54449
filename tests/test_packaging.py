"""The wheel holds the folders on disk: an editable install would hide what is missing."""

from __future__ import annotations

import ast
import re
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


# The modules of the distributions that are called otherwise.
MODULES = {
    "ai-edge-litert": "ai_edge_litert",
    "opencv-python-headless": "cv2",
    "tensorflow-model-optimization": "tensorflow_model_optimization",
}


def imports_of(folder: Path) -> set[str]:
    """Return the first parts of all that a folder's modules import, also by `import_module`."""
    nodes = [n for p in folder.rglob("*.py") for n in ast.walk(ast.parse(p.read_text("utf-8")))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    names |= {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return {name.partition(".")[0] for name in names}


def test_what_the_package_depends_on_is_what_it_imports():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[<>=~! ;\[]", line)[0] for line in declared}
    imported = {name for folder in ("bloodedge", *STAGES) for name in imports_of(ROOT / folder)}
    assert {MODULES.get(name, name) for name in names} <= imported
    assert "scipy" in names
    assert "sklearn" not in imported


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
