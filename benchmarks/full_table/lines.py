"""The lines of the full table: files that differ only in their seed share one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from bloodedge.benchmarks.full_table.facts import Facts
from bloodedge.benchmarks.report.data import Row, Scores, Section
from bloodedge.benchmarks.report.text import accuracy, micros, percent
from bloodedge.text import kilobytes

_SEED = re.compile(r"-s(?:eed)?(\d+)(?=-|$)")
_SPLIT = "test"
UNMEASURED = "not measured"


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        model: the name without the seed, with what tells it from other files of the same runs.
        row: the seed whose file is shown: the one that was timed, else the first.
        scores: of the first seed that was evaluated on test; None where none was.
        accuracies: of all seeds on test, in 0..1.
    """

    model: str
    row: Row
    scores: Scores | None
    accuracies: tuple[float, ...]


def lines_of(section: Section) -> list[Line]:
    """Return the lines of a section: what was evaluated on test or timed, the largest first."""
    found = []
    for model, rows in _groups(section):
        rows.sort(key=lambda row: (_seed(row.model), row.model))
        # One file of each seed, which has a row for each device.
        tested = {row.model: scores for row in reversed(rows) if (scores := _on_test(row))}
        scored = list(tested.values())[::-1]
        timed = [row for row in rows if row.latency]
        shown = timed or rows[:1]
        # Of several seeds on one device, one.
        places = {row.latency.column if row.latency else "": row for row in reversed(shown)}
        first = scored[0] if scored else None
        accuracies = tuple(scores.accuracy for scores in scored)
        found += [Line(model, row, first, accuracies) for row in places.values()]
    return found


def _seed(model: str) -> int:
    """Return the seed that a run's name tells; the first one's often does not."""
    found = _SEED.search(model)
    return int(found[1]) if found else 0


def _groups(section: Section) -> list[tuple[str, list[Row]]]:
    """Return the rows of each line's files by the line's name."""
    variants: dict[tuple[str, str], list[Row]] = {}
    for row in section.rows:
        if row.latency or _on_test(row):
            variants.setdefault((_SEED.sub("", row.model), row.variant), []).append(row)
    found = []
    for (model, _), rows in variants.items():
        groups = _files_apart(rows)
        found += [
            (f"{model} ({apart})" if len(groups) > 1 and apart else model, group)
            for apart, group in groups.items()
        ]
    return found


def _files_apart(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return one model's rows by what tells the files of one run apart, for all seeds alike."""
    if not any(row.mark for row in rows):
        return {"": list(rows)}
    groups: dict[str, list[Row]] = {}
    for row in rows:
        # A seed with one file alone has no mark, but is kept in a run named as the others'.
        groups.setdefault(_SEED.sub("", row.mark or row.home), []).append(row)
    return groups


def _on_test(row: Row) -> Scores | None:
    return row.scores if row.scores and row.scores.split == _SPLIT else None


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
    scores = line.scores
    if scores is None:
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
