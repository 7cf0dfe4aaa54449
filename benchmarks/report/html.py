"""The report as one HTML file: no scripts, nothing loaded from elsewhere, all text escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from bloodedge._version import __version__
from bloodedge.benchmarks.report.data import Origin, ReportData, Row, Scores, Section
from bloodedge.benchmarks.report.doubt import Timing, doubt, single
from bloodedge.benchmarks.report.figures import Figure
from bloodedge.benchmarks.report.part import Part
from bloodedge.benchmarks.report.text import (
    COLUMNS,
    NOTES,
    PARETO,
    SYNTHETIC,
    accuracy,
    cells,
    class_table,
    micros,
    origin_line,
    percent,
)
from bloodedge.text import kilobytes

# A matrix of more classes cannot be read on any screen; the table by class still can.
_MAX_MATRIX = 40
_CSS = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#5c6670;--line:#d9dee3;--card:#f5f7f9;
--warn-bg:#fff1d6;--warn-fg:#6b4300;--heat:37,99,235}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e6e9ec;--soft:#9aa5af;--line:#333a41;
--card:#1d2226;--warn-bg:#4a3405;--warn-fg:#ffdf9e;--heat:96,150,255}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1320px;padding:16px;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;margin:.2em 0}h2{font-size:1.3rem;margin:2em 0 .3em;padding-top:.6em;
border-top:2px solid var(--line)}h3{font-size:1.05rem;margin:1.6em 0 .5em}
p{margin:.4em 0}.soft,figcaption{color:var(--soft);font-size:.85rem}
.warn{background:var(--warn-bg);color:var(--warn-fg);padding:.6em .9em;border-radius:6px;
font-weight:600}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch;border:1px solid var(--line);
border-radius:6px}
table{border-collapse:collapse;font-size:.84rem;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.38em .6em;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
tr:last-child>*{border-bottom:0}thead th{background:var(--card);font-weight:600}
th:first-child{text-align:left;position:sticky;left:0;background:var(--bg)}
thead th:first-child{background:var(--card)}.words{text-align:left}
.parts thead th,.parts td.words{white-space:normal;overflow-wrap:normal;min-width:8.5em}
.parts thead th{vertical-align:bottom}.parts thead th:nth-child(2):not(.words){min-width:0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,230px),1fr));gap:10px;
margin:1em 0}.card{background:var(--card);border-radius:6px;padding:.6em .9em}
.card b{display:block;font-size:1.25rem}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:14px}
figure{margin:0;min-width:0}svg{display:block;width:100%;height:auto}
.matrix thead th+th{text-align:center}
.matrix td{text-align:center;min-width:2.6em}.matrix td.none{color:var(--soft);opacity:.5}
details{border:1px solid var(--line);border-radius:6px;padding:.4em .8em;margin:.5em 0}
summary{cursor:pointer}dl{margin:.5em 0;font-size:.84rem}dt{color:var(--soft)}dd{margin:0 0 .5em}
code{font:0.95em ui-monospace,monospace;white-space:pre-wrap}
"""


def html(
    data: ReportData, figures: Sequence[Sequence[Figure]], parts: Sequence[Sequence[Part]]
) -> str:
    """Return the whole page.

    Args:
        data: what to tell.
        figures: for each section, its figures.
        parts: for each section, its parts.
    """
    body = "".join(map(_section, data.sections, figures, parts))
    if data.origins:
        body += f"<h2>Devices</h2>{''.join(map(_origin, data.origins))}"
    if data.left_out:
        items = "".join(f"<li>{escape(n)}: {escape(why)}</li>" for n, why in data.left_out)
        body += f"<h2>Left out</h2><ul>{items}</ul>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # Even if something slipped through the escaping, nothing would run or be fetched.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        f"<title>bloodedge report</title><style>{_CSS}</style></head><body>"
        f'<h1>bloodedge report</h1><p class="soft">Written by bloodedge {__version__}.</p>'
        f"{body}</body></html>\n"
    )


