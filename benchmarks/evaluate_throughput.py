"""Compare `bloodedge evaluate`'s images a second with what the cores could do at best.

    python -m bloodedge.benchmarks.evaluate_throughput MODEL.tflite [--seconds 10]

The best is cores / single-thread latency; the goal is 0.8 of it. Run it on a quiet machine: the
two are measured one after the other. Exit code 1 when the goal is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.host import BenchmarkConfig, run_benchmark
from bloodedge.deploy.interpreter import Classifier, predict_parallel, probe
from bloodedge.errors import DataError
from bloodedge.hardware import usable_cores

GOAL = 0.8
_PROCESSES = 3
_LEAST_IMAGES = 100
_MOST_IMAGES = 40_000


def latency_s(path: Path, seconds: float) -> float:
    """Return the runner's median for one thread, in seconds: the latency that reports give.

    Raises:
        DataError: the model could not be measured.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "latency.json"
        each = seconds / _PROCESSES
        config = BenchmarkConfig((path,), None, out, (1,), repeats=_PROCESSES, seconds=each)
        row = run_benchmark(config).rows[0]
    if not row.median_us:
        raise DataError(f"{path} could not be measured: {row.error}")
    return row.median_us / 1e6


def compare(path: Path, seconds: float) -> float:
    """Print single-thread latency, throughput and their ratio, and return the ratio."""
    probe(path)
    side = Classifier(path).input_size
    latency = latency_s(path, seconds / 2)
    best = usable_cores() / latency
    # As many images as fill the time, without more memory than a large test split takes.
    count = min(_MOST_IMAGES, max(_LEAST_IMAGES, int(best * seconds / 2)))
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    start = time.perf_counter()
    predict_parallel(path, images)
    rate = count / (time.perf_counter() - start)
    print(
        f"one thread: {1e6 * latency:.1f} us an image; {usable_cores()} cores at best {best:,.0f}/s"
    )
    print(f"evaluate: {rate:,.0f} images/s over {count:,} images")
    print(f"ratio {rate / best:.3f} (goal {GOAL})")
    return rate / best


def main() -> int:
    """Run the comparison and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, metavar="MODEL.tflite")
    parser.add_argument("--seconds", type=float, default=10.0, help="about this long [10]")
    args = parser.parse_args()
    return int(compare(args.model, max(1.0, args.seconds)) < GOAL)


if __name__ == "__main__":
    sys.exit(exit_code(main))
