"""What a chain's budgets will leave, found before anything is trained."""

from __future__ import annotations

from typing import Any

from bloodedge.compress.chain.recipe import RecipeConfig
from bloodedge.compress.channels.budget import Budget
from bloodedge.compress.channels.graph import trace
from bloodedge.compress.channels.importance import criterion
from bloodedge.compress.channels.plan import make_plan
from bloodedge.compress.channels.surgery import cut
from bloodedge.data.dataset import Dataset
from bloodedge.errors import BloodedgeError
from bloodedge.references import find_keras
from bloodedge.train.registry import ModelConfig, build
from bloodedge.train.restore import restore_for
from bloodedge.variants import Step

_KINDS = {"": "macs", "kb": "kb", "ch": "ratio"}


def first_model(config: RecipeConfig, data: Dataset) -> Any:
    """Return the model that the chain starts from: the source, or a student with fresh weights.

    Raises:
        ModelError: the source is missing, damaged, or does not fit the data.
    """
    if not config.begins_anew:
        return restore_for(find_keras(config.source), data, "model")
    return build(
        ModelConfig(config.student, len(data.class_names), data.size, config.width), size=data.size
    )


def forecast(config: RecipeConfig, data: Dataset) -> Any:
    """Return a model of the size that the chain ends with; its weights mean nothing.

    How far channels can be cut depends on the layers alone, so each `slim` is tried here, with
    weights that are at hand instead of those that will be trained.

    Raises:
        ConfigError: a budget that cannot be met, or is met already; with the smallest reachable.
        ModelError: the source does not fit the data, or has a layer that cannot be cut around.
    """
    model = first_model(config, data)
    for step in config.steps:
        if step.kind == "slim":
            model = _slimmer(model, step, config, data)
    return model


def _slimmer(model: Any, step: Step, config: RecipeConfig, data: Dataset) -> Any:
    kind = _KINDS[step.unit]
    amount = step.amount or 0.0
    budget = Budget(kind, amount if kind == "kb" else amount / 100)
    # Ranking by gradients would run the model; what can be ranked is the same.
    quick = "bn" if config.importance == "bn" else "l1"
    try:
        graph = trace(model)
        scores = criterion(quick)(graph, data["train"], config.seed)
        plan = make_plan(graph, scores, budget, config.floor)
    except BloodedgeError as error:
        raise type(error)(f"the step {step.text}: {error}") from error
    return cut(graph, graph.mask(plan.kept))


def check_teachers(config: RecipeConfig, data: Dataset) -> None:
    """Refuse teachers that do not fit the data.

    Raises:
        ModelError: one is missing, damaged, or has other classes or images.
    """
    for name in config.teaching.teachers if config.teaching else ():
        restore_for(find_keras(name), data, "teacher")
