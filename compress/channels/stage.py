"""`bloodedge prune --channels`: a model with fewer channels, fine-tuned, as a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bloodedge.compress.channels.budget import Budget
from bloodedge.compress.channels.graph import ChannelGraph, trace
from bloodedge.compress.channels.importance import criterion
from bloodedge.compress.channels.labels import Ids
from bloodedge.compress.channels.plan import Plan, describe, make_plan
from bloodedge.compress.channels.surgery import cut
from bloodedge.compress.teaching import TeachingConfig, parents, teach
from bloodedge.console import say
from bloodedge.data.dataset import Dataset, Split
from bloodedge.errors import BloodedgeError, ConfigError, RunError
from bloodedge.files import read_json, write_json
from bloodedge.references import find_keras
from bloodedge.runs import Run, Stopwatch, check_name, open_resumable
from bloodedge.text import kilobytes
from bloodedge.train.architecture import Ready
from bloodedge.train.checkpoint import has_checkpoint, refuse_changes
from bloodedge.train.config import FitConfig
from bloodedge.train.loop import FitResult, predict_logits
from bloodedge.train.renorm import IMAGES, renorm
from bloodedge.train.restore import restore_for
from bloodedge.train.stage import Fitted, commit_run, fit_run

KIND = "prune"
PLAN_FILE = "plan.json"
# What shaped the plan, in that file.
_SETTINGS = "settings"


@dataclass(frozen=True)
class PruneConfig:
    """What `bloodedge prune --channels` cuts, and how far.

    Attributes:
        model: a run's name, a path, or a model of the zoo.
        name: the run to write.
        fit: how the cut model is fine-tuned.
        macs: the share of multiply-accumulates to keep,
        kb: or how many KB of int8 weights (see `size.py`),
        ratio: or the share of the channels; exactly one of the three.
        importance: `l1`, `bn` or `taylor`: what ranks the channels.
        floor: the share of its channels that every group keeps at least.
        fine_tune: whether to fine-tune at all.
        renorm: whether batch norm's statistics are taken anew after the cut.
        teaching: whose logits to fine-tune towards, beside the labels; None for labels alone.
        force: replace a run of that name.
        resume: continue an interrupted run.

    Raises:
        ConfigError: no budget or several, or a value out of range.
        RunError: a name that no run can have.
    """

    model: str
    name: str
    fit: FitConfig
    macs: float | None = None
    kb: float | None = None
    ratio: float | None = None
    importance: str = "taylor"
    floor: float = 0.1
    fine_tune: bool = True
    teaching: TeachingConfig | None = None
    force: bool = False
    resume: bool = False
    renorm: bool = True

    def __post_init__(self) -> None:
        check_name(self.name)
        criterion(self.importance)
        _ = self.budget
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"--floor {self.floor}", expected="0 to 1")
        if self.fit.progressive:
            raise ConfigError("a pruned model is tied to one image size", fix="drop --progressive")
        if self.teaching and not self.fine_tune:
            raise ConfigError("a teacher without fine-tuning", fix="drop --teacher or --epochs 0")

    @property
    def budget(self) -> Budget:
        """What may stay."""
        limits = {"macs": self.macs, "kb": self.kb, "ratio": self.ratio}
        given = [Budget(kind, value) for kind, value in limits.items() if value is not None]
        if len(given) != 1:
            raise ConfigError(f"{len(given)} budgets", expected="one of --macs, --kb and --ratio")
        return given[0]


def plan_channels(config: PruneConfig, data: Dataset) -> Plan:
    """Return what `prune_channels` would cut, without writing anything.

    Raises:
        ModelError: the model is missing, damaged, does not fit the data, or cannot be followed.
        ConfigError: the budget cannot be met.
    """
    model = restore_for(find_keras(config.model), data, "model")
    return _plan(config, trace(model), data["train"])


def prune_channels(config: PruneConfig, data: Dataset) -> Run:
    """Cut channels out of a trained model, fine-tune what is left, and write its run folder.

    The folder holds `plan.json` beside what training leaves: which channels stayed, each layer's
    costs before and after, and val accuracy between the cut and the fine-tuning, without and with
    new statistics of batch norm.

    Raises:
        ModelError: as `plan_channels`; or the teacher is missing, damaged, or does not fit.
        ConfigError: the budget cannot be met.
        DataError: the plan of an interrupted run is damaged.
        RunError: the run exists, or cannot be resumed.
    """
    watch = Stopwatch()
    reference = find_keras(config.model)
    teachers = parents(config.teaching)
    with open_resumable(config, reads=(reference.sha256, *teachers.values())) as run:
        graph = trace(restore_for(reference, data, "model"))
        settings = _settings(config, reference.sha256, data)
        net, plan = _cut(config, settings, graph, data, run.path / PLAN_FILE)
        what = Fitted(
            KIND,
            teach(config.teaching, data, config.fit),
            Ready(net, reference.manifest.get("model", {})),
            config.fit,
            {**asdict(config), "plan": plan},
            {"parent": reference.sha256, **teachers},
        )
        if config.fine_tune:
            return fit_run(what, data, run)
        return commit_run(what, net, FitResult(0, [], watch.seconds(), 0), data, run)


def _plan(config: PruneConfig, graph: ChannelGraph, train: Split) -> Plan:
    scores = criterion(config.importance)(graph, train, config.fit.seed)
    return make_plan(graph, scores, config.budget, config.floor)


def _settings(config: PruneConfig, parent: str, data: Dataset) -> dict[str, Any]:
    """Return what shapes a plan, and so must be the same when its run is continued."""
    named = ("macs", "kb", "ratio", "importance", "floor", "renorm")
    chosen = {name: getattr(config, name) for name in named}
    return {**chosen, "seed": config.fit.seed, "parent": parent, "data": data.fingerprint}


def _plan_of_before(
    config: PruneConfig, settings: Mapping[str, Any], path: Path
) -> dict[str, Any] | None:
    """Return the plan that an interrupted run was started with; None if one is to be made.

    Raises:
        DataError: it cannot be read.
        RunError: other settings shaped it.
    """
    if not path.exists():
        return None
    written = read_json(path)
    if isinstance(before := written.get(_SETTINGS), dict):
        refuse_changes(before, settings)
        return written
    # An earlier version did not write what shaped its plans. A checkpoint of it did: it is
    # compared before training goes on.
    return written if config.fine_tune and has_checkpoint(path.parent) else None


def _cut(
    config: PruneConfig,
    settings: Mapping[str, Any],
    graph: ChannelGraph,
    data: Dataset,
    path: Path,
) -> tuple[Any, dict[str, Any]]:
    """Return the cut model and what the manifest records of the plan.

    A run that is continued takes the plan it was started with: importance may round differently on
    another machine.
    """
    before = _plan_of_before(config, settings, path)
    if before is not None:
        net = cut(graph, graph.mask(_read_kept(graph, before, path)))
        _renorm(config, net, data["train"])
        return net, _recorded(before)
    plan = _plan(config, graph, data["train"])
    net = cut(graph, graph.mask(plan.kept))
    accuracy = _accuracy(net, data["val"])
    written = {**plan.to_json(), _SETTINGS: settings, "val_accuracy_after_cut": accuracy}
    note = f"val accuracy {accuracy:.4f} after the cut"
    if _renorm(config, net, data["train"]):
        accuracy = written["val_accuracy_after_renorm"] = _accuracy(net, data["val"])
        note += f", {accuracy:.4f} with batch norm's statistics taken anew"
    totals = plan.totals()
    say(
        f"{config.name}: MACs {totals['macs']:,} -> {totals['macs_left']:,}, int8 weights "
        f"{kilobytes(totals['bytes'])} -> {kilobytes(totals['bytes_left'])} KB, {note}"
    )
    write_json(path, written)
    return net, _recorded(written)


def _renorm(config: PruneConfig, net: Any, train: Split) -> int:
    """Take batch norm's statistics anew, if asked for; return how many layers have some."""
    if not config.renorm:
        return 0
    # Left in the drawn order: where train is sorted by class, so would be the batches.
    index = np.random.default_rng(config.fit.seed).permutation(len(train))[:IMAGES]
    return renorm(net, train.images[index])


def _accuracy(net: Any, val: Split) -> float:
    logits = predict_logits(net, val.images, label="val after the cut")
    return float((logits.argmax(axis=1) == val.labels).mean())


def _recorded(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the manifest has of a plan: its settings are there already, places are many."""
    return {key: value for key, value in written.items() if key not in ("kept", _SETTINGS)}


def _read_kept(graph: ChannelGraph, written: Mapping[str, Any], path: Path) -> dict[str, Ids]:
    try:
        kept = {str(name): np.array(places) for name, places in written["kept"].items()}
        describe(graph, kept)
    except (BloodedgeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} does not fit {graph.model.name}: {error}",
            fix="start over with --force and without --resume",
        ) from error
    return kept
