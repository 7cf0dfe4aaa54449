"""Measure .tflite classifiers on the device they are for. One file: copy it and run it.

    python3 runner.py MODEL.tflite... --sample sample.npz --out result.json

Needs Python 3.8 or newer, NumPy, and one runtime: ai-edge-litert, tflite-runtime or tensorflow.
Every (model, threads, repeat) runs in a fresh process, because memory layout and core placement
are drawn once per process and shift its whole median. Each round visits every model in a newly
shuffled, seeded order, so that a device growing warmer slows all of them equally.
Exit codes: 0 all measured, 1 a model failed, 2 bad arguments or no runtime, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
import zlib
from array import array
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Key = tuple[str, int]  # model, threads
    Runs = dict[Key, list[dict[str, Any]]]  # the figures of each process that ended well

SCHEMA = "bloodedge-benchmark/1"
SYS = Path("/sys")
MIN_INVOKES = 50  # benchmark_model's least for a stable median
DRIFT_LIMIT = 0.10
SAMPLE_LIMIT_BYTES = 1 << 30
TIMED_IMAGES = 64  # timing cycles over these: real data, without filling a small device's memory
START_SECONDS = 1.0  # Python, the runtime and the model: only for the first estimate
# Instructions that multiply int8 by int8 and add in one step, as Linux names them.
INT8_DOT_FLAGS = ("asimddp", "i8mm", "avx_vnni", "avx512_vnni", "avx_vnni_int8", "amx_int8")
CPU_FLAGS = ("neon", "asimd", "sve", "sve2", "sse4_1", "avx", "avx2", "avx512f", *INT8_DOT_FLAGS)
RUNTIMES = (  # module, distribution, the module that holds Interpreter
    ("ai_edge_litert", "ai-edge-litert", "ai_edge_litert.interpreter"),
    ("tflite_runtime", "tflite-runtime", "tflite_runtime.interpreter"),
    ("tensorflow", "tensorflow", "tensorflow.lite"),
)


class RunnerError(Exception):
    """Something the user can mend, in one line."""


class Job(NamedTuple):
    """One worker process: a model's name, its thread count, and the round it belongs to."""

    model: str
    threads: int
    repeat: int


def summarize(ns: NDArray[np.int64]) -> dict[str, Any]:
    """Return median, p90, p99, min and mean in microseconds, and the count, of `(n,)` durations.

    Percentiles interpolate linearly between the two nearest durations.
    """
    us = np.asarray(ns, dtype=np.float64) / 1000.0
    figures = (*np.percentile(us, [50, 90, 99]), us.min(), us.mean())
    names = ("median_us", "p90_us", "p99_us", "min_us", "mean_us")
    return {**{names[i]: round(float(figures[i]), 3) for i in range(5)}, "count": len(us)}


def combine(runs: list[dict[str, Any]], pooled_ns: NDArray[np.int64]) -> dict[str, Any]:
    """Return one row from its processes' figures and all their durations, pooled `(n,)`.

    The median is the median of the processes' medians, so that a process with more invokes
    weighs no more than another; `spread` is (max - min) / median over those medians. A figure
    that the runs lack, such as memory in a browser, is left out.
    """
    row = summarize(pooled_ns)
    for key in ("median_us", "with_input_median_us", "load_ms", "first_ms"):
        if key in runs[0]:
            row[key] = round(float(np.median([run[key] for run in runs])), 3)
    for key in ("peak_rss_kib", "max_rss_kib"):
        if key in runs[0]:
            row[key] = max(run[key] for run in runs)
    medians = [run["median_us"] for run in runs]
    spread = (max(medians) - min(medians)) / float(np.median(medians))
    return {**row, "repeats": len(runs), "spread": round(spread, 4), "drift": spread > DRIFT_LIMIT}


def schedule(names: list[str], threads: list[int], repeats: int, seed: int) -> list[Job]:
    """Return all jobs, round by round; a round holds every (model, threads) once, shuffled."""
    rng = random.Random(seed)
    jobs: list[Job] = []
    for repeat in range(repeats):
        block = [Job(name, count, repeat) for name in names for count in threads]
        rng.shuffle(block)
        jobs += block
    return jobs


