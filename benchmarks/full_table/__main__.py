"""Everything that is known of each model in one table: what it is worth and what it costs.

    python -m bloodedge.benchmarks.full_table [NAME...] [--out benchmarks/results]

NAME is what `bloodedge report` takes: runs, results of devices, or a folder where manifests and
results are recorded, such as `benchmarks/results/manifests`; by default all runs. Every figure is
read from them, and a cell says so where nothing was measured. Multiply-accumulates are those of the
benchmark's result, else of the file, else of the registered model that a manifest describes.
Runs that differ only in their seed share a line: scores are of the first, bytes and latency of the
one that was timed, and the spread is of all. Several files of one run have a line each.
Writes `full_table.md` and `full_table.csv`, the second with a line for each file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.full_table import COMMAND, STEM
from bloodedge.benchmarks.full_table.lines import lines_of
from bloodedge.benchmarks.full_table.table import found_in, render, spreadsheet
from bloodedge.benchmarks.recorded import RESULTS
from bloodedge.console import say
from bloodedge.files import write_text


def main(words: Sequence[str] | None = None) -> int:
    """Write both files and print the table; 1 where there is nothing for it."""
    parser = argparse.ArgumentParser(prog=COMMAND)
    parser.add_argument("names", nargs="*", metavar="NAME", help="[all runs]")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parsed = parser.parse_args(words)
    data, facts = found_in(parsed.names)
    bare = [section for section in data.sections if not lines_of(section)]
    for section in bare:
        say(f"{section.title}: nothing was evaluated on test or timed, so the table has no line")
    if len(bare) == len(data.sections):
        return 1
    shown = render(data, facts, " ".join([COMMAND, *parsed.names]))
    write_text(parsed.out / f"{STEM}.md", shown)
    write_text(parsed.out / f"{STEM}.csv", spreadsheet(data, facts))
    print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
