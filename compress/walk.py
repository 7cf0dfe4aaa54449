"""The calls in a model's graph, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bloodedge.errors import ModelError
from bloodedge.train.graph import find_graph, nodes


def graph_of(model: Any) -> Any:
    """Return the functional graph of a model.

    Raises:
        ModelError: it has none, or several inputs or outputs.
    """
    graph = find_graph(model)
    if graph is None or len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ModelError(
            f"the graph of {model.name} cannot be followed",
            expected="a functional or sequential Keras model with one input and one output",
        )
    return graph


def calls(model: Any) -> Iterator[Any]:
    """Return the node of every call of a layer or operation, inputs before outputs.

    Raises:
        ModelError: as `graph_of`.
    """
    return nodes(graph_of(model))