def load_sample(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the sample's images `(N, H, W, 3)` uint8 and labels `(N,)`.

    Raises:
        RunnerError: the file is missing, too large, pickled, or of the wrong shape or type.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > SAMPLE_LIMIT_BYTES:
            raise ValueError("it unpacks to more than 1 GiB")
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    except Exception as error:  # NumPy and zipfile raise a dozen kinds about a damaged file
        raise RunnerError(f"sample {path} cannot be read: {one_line(error)}") from error
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not images.size:
        found = f"{images.dtype} {images.shape}"
        raise RunnerError(f"sample {path} has images {found}, expected uint8 (N, H, W, 3)")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        found = f"{labels.dtype} {labels.shape}"
        raise RunnerError(f"sample {path} has labels {found}, expected integers ({len(images)},)")
    return images, labels.astype(np.int64)


def describe_model(path: Path) -> dict[str, Any]:
    """Return a model file's size in bytes, as it is and gzipped at level 9, and its SHA-256."""
    data = path.read_bytes()
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = len(packer.compress(data)) + len(packer.flush())
    return {"bytes": len(data), "gzip_bytes": packed, "sha256": hashlib.sha256(data).hexdigest()}


def write_result(result: dict[str, Any], out: Path, force: bool) -> None:
    """Write the result whole or not at all.

    Raises:
        RunnerError: a file appeared at `out` during the run; the result was written beside it.
    """
    taken = out.exists() and not force
    path = out.with_name(f"{out.stem}-{os.getpid()}{out.suffix}") if taken else out
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(result, file, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        if temporary.exists():
            temporary.unlink()
    if taken:
        raise RunnerError(f"{out} appeared during the run: the result is in {path}")


def one_line(text: object) -> str:
    """Return the text's words on one line, printable, at most 300 characters."""
    line = " ".join(str(text).split())[:300]
    return "".join(c if c.isprintable() else "?" for c in line)


def read_text(path: str | Path) -> str:
    """Return a system file's text, or nothing where it is absent or closed to us."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def read_all(pattern: str) -> list[str]:
    """Return the text of every file under /sys that the pattern matches and that has any."""
    texts = [read_text(path) for path in sorted(SYS.glob(pattern))]
    return [text for text in texts if text]


def read_numbers(pattern: str) -> list[int]:
    """Return what `read_all` finds, less what is no number (some clocks read `<unknown>`)."""
    return [int(text) for text in read_all(pattern) if text.lstrip("-").isdigit()]


def cpu_model() -> str:
    """Return the processor's name; on Arm, whose kernels seldom give it, the board's."""
    lines = [line.partition(":") for line in read_text("/proc/cpuinfo").splitlines()]
    found = {key.strip(): value.strip() for key, _, value in lines}
    names = [found.get(key, "") for key in ("model name", "Model", "Hardware")]
    names += [read_text("/proc/device-tree/model"), platform.processor()]
    return next((name for name in names if name), "unknown")


def cpu_flags() -> list[str] | None:
    """Return which of `CPU_FLAGS` the processor names, or nothing where it names no flags."""
    for line in read_text("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return sorted(set(CPU_FLAGS).intersection(value.split()))
    return None


def cpus_allowed() -> list[int]:
    """Return the CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def throttling() -> str | None:
    """Return a Raspberry Pi's throttling bits, such as 0x0, or nothing on other boards."""
    tool = shutil.which("vcgencmd")
    if tool is None:
        return None
    try:
        out = subprocess.run([tool, "get_throttled"], stdout=subprocess.PIPE, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return one_line(out.decode("ascii", "replace")).partition("=")[2] or None


def machine_state() -> dict[str, Any]:
    """Return what may change in a run: clocks, temperatures (degrees C), throttling, load."""
    return {
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "governor": sorted(set(read_all("devices/system/cpu/cpu*/cpufreq/scaling_governor"))),
        "cpu_khz": read_numbers("devices/system/cpu/cpu*/cpufreq/scaling_cur_freq"),
        "temperature_c": [t / 1000 for t in read_numbers("class/thermal/thermal_zone*/temp")],
        "throttled": throttling(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else [],
    }


def rss_kib() -> dict[str, int]:
    """Return this process's memory in KiB: as it is now, its peak, and getrusage's ru_maxrss.

    On Linux the peak is VmHWM, because ru_maxrss starts at the size of the process that forked us.
    """
    if sys.platform == "win32":
        return {"now": 0, "peak": 0, "ru_maxrss": 0}
    import resource

    raw = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    raw = raw // 1024 if sys.platform == "darwin" else raw  # bytes on macOS, KiB elsewhere
    lines = [line.split() for line in read_text("/proc/self/status").splitlines()]
    status = {words[0]: int(words[1]) for words in lines if words and words[0][:2] == "Vm"}
    return {"now": status.get("VmRSS:", raw), "peak": status.get("VmHWM:", raw), "ru_maxrss": raw}


def find_runtime() -> tuple[str, str, str]:
    """Return the first runtime installed: its name, version, and the module of Interpreter.

    Raises:
        RunnerError: there is none, or the one there is cannot work with this NumPy.
    """
    for name, distribution, module in RUNTIMES:
        if importlib.util.find_spec(name) is None:
            continue
        if name == "tflite_runtime" and int(np.__version__.split(".")[0]) >= 2:
            found = f"numpy {np.__version__}"
            raise RunnerError(f"tflite-runtime needs numpy<2, found {found}: install numpy<2")
        try:
            return name, metadata.version(distribution), module
        except metadata.PackageNotFoundError:  # copied here without pip, or a nightly build
            return name, "unknown", module
    raise RunnerError("no TFLite runtime found: pip install ai-edge-litert")


def pin(threads: int) -> list[int]:
    """Bind this process to as many CPUs as threads, the fastest first, and return them.

    Among equals the highest number, because interrupts are handled mostly on CPU 0.
    """
    if not hasattr(os, "sched_setaffinity"):
        return []

    def rank(cpu: int) -> tuple[int, int]:
        limits = read_numbers(f"devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq")
        return max(limits, default=0), cpu

    chosen = sorted(sorted(cpus_allowed(), key=rank)[-threads:])
    os.sched_setaffinity(0, chosen)
    return chosen


def quantize(values: NDArray[Any], scale: float, zero_point: int) -> NDArray[np.int8]:
    """Return round(values / scale) + zero_point as int8, saturated; error <= scale / 2."""
    steps = np.rint(np.asarray(values, dtype=np.float64) / scale) + zero_point
    q: NDArray[np.int8] = np.clip(steps, -128, 127).astype(np.int8)
    return q


def prepare(images: NDArray[np.uint8], detail: dict[str, Any]) -> NDArray[Any]:
    """Return images `(1, H, W, 3)` as the model's input tensor takes them.

    Preprocessing is inside the models, so float32 takes 0..255, and uint8 takes the bytes as
    they are, which is what an Android app or a browser feeds it.

    Raises:
        RunnerError: the model expects another shape, type or range of values.
    """
    shape, dtype = tuple(int(n) for n in detail["shape"]), np.dtype(detail["dtype"])
    if shape != images.shape:
        raise RunnerError(f"the model's input is {shape}, the sample's images are {images.shape}")
    if dtype in (np.uint8, np.float32):
        return images.astype(dtype)
    scale, zero_point = detail["quantization"]
    if dtype != np.int8 or 255 * scale < 128:
        raise RunnerError(f"the model's input, {dtype} with scale {scale:g}, does not take 0..255")
    return quantize(images, scale, zero_point)


def time_invokes(
    interpreter: Any, index: int, inputs: list[NDArray[Any]], seconds: float, least: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Invoke for at least `seconds` and at least `least` times, cycling over the inputs.

    Returns:
        Durations `(n,)` in nanoseconds: of invoke() alone, and of set_tensor() and invoke().
    """
    alone, with_input = array("q"), array("q")
    clock = time.perf_counter_ns
    stop = clock() + int(seconds * 1e9)
    while len(alone) < least or clock() < stop:
        values = inputs[len(alone) % len(inputs)]
        begin = clock()
        interpreter.set_tensor(index, values)
        middle = clock()
        interpreter.invoke()
        end = clock()
        alone.append(end - middle)
        with_input.append(end - begin)
    return np.array(alone), np.array(with_input)


def score(interpreter: Any, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return how many of the images are classified correctly, and the predictions' digest.

    The digest is the SHA-256 of every image's argmax as a little-endian 64-bit integer.
    """
    detail = interpreter.get_input_details()[0]
    output = interpreter.get_output_details()[0]["index"]
    predicted = np.empty(len(images), dtype="<i8")
    for i in range(len(images)):
        interpreter.set_tensor(detail["index"], prepare(images[i : i + 1], detail))
        interpreter.invoke()
        predicted[i] = np.argmax(interpreter.get_tensor(output))
    return {
        "images": len(images),
        "accuracy": float((predicted == labels).mean()),
        "predictions_sha256": hashlib.sha256(predicted.tobytes()).hexdigest(),
    }


def run_worker(spec: dict[str, Any]) -> dict[str, Any]:
    """Measure one model in this process and return its figures; `run_job` makes `spec`."""
    cpus = pin(spec["threads"])
    interpreter_class = importlib.import_module(spec["module"]).Interpreter
    sample = load_sample(Path(spec["sample"])) if spec["sample"] else None
    before = rss_kib()
    begin = time.perf_counter_ns()
    interpreter = interpreter_class(model_path=spec["model"], num_threads=spec["threads"])
    interpreter.allocate_tensors()
    load_ns = time.perf_counter_ns() - begin
    detail = interpreter.get_input_details()[0]
    if sample is None:
        shape = (TIMED_IMAGES, *detail["shape"][1:])
        images = np.random.default_rng(spec["seed"]).integers(0, 256, shape, dtype=np.uint8)
    else:
        images = sample[0]
    index, one = detail["index"], [prepare(images[:1], detail)]
    first, _ = time_invokes(interpreter, index, one, 0, 1)
    time_invokes(interpreter, index, one, spec["warmup"], 1)
    memory = rss_kib()  # now, before the other inputs and the timings take memory of their own
    inputs = [prepare(image[None], detail) for image in images[:TIMED_IMAGES]]
    gc.disable()
    begin_s = time.time()
    alone, with_input = time_invokes(interpreter, index, inputs, spec["seconds"], MIN_INVOKES)
    end_s = time.time()
    return {
        "cpus": cpus,
        "load_ms": load_ns / 1e6,
        "first_ms": int(first[0]) / 1e6,
        **summarize(alone),
        "with_input_median_us": summarize(with_input)["median_us"],
        "timed_s": [begin_s, end_s],  # by the clock, to find these seconds in a power meter's log
        "rss_before_kib": before["now"],
        "max_rss_kib": memory["peak"],
        "ru_maxrss_kib": memory["ru_maxrss"],
        "peak_rss_kib": max(0, memory["peak"] - before["now"]),
        **(score(interpreter, *sample) if sample and spec["score"] else {}),
        "invoke_ns": alone.tolist(),
    }


def worker_main(spec: str) -> int:
    """Print the worker's figures, or what went wrong, as one JSON line on stdout."""
    try:
        answer = run_worker(json.loads(spec))
    except RunnerError as error:
        answer = {"error": str(error)}
    except Exception as error:  # whatever a runtime raises about a model is that model's result
        answer = {"error": f"{type(error).__name__}: {one_line(error)}"}
    print(json.dumps(answer))
    return 0


def run_job(spec: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Run one worker and return its figures, or `{"error": line}` when it failed or died."""
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", json.dumps(spec)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as child:
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            return {"error": f"no answer within {timeout:.0f} s"}
        except BaseException:  # Ctrl-C: leave no worker behind
            child.kill()
            raise
    if child.returncode == 0 and out:
        answer: dict[str, Any] = json.loads(out.decode("utf-8").splitlines()[-1])
        return {**answer, "xnnpack": b"XNNPACK delegate" in err}
    ended = f"exit code {child.returncode}"
    if child.returncode < 0:
        ended = f"{signal.Signals(-child.returncode).name} in the runtime: damaged model?"
    last = err.decode("utf-8", "replace").strip().splitlines()[-1:]
    return {"error": one_line(" ".join([f"the worker died: {ended}", *last]))}


def say(text: str, done: bool = True) -> None:
    """Write a line to stderr; on a terminal a line that is not done is replaced by the next."""
    live = sys.stderr.isatty()
    end = "" if live and not done else "\n"
    print(f"\r\033[K{text}" if live else text, end=end, file=sys.stderr, flush=True)


def measure(args: argparse.Namespace, module: str, runs: Runs, errors: dict[Key, str]) -> None:
    """Run every job in turn, filling `runs` and `errors`; a pair that failed is not tried again."""
    jobs = schedule(list(args.names), args.threads, args.repeats, args.seed)
    each = args.seconds + args.warmup
    about = len(jobs) * (each + START_SECONDS)
    say(f"{len(jobs)} processes, about {about:.0f} s, and more where {MIN_INVOKES} invokes take it")
    begin = time.monotonic()
    for done, job in enumerate(jobs, 1):
        key = (job.model, job.threads)
        if key not in errors:
            answer = run_job(worker_spec(args, module, job), 600 + 10 * each + args.images)
            if "error" in answer:
                errors[key] = answer["error"]
                say(f"error: {job.model} threads={job.threads}: {answer['error']}")
            else:
                answer["invoke_ns"] = np.array(answer["invoke_ns"], dtype=np.int64)
                runs.setdefault(key, []).append({"repeat": job.repeat, **answer})
        left = (time.monotonic() - begin) / done * (len(jobs) - done)
        text = f"[{done}/{len(jobs)}] {job.model} threads={job.threads}; {left:.0f} s left"
        say(text, done == len(jobs))


def worker_spec(args: argparse.Namespace, module: str, job: Job) -> dict[str, Any]:
    """Return what a worker needs to know; the sample is scored in the first round only."""
    return {
        "model": str(args.names[job.model]),
        "module": module,
        "threads": job.threads,
        "sample": str(args.sample) if args.sample else None,
        "score": job.repeat == 0,
        "seconds": args.seconds,
        "warmup": args.warmup,
        "seed": args.seed,
    }


def make_rows(
    files: dict[str, dict[str, Any]], runs: Runs, errors: dict[Key, str]
) -> list[dict[str, Any]]:
    """Return one row for each (model, threads) measured or failed, in the order of `files`."""
    rows = []
    order = list(files)
    for key in sorted({*runs, *errors}, key=lambda key: (order.index(key[0]), key[1])):
        row: dict[str, Any] = {"model": key[0], "threads": key[1], **files[key[0]]}
        if key in errors:
            rows.append({**row, "error": errors[key]})
            continue
        pooled = np.concatenate([run.pop("invoke_ns") for run in runs[key]])
        scored = {"accuracy": None, "images": 0, "predictions_sha256": None, **runs[key][0]}
        row.update({name: scored[name] for name in ("accuracy", "images", "predictions_sha256")})
        rows.append({**row, **combine(runs[key], pooled), "error": None, "runs": runs[key]})
    return rows


def describe_machine() -> dict[str, Any]:
    """Return what stays the same during a run."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_model": cpu_model(),
        "cpu_flags": cpu_flags(),
        "cpus": len(cpus_allowed()),
    }


def emulated() -> bool:
    """Return whether an emulator such as qemu-user runs this process: its latencies mean nothing.

    It hands us the program we think we are as /proc/self/exe, but passes on the kernel's own
    /proc/thread-self/exe: the emulator. A program for another processor, or one called qemu, gives
    it away. An emulated board has a kernel of its own and cannot be told: set BLOODEDGE_EMULATED.
    """
    real = Path("/proc/thread-self/exe")
    try:
        with Path("/proc/self/exe").open("rb") as file, real.open("rb") as kernels:
            other = file.read(20) != kernels.read(20)  # an ELF header up to the processor's number
        found = other or "qemu" in real.resolve().name
    except OSError:  # no Linux, or a closed /proc
        found = False
    return found or bool(os.environ.get("BLOODEDGE_EMULATED"))


def benchmark(args: argparse.Namespace) -> int:
    """Measure all models, write the result even after Ctrl-C, and return the exit code."""
    name, version, module = find_runtime()
    files = {model: describe_model(path) for model, path in args.names.items()}
    environment = {"runtime": name, "runtime_version": version, **describe_machine()}
    environment["before"] = machine_state()
    runs: Runs = {}
    errors: dict[Key, str] = {}
    complete = False
    try:
        measure(args, module, runs, errors)
        complete = True
    except KeyboardInterrupt:
        say("interrupted: writing what is complete")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    environment["after"] = machine_state()
    settings = ("threads", "repeats", "seconds", "warmup", "seed", "quick")
    result = {
        "schema": SCHEMA,
        "complete": complete,
        "emulated": emulated(),
        "config": {key: getattr(args, key) for key in settings},
        "environment": environment,
        "sample": {"file": args.sample.name, "images": args.images} if args.sample else None,
        "rows": make_rows(files, runs, errors),
    }
    write_result(result, args.out, args.force)
    say(f"wrote {args.out}")
    return int(bool(errors)) if complete else 130


def thread_counts(text: str) -> list[int]:
    """Return the distinct counts in a list such as 1,0, where 0 stands for every CPU."""
    cpus = len(cpus_allowed())
    counts = list(dict.fromkeys(int(word) or cpus for word in text.split(",")))
    if not all(1 <= count <= cpus for count in counts):
        raise argparse.ArgumentTypeError(f"{text}: expected 0 to {cpus}, the CPUs there are")
    return counts


def check(args: argparse.Namespace) -> None:
    """Check the arguments and add `names` (model name to path) and `images` to them.

    Raises:
        RunnerError: a value is out of range, a file missing, damaged, or in the way of `out`.
    """
    if args.repeats < 1 or args.seed < 0 or not 0 < args.seconds <= 86400:
        raise RunnerError("expected --repeats >= 1, --seed >= 0, and --seconds in 0..86400")
    if not 0 <= args.warmup <= 86400:
        raise RunnerError("expected --warmup in 0..86400")
    for path in args.models:
        if not path.is_file():
            raise RunnerError(f"model {path} does not exist")
    if len({path.resolve() for path in args.models}) < len(args.models):
        raise RunnerError("a model is given twice")
    files = [path.name for path in args.models]
    args.names = {str(p) if files.count(p.name) > 1 else p.name: p for p in args.models}
    args.images = len(load_sample(args.sample)[0]) if args.sample else 0
    if args.out.exists() and not args.force:
        raise RunnerError(f"{args.out} exists: choose another --out, or give --force")
    if not os.access(args.out.parent, os.W_OK):
        raise RunnerError(f"the folder of {args.out} does not exist or cannot be written")


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the arguments with their defaults filled in; exits with 2 when one is unknown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("models", nargs="+", type=Path, metavar="MODEL.tflite")
    add("--sample", type=Path, help="npz with uint8 images (N,H,W,3) and integer labels (N,)")
    add("--out", type=Path, required=True, help="the JSON to write")
    add("--threads", type=thread_counts, default="1,0", help="counts; 0 is every CPU [1,0]")
    add("--repeats", type=int, help="processes for each model and thread count [5]")
    add("--seconds", type=float, help="least time of timed invokes in each process [2]")
    add("--warmup", type=float, help="seconds of warm-up in each process [0.5]")
    add("--seed", type=int, default=0, help="of the order and of the random input [0]")
    add("--quick", action="store_true", help="a rough look: 2 repeats of 0.2 s unless given")
    add("--force", action="store_true", help="replace --out where it exists")
    args = parser.parse_args(argv)
    for name, usual, quick in (("repeats", 5, 2), ("seconds", 2.0, 0.2), ("warmup", 0.5, 0.1)):
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else usual)
    return args


def interrupt(signum: int, frame: object) -> None:
    """Raise KeyboardInterrupt once: a second Ctrl-C must not cut the writing short."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(argv: list[str]) -> int:
    """Run the command line and return its exit code."""
    if argv[:1] == ["--worker"]:
        return worker_main(argv[1])
    args = parse(argv)
    signal.signal(signal.SIGINT, interrupt)
    try:
        check(args)
        return benchmark(args)
    except (RunnerError, OSError) as error:
        say(f"error: {one_line(error)}")
        return 2
    except KeyboardInterrupt:  # before anything was measured
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
