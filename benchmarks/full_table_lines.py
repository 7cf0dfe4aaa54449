"""The lines of the full table: files that differ only in their seed share one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from bloodedge.benchmarks.full_table_facts import Facts
from bloodedge.benchmarks.report_data import Row, Section
from bloodedge.benchmarks.report_text import accuracy, kilobytes, micros, percent

_SEED = re.compile(r"-s(eed)?\d+(?=-|$)")
_SPLIT = "test"
UNMEASURED = "not measured"


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        model: the name without the seed.
        row: the seed that is shown: the one that was timed, else the first.
        accuracies: of all seeds on test, in 0..1.
    """

    model: str
    row: Row
    accuracies: tuple[float, ...]


def lines_of(section: Section) -> list[Line]:
    """Return the lines of a section: what was evaluated on test or timed, the largest first."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in section.rows:
        if row.latency or (row.scores and row.scores.split == _SPLIT):
            groups.setdefault((_SEED.sub("", row.model), row.variant), []).append(row)
    found = []
    for (model, _), rows in groups.items():
        rows.sort(key=lambda row: row.model)
        tested = {
            r.sha256: r.scores.accuracy for r in rows if r.scores and r.scores.split == _SPLIT
        }
        timed = [row for row in rows if row.latency]
        shown = timed or rows[:1]
        # Of several seeds on one device, one.
        places = {row.latency.column if row.latency else "": row for row in reversed(shown)}
        found += [Line(model, row, tuple(tested.values())) for row in places.values()]
    return found


def line_cells(line: Line, names: Sequence[str], facts: Mapping[str, Facts]) -> list[str]:
    """Return the cells of a line as text; each says so where nothing was measured."""
    row = line.row
    known = facts.get(row.sha256, Facts())
    macs = known.macs_of(row)
    return [
        line.model,
        row.variant,
        *_score_cells(line, names),
        kilobytes(row.bytes),
        UNMEASURED if row.gzip_bytes is None else kilobytes(row.gzip_bytes),
        "not counted" if macs is None else f"{macs / 1e6:,.2f}",
        *_latency_cells(row),
        _arena(known.arena),
    ]


def _score_cells(line: Line, names: Sequence[str]) -> list[str]:
    scores = line.row.scores
    if scores is None or scores.split != _SPLIT:
        return ["not evaluated", *[UNMEASURED] * 5]
    spread = "1 seed"
    if len(line.accuracies) > 1:
        centre, sd = mean(line.accuracies), stdev(line.accuracies)
        spread = f"{len(line.accuracies)}: {percent(centre)} ± {percent(sd)}"
    auc = "a class is absent" if scores.auc is None else f"{scores.auc:.4f}"
    worst = f"{percent(scores.recall[scores.worst])} ({names[scores.worst]})"
    return [accuracy(scores), spread, f"{scores.macro_f1:.4f}", auc, f"{scores.ece:.4f}", worst]


def _latency_cells(row: Row) -> list[str]:
    one = row.latency.single if row.latency else None
    if one is None or one.median_us is None:
        return [UNMEASURED] * 2
    memory = UNMEASURED if one.peak_rss_kib is None else f"{one.peak_rss_kib / 1024:.1f}"
    return [micros(one.median_us) + ("†" if one.drift else ""), memory]


def _arena(found: int | None) -> str:
    if found is None:
        return UNMEASURED
    return kilobytes(found) if found else "refused"
