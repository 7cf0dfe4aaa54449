"""Compare the runner's one-thread median with LiteRT's own benchmark tool, side by side.

    python -m bloodedge.benchmarks.latency_parity MODEL.tflite [--rounds 7]

The rule: for a model that takes more than 0.2 ms the two medians differ by at most 5 %; the exit
code is 1 when they do not. A faster model is compared and not judged, because the tool's own
Python, which calls the runtime by another way, is then a part of what it times.

The two take turns, and each round changes who goes first, so that a busy machine slows both
alike; both are bound to the same CPU. The tool rounds what it reports to 0.01 ms, which is kept
from it: all it measures is its own.
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
from bloodedge.benchmarks.host import RUNNER
from bloodedge.benchmarks.result import load_result
from bloodedge.errors import DataError

OFFICIAL = "ai_edge_litert.tools.benchmark_litert_model"
LIMIT = 0.05
LEAST_MS = 0.2
# The tool as it is, but for the rounding of its figures.
_UNROUNDED = f"import {OFFICIAL} as tool; tool.round = lambda value, digits: value; tool.main()"
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
    command = [sys.executable, "-c", _UNROUNDED, f"--model={model}", f"--result_json={out}"]
    run([*command, *settings])
    return float(json.loads(out.read_text(encoding="utf-8"))["latency"]["median_ms"])


def compare(model: Path, rounds: int) -> tuple[float, float]:
    """Print the rounds and return the median ratio ours / official, and our median in ms."""
    ratios, medians = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = max(50, round(1000 * SECONDS / ours_ms(model, folder)))
        for index in range(rounds):
            if index % 2:
                ours, official = ours_ms(model, folder), official_ms(model, folder, runs)
            else:
                official, ours = official_ms(model, folder, runs), ours_ms(model, folder)
            ratios.append(ours / official)
            medians.append(ours)
            print(f"round {index + 1}: {ours:.3f} / {official:.3f} ms = {ratios[-1]:.3f}")
    return median(ratios), median(medians)


def verdict(ratio: float, ours: float) -> int:
    """Print the rule's verdict on the median ratio, and ours in ms, and return the exit code."""
    print(f"median ratio {ratio:.3f} at {ours:.3f} ms")
    if ours <= LEAST_MS:
        print(f"not judged: the rule is for models above {LEAST_MS} ms")
        return 0
    within = abs(ratio - 1) <= LIMIT
    print(f"{'within' if within else 'not within'} {100 * LIMIT:.0f} %")
    return int(not within)


def main() -> int:
    """Run the comparison and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, metavar="MODEL.tflite")
    parser.add_argument("--rounds", type=int, default=7, help="turns of both tools [7]")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return verdict(*compare(args.model, max(1, args.rounds)))


if __name__ == "__main__":
    sys.exit(exit_code(main))
