"""What the rules look at in a .tflite: operators with their tensors, and what a runtime does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import prod

from bloodedge.deploy.flat.operators import code_of, operator_kind
from bloodedge.deploy.flat.reader import MAX_TABLES, read_model
from bloodedge.deploy.flat.tree import Table
from bloodedge.errors import ModelError

# The slot of a tensor's sparsity, which files of ours never have.
_SPARSITY_SLOT = 6
# Far above what any device holds, and what a damaged file may claim.
_MAX_VALUES = 2**40
_SIDES = ("inputs", "outputs")
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph.

    Attributes:
        type: such as `INT8`.
        shape: its sides; those left open are 1.
        fixed: whether it is stored, or computed from stored ones alone, as float16 weights made
            float32 are: runtimes do that once, when they load the file.
        sparse: whether it is stored sparsely.
    """

    type: str
    shape: tuple[int, ...]
    fixed: bool
    sparse: bool

    @property
    def size(self) -> int:
        """How many values it holds."""
        return prod(max(1, side) for side in self.shape)


@dataclass(frozen=True)
class Operator:
    """One operator, such as `CONV_2D`, of some version; absent inputs are left out.

    Attributes:
        kind: its name in the schema,
        code: and its number.
        version: from which runtimes on it loads.
        inputs: what it takes, stored weights included.
        outputs: what it gives.
    """

    kind: str
    code: int
    version: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def values(self) -> int:
        """How many values it computes."""
        return sum(tensor.size for tensor in self.outputs)

    @property
    def weights(self) -> Tensor | None:
        """The kernel, if it is a layer that has one."""
        if self.kind not in _WEIGHTED or not self.outputs:
            return None
        return next((t for t in self.inputs if t.fixed and len(t.shape) > 1), None)

    @property
    def channels(self) -> int:
        """The channels it gives."""
        return max((1, *self.outputs[0].shape[-1:])) if self.outputs else 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a convolution, dense layer or product of tensors, else 0."""
        if self.kind == "BATCH_MATMUL":
            return _product_macs(self)
        if self.kind not in _WEIGHTED or len(self.inputs) < 2 or not self.outputs:
            return 0
        kernel = self.inputs[1].shape
        if self.kind == "TRANSPOSE_CONV":
            # Its inputs are the output's shape, the kernel (O, H, W, I), the image and a bias.
            return sum(image.size for image in self.inputs[2:3]) * prod(kernel[:3])
        each = kernel[1:3] if self.kind == "DEPTHWISE_CONV_2D" else kernel[1:]
        return self.outputs[0].size * prod(each)


def _product_macs(operator: Operator) -> int:
    """Return those of a batch of matrix products, as attention has; 0 if its shapes are none.

    The side summed over is what the first input has beside the output's rows, whether it is stored
    transposed or not.
    """
    if len(operator.inputs) < 2 or not operator.outputs:
        return 0
    first, product = operator.inputs[0].shape[-2:], operator.outputs[0].shape[-2:]
    if len(first) < 2 or len(product) < 2 or product[0] < 1:
        return 0
    return operator.outputs[0].size * (prod(first) // product[0])


@dataclass(frozen=True)
class FileFacts:
    """A .tflite.

    Attributes:
        name: for people.
        operators: those of its first graph, in the order in which they run.
        inputs: what it takes.
        outputs: what it gives.
        refusal: what the runtime says if it does not load the file; empty if it does, or if that
            runtime is not here.
        outside: the places of operators that no accelerated kernel takes; None if unknown.
    """

    name: str
    operators: tuple[Operator, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    refusal: str = ""
    outside: frozenset[int] | None = None

    @property
    def is_quantized(self) -> bool:
        """Whether layers compute on integers."""
        return any(
            operator.weights is not None and operator.outputs[0].type in ("INT8", "UINT8", "INT16")
            for operator in self.operators
            if operator.outputs
        )


def read_facts(name: str, content: bytes) -> FileFacts:
    """Read a .tflite without a runtime.

    Raises:
        ModelError: the file is damaged.
    """
    model = read_model(content, only_look=True).model
    graphs = model.tables("subgraphs")
    if not graphs:
        raise ModelError(f"{name} holds no graph")
    buffers = model.tables("buffers")
    tensors = [_tensor(name, table, buffers) for table in graphs[0].tables("tensors")]
    codes = model.tables("operator_codes")
    steps = graphs[0].tables("operators")
    # Operators of a crafted file may share one long list.
    if sum(len(step.numbers(side)) for step in steps for side in _SIDES) > MAX_TABLES:
        raise ModelError(f"{name} is damaged: its operators name more than {MAX_TABLES:,} tensors")
    _fix(tensors, steps)
    operators = tuple(_operator(table, codes, tensors) for table in steps)
    return FileFacts(
        name,
        operators,
        _pick(tensors, graphs[0].numbers("inputs")),
        _pick(tensors, graphs[0].numbers("outputs")),
    )


def _tensor(name: str, table: Table, buffers: list[Table]) -> Tensor:
    place = table.number("buffer")
    data = buffers[place].vector("data") if 0 <= place < len(buffers) else None
    tensor = Tensor(
        _types().get(table.number("type"), "unknown"),
        table.numbers("shape"),
        data is not None and len(data.data) > 0,
        _SPARSITY_SLOT in table.slots,
    )
    if tensor.size > _MAX_VALUES:
        raise ModelError(f"{name} is damaged: a tensor has the shape {tensor.shape}")
    return tensor


def _fix(tensors: list[Tensor], steps: list[Table]) -> None:
    """Mark what is computed from fixed tensors alone as fixed, in the order of the graph."""
    for table in steps:
        taken = _pick(tensors, table.numbers("inputs"))
        if taken and all(tensor.fixed for tensor in taken):
            for place in table.numbers("outputs"):
                if 0 <= place < len(tensors):
                    tensors[place] = replace(tensors[place], fixed=True)


def _operator(table: Table, codes: list[Table], tensors: list[Tensor]) -> Operator:
    code = code_of(table, codes)
    kind = operator_kind(code)
    name = _kinds().get(kind, f"operator {kind}")
    custom = code.text("custom_code")
    return Operator(
        f"{name} {custom}" if custom else name,
        kind,
        code.number("version"),
        _pick(tensors, table.numbers("inputs")),
        _pick(tensors, table.numbers("outputs")),
    )


def _pick(tensors: list[Tensor], places: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(tensors[place] for place in places if 0 <= place < len(tensors))


@cache
def _kinds() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}


@cache
def _types() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
