"""Compare loops that could tell the runner how steady a machine is, each in fresh processes.

    python -m bloodedge.benchmarks.steadiness [--processes 10] [--seconds 0.5]

A loop that hardly varies within a process, and takes longer in another one, tells where these have
their memory, and not whether something else disturbs them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence

from bloodedge.benchmarks import runner
from bloodedge.benchmarks.comparison import exit_code
from bloodedge.errors import check_range

Loop = Callable[[float], dict[str, float]]


def additions(seconds: float) -> dict[str, float]:
    """Time the sum of ten thousand integers, each an object, as the runner once did."""
    numbers = list(range(10_000))
    return runner.vary(lambda: sum(numbers), seconds)


LOOPS: dict[str, Loop] = {"checksums": runner.steady_loop, "additions": additions}


def measured(name: str, seconds: float) -> dict[str, float]:
    """Return one loop's figures from a process of its own, bound to one CPU."""
    command = [sys.executable, "-m", __spec__.name, "--loop", name, "--seconds", str(seconds)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def main(words: Sequence[str] | None = None) -> None:
    """Measure the loops in turns, and print what each took in the processes where it was steady."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", type=int, default=10, help="[10]")
    parser.add_argument("--seconds", type=float, default=0.5, help="[0.5]")
    parser.add_argument("--loop", choices=LOOPS, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    check_range("--processes", args.processes, 1, 1000)
    check_range("--seconds", args.seconds, 0, 60)
    if args.loop:
        runner.pin(1)
        print(json.dumps(LOOPS[args.loop](args.seconds)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in LOOPS}
    for _ in range(args.processes):
        for name in LOOPS:
            found[name].append(measured(name, args.seconds))
    print("| loop | steady processes | their medians, us |")
    print("| --- | --- | --- |")
    for name, runs in found.items():
        steady = sorted(r["median_us"] for r in runs if r["jitter"] <= runner.JITTER_LIMIT)
        cells = " ".join(f"{value:.1f}" for value in steady)
        print(f"| {name} | {len(steady)} of {len(runs)} | {cells} |")


if __name__ == "__main__":
    sys.exit(exit_code(main))
