"""Will an older runtime load a file? By the operator versions it knows."""

from __future__ import annotations

from bloodedge.deploy.flat.operators import operator_kind
from bloodedge.deploy.flat.reader import read_model
from bloodedge.errors import ModelError

# The newest version of each builtin operator, by its code, that tflite-runtime 2.14 resolves; one
# hexadecimal digit each, 0 for none. Found by offering it every version of every operator.
_TFLITE_RUNTIME_2_14 = (
    "534772531A121131437313143324301001436446352248323420351434314232"
    "461433143121211322341111433111422422352113141211113111111112114"
)
RUNTIMES = {"tflite-runtime": ("tflite-runtime 2.14", _TFLITE_RUNTIME_2_14)}


def newest_version(runtime: str, kind: int) -> int:
    """Return the newest version of a builtin operator that a runtime of `RUNTIMES` loads, or 0."""
    known = RUNTIMES[runtime][1]
    return int(known[kind], 16) if 0 <= kind < len(known) else 0


def check_compatible(content: bytes, runtime: str) -> None:
    """Refuse a .tflite that a runtime of `RUNTIMES` would not load.

    Raises:
        ModelError: naming the operator and its version; or the file is damaged.
    """
    title = RUNTIMES[runtime][0]
    for code in read_model(content).model.tables("operator_codes"):
        kind, version = operator_kind(code), code.number("version")
        newest = newest_version(runtime, kind)
        if version > newest:
            raise ModelError(
                f"{title} does not load operator {kind} of version {version}",
                expected=f"version {newest} at most" if newest else "an operator it knows",
                fix="leave that variant out, or leave out --compat",
            )
