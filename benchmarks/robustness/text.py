"""The recorded measurement as Markdown and as the lines of a CSV file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bloodedge.benchmarks.robustness.cells import CLEAN
from bloodedge.benchmarks.robustness.summary import ALL
from bloodedge.metrics import wilson_interval

HEADER = (
    "model",
    "file",
    "corruption",
    "strength",
    "value",
    "images",
    "correct",
    "accuracy",
    "low_95",
    "high_95",
)


def table_rows(found: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """Yield a line for each model, corruption and strength; `clean` has strength 0."""
    values = {c["name"]: c["values"] for c in found["corruptions"]}
    total = found["images"]
    for model, counted in found["correct"].items():
        file = found["models"][model]["name"]
        for corruption, counts in counted.items():
            for place, correct in enumerate(counts):
                clean = corruption == CLEAN
                strength, value = (0, "") if clean else (place + 1, values[corruption][place])
                low, high = wilson_interval(correct, total)
                shares = (f"{share:.6f}" for share in (correct / total, low, high))
                yield model, file, corruption, strength, value, total, correct, *shares


def idle_strengths(strengths: Sequence[int], size: int) -> str:
    """Say which strengths of a corruption change no image of a side."""
    named = ", ".join(map(str, strengths))
    return f"images of {size} pixels a side are as they were at strength {named}, and in the means"


def _note(corruption: Mapping[str, Any], size: int) -> list[str]:
    idle = corruption.get("without_effect")
    return ["", f"{idle_strengths(idle, size).capitalize()}."] if idle else []


def render(found: Mapping[str, Any], stem: str = "robustness") -> str:
    """Return the recorded JSON as Markdown; the files beside it are called by the stem."""
    data, first = found["data"], next(iter(found["models"]))
    note = "**synthetic data**, drawn cells; " if data["synthetic"] else ""
    lines = [
        "# Robustness after compression",
        "",
        f"`{found['command']}`",
        "",
        f"{note}{data['title']}: {found['images']:,} {found['split']} images at {data['size']}x"
        f"{data['size']}, seed {found['seed']}, strengths 1 to",
        f"{found['strengths']}, accuracies in percent. `drop` is the clean accuracy less the mean "
        "over corruptions and",
        "strengths, in points. The last two columns say how much more accurate than the first "
        "model each is",
        "and how much more it drops, with 95 % intervals of a bootstrap over images, for which "
        "each image",
        f"keeps all its answers. Every strength: `{stem}.csv`, `{stem}.png`.",
        "",
        "## All corruptions",
        "",
        f"| model | clean | mean | worst | drop | mean against `{first}` | drop against it |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows = found["summary"]
    lines += [_line(r, r["model"], first, clean=True) for r in rows if r["corruption"] == ALL]
    for c in found["corruptions"]:
        values = ", ".join(f"{value:g}" for value in c["values"])
        lines += [
            "",
            f"## {c['name']}",
            "",
            f"{values}: {c['parameter']} ({c['source']}).",
            *_note(c, data["size"]),
            "",
            f"| model | mean | worst | drop | mean against `{first}` | drop against it |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        lines += [_line(r, r["model"], first) for r in rows if r["corruption"] == c["name"]]
    return "\n".join(lines) + "\n"


def _line(row: Mapping[str, Any], model: str, first: str, *, clean: bool = False) -> str:
    cells = [f"`{model}`"]
    cells += [f"{100 * row['clean']:.2f}"] if clean else []
    cells += [f"{100 * row['mean']:.2f}", f"{100 * row['worst']:.2f} ({row['worst_condition']})"]
    cells.append(f"{100 * row['drop']:.2f}")
    for key in ("accuracy_difference", "drop_difference"):
        cells.append("" if model == first else _with_interval(row, key))
    return f"| {' | '.join(cells)} |"


def _with_interval(row: Mapping[str, Any], key: str) -> str:
    low, high = row[f"{key}_95ci"]
    return f"{100 * row[key]:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