def _section(section: Section, figures: Sequence[Figure], more: Sequence[Part]) -> str:
    parts = [
        f"<h2>{escape(section.title)}</h2>",
        f'<p class="soft">{escape(origin_line(section))}</p>',
        f'<p class="warn">{SYNTHETIC}</p>' if section.synthetic else "",
        _cards(section),
        "<h3>Comparison</h3>",
        _comparison(section),
        f'<p class="soft">{NOTES}</p>',
        *map(_part, more),
        _compared([figure for figure in figures if not figure.curve]),
        _by_class(section),
        _matrices(section),
        _plots("<h3>Learning curves</h3>", [figure for figure in figures if figure.curve]),
        "<h3>How each was made</h3>" if section.origins else "",
        *map(_origin, section.origins),
    ]
    return "".join(parts)


def _part(part: Part) -> str:
    """Return a table with its notes; long headings and words take several lines."""
    table = _table(part.table, part.words, " parts") if part.table else ""
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in part.notes)
    return f"<h3>{escape(part.heading)}</h3>{table}{notes}{_plots('', part.figures)}"


def _comparison(section: Section) -> str:
    """Model and variant share a column, which stays in sight while the others scroll."""
    rows = [COLUMNS, *(cells(row, section.class_names) for row in section.rows)]
    joined = [[f"{model} {variant}", *rest] for model, variant, *rest in rows]
    return _table(joined, words=frozenset({0, 1, len(COLUMNS) - 2}))


def _compared(figures: Sequence[Figure]) -> str:
    return _plots("", figures) + (f'<p class="soft">{PARETO}</p>' if figures else "")


def _plots(head: str, figures: Sequence[Figure]) -> str:
    plots = "".join(f"<figure>{figure.svg}</figure>" for figure in figures)
    return f'{head}<div class="grid">{plots}</div>' if plots else ""


class _Card(NamedTuple):
    """The answer to a question that most readers have."""

    what: str
    value: str
    row: Row
    scores: Scores


def _cards(section: Section) -> str:
    """Return the answers most readers look for: the best, the smallest, the fastest."""
    cards = "".join(
        f'<div class="card"><span class="soft">{escape(what)}</span><b>{value}</b>'
        f"{escape(row.label)}"
        f'<div class="soft">{accuracy(scores)} % on {scores.split}{_kept(section, row, scores)}'
        "</div></div>"
        for what, value, row, scores in (*_best(section), *_fastest(section))
    )
    return f'<div class="cards">{cards}</div>' if cards else ""


def _best(section: Section) -> Iterator[_Card]:
    """Yield the most accurate and the smallest; the table may name smaller ones without scores."""
    if scored := section.scored:
        row, scores = max(scored, key=lambda pair: (pair[1].accuracy, -pair[0].bytes))
        yield _Card("most accurate", f"{percent(scores.accuracy)} %", row, scores)
        row, scores = min(scored, key=lambda pair: pair[0].bytes)
        less = any(other.bytes < row.bytes for other in section.models)
        what = f"smallest of those evaluated on {scores.split}" if less else "smallest"
        yield _Card(what, f"{kilobytes(row.bytes)} KB", row, scores)


def _fastest(section: Section) -> Iterator[_Card]:
    """Yield the fastest in each place: what was timed elsewhere or otherwise is another race."""
    races: dict[str, list[tuple[Row, Timing]]] = {}
    for row in section.rows:
        if row.latency and (timing := single(row.latency)):
            races.setdefault(row.latency.place, []).append((row, timing))
    for place, race in races.items():
        doubts = dict.fromkeys(filter(None, (doubt(timing) for _, timing in race)))
        # Of equals the last is the smallest.
        ranked = [
            (row, row.scores, timing)
            for row, timing in reversed(race)
            if row.scores and not timing.row.drift and not doubt(timing)
        ]
        if ranked:
            row, scores, best = min(ranked, key=lambda item: _us(item[2]))
            what = f"fastest{_limits([pair for pair in race if _us(pair[1]) < _us(best)])}"
            notes = ["one thread", place if len(races) > 1 else ""]
            notes += [doubt(*(timing for *_, timing in ranked))]
            notes += [f"not ranked: {' and '.join(doubts)}"] if doubts else []
            said = ", ".join([what, *filter(None, notes)])
            yield _Card(said, f"{micros(_us(best))} µs", row, scores)


