"""One model through LiteRT's C interface with its profiler: started by `litert.py`.

    python litert_child.py MODEL.tflite THREADS SECONDS

Prints a JSON line: `summaries`, the profiler's own after each of several blocks of inferences,
which add up, and `invoke_us`, what an inference takes without it; or `refused`, with exit code 1,
where this LiteRT has no profiler or refuses the model. Standard library only, Python 3.8 or newer:
`benchmark --ssh` copies it to the device.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Handle = ctypes.c_void_p
SYS = Path("/sys")
_CPU = 1
_WRITE = 1
# So short that most are not disturbed; the reader takes the median of all.
_BLOCK_SECONDS = 1e-3
_LEAST_BLOCKS, _MOST_BLOCKS = 5, 101
# A library that hangs is ended, also where nobody waits for it any more.
_LIMIT_SECONDS = 300.0


class RefusedError(Exception):
    """LiteRT said no."""


class LiteRt:
    """The library, with every call checked."""

    def __init__(self) -> None:
        spec = find_spec("ai_edge_litert")
        if spec is None or spec.origin is None:
            raise RefusedError("ai-edge-litert is not installed")
        path = Path(spec.origin).with_name("libLiteRt.so")
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise RefusedError(f"this ai-edge-litert has no C interface: {error}") from error

    def call(self, name: str, *words: Any) -> None:
        """Call a function that returns a status."""
        function = getattr(self._library, f"LiteRt{name}", None)
        if function is None:
            raise RefusedError(f"this ai-edge-litert has no profiler (LiteRt{name} is missing)")
        function.restype = ctypes.c_int
        status = function(*words)
        if status:
            raise RefusedError(f"LiteRt{name} failed with status {status}")

    def get(self, name: str, *words: Any) -> Handle:
        """Call a function that also gives a handle, through its last argument."""
        handle = Handle()
        self.call(name, *words, ctypes.byref(handle))
        return handle


def compile_model(lite: LiteRt, path: str, threads: int) -> tuple[Handle, Handle, Handle]:
    """Return environment, model and compiled model, with profiling switched on."""
    environment = lite.get("CreateEnvironment", 0, None)
    model = lite.get("CreateModelFromFile", environment, path.encode())
    options = lite.get("CreateOptions")
    lite.call("SetOptionsHardwareAccelerators", options, _CPU)
    libc = ctypes.CDLL(None)
    libc.strdup.restype = Handle
    free = ctypes.cast(libc.free, Handle)
    settings = {"runtime_options_string": "enable_profiling = true\n"}
    settings["xnnpack"] = f"num_threads = {threads}\n"
    for name, text in settings.items():
        copy = Handle(libc.strdup(text.encode()))
        opaque = lite.get("CreateOpaqueOptions", name.encode(), copy, free)
        lite.call("AddOpaqueOptions", options, opaque)
    return environment, model, lite.get("CreateCompiledModel", environment, model, options)


def buffers(
    lite: LiteRt, kind: str, environment: Handle, model: Handle, compiled: Handle
) -> ctypes.Array[Handle]:
    """Return a buffer of zeros for each input or output of the first signature."""
    zero = ctypes.c_size_t(0)
    signature = lite.get("GetModelSignature", model, zero)
    count = ctypes.c_size_t()
    lite.call(f"GetNumSignature{kind}s", signature, ctypes.byref(count))
    found = (Handle * count.value)()
    for place in range(count.value):
        index = ctypes.c_size_t(place)
        tensor = lite.get(f"GetSignature{kind}TensorByIndex", signature, index)
        described = ctypes.create_string_buffer(1024)  # a LiteRtRankedTensorType, much smaller
        lite.call("GetRankedTensorType", tensor, described)
        needs = lite.get(f"GetCompiledModel{kind}BufferRequirements", compiled, zero, index)
        create = "CreateManagedTensorBufferFromRequirements"
        found[place] = lite.get(create, environment, described, needs)
        size = ctypes.c_size_t()
        lite.call("GetTensorBufferSize", Handle(found[place]), ctypes.byref(size))
        address = Handle()
        lite.call("LockTensorBuffer", Handle(found[place]), ctypes.byref(address), _WRITE)
        # What lay in the memory may be denormal numbers, which some processors are slow on.
        ctypes.memset(address, 0, size.value)
        lite.call("UnlockTensorBuffer", Handle(found[place]))
    return found


def timed(run: Callable[[], None], seconds: float) -> list[float]:
    """Return what each of at least three runs took, in seconds."""
    clock = time.perf_counter
    taken: list[float] = []
    stop = clock() + seconds
    while len(taken) < 3 or clock() < stop:
        begin = clock()
        run()
        taken.append(clock() - begin)
    return taken


def profile(path: str, threads: int, seconds: float) -> dict[str, Any]:
    """Run the model without and with the profiler."""
    lite = LiteRt()
    environment, model, compiled = compile_model(lite, path, threads)
    inputs, outputs = (
        buffers(lite, kind, environment, model, compiled) for kind in ("Input", "Output")
    )
    counts = [ctypes.c_size_t(len(found)) for found in (inputs, outputs)]

    def run() -> None:
        zero = ctypes.c_size_t(0)
        lite.call("RunCompiledModel", compiled, zero, counts[0], inputs, counts[1], outputs)

    timed(run, seconds / 4)
    taken = sorted(timed(run, seconds / 4))
    median = taken[len(taken) // 2]
    profiler = lite.get("CompiledModelGetProfiler", compiled)
    summaries: list[str] = []
    stop = time.perf_counter() + seconds
    while len(summaries) < _LEAST_BLOCKS or time.perf_counter() < stop:
        if len(summaries) == _MOST_BLOCKS:
            break
        lite.call("ResetProfiler", profiler)
        lite.call("StartProfiler", profiler)
        for _ in range(max(3, int(_BLOCK_SECONDS / median))):
            run()
        lite.call("StopProfiler", profiler)
        summary = lite.get("GetProfileSummary", profiler, compiled)
        summaries.append(ctypes.string_at(summary.value or 0).decode("utf-8", "replace"))
    return {"summaries": summaries, "invoke_us": round(1e6 * median, 3)}


def pin(threads: int) -> None:
    """Bind this process as the runner binds its own, where it is allowed: to the fastest cores."""
    if hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0), key=rank)[-threads:])
        except OSError:
            return


def rank(cpu: int) -> tuple[int, int]:
    """Return what the runner orders cores by: the highest clock, 0 if unknown, and the number."""
    path = SYS / f"devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq"
    try:
        return int(path.read_text()), cpu
    except (OSError, ValueError):
        return 0, cpu


def main(words: list[str]) -> int:
    """Print the answer and return the exit code."""
    path, threads, seconds = words[0], int(words[1]), float(words[2])
    pin(threads)
    if hasattr(signal, "alarm"):
        signal.alarm(int(_LIMIT_SECONDS + 10 * seconds))
    try:
        print(json.dumps(profile(path, threads, seconds)))
    except RefusedError as refused:
        print(json.dumps({"refused": str(refused)}))
        return 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    # Without the library's own clean-up, which waits for accelerators that are not there.
    os._exit(code)
