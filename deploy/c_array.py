"""A model as a C header, for firmware that has no files."""

from __future__ import annotations

from collections.abc import Sequence

from bloodedge.deploy.ends import End, read_ends
from bloodedge.deploy.source_code import c_string, comment, identifier
from bloodedge.errors import ModelError

# A header is six times the model; above this no microcontroller could hold it.
MAX_BYTES = 4 << 20
_TYPES = {"float32": "float", "uint8": "uint8_t", "int8": "int8_t", "int16": "int16_t"}
_PER_LINE = 16


def c_header(name: str, content: bytes, labels: Sequence[str], arena: int | None = None) -> str:
    """Return a header, for C11 and C++11, with the model's bytes, tensors and class names.

    Args:
        name: the model's; its identifiers start with it.
        content: the .tflite.
        labels: the class names, in the order of the output.
        arena: bytes of working memory, from `bloodedge.deploy.arena`; None where not known.

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
    taken, given = read_ends(content)
    base = identifier(name)
    lines = [
        f"// {comment(name)}: made by bloodedge. Research use only; not a diagnostic device.",
        "#pragma once",
        "#include <stdint.h>",
        "#ifdef __cplusplus",
        "#define BLOODEDGE_ALIGN alignas(16)",
        "#else",
        "#define BLOODEDGE_ALIGN _Alignas(16)",
        "#endif",
        "",
        *_end(f"{base}_input", "input", taken),
        *_end(f"{base}_output", "output", given),
        *_arena(base.upper(), arena),
        f"#define {base.upper()}_CLASSES {len(labels)}",
        f"static const char* const {base}_labels[] = {{",
        *(f"    {c_string(label)}," for label in labels),
        "};",
        f"static const unsigned int {base}_length = {len(content)};",
        f"BLOODEDGE_ALIGN static const unsigned char {base}[] = {{",
        *_rows(content),
        "};",
        "#undef BLOODEDGE_ALIGN",
    ]
    return "\n".join(lines) + "\n"


def _end(prefix: str, side: str, end: End) -> list[str]:
    """Return the type, shape and quantization of the input or output."""
    shape, upper = end.shape, prefix.upper()
    lines = [
        f"// {side}: {comment(end.name)}, {'x'.join(map(str, shape))}",
        f"typedef {_TYPES[end.dtype]} {prefix}_t;",
        f"static const int {prefix}_shape[] = {{{', '.join(map(str, shape))}}};",
    ]
    if end.scale is not None:
        lines += [
            f"#define {upper}_SCALE {end.scale:.9e}f",
            f"#define {upper}_ZERO_POINT {end.zero_point}",
        ]
    return lines


def _arena(upper: str, arena: int | None) -> list[str]:
    if arena is None:
        return ["// Arena: not known (TFLite Micro refused it, or pip install tflite-micro)."]
    return [
        "// What TFLite Micro reported with 8-byte pointers; 32-bit targets need somewhat less.",
        f"#define {upper}_ARENA_BYTES {arena}",
    ]


def _rows(content: bytes) -> list[str]:
    starts = range(0, len(content), _PER_LINE)
    return [f"    {','.join(f'0x{b:02x}' for b in content[i : i + _PER_LINE])}," for i in starts]
