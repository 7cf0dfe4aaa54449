"""Compare the runner's one-thread median with LiteRT's own benchmark tool, side by side.

    python -m bloodedge.benchmarks.latency_parity MODEL.tflite [--rounds 7]

The two take turns, and each round changes who goes first, so that a busy machine slows both
alike; both are bound to the same CPU. LiteRT's tool rounds to 0.01 ms and feeds random input:
the model should take at least 1 ms. Exit code 1 when the medians differ by more than 10 %.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.host import RUNNER, load_result
from bloodedge.errors import DataError

OFFICIAL = "ai_edge_litert.tools.benchmark_litert_model"
LIMIT = 0.10
# Both measure for the same time: the tool is asked for as many runs as fit.
SECONDS = 2.0


def run(command: list[str]) -> None:
    """Run a tool quietly.

    Raises:
        DataError: it failed; the error carries its last line.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        raise DataError(" ".join([f"{command[1]} exit code {done.returncode}:", *last]))


def ours_ms(model: Path, folder: Path) -> float:
    """Return the median of one of the runner's processes, in milliseconds."""
    out = folder / "ours.json"
    settings = ["--threads", "1", "--repeats", "1", "--seconds", str(SECONDS), "--force"]
    run([sys.executable, str(RUNNER), str(model), "--out", str(out), *settings])
    value = load_result(out).rows[0].median_us
    if value is None:
        raise DataError(f"{model} could not be measured")
    return value / 1000


def official_ms(model: Path, folder: Path, runs: int) -> float:
    """Return the median that LiteRT's tool finds, in milliseconds."""
    out = folder / "official.json"
    settings = ["--num_threads=1", "--warmup_runs=100", f"--num_runs={runs}"]
    run([sys.executable, "-m", OFFICIAL, f"--model={model}", f"--result_json={out}", *settings])
    return float(json.loads(out.read_text(encoding="utf-8"))["latency"]["median_ms"])


def compare(model: Path, rounds: int) -> list[float]:
    """Print each round's two medians and return the ratios ours / official."""
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = max(50, round(1000 * SECONDS / ours_ms(model, folder)))
        for index in range(rounds):
            if index % 2:
                ours, official = ours_ms(model, folder), official_ms(model, folder, runs)
            else:
                official, ours = official_ms(model, folder, runs), ours_ms(model, folder)
            ratios.append(ours / official)
            print(f"round {index + 1}: {ours:.3f} / {official:.3f} ms = {ratios[-1]:.3f}")
    return ratios


def main() -> int:
    """Run the comparison and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, metavar="MODEL.tflite")
    parser.add_argument("--rounds", type=int, default=7, help="turns of both tools [7]")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    ratio = median(compare(args.model, max(1, args.rounds)))
    print(f"median ratio {ratio:.3f}")
    return int(abs(ratio - 1) > LIMIT)


if __name__ == "__main__":
    sys.exit(exit_code(main))
