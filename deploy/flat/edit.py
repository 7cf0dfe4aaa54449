"""Changing the graph of a parsed .tflite."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bloodedge.deploy.flat.operators import code_of, operator_kind
from bloodedge.deploy.flat.tree import Table, Vector
from bloodedge.errors import ModelError


@dataclass(frozen=True)
class Graph:
    """A subgraph of a parsed model, to read and to change in place.

    Attributes:
        model: the table of the model, which holds the operator codes.
        table: the table of the subgraph.
    """

    model: Table
    table: Table

    def kind(self, operator: Table) -> int:
        """Return an operator's builtin code."""
        return operator_kind(code_of(operator, self.model.tables("operator_codes")))

    def tensor(self, index: int) -> Table:
        """Return a tensor.

        Raises:
            ModelError: there is none of this index.
        """
        tensors = self.table.tables("tensors")
        if not 0 <= index < len(tensors):
            raise ModelError(f"the model is damaged: it has no tensor {index}")
        return tensors[index]

    def users(self, index: int) -> int:
        """Return how many operators take a tensor."""
        return sum(index in one.numbers("inputs") for one in self.table.tables("operators"))

    def add_tensor(self, tensor: Table) -> int:
        """Append a tensor and return its index."""
        self.table.fields["tensors"] = [*self.table.tables("tensors"), tensor]
        return len(self.table.tables("tensors")) - 1

    def replace_tensor(self, index: int, tensor: Table) -> None:
        """Put another tensor in a tensor's place."""
        tensors = list(self.table.tables("tensors"))
        tensors[index] = tensor
        self.table.fields["tensors"] = tensors

    def operator(self, kind: int, source: int, target: int) -> Table:
        """Return a new operator of one input and one output, without options."""
        ends = {"inputs": integers(source), "outputs": integers(target)}
        return Table("Operator", {"opcode_index": self.code(kind), **ends})

    def insert_before(self, operator: Table, new: Table) -> None:
        """Put a new operator in front of one of the graph's."""
        operators = list(self.table.tables("operators"))
        operators.insert(operators.index(operator), new)
        self.table.fields["operators"] = operators

    def code(self, kind: int) -> int:
        """Return the index of the code of an operator's first version, added if it is missing."""
        codes = self.model.tables("operator_codes")
        for index, code in enumerate(codes):
            if operator_kind(code) == kind and code.number("version") == 1:
                return index
        new = Table("OperatorCode", {"deprecated_builtin_code": kind, "builtin_code": kind})
        self.model.fields["operator_codes"] = [*codes, new]
        return len(codes)


def shape(tensor: Table) -> tuple[int, ...]:
    """Return a tensor's shape; empty for a scalar."""
    return tensor.numbers("shape")


def reshaped(tensor: Table, shape: tuple[int, ...]) -> Table:
    """Return a tensor of the same type, values and scales in another shape, without its name."""
    kept = ("type", "buffer", "quantization")
    fields = {name: tensor.fields[name] for name in kept if name in tensor.fields}
    return Table("Tensor", {"shape": integers(*shape), **fields})


def quantization(tensor: Table) -> tuple[bytes, tuple[int, ...]]:
    """Return a tensor's scales, as stored, and its zero points."""
    found = tensor.table("quantization")
    scale = found.vector("scale") if found else None
    if found is None or scale is None:
        return b"", ()
    return bytes(scale.data), found.numbers("zero_point")


def integers(*numbers: int) -> Vector:
    """Return a vector of 32-bit integers."""
    return Vector(struct.pack(f"<{len(numbers)}i", *numbers), 4)
