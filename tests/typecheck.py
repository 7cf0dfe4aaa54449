"""Run mypy on the package as it is installed: the top-level folders under `bloodedge`.

mypy does not see the mapped folders of an editable install, so it is given a view of symbolic
links in `build/`, which git ignores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VIEW = ROOT / "build" / "typecheck"


def make_view() -> Path:
    """Link every module of the package into one tree and return its root."""
    shutil.rmtree(VIEW, ignore_errors=True)
    package = VIEW / "bloodedge"
    package.mkdir(parents=True)
    for entry in (ROOT / "bloodedge").iterdir():
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    for stage in ("train", "compress", "deploy", "benchmarks"):
        (package / stage).symlink_to(ROOT / stage)
    return VIEW


if __name__ == "__main__":
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    view = make_view()
    sys.exit(
        subprocess.run(
            [*command, "-p", "bloodedge"],
            cwd=view,
            env={**os.environ, "MYPYPATH": str(view)},
            check=False,
        ).returncode
    )
