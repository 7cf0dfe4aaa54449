"""The working memory a model needs on a microcontroller, as TFLite Micro itself reports it."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_TOTAL = re.compile(rb"Arena allocation total (\d+) bytes")
_TIMEOUT_S = 60.0
# A fixed bound above any microcontroller's memory; the size that is used is what is reported.
_ROOM = 64 << 20
_PROGRAM = """
import sys
from tflite_micro import runtime
from pathlib import Path
content = Path(sys.argv[1]).read_bytes()
runtime.Interpreter.from_bytes(content, arena_size=int(sys.argv[2])).print_allocations()
"""


def arena_bytes(content: bytes) -> int | None:
    """Return the tensor arena of a .tflite in bytes.

    Measured with 8-byte pointers: a 32-bit microcontroller needs somewhat less. None where the
    package tflite-micro is not installed, or TFLite Micro refuses the model, as it does float16 and
    dynamic range.
    """
    if importlib.util.find_spec("tflite_micro") is None:
        return None
    with tempfile.TemporaryDirectory(prefix="bloodedge-") as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        # Its kernels end the process on what they do not expect.
        command = [sys.executable, "-P", "-c", _PROGRAM, str(path), str(_ROOM)]
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
            if done.returncode == 0 and (found := _TOTAL.search(done.stderr + done.stdout)):
                return int(found[1])
    return None
