"""Which kernels are pruned or clustered, and why the others are left alone."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bloodedge.compress.walk import calls
from bloodedge.errors import ConfigError, ModelError

HEAD = "classifier head: its few weights decide every class"
STEM = "first layer: its few weights serve all others"
GATE = "attention layer: its few weights can close the gate"
SMALL_GATE = f"1x1 {GATE}"
UNASKED = "not among the layers asked for"
_KINDS = ("Conv2D", "Dense")


@dataclass(frozen=True)
class LayerChoice:
    """One layer with a kernel.

    Attributes:
        name: the layer.
        kind: its class.
        shape: its kernel's, `(H, W, in, out)` or `(in, out)`; empty for other kinds.
        reason: why it is left alone; empty if it is not.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    reason: str = ""


def choose_layers(
    model: Any, wanted: Sequence[str], why_not: Callable[[Any], str]
) -> list[LayerChoice]:
    """Return every layer with a kernel, in the model's order.

    By default left alone: the first and the last, those inside a gate (whatever lies between a
    tensor and what multiplies it: SE, CBAM), and other kinds than `Conv2D` and `Dense`.

    Args:
        model: a functional or sequential Keras 3 model.
        wanted: names of layers to take instead of the default choice.
        why_not: takes a kernel and says why the method cannot change it, if so.

    Raises:
        ConfigError: a wanted layer does not exist, or cannot be changed.
        ModelError: the model's graph cannot be followed, or no layer is left to change.
    """
    before = _ancestors(model)
    kernels = [layer for layer in model.layers if _has_kernel(layer)]

    def refusal(name: str) -> str:
        return why_not(model.get_layer(name).kernel)

    names = {layer.name for layer in kernels}
    gates = _gates(model, before)
    heads = names - set().union(*(before[name] for name in names))
    choices = []
    for layer in kernels:
        first = not before[layer.name] & names
        reason = _reason(layer, first, layer.name in heads, layer.name in gates)
        choices.append(LayerChoice(layer.name, type(layer).__name__, _shape(layer), reason))
    if wanted:
        return _as_wanted(choices, wanted, refusal)
    choices = [replace(c, reason=c.reason or refusal(c.name)) for c in choices]
    if all(choice.reason for choice in choices):
        raise ModelError(
            f"{model.name} has no layer to change: "
            + "; ".join(dict.fromkeys(c.reason for c in choices)),
            fix="name layers with --layer",
        )
    return choices


def _has_kernel(layer: Any) -> bool:
    return any(len(weight.shape) > 1 for weight in layer.weights)


def _shape(layer: Any) -> tuple[int, ...]:
    return tuple(layer.kernel.shape) if type(layer).__name__ in _KINDS else ()


def _reason(layer: Any, first: bool, last: bool, gate: bool) -> str:
    if type(layer).__name__ not in _KINDS:
        return f"{type(layer).__name__}: only kernels of {' and '.join(_KINDS)} are changed"
    if gate:
        small = getattr(layer, "kernel_size", (1, 1)) == (1, 1)
        return SMALL_GATE if small else GATE
    if last:
        return HEAD
    return STEM if first else ""


def _as_wanted(
    choices: list[LayerChoice], wanted: Sequence[str], why_not: Callable[[str], str]
) -> list[LayerChoice]:
    known = {choice.name: choice for choice in choices}
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
            raise ConfigError(
                f"--layer {name!r}: no layer with a kernel has that name",
                fix=f"did you mean {near[0]!r}?" if near else "",
            )
        choice = known[name]
        refusal = why_not(name) if choice.kind in _KINDS else choice.reason
        if refusal:
            raise ConfigError(f"--layer {name!r} cannot be changed: {refusal}")
    return [replace(c, reason="" if c.name in wanted else c.reason or UNASKED) for c in choices]


def _sources(node: Any) -> list[str]:
    """Return the names of the operations that a call takes its inputs from."""
    return [tensor._keras_history.operation.name for tensor in node.input_tensors]


def _ancestors(model: Any) -> dict[str, set[str]]:
    """Return the names of all operations that each one's output depends on."""
    before: dict[str, set[str]] = {}
    for node in calls(model):
        found = before.setdefault(node.operation.name, set())
        for name in _sources(node):
            found |= {name} | before.get(name, set())
    return before


def _gates(model: Any, before: dict[str, set[str]]) -> set[str]:
    """Return the operations between a tensor and a tensor computed from it that multiplies it."""
    found = set()
    for node in calls(model):
        inputs = _sources(node)
        if type(node.operation).__name__ == "Multiply" and len(inputs) == 2:
            for source, gate in (inputs, inputs[::-1]):
                if source in before.get(gate, set()):
                    found |= {n for n in before[gate] | {gate} if source in before.get(n, set())}
    return found
