"""From the steps of a recipe to the stages that do them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bloodedge.compress.chain.link import Link
from bloodedge.compress.chain.recipe import RecipeConfig
from bloodedge.compress.channels.stage import PruneConfig, prune_channels
from bloodedge.compress.clustering import ClusterConfig, cluster
from bloodedge.compress.distill import DistillConfig, distill
from bloodedge.compress.quantize import QatConfig, quantize
from bloodedge.compress.sparsity import SparsityConfig, sparsify
from bloodedge.train.recipes import cluster_tuning, fine_tuning, fit_config, qat_tuning
from bloodedge.variants import Step

# Everything about one step that its configuration depends on.
Maker = Callable[[RecipeConfig, Step, str, str], Link]


def training_links(config: RecipeConfig) -> list[Link]:
    """Return the steps that train, each starting from the one before.

    Nothing is read but the source's manifest, so that settings are refused before any work.

    Raises:
        ConfigError: a setting out of range.
        ModelError: the source is missing.
    """
    links: list[Link] = []
    variant, parent = config.start, config.source
    for step in config.steps:
        variant = variant.then(step)
        links.append(_MAKERS[step.kind](config, step, variant.text, parent))
        parent = variant.text
    return links


def _kd(config: RecipeConfig, step: Step, name: str, parent: str) -> Link:
    fit = fit_config("strong", config.student, **config.of("kd"))
    teaching = config.teaching
    if teaching is None:
        raise TypeError("kd without a teacher")
    distilled = DistillConfig(teaching, config.student, fit, name, config.width)
    return Link(step.text, distilled, distill, teaching=teaching)


def _slim(config: RecipeConfig, step: Step, name: str, parent: str) -> Link:
    options: dict[str, Any] = config.of("slim")
    trains = config.trains("slim")
    fit = fine_tuning(**options | {"epochs": options["epochs"] or None})
    amount = step.amount or 0.0
    slim = PruneConfig(
        parent,
        name,
        fit,
        macs=None if step.unit else amount / 100,
        kb=amount if step.unit == "kb" else None,
        ratio=amount / 100 if step.unit == "ch" else None,
        importance=config.importance,
        floor=config.floor,
        fine_tune=trains,
        teaching=config.teaching if trains else None,
    )
    return Link(step.text, slim, prune_channels, parent, slim.teaching)


def _sparse(config: RecipeConfig, step: Step, name: str, parent: str) -> Link:
    fours = step.kind == "2of4"
    sparse = SparsityConfig(
        parent,
        name,
        fine_tuning(**config.of(step.kind)),
        config.teaching,
        pattern="2:4" if fours else "unstructured",
        sparsity=0.5 if fours else (step.amount or 0.0) / 100,
    )
    return Link(step.text, sparse, sparsify, parent, config.teaching)


def _cluster(config: RecipeConfig, step: Step, name: str, parent: str) -> Link:
    clustered = ClusterConfig(
        parent,
        name,
        cluster_tuning(**config.of("cluster")),
        config.teaching,
        clusters=int(step.amount or 0),
    )
    return Link(step.text, clustered, cluster, parent, config.teaching)


def _qat(config: RecipeConfig, step: Step, name: str, parent: str) -> Link:
    fit = qat_tuning(**config.of("qat"))
    qat = QatConfig(parent, fit, name, config.teaching, per_class=config.per_class)
    return Link(step.text, qat, quantize, parent, config.teaching)


_MAKERS: dict[str, Maker] = {
    "kd": _kd,
    "slim": _slim,
    "sparse": _sparse,
    "2of4": _sparse,
    "cluster": _cluster,
    "qat": _qat,
}
