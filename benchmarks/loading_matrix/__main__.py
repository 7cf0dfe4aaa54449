"""Which runtime runs which file: every variant, loaded and asked in each runtime.

    python -m bloodedge.benchmarks.loading_matrix [--out benchmarks/results]

Writes `loading_matrix.md` and `.json`. tflite-runtime 2.14, which wants NumPy 1 and Python up to
3.11, gets an environment of its own from the package index; LiteRT.js is fetched with npm and runs
in a headless Chromium. A runtime that cannot be had is `not tried`, with the reason.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.loading_matrix import COMMAND, STEM
from bloodedge.benchmarks.loading_matrix.files import make_files
from bloodedge.benchmarks.loading_matrix.matrix import measure, render, to_json
from bloodedge.benchmarks.recorded import RESULTS, record


def main(words: Sequence[str] | None = None) -> None:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(prog=COMMAND)
    parser.add_argument("--out", type=Path, default=RESULTS)
    out = parser.parse_args(words).out
    with tempfile.TemporaryDirectory(prefix="bloodedge-loading-") as folder:
        found = to_json(measure(*make_files(Path(folder))))
    record(out, STEM, found, render)


if __name__ == "__main__":
    sys.exit(exit_code(main))
