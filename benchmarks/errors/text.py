"""The recorded errors as Markdown, as the lines of a CSV file, and as sheets of cells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bloodedge.benchmarks.errors.found import CONFIDENT, MIN_MODELS
from bloodedge.benchmarks.report.text import md
from bloodedge.data.dataset import Images
from bloodedge.deploy.gallery import MAX_CELLS, contact_sheet
from bloodedge.metrics import wilson_interval

HEADER = ("index", "truth", "likely_label_error", "wrong", "other", "agree")
RULE = (
    f"Likely label error: all of at least {MIN_MODELS} models say the same class, it is not the "
    f"label, and each gives it a probability of at least {CONFIDENT}."
)
_SHORT = 16
_SHEET = re.compile(r"gallery-(0[1-9]|[1-9][0-9]+)\.png")


def table_rows(found: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """Yield a line for each misread image; after `HEADER`, each model's class and probability."""
    names = found["data"]["class_names"]
    for one in found["misread"]:
        said = (x for c, p in one["said"].values() for x in (names[c], f"{p:.4f}"))
        likely = "yes" if one["likely_label_error"] else ""
        other = names[one["other"]]
        yield one["index"], names[one["truth"]], likely, one["wrong"], other, one["agree"], *said


def render(found: Mapping[str, Any]) -> str:
    """Return the recorded JSON as Markdown."""
    data, misread = found["data"], found["misread"]
    note = "**synthetic data**, drawn cells; " if data["synthetic"] else ""
    likely = [one for one in misread if one["likely_label_error"]]
    lines = [
        "# The errors that remain",
        "",
        f"`{found['command']}`",
        "",
        f"{note}{data['title']}: {found['images']:,} {found['split']} images at "
        f"{data['size']}x{data['size']}. {len(misread)} of them are misread by at least one of "
        f"{len(found['models'])} models, {_by_all(found)} by all.",
        "Indices count the split's images from 0; probabilities are those of the class that is "
        "said.",
        "",
        *_models(found),
        "",
        "## Likely label errors",
        "",
        RULE,
        f"{len(likely)} of {len(misread)}. Nobody has looked at them: models that learnt from the "
        "same images can also be wrong together.",
        "",
        *_table(found, likely),
        "",
        "## What is taken for what",
        "",
        *_pairs(found),
        "",
        "## The other misread images",
        "",
        *_table(found, [one for one in misread if not one["likely_label_error"]]),
    ]
    return "\n".join(lines) + "\n"


def _by_all(found: Mapping[str, Any]) -> int:
    return sum(one["wrong"] == len(found["models"]) for one in found["misread"])


def _models(found: Mapping[str, Any]) -> list[str]:
    """Return how many images each model misreads, and how many it alone does."""
    total = found["images"]
    wrong: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    for one in found["misread"]:
        mistaken = [name for name, (c, _) in one["said"].items() if c != one["truth"]]
        wrong.update(mistaken)
        alone.update(mistaken if len(mistaken) == 1 else [])
    lines = ["| model | misread | only by it | accuracy, % |", "| --- | --- | --- | --- |"]
    for name in found["models"]:
        right = total - wrong[name]
        low, high = (100 * share for share in wilson_interval(right, total))
        share = f"{100 * right / total:.2f} [{low:.2f}, {high:.2f}]"
        lines.append(f"| `{name}` | {wrong[name]} | {alone[name]} | {share} |")
    return lines


def _pairs(found: Mapping[str, Any]) -> list[str]:
    names, models = [md(name) for name in found["data"]["class_names"]], list(found["models"])
    heads = " | ".join(f"`{model}`" for model in models)
    lines = [
        f"| label | read as | images | {heads} |",
        "| --- | --- | --- " + "| --- " * len(models) + "|",
    ]
    for pair in found["pairs"]:
        counts = " | ".join(str(pair["by_model"].get(model, 0)) for model in models)
        kinds = f"{names[pair['truth']]} | {names[pair['said']]}"
        lines.append(f"| {kinds} | {pair['images']} | {counts} |")
    return lines


def _table(found: Mapping[str, Any], misread: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each image; a model that is right is shown by its probability alone."""
    if not misread:
        return ["None."]
    names, models = [md(name) for name in found["data"]["class_names"]], list(found["models"])
    heads = " | ".join(f"`{model}`" for model in models)
    lines = [
        f"| index | label | misread by | most say | {heads} |",
        "| --- | --- | --- | --- " + "| --- " * len(models) + "|",
    ]
    for one in misread:
        said = (
            f"{p:.2f}" if c == one["truth"] else f"{names[c]} {p:.2f}"
            for c, p in (one["said"][model] for model in models)
        )
        most = f"{names[one['other']]} ({one['agree']})"
        kind = names[one["truth"]]
        lines.append(f"| {one['index']} | {kind} | {one['wrong']} | {most} | {' | '.join(said)} |")
    return lines


def draw_gallery(found: Mapping[str, Any], images: Images, folder: Path) -> list[Path]:
    """Draw every misread image, in the order of the tables, and return the sheets' paths.

    Below the label and what most say instead stands each model's probability in the tables' order:
    `+` before it where the model says the label, `?` where it says a third class.

    Sheets of an earlier, longer gallery are deleted.
    """
    for old in folder.glob("gallery-*.png"):
        # Others are not ours.
        if _SHEET.fullmatch(old.name):
            old.unlink()
    names, paths = found["data"]["class_names"], []
    note = "synthetic data, " if found["data"]["synthetic"] else ""
    misread = found["misread"]
    for start in range(0, len(misread), MAX_CELLS):
        part = misread[start : start + MAX_CELLS]
        captions = [_caption(one, names, len(found["models"])) for one in part]
        path = folder / f"gallery-{start // MAX_CELLS + 1:02d}.png"
        title = (
            f"{note}{found['split']}: label; what most models say instead; each model, + the "
            f"label, ? a third class; {start + 1} to {start + len(part)} of {len(misread)}"
        )
        contact_sheet([images[one["index"]] for one in part], captions, title, path)
        paths.append(path)
    return paths


def _caption(one: Mapping[str, Any], names: Sequence[str], models: int) -> str:
    sure = max(p for c, p in one["said"].values() if c == one["other"])
    head = f"{one['index']}{' label?' if one['likely_label_error'] else ''}"
    other = f"{names[one['other']][:_SHORT]} {sure:.2f}"
    marks = {one["truth"]: "+", one["other"]: ""}
    each = " ".join(f"{marks.get(c, '?')}{p:.2f}" for c, p in one["said"].values())
    return f"{head} {names[one['truth']][:_SHORT]}\n{one['agree']}/{models} {other}\n{each}"
