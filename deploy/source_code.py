"""Texts of others as identifiers, strings and comments of C, C++ and Kotlin."""

from __future__ import annotations

import re

from bloodedge.deploy.ends import End


def identifier(name: str) -> str:
    """Return a name as an identifier."""
    base = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"m_{base}" if base[:1].isdigit() else base


def class_name(name: str) -> str:
    """Return a name as that of a class: `cnn_se-int8` gives `CnnSeInt8`."""
    words = re.split(r"[\W_]+", name, flags=re.ASCII)
    base = "".join(word[:1].upper() + word[1:] for word in words)
    return base if base[:1].isalpha() else f"Model{base}"


def c_string(text: str) -> str:
    """Return a C string of UTF-8 bytes; octal, because it ends after three digits."""
    plain = (
        chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode()
    )
    return f'"{"".join(plain)}"'


def kotlin_string(text: str) -> str:
    """Return a Kotlin string; what is not plain ASCII as UTF-16 units, `$` as one as well."""
    units = memoryview(text.encode("utf-16-le")).cast("H")
    plain = (chr(u) if 32 <= u < 127 and chr(u) not in '"\\$' else f"\\u{u:04x}" for u in units)
    return f'"{"".join(plain)}"'


def comment(text: str) -> str:
    """Return text that cannot end or continue a line of comment."""
    return "".join(c if c.isascii() and c.isprintable() and c != "\\" else "?" for c in text)


def described(name: str, taken: End, given: End) -> dict[str, object]:
    """Return what code made for a model says of its ends, by the placeholders of its template."""
    return {
        "title": comment(name),
        "name": class_name(name),
        "input_name": comment(taken.name),
        "input_shape": ", ".join(map(str, taken.shape)),
        "height": taken.shape[1],
        "width": taken.shape[2],
        "output_name": comment(given.name),
        "output_shape": ", ".join(map(str, given.shape)),
    }
