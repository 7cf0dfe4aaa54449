"""What a .tflite has to do for one image, read from the file: multiply-accumulates and bytes.

Counted are convolutions, depthwise and transposed ones included, dense layers, and attention's
products, as in `bloodedge.train.cost`. The bytes are what each operator reads and writes, weights
included, one after the other, as runtimes for small devices do it: nothing stays in registers from
one operator to the next. What only depends on the file, such as float16 weights made float32, is
done once when it is loaded and costs nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from bloodedge.deploy.lint.facts import FileFacts, Tensor, read_facts
from bloodedge.errors import ModelError

_BITS = {
    "FLOAT64": 64,
    "INT64": 64,
    "FLOAT32": 32,
    "INT32": 32,
    "UINT32": 32,
    "FLOAT16": 16,
    "BFLOAT16": 16,
    "INT16": 16,
    "INT4": 4,
    "INT2": 2,
}
# Their outputs are their inputs under another name.
_VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
_INTEGER = ("INT8", "UINT8", "INT4", "INT2")


@dataclass(frozen=True)
class Work:
    """What one inference takes.

    Attributes:
        macs_int8: multiply-accumulates with int8 weights, whatever the type of the activations;
            in attention, whose products have no weights, with int8 activations.
        macs_float: those in floating point.
        traffic_bytes: read and written by all operators.
        resident_bytes: all weights and the largest inputs and outputs of one operator: what a
            cache has to hold.
    """

    macs_int8: int
    macs_float: int
    traffic_bytes: int
    resident_bytes: int

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return self.macs_int8 + self.macs_float

    def as_dict(self) -> dict[str, int]:
        """Return it as a result's row holds it."""
        return asdict(self)


def model_work(name: str, content: bytes) -> Work:
    """Return what a .tflite has to do.

    Raises:
        ModelError: the file is damaged.
    """
    return count_work(read_facts(name, content))


def known_work(models: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return digest and work of each model by name, as a `bundle.json` lists its `models`.

    One that is damaged is left out: measuring it will say what is wrong with it.
    """
    found = {}
    for name, path in models.items():
        content = path.read_bytes()
        try:
            work = model_work(name, content)
        except ModelError:
            continue
        found[name] = {"sha256": sha256(content).hexdigest(), "work": work.as_dict()}
    return found


def count_work(facts: FileFacts) -> Work:
    """Return what the operators of a file have to do."""
    macs = {True: 0, False: 0}
    traffic, weights, largest = 0, 0, 0
    for operator in facts.operators:
        if all(tensor.fixed for tensor in operator.inputs):
            continue
        if operator.macs:
            macs[operator.inputs[1].type in _INTEGER] += operator.macs
        if operator.kind in _VIEWS:
            continue
        held = sum(_bytes(t) for t in operator.inputs if t.fixed)
        moving = [t for t in operator.inputs if not t.fixed]
        passing = sum(map(_bytes, (*moving, *operator.outputs)))
        traffic += held + passing
        weights += held
        largest = max(largest, passing)
    return Work(macs[True], macs[False], traffic, weights + largest)


def _bytes(tensor: Tensor) -> int:
    return -(-tensor.size * _BITS.get(tensor.type, 8) // 8)
