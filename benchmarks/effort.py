"""What longer training brings: accuracy on val against the epochs, from the runs that are there.

    python -m bloodedge.benchmarks.effort [NAME...] [--out benchmarks/results]

NAME is what `bloodedge report` takes: runs, or a folder where manifests are recorded, such as
`benchmarks/results/manifests`; by default all runs. Only runs of the strong recipe count, whatever
their epochs and seed, alone or with teachers, and of the nets that the names mean today. Work is
three forward passes' multiply-accumulates for each training image and epoch, without the teachers'
own. Each data set has a table of its own. Writes `effort.md` and `effort.svg`. Test is not read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from bloodedge.backend import use_backend
from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.recorded import RESULTS
from bloodedge.benchmarks.report.read import DataEntry, entry, read_data
from bloodedge.benchmarks.report.sources import all_runs, named
from bloodedge.benchmarks.report.text import SYNTHETIC, md, md_table
from bloodedge.compress.targets import KdConfig
from bloodedge.compress.teaching import TeachingConfig
from bloodedge.console import say
from bloodedge.errors import BloodedgeError, DataError
from bloodedge.figures import new_figure, save_figure
from bloodedge.files import write_text
from bloodedge.runs import Run, runs_root
from bloodedge.train.config import switched_on
from bloodedge.train.cost import STEP_OVER_FORWARD, Cost, model_cost
from bloodedge.train.recipes import fit_config
from bloodedge.train.registry import ModelConfig, blueprint, models

STEM = "effort"
# What a run's settings call its model: a student that is taught, a model, or a design's candidate.
_MODEL = ("student", "model", "candidate")
_HEAD = (
    "model",
    "taught by",
    "epochs",
    "runs",
    "work, TMAC",
    "val accuracy, %",
    "lowest to highest",
)


class Effort(NamedTuple):
    """What the lines of one model and way of teaching have in common: the data, too.

    Attributes:
        model: a registered model.
        teachers: what taught it and how; empty for labels alone.
        data: the data set's fingerprint.
    """

    model: str
    teachers: str
    data: str


class Found(NamedTuple):
    """A finished run: its epochs, its accuracy on val in percent, and its work in MACs."""

    epochs: int
    accuracy: float
    work: int


def effort_of(run: Run) -> tuple[Effort, Found] | None:
    """Return what a run tells; None if it is no training by the strong recipe.

    Raises:
        DataError: the manifest lacks a field of such a run.
    """
    config = entry(run.manifest, "config")
    fit = entry(config, "fit")
    model = str(next((config[key] for key in _MODEL if key in config), ""))
    if run.manifest["kind"] not in ("train", "distill") or model not in models():
        return None
    if config.get("width", 1.0) != 1.0 or config.get("init"):
        return None
    try:
        strong = json.loads(json.dumps(asdict(fit_config("strong", model))))
        if _lasting(fit) != _lasting(strong):
            return None
        fingerprint, _ = read_data(run.manifest)
        data = run.manifest["data"]
        cost = _cost(model, len(data["class_names"]), int(data["size"]))
        if run.manifest["model"]["parameters"] != cost.parameters:
            # Another attention than its own, or a net that the name no longer means.
            return None
        found = Found(
            int(fit["epochs"]),
            100 * float(run.manifest["metrics"]["val"]["accuracy"]),
            STEP_OVER_FORWARD * int(fit["epochs"]) * int(data["images"]["train"]) * cost.macs,
        )
        return Effort(model, _taught(config), fingerprint), found
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{run.name}: its manifest lacks {error}") from error


def _lasting(fit: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that do not change with effort."""
    return {k: v for k, v in switched_on(fit).items() if k not in ("epochs", "seed")}


@cache
def _cost(model: str, classes: int, size: int) -> Cost:
    return model_cost(blueprint(ModelConfig(model, classes, size)))


def _taught(config: Mapping[str, Any]) -> str:
    teaching = entry(config, "teaching")
    if not teaching:
        return ""
    kd = teaching["kd"]
    how = [kd["method"], f"alpha {kd['alpha']:g}"]
    # What is as usual goes without saying.
    if (temperature := kd.get("temperature", KdConfig.temperature)) != KdConfig.temperature:
        how.append(f"T {temperature:g}")
    if (views := teaching.get("views", TeachingConfig.views)) != TeachingConfig.views:
        how.append(f"views {views}")
    how += ["live"] if teaching.get("live") else []
    return f"{' + '.join(teaching['teachers'])} ({', '.join(how)})"


