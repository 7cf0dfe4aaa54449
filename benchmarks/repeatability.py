"""Run the runner twice and see whether its medians agree, as they must on a quiet machine.

    python -m bloodedge.benchmarks.repeatability MODEL.tflite... [--sample s.npz] [--threads 1,0]

Exit code 0 when all medians agree within 5 %, 1 when one does not although the runner called the
machine quiet both times, and 3 when it called the machine too noisy to conclude: that is the
runner's own word, and then nothing follows from two runs that differ.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.host import BenchmarkConfig, run_benchmark
from bloodedge.benchmarks.result import BenchmarkResult
from bloodedge.errors import DataError

LIMIT = 0.05
AGREE, DIFFER, INCONCLUSIVE = 0, 1, 3


def differences(first: BenchmarkResult, second: BenchmarkResult) -> dict[tuple[str, int], float]:
    """Return by how much the second run's medians differ, relative, by model and threads.

    Raises:
        DataError: a model could not be measured in one of the runs.
    """
    found = {}
    medians = {(row.model, row.threads): row.median_us for row in second.rows}
    for row in first.rows:
        key = row.model, row.threads
        before, after = row.median_us, medians.get(key)
        if not before or not after:
            raise DataError(f"{row.model} with {row.threads} threads was not measured twice")
        found[key] = after / before - 1
    return found


def verdict(first: BenchmarkResult, second: BenchmarkResult) -> int:
    """Print how the two compare and return `AGREE`, `DIFFER` or `INCONCLUSIVE`."""
    found = differences(first, second)
    for (model, threads), difference in found.items():
        print(f"{model} threads={threads}: {100 * difference:+.1f} %")
    largest = max(map(abs, found.values()), default=0.0)
    print(f"largest difference {100 * largest:.1f} %, limit {100 * LIMIT:.0f} %")
    noisy = [result.noise for result in (first, second) if result.noise]
    reasons = [reason for noise in noisy if noise.verdict == "noisy" for reason in noise.reasons]
    if reasons:
        print(f"inconclusive: the runner calls this machine too noisy: {'; '.join(reasons)}")
        return INCONCLUSIVE
    return AGREE if largest <= LIMIT else DIFFER


def counts(text: str) -> tuple[int, ...]:
    """Return the thread counts in a text such as 1,0; `BenchmarkConfig` checks them."""
    return tuple(int(word) for word in text.split(","))


def main(words: Sequence[str] | None = None) -> int:
    """Run the comparison and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.tflite")
    parser.add_argument("--sample", type=Path, help="an .npz as the runner takes it")
    parser.add_argument(
        "--threads", type=counts, default=BenchmarkConfig.threads, help="0 is every CPU [1,0]"
    )
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        outs = [Path(name) / f"{place}.json" for place in ("first", "second")]
        fixed = tuple(args.models), args.sample
        runs = [run_benchmark(BenchmarkConfig(*fixed, out, args.threads)) for out in outs]
    return verdict(*runs)


if __name__ == "__main__":
    sys.exit(exit_code(main))