def _us(timing: Timing) -> float:
    return timing.row.median_us or 0.0


def _limits(faster: Sequence[tuple[Row, Timing]]) -> str:
    """Return what the fastest is the fastest of, where others took less."""
    limits = " of the evaluated" if any(not row.scores for row, _ in faster) else ""
    return limits + (" without †" if any(timing.row.drift for _, timing in faster) else "")


def _kept(section: Section, row: Row, scores: Scores) -> str:
    """Return how a model compares with the largest one on the same images, if it is another."""
    largest, best = max(section.scored, key=lambda pair: pair[0].bytes, default=(row, scores))
    if largest.sha256 == row.sha256 or scores.split != best.split:
        return ""
    points = 100 * (scores.accuracy - best.accuracy)
    times = largest.bytes / max(row.bytes, 1)
    return f"; {points:+.2f} points and 1/{times:,.0f} of the size of {escape(largest.label)}"


def _table(
    rows: Sequence[Sequence[str]], words: frozenset[int] = frozenset({0}), kind: str = ""
) -> str:
    def line(row: Sequence[str], head: bool) -> str:
        tags = ["th" if head or i == 0 else "td" for i in range(len(row))]
        kinds = [' class="words"' if i in words else "" for i in range(len(row))]
        return "".join(
            f"<{tag}{kind}>{escape(cell)}</{tag}>"
            for tag, kind, cell in zip(tags, kinds, row, strict=True)
        )

    head, *body = rows
    lines = "".join(f"<tr>{line(row, False)}</tr>" for row in body)
    return (
        f'<div class="scroll{kind}"><table><thead><tr>{line(head, True)}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _by_class(section: Section) -> str:
    parts = [
        f"<figure><figcaption>{escape(row.label)}, {scores.split}</figcaption>"
        f"{_table(class_table(scores, section.class_names))}</figure>"
        for row, scores in section.best
    ]
    head = "<h3>By class, the best of each family</h3>"
    return f'{head}<div class="grid">{"".join(parts)}</div>' if parts else ""


def _matrices(section: Section) -> str:
    if not section.scored or len(section.class_names) > _MAX_MATRIX:
        return ""
    parts = [
        f"<details{' open' if (row, scores) in section.best else ''}>"
        f"<summary>{escape(row.label)}: {accuracy(scores)} % on {scores.split}</summary>"
        f"{_matrix(scores, section.class_names)}</details>"
        for row, scores in section.scored
    ]
    what = "Rows are the true class, columns the predicted one; colour is the share of the row."
    return f'<h3>Confusion matrices</h3><p class="soft">{what}</p><div>{"".join(parts)}</div>'


def _matrix(scores: Scores, names: Sequence[str]) -> str:
    numbers = "".join(f"<th>{i + 1}</th>" for i in range(len(names)))
    lines = []
    for i, (name, row) in enumerate(zip(names, scores.confusion, strict=True)):
        filled = "".join(_heat(n, n / max(sum(row), 1), f"{name} as {names[j]}")
                         for j, n in enumerate(row))  # fmt: skip
        lines.append(f"<tr><th>{i + 1} {escape(name)}</th>{filled}</tr>")
    return (
        f'<div class="scroll"><table class="matrix"><thead><tr><th>true / predicted</th>{numbers}'
        f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _heat(images: int, share: float, meaning: str) -> str:
    if not images:
        return '<td class="none">·</td>'
    # Even a single image off the diagonal should catch the eye.
    strength = 0.12 + 0.6 * share
    style = f"background:rgba(var(--heat),{strength:.2f})"
    return f'<td style="{style}" title="{escape(meaning)}">{images:,}</td>'


def _origin(origin: Origin) -> str:
    facts = "".join(
        f"<dt>{escape(name)}</dt><dd><code>{escape(text)}</code></dd>"
        for name, text in origin.facts
    )
    return (
        f"<details><summary>{escape(origin.run)} ({escape(origin.kind)})</summary>"
        f"<dl>{facts}</dl></details>"
    )