def collected(runs: Iterable[Run]) -> dict[Effort, list[Found]]:
    """Return the runs of each model and way, by epochs; says what is damaged and goes on."""
    groups: dict[Effort, list[Found]] = {}
    for run in runs:
        try:
            told = effort_of(run)
        except BloodedgeError as error:
            say(f"left out {error}")
            continue
        if told:
            groups.setdefault(told[0], []).append(told[1])
    return {key: sorted(groups[key]) for key in sorted(groups)}


def by_epochs(found: Sequence[Found]) -> dict[int, list[Found]]:
    """Return the runs of a group by how long they took."""
    return {n: [one for one in found if one.epochs == n] for n in sorted({f.epochs for f in found})}


def data_sets(runs: Iterable[Run], groups: Iterable[Effort]) -> dict[str, DataEntry]:
    """Return what the manifests say of the groups' data, by fingerprint, by their titles.

    A data set is synthetic where any of them says so.
    """
    wanted = {key.data for key in groups}
    found: dict[str, DataEntry] = {}
    for run in runs:
        with suppress(BloodedgeError):
            fingerprint, data = read_data(run.manifest)
            first = found.setdefault(fingerprint, data)
            found[fingerprint] = first._replace(synthetic=first.synthetic or data.synthetic)
    kept = {key: data for key, data in found.items() if key in wanted}
    return dict(sorted(kept.items(), key=lambda item: (item[1].title, item[0])))


def render(
    groups: Mapping[Effort, list[Found]], data: Mapping[str, DataEntry], command: str
) -> str:
    """Return a table for each data set as Markdown."""
    parts = ["# Accuracy against effort", f"`{command}`"]
    for fingerprint, about in data.items():
        parts.append(f"## {md(about.title)}")
        parts += [f"**{SYNTHETIC}**"] if about.synthetic else []
        rows = [
            _HEAD,
            *(row for key in groups if key.data == fingerprint for row in _rows(key, groups[key])),
        ]
        parts.append(md_table(rows))
    return "\n\n".join(parts) + "\n"


def _rows(key: Effort, found: Sequence[Found]) -> Iterator[Sequence[str]]:
    for epochs, ones in by_epochs(found).items():
        scores = [one.accuracy for one in ones]
        yield (
            key.model,
            key.teachers or "labels alone",
            str(epochs),
            str(len(ones)),
            f"{ones[0].work / 1e12:,.0f}",
            f"{mean(scores):.2f}",
            f"{min(scores):.2f} to {max(scores):.2f}",
        )


def draw(groups: Mapping[Effort, list[Found]], data: Mapping[str, DataEntry], path: Path) -> None:
    """Draw axes for each data set: a line for each model and way, and a point for each run."""
    figure = new_figure(8, 4.6 * len(data))
    axes = figure.subplots(len(data), squeeze=False)[:, 0]
    for axis, (fingerprint, about) in zip(axes, data.items(), strict=True):
        _draw_on(axis, {k: found for k, found in groups.items() if k.data == fingerprint})
        title = f"{about.title}\n{SYNTHETIC}" if about.synthetic else about.title
        axis.set_title(title, fontsize=9, parse_math=False)
    save_figure(figure, path)


def _draw_on(axis: Any, groups: Mapping[Effort, list[Found]]) -> None:
    for place, (key, found) in enumerate(groups.items()):
        colour = f"C{place % 10}"
        means = {n: mean(o.accuracy for o in ones) for n, ones in by_epochs(found).items()}
        label = key.model + (f", taught by {key.teachers}" if key.teachers else "")
        axis.plot(list(means), list(means.values()), color=colour, label=label)
        axis.scatter([o.epochs for o in found], [o.accuracy for o in found], 14, color=colour)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("epochs")
    axis.set_ylabel("val accuracy, %")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def main() -> None:
    """Read the runs and write the table and the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="runs, or folders of manifests")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"[{RESULTS}]")
    args = parser.parse_args()
    sources = named(args.names) if args.names else all_runs([runs_root()])
    for name, why in sources.damaged:
        say(f"left out {name}: {why}")
    use_backend()
    groups = collected(sources.runs)
    if not groups:
        raise DataError("no run by the strong recipe", fix="name runs, or a folder of manifests")
    command = " ".join(["python -m bloodedge.benchmarks.effort", *args.names])
    data = data_sets(sources.runs, groups)
    text = render(groups, data, command)
    draw(groups, data, args.out / f"{STEM}.svg")
    write_text(args.out / f"{STEM}.md", text)
    print(text)


if __name__ == "__main__":
    sys.exit(exit_code(main))
