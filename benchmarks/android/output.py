"""What TFLite's benchmark_model prints, in builds from 2019 on.

New builds start lines with `INFO: ` and give percentiles; old ones do neither. Runs that all took
equally long are printed as `count=N curr=X(all same)`. Times are in microseconds.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from bloodedge.benchmarks.runner import one_line

_NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
_COUNT = re.compile(r"\bcount=(\d+)\s+(.*)")
_FIELD = re.compile(rf"\b(\w+)={_NUMBER}")
_INIT = re.compile(rf"\bInit: {_NUMBER}")
_FIRST = re.compile(rf"\bFirst inference: {_NUMBER}")
_MEMORY = re.compile(rf"[Mm]emory footprint[^:]*\(MB\): init={_NUMBER} overall={_NUMBER}")
_ERROR = re.compile(r"(?:ERROR|FATAL): ?(.+)")
_NOTICE = re.compile(r"(?:INFO|WARNING|VERBOSE|W|I)\b")
_NOT_RUN = re.compile(r"Though .* delegate is explicitly applied, .* not be executed")
_PARTLY = re.compile(r"partially executed by the delegate")


@dataclass(frozen=True)
class Timings:
    """One run of benchmark_model, in microseconds.

    Attributes:
        count: timed inferences.
        mean_us: over them, as are `min_us` and `max_us`.
        min_us: see `mean_us`.
        max_us: see `mean_us`.
        median_us: None from an old build, which gives no percentiles; so is `p95_us`.
        p95_us: see `median_us`.
        init_us: loading the model and applying the delegate.
        first_us: the first inference.
        memory_kib: what the process grew by; None where the build does not say.
        partly: whether the delegate left a part of the model to the CPU.
    """

    count: int
    mean_us: float
    min_us: float
    max_us: float
    median_us: float | None
    p95_us: float | None
    init_us: float
    first_us: float
    memory_kib: int | None
    partly: bool


def parse(out: str, err: str) -> Timings:
    """Return the timings in what benchmark_model wrote.

    Raises:
        ValueError: it failed, was cut short, or its delegate ran nothing of the model; the
            message is the tool's own where it gave one.
    """
    text = f"{out}\n{err}"
    if found := _NOT_RUN.search(text):
        raise ValueError(one_line(found[0]))
    counts = [match for line in out.splitlines() if (match := _COUNT.search(line))]
    init = _INIT.search(text)
    # Warm-up and inference: a tool that died between them has only the first.
    if len(counts) < 2 or init is None:
        raise ValueError(_reason(out, err))
    warm, timed = (_statistics(match) for match in (counts[0], counts[-1]))
    first, memory = _FIRST.search(text), _MEMORY.search(text)
    return Timings(
        count=int(timed["count"]),
        mean_us=timed["avg"],
        min_us=timed["min"],
        max_us=timed["max"],
        median_us=timed.get("median"),
        p95_us=timed.get("p95"),
        init_us=_finite(init[1]),
        first_us=_finite(first[1]) if first else warm["first"],
        memory_kib=round(1024 * _finite(memory[2])) if memory else None,
        partly=bool(_PARTLY.search(text)),
    )


def _statistics(match: re.Match[str]) -> dict[str, float]:
    fields = {name: _finite(value) for name, value in _FIELD.findall(match[2])}
    if "(all same)" in match[2] or match[1] == "1":
        same = fields.get("curr", math.nan)
        fields = {**dict.fromkeys(("first", "min", "max", "avg", "median", "p95"), same), **fields}
    if {"first", "min", "max", "avg"} - set(fields) or not fields["avg"] >= 0:
        raise ValueError(f"benchmark_model wrote {one_line(match[0])[:100]!r}")
    return {"count": _finite(match[1]), **fields}


def _finite(text: str) -> float:
    value = float(text)
    if not value < 1e15:
        raise ValueError(f"benchmark_model wrote the number {text[:20]}")
    return value


def _reason(out: str, err: str) -> str:
    """Return the first line that says what went wrong; what follows it is a consequence."""
    lines = [line.strip() for line in f"{err}\n{out}".splitlines() if line.strip()]
    marked = (found[1] for line in lines if (found := _ERROR.match(line)))
    # Old builds mark nothing; they say what failed on stderr too.
    plain = (line.strip() for line in err.splitlines() if line.strip() and not _NOTICE.match(line))
    said = next(marked, "") or next(plain, "")
    return one_line(said) or "benchmark_model gave no timings"
