"""A model as a C header, for firmware that has no files."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.tree import Table
from bloodedge.errors import ModelError

# A header is six times the model; above this no microcontroller could hold it.
MAX_BYTES = 4 << 20
_TYPES = {0: "float", 3: "uint8_t", 9: "int8_t", 7: "int16_t"}
_PER_LINE = 16


def c_header(name: str, content: bytes, labels: Sequence[str]) -> str:
    """Return a header, for C11 and C++11, with the model's bytes, tensors and class names.

    Args:
        name: the model's; its identifiers start with it.
        content: the .tflite.
        labels: the class names, in the order of the output.

    Raises:
        ModelError: the model is damaged, larger than 4 MiB, or has other than one input and
            output of a type that C knows.
    """
    if len(content) > MAX_BYTES:
        raise ModelError(
            f"{name} has {len(content):,} bytes, too many for a C array",
            expected=f"at most {MAX_BYTES:,}",
            fix="leave that variant out, or leave out --c-array",
        )
    (graph, *_) = read_model(content).model.tables("subgraphs") or [Table("SubGraph")]
    base = re.sub(r"\W", "_", name, flags=re.ASCII)
    base = f"m_{base}" if base[:1].isdigit() else base
    lines = [
        f"// {name}: made by bloodedge. Research use only; not a diagnostic device.",
        "#pragma once",
        "#include <stdint.h>",
        "#ifdef __cplusplus",
        "#define BLOODEDGE_ALIGN alignas(16)",
        "#else",
        "#define BLOODEDGE_ALIGN _Alignas(16)",
        "#endif",
        "",
        *_tensor(f"{base}_input", graph, "inputs"),
        *_tensor(f"{base}_output", graph, "outputs"),
        f"#define {base.upper()}_CLASSES {len(labels)}",
        f"static const char* const {base}_labels[] = {{",
        *(f"    {_quoted(label)}," for label in labels),
        "};",
        f"static const unsigned int {base}_length = {len(content)};",
        f"BLOODEDGE_ALIGN static const unsigned char {base}[] = {{",
        *_rows(content),
        "};",
        "#undef BLOODEDGE_ALIGN",
    ]
    return "\n".join(lines) + "\n"


def _tensor(prefix: str, graph: Table, side: str) -> list[str]:
    """Return the type, shape and quantization of the one input or output."""
    index, tensors = graph.numbers(side), graph.tables("tensors")
    if len(index) != 1 or not 0 <= index[0] < len(tensors):
        raise ModelError(f"the model has {len(index)} {side}", expected="one")
    tensor = tensors[index[0]]
    kind = _TYPES.get(tensor.number("type"))
    if kind is None:
        raise ModelError(f"the model's {side} are of type {tensor.number('type')}, unknown to C")
    shape = tensor.numbers("shape")
    upper = prefix.upper()
    lines = [
        f"// {side[:-1]}: {_comment(tensor.text('name'))}, {'x'.join(map(str, shape))}",
        f"typedef {kind} {prefix}_t;",
        f"static const int {prefix}_shape[] = {{{', '.join(map(str, shape))}}};",
    ]
    quantization = tensor.table("quantization")
    if quantization is not None and (scale := quantization.vector("scale")) is not None:
        value = memoryview(bytes(scale.data)).cast("f")[0]
        zero = quantization.numbers("zero_point")[0]
        lines += [f"#define {upper}_SCALE {value:.9e}f", f"#define {upper}_ZERO_POINT {zero}"]
    return lines


def _rows(content: bytes) -> list[str]:
    starts = range(0, len(content), _PER_LINE)
    return [f"    {','.join(f'0x{b:02x}' for b in content[i : i + _PER_LINE])}," for i in starts]


def _quoted(label: str) -> str:
    """Return a C string of UTF-8 bytes; octal, because it ends after three digits."""
    plain = (
        chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in label.encode()
    )
    return f'"{"".join(plain)}"'


def _comment(text: str) -> str:
    """Return text that cannot end or continue a comment line."""
    return "".join(c if c.isascii() and c.isprintable() and c != "\\" else "?" for c in text)
