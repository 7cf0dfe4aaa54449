"""The table of operators that LiteRT and benchmark_model print, in builds from 2019 on.

Columns differ between builds; each row ends in the times it was called and its name, and its first
percentage is its share. Shares are finer than the printed times, which are rounded to 1 us.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bloodedge.benchmarks.fields import MAX_COUNT, MAX_US
from bloodedge.benchmarks.runner import one_line

_NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_HEADING = re.compile(r"=+ Run Order =+")
_REGULAR = "Regular Benchmark Runs"
_INSIDE = "Delegate internal"
# The first number has decimals: a kind may end in a number without.
_ROW = re.compile(rf"^\s*(\S.*?)\s+(\d+\.\d+\s+(?:{_NUMBER}%?\s+){{4,8}})(\S.*)$")
_TIMINGS = re.compile(rf"Timings \(microseconds\):[^\n]*?\b(?:curr=({_NUMBER}))[^\n]*")
_MEAN = re.compile(rf"\bavg=({_NUMBER})")
_MAX_OPERATORS = 10_000
# A row of a hostile device could take for ever to be read.
_MAX_LETTERS = 4000


@dataclass(frozen=True)
class Operator:
    """One operator in the order in which they run.

    Attributes:
        kind: what it is, such as `Convolution (NHWC, QC8) IGEMM`.
        name: as the runtime calls it.
        us: what it takes in one inference, in microseconds, on average.
        runs: over how many inferences, where the table says so, else 1.
    """

    kind: str
    name: str
    us: float
    runs: int = 1


@dataclass(frozen=True)
class Profile:
    """Where one model's time goes.

    Attributes:
        model: its name.
        threads: how many were used.
        runtime: what ran it, and the delegate where there is a choice.
        operators: in the order in which they run.
        invoke_us: a whole inference without the profiler, in microseconds; None where unknown.
    """

    model: str
    threads: int
    runtime: str
    operators: tuple[Operator, ...]
    invoke_us: float | None = None

    @property
    def total_us(self) -> float:
        """What all operators take together."""
        return sum(operator.us for operator in self.operators)

    def by_kind(self) -> dict[str, tuple[int, float]]:
        """Return how many operators of each kind there are and what they take, longest first."""
        found: dict[str, tuple[int, float]] = {}
        for operator in self.operators:
            count, us = found.get(operator.kind, (0, 0.0))
            found[operator.kind] = (count + 1, us + operator.us)
        return dict(sorted(found.items(), key=lambda pair: -pair[1][1]))


def parse(text: str) -> tuple[Operator, ...]:
    """Return the operators in what a runtime printed.

    What a delegate ran as one node is replaced by the operators inside, where they are told.

    Raises:
        ValueError: there is no such table, or it is damaged.
    """
    regular = text.find(_REGULAR)
    # What comes before is about loading the model.
    text = text[regular:] if regular >= 0 else text
    tables = [_table(part) for part in _HEADING.split(text)[1:]]
    inside = _INSIDE in text and len(tables) > 1
    operators = tables[0] if tables else ()
    if inside:
        kept = [operator for operator in operators if "delegate" not in operator.kind.lower()]
        operators = (*tables[1], *kept)
    if not operators:
        raise ValueError("it printed no table of operators")
    return operators


def _table(text: str) -> tuple[Operator, ...]:
    lines = text.splitlines()
    rows: list[re.Match[str]] = []
    for line in lines[1:]:
        row = _ROW.match(line) if len(line) <= _MAX_LETTERS else None
        if row is None and rows and not line.strip():
            break
        if row is not None:
            rows.append(row)
    if len(rows) > _MAX_OPERATORS:
        raise ValueError(f"it printed more than {_MAX_OPERATORS} operators")
    runs = max(1, min(map(_runs, rows), default=1))
    whole = _whole_us(text, runs)
    return tuple(_operator(row, whole, runs) for row in rows)


def _numbers(row: re.Match[str]) -> list[str]:
    return row[2].split()


def _runs(row: re.Match[str]) -> int:
    runs = float(_numbers(row)[-1])
    # Text such as 1e999 is infinite.
    if not 0 <= runs <= MAX_COUNT:
        raise ValueError(f"it printed the row {one_line(row[0])[:80]!r}")
    return int(runs)


def _whole_us(text: str, runs: int) -> float:
    """Return what all operators of a table take in one inference.

    benchmark_model prints the mean of an inference, and that each operator is called once in it;
    LiteRT the sum over all inferences, and how many they were.
    """
    timings = _TIMINGS.search(text)
    if timings is None:
        raise ValueError("its table of operators is cut short")
    mean = _MEAN.search(timings[0])
    each = float(mean[1]) if mean else float(timings[1]) / runs
    if not 0 <= each <= MAX_US:
        raise ValueError(f"it printed the time {one_line(timings[0])[:80]!r}")
    return each


def _operator(row: re.Match[str], whole_us: float, runs: int) -> Operator:
    shares = [float(number[:-1]) for number in _numbers(row) if number.endswith("%")]
    if not shares or not 0 <= shares[0] <= 100.001:
        raise ValueError(f"it printed the row {one_line(row[0])[:80]!r}")
    kind = one_line(row[1]).removeprefix("Delegate/")
    return Operator(kind, one_line(row[3]), whole_us * shares[0] / 100, runs)
