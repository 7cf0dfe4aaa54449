"""Accuracy against strength: a panel for each corruption, a line for each model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bloodedge.benchmarks.robustness.cells import CLEAN
from bloodedge.figures import new_figure, save_figure

_MOST_COLUMNS = 5
_MARKS = "osD^vPX*"


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw the recorded accuracies; strength 0 are the images as they are."""
    corruptions, total = found["corruptions"], found["images"]
    # The last place is the legend's.
    places = len(corruptions) + 1
    rows = math.ceil(places / _MOST_COLUMNS)
    columns = math.ceil(places / rows)
    figure = new_figure(3 * columns, 2.6 * rows + 0.4)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).reshape(-1)
    strengths = range(found["strengths"] + 1)
    for panel, corruption in zip(panels, corruptions, strict=False):
        for place, (model, counted) in enumerate(found["correct"].items()):
            counts = [*counted[CLEAN], *counted[corruption["name"]]]
            shares = [100 * count / total for count in counts]
            mark = _MARKS[place % len(_MARKS)]
            # A dollar would begin a formula.
            name = model.replace("$", r"\$")
            panel.plot(strengths, shares, marker=mark, markersize=4, linewidth=1.2, label=name)
        panel.set_title(corruption["name"], fontsize=10)
        panel.set_xticks(strengths)
        panel.grid(alpha=0.3)
        panel.tick_params(labelbottom=True)
    for panel in panels[len(corruptions) :]:
        panel.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    panels[-1].legend(handles, labels, loc="center", fontsize=9, frameon=False)
    figure.supxlabel("strength, 0 is clean", fontsize=10)
    figure.supylabel("accuracy, %", fontsize=10)
    note = "synthetic data, " if found["data"]["synthetic"] else ""
    title = f"{note}{found['data']['title']}, {total:,} {found['split']} images"
    figure.suptitle(title, fontsize=11, parse_math=False)
    save_figure(figure, path)
