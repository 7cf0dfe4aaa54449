"""Why the TFLite converter refuses a model, in words: which operation of which layer."""

from __future__ import annotations

import re
from typing import Any

# Such as: fused["Erf:", "export_1/cnn_1/gate_1/Erf@__inference_function_138"] ... 'tf.Erf' op is
# neither a custom op nor a flex op
_UNKNOWN = re.compile(r"'tf\.(\w+)' op is neither a custom op")
_PLACE = re.compile(r'"([\w./-]+)@__inference')
# A layer that is called again gets a number behind its name.
_AGAIN = re.compile(r"_\d+$")


def unknown_operation(model: Any, message: str) -> tuple[str, str]:
    """Return the operation that TFLite lacks and the layer that needs it.

    Args:
        model: the Keras model that was converted.
        message: the converter's.

    Returns:
        Both empty if something else is wrong; the layer is empty if it cannot be told.
    """
    line = next((line for line in message.splitlines() if _UNKNOWN.search(line)), "")
    found = _UNKNOWN.search(line)
    if not found:
        return "", ""
    place = _PLACE.search(line)
    parts = place[1].split("/") if place else []
    names = {layer.name for layer in model.layers}
    for part in reversed(parts):
        for name in (part, _AGAIN.sub("", part)):
            if name in names:
                return found[1], name
    return found[1], ""
