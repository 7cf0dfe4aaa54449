"""Which operators of a file its runtime's accelerated kernels take, asked in a child process.

XNNPACK takes the operators it has kernels for, in one or more parts of the graph; each part shows
as one more operator, DELEGATE. What is not inside a part runs on the runtime's plain kernels.
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib import util
from pathlib import Path
from typing import Any

from bloodedge import isolated
from bloodedge.deploy.interpreter import PROBE_MEMORY_BYTES
from bloodedge.errors import ModelError
from bloodedge.quiet import quiet

# The runtimes that may be here, by the name that `--runtime` takes: module, and what holds it.
MODULES = {
    "litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
    "tf-lite": "tensorflow",
}
# `__name__` is `__main__` in the child.
_MODULE = "bloodedge.deploy.lint.partitions"


def is_here(runtime: str) -> bool:
    """Return whether a runtime of that name is installed."""
    module = MODULES.get(runtime, "").split(".")[0]
    return bool(module) and util.find_spec(module) is not None


def outside_of(path: Path, runtime: str) -> tuple[str, frozenset[int] | None]:
    """Load a file in a child process.

    Args:
        path: the .tflite, from anywhere.
        runtime: one that is here.

    Returns:
        Why it does not load, empty if it does; and the places of the operators that no
        accelerated kernel takes, None if it does not load.
    """
    try:
        said = isolated.check_in_child(_MODULE, [str(path.resolve()), runtime], path)
        return "", frozenset(json.loads(said.strip().splitlines()[-1]))
    except ModelError as error:
        return str(error), None
    # A runtime may print what it likes while its process ends.
    except (ValueError, TypeError, IndexError):
        return "the process that loaded it gave no answer", None


def operators_outside(details: list[dict[str, Any]]) -> list[int]:
    """Return the places of operators in no delegated part, from an interpreter's operators.

    A part's operators are found from what it gives back to what it takes.
    """
    plain = [d for d in details if d["op_name"] != "DELEGATE"]
    maker = {int(t): place for place, d in enumerate(plain) for t in d["outputs"]}
    inside: set[int] = set()
    for part in (d for d in details if d["op_name"] == "DELEGATE"):
        taken = {int(t) for t in part["inputs"]}
        waiting = [int(t) for t in part["outputs"]]
        while waiting:
            tensor = waiting.pop()
            place = maker.get(tensor)
            if tensor in taken or place is None or place in inside:
                continue
            inside.add(place)
            waiting += [int(t) for t in plain[place]["inputs"]]
    return sorted(set(range(len(plain))) - inside)


def _look(path: Path, runtime: str) -> int:
    """Load a file in this process, print what is outside or why it does not load."""
    # To import it is not the file's work, and takes most of the time that a file is given.
    module: Any = importlib.import_module(MODULES[runtime])
    interpreter_class = (module.lite if runtime == "tf-lite" else module).Interpreter
    isolated.bound(path, memory=PROBE_MEMORY_BYTES)
    try:
        with quiet():
            interpreter = interpreter_class(str(path))
            interpreter.allocate_tensors()
            details = interpreter._get_ops_details()
    except (ValueError, RuntimeError) as error:
        print(" ".join(str(error).split())[:300])
        return isolated.REFUSED
    print(json.dumps(operators_outside(details)))
    return 0


if __name__ == "__main__":
    sys.exit(_look(Path(sys.argv[1]), sys.argv[2]))
