"""Measure .tflite classifiers on the device they are for. One file: copy it and run it.

    python3 runner.py MODEL.tflite... --sample sample.npz --out result.json

Needs Python 3.8 or newer, NumPy, and one runtime: ai-edge-litert, tflite-runtime or tensorflow.
Every (model, threads, repeat) runs in a fresh process, because memory layout and core placement
are drawn once per process and shift its whole median. Each round visits every model in a newly
shuffled, seeded order, so that a device growing warmer slows all of them equally. Processes that
have ended are kept in OUT.partial: after Ctrl-C or a power cut the same with --resume goes on.
Exit codes: 0 all measured, 1 a model failed, 2 bad arguments or no runtime, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
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
import threading
import time
import unicodedata
import zipfile
import zlib
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

try:
    from importlib import metadata
    from math import prod

    import numpy as np
except ImportError as error:
    # Python 3.7 lacks the first two; what NumPy says of itself may be a page long.
    why = " ".join(str(error).split())[:200]
    sys.stderr.write(f"error: Python 3.8 or newer and NumPy are needed: {why}\n")
    sys.exit(2)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Key = tuple[str, int]  # model, threads
    Runs = dict[Key, list[dict[str, Any]]]  # the figures of each process that ended well

SCHEMA = "bloodedge-benchmark/1"
JOURNAL = "bloodedge-journal/1"
SYS = Path("/sys")
MIN_INVOKES = 50  # benchmark_model's least for a stable median
DRIFT_LIMIT = 0.10  # of one model's processes
SPREAD_LIMIT = 0.05  # of most models' processes: what two runs are to agree within
JITTER_LIMIT = 0.10  # of a loop that does the same every time
SAMPLE_LIMIT_BYTES = 1 << 30
NAME_LIMIT = 1000
REPEATS_LIMIT = 1000  # whoever reads the result takes no more
TIMED_IMAGES = 64  # timing cycles over these: real data, without filling a small device's memory
TIMED_BYTES = 8 << 20  # for as much memory as this
START_SECONDS = 1.0  # Python, the runtime and the model: only for the first estimate
PROBE_SECONDS = 2.5  # the same and the machine's peaks
# A minute on a Raspberry Pi 4, less what 40 s do not count: two probes and the last process, which
# starts before they are over, of 3 s each there, for starting takes six times what it does here.
QUICK_SECONDS, QUICK_INVOKES, QUICK_IMAGES = 40.0, 5, 100
# Instructions that multiply int8 by int8 and add in one step, as Linux names them.
INT8_DOT_FLAGS = ("asimddp", "i8mm", "avx_vnni", "avx512_vnni", "avx_vnni_int8", "amx_int8")
CPU_FLAGS = ("neon", "asimd", "sve", "sve2", "sse4_1", "avx", "avx2", "avx512f", *INT8_DOT_FLAGS)
RUNTIMES = (  # module, distribution, the module that holds Interpreter
    ("ai_edge_litert", "ai-edge-litert", "ai_edge_litert.interpreter"),
    ("tflite_runtime", "tflite-runtime", "tflite_runtime.interpreter"),
    ("tensorflow", "tensorflow", "tensorflow.lite.python.interpreter"),
)
COPY_BYTES = (256 << 10, 2 << 20, 32 << 20)  # within a core's cache, the shared one, and memory
LEAST_COPY = 64 << 10  # for one thread of several
GEMM_MACS = 256 * 512 * 512
# One dense layer as int8 and as float32, packed by gemm_model.py, which says why.
GEMM = {
    "int8": (
        "c-pJD_4b-=-W3NCh6mfFg)0wdZJeST79yglsWegP=(Uh3A|jd`_D)V-#~CfySX2EDT+9dxm|^~H#@1~O%pYo3Kc8"
        "uCU1uz3e$VyD>*?#`Tym1cZ@);A%{7_nn)WmP_7UG>|JHO)J|my{#(4j!9U02$?&tb`eEP8Z|IZ8Gm(FKpX!w8W<"
        "p<fqsQvuQv>8S+IB;kCzW4jnO>X}G^6}le9$lkdJ*7FDW8I~F<Bo4Mmo%5mf4%2zK&tVU)OU~P?EYyimmB{3><8)"
        "hmMaa{Zk^Ms|Egl<?UbVU>pDL#-$`Ft8v1$5E}h?JK5kpL*`jLStoPo(7p^na{k8MjZksphKlj+gue~mNRr+`Qdh"
        "g$Lr#7GKkDQx&H+*IB|Lazd=iT%DuCx4{TG>yP=U?xfj<nOB%>RAuy7uzTa{N2?&8}ZtT>a%ud-<KClOyL|eUnqq"
        "EG}Wh1pu|$vUd"
    ),
    "float32": (
        "c-pJD_4b;!-;n?jwg<-i9_l8Oy99L@I+;7&6a_d~n$iO-rZpsRa!flEbc30bEz<Ay?ZhV6PqmZltK^q&-y2$Pu5_"
        "-?pHFGpM(NcVi~6*l-RyqzH0J6N*JqU%kLdi4p1JsqeA>5FCtjU+)p2}%|F_Spb9a~NF);k`zWvuSY4;p{C4Vu7Q"
        "7{Td!H5I(UoUNYo1HfA?eE>~?RhzqGL1^te2Q`x{rpG%*g0eInWuxczY351c70u$diM0!A6Lw}H1GTVhw~y&{#f("
        "!*pDSW<y-w{UOrRzviyD2^s?Bj{L_CQJLNA;+ZI@Cyl(dA_o;Qe4C`&z8OjEIx9<G9@A$5dRbOAvw7<Xl_WuvxV&"
        "5j+IQ2+6_MB=z06)TznE"
    ),
}


class RunnerError(Exception):
    """Something the user can mend, in one line."""


class Job(NamedTuple):
    """One worker process: a model's name, its thread count, and the round it belongs to."""

    model: str
    threads: int
    repeat: int


class Course(NamedTuple):
    """How far a run came, and the machine's steadiness before it and after."""

    complete: bool
    left_out: int  # processes that a quick run had no time for
    loops: list[dict[str, float]]


class Sample(NamedTuple):
    """Labelled images on the disk: they are read one by one, because a device may be small."""

    path: Path
    shape: tuple[int, int, int, int]  # N, H, W, 3
    labels: NDArray[np.int64]
    class_names: list[str]  # empty where the file has none


# ---- statistics ----


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


def judge(
    rows: list[dict[str, Any]],
    loops: list[dict[str, float]],
    states: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return whether the machine was quiet enough to conclude anything from the medians.

    Args:
        rows: the result's.
        loops: from `steady_loop`, before and, if it came so far, after the run.
        states: from `machine_state`, at the same times, and between them what `throttling` said.

    Returns:
        `verdict`: `noisy`, with `reasons`; `quiet`; or `unknown` where fewer than three
        processes of each model, which cannot tell, say nothing against it.
    """
    reasons = []
    jitter = max(loop["jitter"] for loop in loops)
    if jitter > JITTER_LIMIT:
        reasons.append(f"a loop that does the same every time varies by {100 * jitter:.0f} %")
    shift = loops[-1]["median_us"] / loops[0]["median_us"] - 1
    if abs(shift) > SPREAD_LIMIT:
        reasons.append(f"the same loop takes {100 * shift:+.0f} % after the run")
    spreads = [row["spread"] for row in rows if not row["error"] and row["repeats"] > 1]
    typical = float(np.median(spreads)) if spreads else 0.0
    if typical > SPREAD_LIMIT:
        reasons.append(f"the processes of most models differ by {100 * typical:.0f} % or more")
    drifting = sum(spread > DRIFT_LIMIT for spread in spreads)
    if drifting > len(spreads) / 4:
        limit = f"{100 * DRIFT_LIMIT:.0f} %"
        reasons.append(
            f"{drifting} of {len(spreads)} medians differ by over {limit} between processes"
        )
    reasons += throttled_over(states)
    known = [row["repeats"] for row in rows if not row["error"]]
    verdict = "noisy" if reasons else "quiet" if known and min(known) >= 3 else "unknown"
    return {
        "verdict": verdict,
        "reasons": reasons,
        "jitter": round(jitter, 4),
        "shift": round(shift, 4),
        "typical_spread": round(typical, 4),
    }


def in_words(noise: dict[str, Any]) -> str:
    """Return the verdict of `judge` as a line."""
    if noise["verdict"] == "noisy":
        return "this machine is too noisy to conclude: " + "; ".join(noise["reasons"])
    if noise["verdict"] == "unknown":
        return "too few processes to tell how noisy this machine is: 3 repeats or more would"
    return (
        f"quiet enough: processes differ by {100 * noise['typical_spread']:.1f} %, "
        f"a steady loop by {100 * noise['jitter']:.1f} %"
    )


# ---- the sample ----


def open_sample(path: Path, whole: bool = False) -> Sample:
    """Return what is in a sample.

    Args:
        path: the .npz.
        whole: whether to read all of it, to find damage.

    Raises:
        RunnerError: the file is missing, too large, pickled, or of the wrong shape or type.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no ordinary file")
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > SAMPLE_LIMIT_BYTES:
                raise ValueError("it unpacks to more than 1 GiB")
            damaged = archive.testzip() if whole else None
            if damaged:
                raise ValueError(f"{damaged} in it is damaged")
            with archive.open("images.npy") as file:
                shape, dtype = read_header(file)
                held = archive.getinfo("images.npy").file_size - file.tell()
        with np.load(path, allow_pickle=False) as arrays:
            labels = arrays["labels"]
            names = arrays["class_names"] if "class_names" in arrays.files else np.array([], str)
    except Exception as error:  # NumPy and zipfile raise a dozen kinds about a damaged file
        raise RunnerError(f"sample {path} cannot be read: {one_line(error)}") from error
    if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8 or not held == prod(shape) > 0:
        found = f"{dtype} {shape}"
        raise RunnerError(f"sample {path} has images {found}, expected uint8 (N, H, W, 3)")
    if labels.shape != shape[:1] or labels.dtype.kind not in "iu":
        found = f"{labels.dtype} {labels.shape}"
        raise RunnerError(f"sample {path} has labels {found}, expected integers ({shape[0]},)")
    if names.ndim != 1 or names.dtype.kind != "U":
        raise RunnerError(f"sample {path} has class_names that are no list of text")
    return Sample(path, shape, labels.astype(np.int64), [str(name) for name in names])


def read_header(file: Any) -> tuple[Any, np.dtype[Any]]:
    """Return shape and type of the array whose .npy file is read from its start."""
    version = np.lib.format.read_magic(file)
    first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if fortran and len(shape) > 1:
        raise ValueError("its images are stored column by column: np.ascontiguousarray mends that")
    return shape, dtype


def stream(sample: Sample) -> Iterator[NDArray[np.uint8]]:
    """Yield the images one by one, each `(1, H, W, 3)`."""
    each = prod(sample.shape[1:])
    with zipfile.ZipFile(sample.path) as archive, archive.open("images.npy") as file:
        read_header(file)
        for _ in range(sample.shape[0]):
            image = np.frombuffer(file.read(each), dtype=np.uint8)
            yield image.reshape(1, *sample.shape[1:])


# ---- files ----


def describe_model(path: Path) -> dict[str, Any]:
    """Return a model file's size in bytes, as it is and gzipped at level 9, and its SHA-256."""
    data = path.read_bytes()
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = len(packer.compress(data)) + len(packer.flush())
    return {"bytes": len(data), "gzip_bytes": packed, "sha256": hashlib.sha256(data).hexdigest()}


def digest(path: Path) -> str:
    """Return a file's SHA-256, read in pieces: a sample may be larger than the memory."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while True:
            piece = file.read(1 << 20)
            if not piece:
                return found.hexdigest()
            found.update(piece)


def model_labels(path: Path) -> list[str]:
    """Return the class names that a model with TFLite metadata carries, else none.

    They are the lines of a text file in a zip archive that is appended to the model: `labels.txt`,
    else the first with `label` in its name, else the first. `bloodedge evaluate` and `predict`
    choose and read it by the same rule.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if e.filename.endswith(".txt")]
            entries.sort(key=lambda e: (e.filename != "labels.txt", "label" not in e.filename))
            if not entries or entries[0].file_size > 1 << 20:
                return []
            lines = archive.read(entries[0]).decode("utf-8-sig").splitlines()
    except Exception:  # no archive, or a damaged one: then it has no labels
        return []
    names = [line.strip() for line in lines if line.strip()]
    return names if all(name.isprintable() for name in names) else []


def read_facts(path: Path | None) -> dict[str, Any]:
    """Return each model's work by its digest, from the `bundle.json` that a bundle holds.

    Raises:
        RunnerError: a file that was asked for is missing or damaged.
    """
    file = path or Path(__file__).with_name("bundle.json")
    if not file.is_file():
        if path is None:
            return {}
        raise RunnerError(f"{file} is no ordinary file")
    try:
        models = json.loads(file.read_text(encoding="utf-8"))["models"].values()
        return {model["sha256"]: model["work"] for model in models if model.get("work")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunnerError(f"{file} cannot be read: {one_line(repr(error))}") from error


def describe_sample(sample: Path, images: int) -> dict[str, Any]:
    """Return a sample's entry in the result, with its data where it lies in a bundle."""
    about: dict[str, Any] = {"file": sample.name, "images": images}
    try:
        data = json.loads(sample.with_name("bundle.json").read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError, TypeError):
        return about
    return {**about, "data": data} if isinstance(data, dict) else about


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


class Journal:
    """The processes that have ended, one JSON line each, so that a killed run can go on.

    Args:
        out: the result's path; the journal lies beside it.
        plan: what is measured and how; another plan cannot go on.
        resume: whether to go on from a journal that is there.

    Raises:
        RunnerError: the journal there is of another plan.
    """

    def __init__(self, out: Path, plan: dict[str, Any], resume: bool) -> None:
        self.path = journal_path(out)
        self.first: dict[str, Any] = {}  # what was found at the first start
        self.entries: list[dict[str, Any]] = []
        self.during: list[dict[str, Any]] = []  # what `throttling` said after each process
        if resume and self.path.exists():
            self._read(plan)
        lines = [{"schema": JOURNAL, "plan": plan}, *self.entries]
        if self.first:
            lines.insert(1, {"first": self.first})
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        temporary.replace(self.path)
        self._file = self.path.open("a", encoding="utf-8")

    def _read(self, plan: dict[str, Any]) -> None:
        lines = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:  # cut short by a power failure: what is before it counts
                break
        found = lines[0] if lines and isinstance(lines[0], dict) else {}
        if found.get("schema") != JOURNAL or not isinstance(found.get("plan"), dict):
            raise RunnerError(f"{self.path} is no journal of this runner: --force starts anew")
        other = [key for key in plan if found["plan"].get(key) != plan[key]]
        if other:
            what = ", ".join(other)
            raise RunnerError(f"{self.path} is of another run ({what} differ): --force starts anew")
        for line in lines[1:]:
            if isinstance(line, dict) and "first" in line:
                self.first = line["first"]
            elif isinstance(line, dict) and {"model", "threads", "repeat", "answer"} <= set(line):
                self.entries.append(line)
                self.during.append({"throttled": line.get("throttled")})

    def add(self, line: dict[str, Any]) -> None:
        """Add a line, and wait until it is on the disk."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self, finished: bool) -> None:
        """Close the journal, and delete it when nothing is left to do."""
        self._file.close()
        if finished:
            self.path.unlink()


def journal_path(out: Path) -> Path:
    """Return where the journal of a result lies."""
    return out.with_name(f"{out.name}.partial")


def pack(ns: NDArray[np.int64]) -> str:
    """Return durations `(n,)` as text, compressed: there may be a million."""
    return base64.b64encode(zlib.compress(ns.astype("<i8").tobytes(), 1)).decode("ascii")


def unpack(text: str) -> NDArray[np.int64]:
    """Return what `pack` packed."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<i8").astype(np.int64)


# ---- the machine ----


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
    """Return a Raspberry Pi's throttling bits, such as 0x0, or nothing on other boards.

    From its firmware's tool, or where that is missing from its kernel.
    """
    tool = shutil.which("vcgencmd")
    if tool is not None:
        try:
            done = subprocess.run([tool, "get_throttled"], stdout=subprocess.PIPE, timeout=10)
            found = one_line(done.stdout.decode("ascii", "replace")).partition("=")[2]
            if found:
                return found
        except (OSError, subprocess.SubprocessError):
            pass
    bits = read_all("devices/platform/soc/soc:firmware/get_throttled")
    return f"0x{bits[0]}" if bits else None


def throttled_over(states: list[dict[str, Any]]) -> list[str]:
    """Return in words how a machine slowed itself down between the first state and the last.

    Of a Raspberry Pi's bits the lowest four are about now, and 16 to 19 about since it was switched
    on: those that were set before tell nothing of the run.
    """
    before, after, reasons = states[0], states[-1], []
    try:
        bits = [int(state.get("throttled") or "0", 16) for state in states]
    except ValueError:
        bits = [0]
    seen = (bits[-1] & ~bits[0]) >> 16
    for now in bits:
        seen |= now & 15
    words = ("under-voltage", "a capped clock", "throttling", "the soft temperature limit")
    if seen:
        said = ", ".join(word for bit, word in enumerate(words) if seen >> bit & 1)
        reasons.append(f"the board reports {said}")
    count = (after.get("throttle_count") or 0) - (before.get("throttle_count") or 0)
    if count > 0:
        reasons.append(f"the processor throttled {count} times")
    return reasons


def machine_state() -> dict[str, Any]:
    """Return what may change in a run: clocks, temperatures (degrees C), throttling, load."""
    counts = read_numbers("devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")
    return {
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "governor": sorted(set(read_all("devices/system/cpu/cpu*/cpufreq/scaling_governor"))),
        "cpu_khz": read_numbers("devices/system/cpu/cpu*/cpufreq/scaling_cur_freq"),
        "temperature_c": [t / 1000 for t in read_numbers("class/thermal/thermal_zone*/temp")],
        "throttled": throttling(),
        "throttle_count": sum(counts) if counts else None,
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else [],
    }


def describe_machine() -> dict[str, Any]:
    """Return what stays the same during a run."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "kernel": f"{platform.system()} {platform.release()}",
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


def find_runtime(only: str | None = None) -> tuple[str, str, str]:
    """Return the first runtime installed: its name, version, and the module of Interpreter.

    Args:
        only: the runtime to use; by default the first of `RUNTIMES` that is there.

    Raises:
        RunnerError: there is none, or the one there is cannot work with this NumPy.
    """
    refused = "no TFLite runtime found: pip install ai-edge-litert"
    if only:
        refused = f"{only} is not installed: pip install {only.replace('_', '-')}"
    for name, distribution, module in RUNTIMES:
        if only not in (None, name) or importlib.util.find_spec(name) is None:
            continue
        if name == "tflite_runtime" and int(np.__version__.split(".")[0]) >= 2:
            found = f"numpy {np.__version__}"
            refused = f"tflite-runtime needs numpy<2, found {found}: pip install 'numpy<2'"
            continue
        try:
            return name, metadata.version(distribution), module
        except metadata.PackageNotFoundError:  # copied here without pip, or a nightly build
            return name, "unknown", module
    raise RunnerError(refused)


def pin(threads: int) -> list[int]:
    """Bind this process to as many CPUs as threads, the fastest first, and return them.

    Among equals the highest number, because interrupts are handled mostly on CPU 0. Nothing is
    returned where the system does not allow it: the figures scatter more then.
    """
    if not hasattr(os, "sched_setaffinity"):
        return []

    def rank(cpu: int) -> tuple[int, int]:
        limits = read_numbers(f"devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq")
        return max(limits, default=0), cpu

    chosen = sorted(sorted(cpus_allowed(), key=rank)[-threads:])
    try:
        os.sched_setaffinity(0, chosen)
    except OSError:
        return []
    return chosen


# ---- the machine's own figures ----


def steady_loop(seconds: float) -> dict[str, float]:
    """Time the same checksums again and again, and return how much that varies; see `vary`.

    Their bytes stay in the first-level cache: what reads more than that, such as a list of numbers,
    depends on where memory put it, and so on the process (results/runner.md).
    """
    data = bytes(1 << 14)

    def checksums() -> None:
        for _ in range(10):
            zlib.crc32(data)

    return vary(checksums, seconds)


def vary(call: Callable[[], object], seconds: float) -> dict[str, float]:
    """Time what does the same every time, and return how much that varies.

    Returns:
        `median_us`, and `jitter`, (p90 - p10) / median.
    """
    clock = time.perf_counter_ns
    taken: list[int] = []
    stop = clock() + int(seconds * 1e9)
    while len(taken) < 20 or clock() < stop:
        begin = clock()
        call()
        taken.append(clock() - begin)
    low, middle, high = (float(value) for value in np.percentile(taken, [10, 50, 90]))
    return {"median_us": round(middle / 1000, 3), "jitter": round((high - low) / middle, 4)}


def best_seconds(call: Callable[[], object], seconds: float) -> float:
    """Return the shortest of many calls, at least three: a peak is what nothing disturbed."""
    clock = time.perf_counter
    best, count, stop = float("inf"), 0, clock() + seconds
    while count < 3 or clock() < stop:
        begin = clock()
        call()
        best, count = min(best, clock() - begin), count + 1
    return best


def runtime_gemms(interpreter_class: Any, threads: int, seconds: float) -> dict[str, Any]:
    """Return the runtime's peaks in GMAC/s on a large dense layer; nothing for one it refuses.

    Raises:
        RunnerError: it refuses both, so it will run no model.
    """
    found: dict[str, float | None] = {}
    reason: object = ""
    for kind, packed in GEMM.items():
        content = zlib.decompress(zlib.decompress(base64.b85decode(packed)))
        try:
            interpreter = interpreter_class(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
            detail = interpreter.get_input_details()[0]
            interpreter.set_tensor(detail["index"], np.ones(detail["shape"], detail["dtype"]))
            speed = GEMM_MACS / best_seconds(interpreter.invoke, seconds) / 1e9
            found[f"{kind}_gmacs"] = round(speed, 3)
        except Exception as error:  # whatever a runtime raises
            found[f"{kind}_gmacs"], reason = None, error
    if not any(found.values()):
        raise RunnerError(f"with numpy {np.__version__} it runs no model: {one_line(reason)}")
    return found


def numpy_gemm(seconds: float) -> float:
    """Return NumPy's peak in GMAC/s on float32 matrices of 512 x 512."""
    a = np.ones((512, 512), dtype=np.float32)
    out = np.empty_like(a)
    return round(512**3 / best_seconds(lambda: np.dot(a, a, out=out), seconds) / 1e9, 3)


def copy_sizes(threads: int) -> list[int]:
    """Return how much each of some threads copies, so that all of them read `COPY_BYTES`.

    Of the smallest it is more where threads are many: each copy ends with taking Python's lock, and
    a short one would measure that.
    """
    return sorted({max(LEAST_COPY, size // threads) for size in COPY_BYTES})


def copy_speed(size: int, threads: int, seconds: float) -> float:
    """Return the bytes read and written in GB/s by as many threads, each copying `size` bytes."""
    pairs = [(np.ones(size, dtype=np.uint8), np.ones(size, dtype=np.uint8)) for _ in range(threads)]
    loops = max(1, (8 << 20) // size)

    def copy(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
        for _ in range(loops):
            np.copyto(*pair)

    def once() -> None:
        others = [threading.Thread(target=copy, args=(pair,)) for pair in pairs[1:]]
        for other in others:
            other.start()
        copy(pairs[0])
        for other in others:
            other.join()

    return round(2 * size * loops * threads / best_seconds(once, seconds) / 1e9, 3)


def run_probe(spec: dict[str, Any]) -> dict[str, Any]:
    """Find out whether the runtime works, how steady the machine is, and what its peaks are."""
    threads, seconds = spec["threads"], spec["seconds"]
    cpus = pin(threads)
    interpreter_class = importlib.import_module(spec["module"]).Interpreter
    answer: dict[str, Any] = {"cpus": cpus, "loop": steady_loop(seconds)}
    if spec["peaks"]:
        answer["peaks"] = {
            "threads": threads,
            **runtime_gemms(interpreter_class, threads, seconds),
            "numpy_float32_gmacs": numpy_gemm(seconds),
            "copy": [
                {
                    "resident_bytes": 2 * size * threads,
                    "gb_s": copy_speed(size, threads, seconds / 2),
                }
                for size in copy_sizes(threads)
            ],
        }
    return answer


# ---- one model ----


def quantize(values: NDArray[Any], scale: float, zero_point: int) -> NDArray[np.int8]:
    """Return round(values / scale) + zero_point as int8, saturated; error <= scale / 2."""
    steps = np.rint(np.asarray(values, dtype=np.float64) / scale) + zero_point
    q: NDArray[np.int8] = np.clip(steps, -128, 127).astype(np.int8)
    return q


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return an image `(1, H, W, 3)` as `(1, height, width, 3)`, bilinear between pixel centres."""
    pixels = image[0].astype(np.float32)
    for axis, side in enumerate((height, width)):
        last = pixels.shape[axis] - 1
        at = np.clip((np.arange(side) + 0.5) * (last + 1) / side - 0.5, 0, last)
        low = np.floor(at).astype(np.int64)
        share = (at - low).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        above = np.take(pixels, np.minimum(low + 1, last), axis=axis)
        pixels = np.take(pixels, low, axis=axis) * (1 - share) + above * share
    resized: NDArray[np.uint8] = np.rint(pixels).astype(np.uint8)[None]
    return resized


def fit(image: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an image `(1, H, W, 3)` in the size and layout that a model takes.

    Raises:
        RunnerError: the model takes several images at once, or none of one or three channels.
    """
    if shape == image.shape:
        return image
    if len(shape) == 4 and shape[0] != 1:
        raise RunnerError(
            f"the model takes a batch of {shape[0]} images; export it with a batch of 1"
        )
    if len(shape) != 4 or not {shape[1], shape[3]} & {1, 3}:
        raise RunnerError(f"the model's input is {shape}, no single image in colour or grey")
    planes = shape[3] not in (1, 3)
    height, width, channels = (shape[2], shape[3], shape[1]) if planes else shape[1:]
    image = resize(image, height, width)
    if channels == 1:  # ITU-R BT.601
        luma = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
        image = np.rint(luma).astype(np.uint8)[..., None]
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2)) if planes else image


def encode(
    image: NDArray[np.uint8], detail: dict[str, Any], scaling: tuple[float, float] = (0.0, 1.0)
) -> NDArray[Any]:
    """Return pixels 0..255 of the input's shape as its type takes them.

    float32 takes (pixel - mean) / std; by default that is the pixel itself, for preprocessing is
    inside most models for devices. uint8 takes the bytes as they are, which is what an Android
    app or a browser feeds it, and int8 whose range does not reach 255 takes them less 128.

    Raises:
        RunnerError: the model expects another type.
    """
    dtype = np.dtype(detail["dtype"])
    if dtype == np.float32:
        mean, std = scaling
        return ((image.astype(np.float32) - np.float32(mean)) / np.float32(std)).astype(dtype)
    if dtype == np.uint8:
        return image.astype(dtype)
    scale, zero_point = detail["quantization"]
    if dtype != np.int8:
        raise RunnerError(f"the model's input is {dtype}, expected float32, uint8 or int8")
    if 255 * scale < 128:
        return (image.astype(np.int16) - 128).astype(np.int8)
    return quantize(image, scale, zero_point)


def prepare(
    image: NDArray[np.uint8], detail: dict[str, Any], scaling: tuple[float, float] = (0.0, 1.0)
) -> NDArray[Any]:
    """Return an image `(1, H, W, 3)` as the model's input tensor takes it.

    Raises:
        RunnerError: the model takes no such thing.
    """
    return encode(fit(image, tuple(int(n) for n in detail["shape"])), detail, scaling)


def class_map(
    outputs: int, names: list[str], sample: Sample
) -> tuple[NDArray[np.int64] | None, str]:
    """Return the sample's class for each of a model's outputs, -1 for none, and what to know of it.

    Classes are matched by name where model and sample both have names, else by their number.
    """
    classes = len(sample.class_names) or int(sample.labels.max()) + 1
    if sample.class_names and len(names) == outputs:
        known = {name: i for i, name in enumerate(folded(sample.class_names))}
        found = [known.get(name, -1) for name in folded(names)]
        if max(found) < 0:
            return None, "no accuracy: the model's labels are not the sample's"
        lacking = [name for i, name in enumerate(sample.class_names) if i not in found]
        why = "the model does not know " + one_line(", ".join(lacking)) if lacking else ""
        return np.array(found), why
    if outputs < classes or (sample.class_names and outputs > classes):
        return None, f"no accuracy: {outputs} outputs, {classes} classes in the sample"
    return np.arange(outputs), ""


def folded(names: list[str]) -> list[str]:
    """Return names without blanks around them, and in small letters where they stay distinct."""
    # A Mac takes letters apart from their accents.
    plain = [unicodedata.normalize("NFC", name.strip()) for name in names]
    small = [name.casefold() for name in plain]
    return small if len(set(small)) == len(small) else plain


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


def score(
    interpreter: Any, sample: Sample, spec: dict[str, Any], each_seconds: float
) -> dict[str, Any]:
    """Return how many of the images are classified correctly, and the predictions' digest.

    Where that cannot be told, a `note` alone says why.
    The digest is the SHA-256 of every image's argmax as a little-endian 64-bit integer. Of more
    images than asked for, or than there is time for, those at equal distances are taken.
    """
    detail = interpreter.get_input_details()[0]
    given = interpreter.get_output_details()
    # Which of several are the classes cannot be told: some are heads that helped in training.
    if len(given) != 1:
        return {"note": f"no accuracy: {len(given)} outputs, expected one"}
    output = given[0]
    outputs = prod(int(n) for n in output["shape"])
    classes, why = class_map(outputs, model_labels(Path(spec["model"])), sample)
    if classes is None:
        return {"note": why}
    count = min(sample.shape[0], spec["score"])
    if spec["score_seconds"]:
        count = max(1, min(count, int(spec["score_seconds"] / each_seconds)))
    chosen = set((np.arange(count) * sample.shape[0] // count).tolist())
    predicted = []
    for place, image in enumerate(stream(sample)):
        if place in chosen:
            interpreter.set_tensor(detail["index"], prepare(image, detail, spec["scaling"]))
            interpreter.invoke()
            predicted.append(int(np.argmax(interpreter.get_tensor(output["index"]))))
    found = np.array(predicted, dtype="<i8")
    return {
        "images": count,
        "accuracy": float((classes[found] == sample.labels[sorted(chosen)]).mean()),
        "predictions_sha256": hashlib.sha256(found.tobytes()).hexdigest(),
        **({"note": why} if why else {}),
    }


def timed_inputs(
    detail: dict[str, Any], sample: Sample | None, spec: dict[str, Any]
) -> Iterator[NDArray[Any]]:
    """Yield what the timing cycles over: images, or random bytes where there are none."""
    shape = tuple(int(n) for n in detail["shape"])
    size = prod(shape) * np.dtype(detail["dtype"]).itemsize
    count = max(1, min(TIMED_IMAGES, TIMED_BYTES // max(1, size)))
    if sample is None:
        rng = np.random.default_rng(spec["seed"])
        for _ in range(count):
            yield encode(rng.integers(0, 256, shape, dtype=np.uint8), detail, spec["scaling"])
        return
    for place, image in enumerate(stream(sample)):
        if place == count:
            return
        yield prepare(image, detail, spec["scaling"])


def remarks(interpreter: Any, sample: Sample | None) -> list[str]:
    """Return what is done to the images to fit them to a model that was made for others."""
    detail = interpreter.get_input_details()[0]
    shape = tuple(int(n) for n in detail["shape"])
    said = []
    if sample is not None and shape[1:] != sample.shape[1:]:
        said.append(f"images of {sample.shape[1:]} are fitted to {shape[1:]}")
    if np.dtype(detail["dtype"]) == np.int8 and 255 * detail["quantization"][0] < 128:
        said.append("int8 input: bytes less 128")
    return said


def load(interpreter_class: Any, spec: dict[str, Any]) -> tuple[Any, int]:
    """Return the model's interpreter, with its memory, and the nanoseconds that it took to load.

    Raises:
        RunnerError: the model takes something else than one image of a fixed size.
    """
    begin = time.perf_counter_ns()
    # Bytes, as a name from another disk may be no UTF-8.
    path = os.fsencode(spec["model"])
    interpreter = interpreter_class(model_path=path, num_threads=spec["threads"])
    interpreter.allocate_tensors()
    load_ns = time.perf_counter_ns() - begin
    details = interpreter.get_input_details()
    if len(details) != 1:
        raise RunnerError(f"the model has {len(details)} inputs, expected one image")
    # Sides that are left open are given as 1, and a pixel takes no time.
    if any(int(n) < 0 for n in details[0].get("shape_signature", details[0]["shape"])[1:]):
        raise RunnerError("the model takes images of any size; export it with one")
    return interpreter, load_ns


def run_worker(spec: dict[str, Any]) -> dict[str, Any]:
    """Measure one model in this process and return its figures; `worker_spec` makes `spec`."""
    cpus = pin(spec["threads"])
    interpreter_class = importlib.import_module(spec["module"]).Interpreter
    sample = open_sample(Path(spec["sample"])) if spec["sample"] else None
    before = rss_kib()
    interpreter, load_ns = load(interpreter_class, spec)
    detail = interpreter.get_input_details()[0]
    inputs = timed_inputs(detail, sample, spec)
    index, one = detail["index"], [next(inputs)]
    first, _ = time_invokes(interpreter, index, one, 0, 1)
    time_invokes(interpreter, index, one, spec["warmup"], 1)
    memory = rss_kib()  # now, before the other inputs and the timings take memory of their own
    one += inputs
    gc.disable()
    begin_s = time.time()
    alone, with_input = time_invokes(interpreter, index, one, spec["seconds"], spec["least"])
    end_s = time.time()
    timed = summarize(alone)
    said = remarks(interpreter, sample)
    scored = {}
    if sample is not None and spec["score"]:
        scored = score(interpreter, sample, spec, timed["median_us"] / 1e6)
        said += [scored.pop("note")] if "note" in scored else []
    return {
        "cpus": cpus,
        "load_ms": load_ns / 1e6,
        "first_ms": int(first[0]) / 1e6,
        **timed,
        "with_input_median_us": summarize(with_input)["median_us"],
        "timed_s": [begin_s, end_s],  # by the clock, to find these seconds in a power meter's log
        "rss_before_kib": before["now"],
        "max_rss_kib": memory["peak"],
        "ru_maxrss_kib": memory["ru_maxrss"],
        "peak_rss_kib": max(0, memory["peak"] - before["now"]),
        "process_peak_kib": rss_kib()["peak"],
        **scored,
        "note": "; ".join(said),
        "invoke_ns": pack(alone),
    }


def worker_main(text: str) -> int:
    """Print the worker's figures, or what went wrong, as one JSON line on stdout."""
    try:
        spec = json.loads(text)
        answer = run_probe(spec) if "peaks" in spec else run_worker(spec)
    except RunnerError as error:
        answer = {"error": str(error)}
    except Exception as error:  # whatever a runtime raises about a model is that model's result
        answer = {"error": f"{type(error).__name__}: {one_line(error)}"}
    print(json.dumps(answer))
    return 0


# ---- the whole run ----


def run_job(spec: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Run one worker and return its figures, or `{"error": line}` when it failed or died."""
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", json.dumps(spec)]
    # NumPy's own threads: they take memory, and its product is to use as many as the runtime.
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(spec["threads"]))}
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    child = None
    try:
        with stop_put_off():
            child = subprocess.Popen(command, stdin=none, stdout=pipe, stderr=pipe, env=environment)
        out, err = child.communicate(timeout=timeout)
    except BaseException as error:  # Ctrl-C as well: leave no worker behind
        if child is not None:
            with child:
                child.kill()
        if isinstance(error, subprocess.TimeoutExpired):
            return {"error": f"no answer within {timeout:.0f} s"}
        raise
    if child.returncode == 0 and out:
        answer: dict[str, Any] = json.loads(out.decode("utf-8").splitlines()[-1])
        return {**answer, "xnnpack": b"XNNPACK delegate" in err}
    ended = f"exit code {child.returncode}"
    if child.returncode < 0:
        ended = signal.Signals(-child.returncode).name
        # The system kills where memory runs out; a runtime may have been built for more.
        causes = {"SIGKILL": "out of memory?", "SIGILL": "made for another processor?"}
        ended = f"{ended} in the runtime: {causes.get(ended, 'damaged model?')}"
    last = err.decode("utf-8", "replace").strip().splitlines()[-1:]
    return {"error": one_line(" ".join([f"the worker died: {ended}", *last]))}


def say(text: str, done: bool = True) -> None:
    """Write a line to stderr; on a terminal a line that is not done is replaced by the next.

    Who reads it may have gone, and the terminal with them: what was measured is written all the
    same.
    """
    live = sys.stderr.isatty()
    end = "" if live and not done else "\n"
    with contextlib.suppress(OSError):
        print(f"\r\033[K{text}" if live else text, end=end, file=sys.stderr, flush=True)


def span(seconds: float) -> str:
    """Return a duration as people say it."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def probe(args: argparse.Namespace, module: str, threads: int, peaks: bool) -> dict[str, Any]:
    """Run `run_probe` in a process of its own.

    Raises:
        RunnerError: the runtime cannot be used.
    """
    seconds = 0.1 if args.quick else 0.3
    spec = {"module": module, "threads": threads, "seconds": seconds, "peaks": peaks}
    answer = run_job(spec, 300)
    if "error" in answer:
        raise RunnerError(f"{module.partition('.')[0]} cannot be used: {answer['error']}")
    return answer


def first_look(args: argparse.Namespace, module: str) -> dict[str, Any]:
    """Return the machine's state, steadiness and peaks before anything is measured."""
    found: dict[str, Any] = {"before": machine_state(), "peaks": []}
    for threads in args.threads:
        say(f"the machine's own peaks, threads={threads}", False)
        # An emulator has none, and takes long over them.
        answer = probe(args, module, threads, not emulated())
        found["peaks"] += [answer["peaks"]] if "peaks" in answer else []
        found.setdefault("loop", answer["loop"])
        found["pinned"] = bool(answer["cpus"])
    if not found["pinned"]:
        say("note: processes cannot be bound to CPUs here, so the figures scatter more")
    return found


def measure(
    args: argparse.Namespace, module: str, journal: Journal, runs: Runs, errors: dict[Key, str]
) -> int:
    """Run every job in turn, filling `runs` and `errors`; a pair that failed is not tried again.

    Returns:
        How many jobs a quick run left out, for its time was over.
    """
    jobs = schedule(list(args.names), args.threads, args.repeats, args.seed)
    known = {(e["model"], e["threads"], e["repeat"]): e["answer"] for e in journal.entries}
    begin, fresh = time.monotonic(), 0
    for done, job in enumerate(jobs, 1):
        key = (job.model, job.threads)
        passed = time.monotonic() - begin
        if args.quick and job.repeat and passed > QUICK_SECONDS:
            return len(jobs) - done + 1
        if key not in errors:
            answer = known.get((job.model, job.threads, job.repeat))
            if answer is None:
                fresh += 1
                spec = worker_spec(args, module, job, passed, len(jobs) - done + 1)
                answer = run_job(spec, patience(spec))
                state = {"throttled": throttling()}
                journal.during.append(state)
                journal.add({**job._asdict(), "answer": answer, **state})
            if "error" in answer:
                errors[key] = answer["error"]
                say(f"error: {job.model} threads={job.threads}: {answer['error']}")
            else:
                runs.setdefault(key, []).append({"repeat": job.repeat, **answer})
        left = (time.monotonic() - begin) / max(1, fresh) * (len(jobs) - done)
        text = f"[{done}/{len(jobs)}] {job.model} threads={job.threads}; {span(left)} left"
        say(text, done == len(jobs))
    return 0


def patience(spec: dict[str, Any]) -> float:
    """Return after how many seconds without an answer a worker hangs.

    A large model takes seconds for one inference on a small board, and owes several hundred.
    """
    inferences = spec["least"] + spec["score"]
    return float(600 + 10 * (spec["seconds"] + spec["warmup"] + inferences))


def worker_spec(
    args: argparse.Namespace, module: str, job: Job, passed: float = 0.0, left: int = 1
) -> dict[str, Any]:
    """Return what a worker needs to know; the sample is scored in the first round only.

    Args:
        args: the command line's, checked.
        module: that holds the Interpreter.
        job: what to measure.
        passed: seconds since the start, and
        left: jobs still to do: a quick run shares the time that is left among them.
    """
    images = min(args.images, QUICK_IMAGES) if args.quick else args.images
    share = max(0.0, QUICK_SECONDS - passed) / left - START_SECONDS
    return {
        "model": str(args.names[job.model]),
        "module": module,
        "threads": job.threads,
        "sample": str(args.sample) if args.sample else None,
        "score": images if job.repeat == 0 else 0,
        "score_seconds": max(0.1, share) if args.quick else None,
        "scaling": args.scaling,
        "seconds": args.seconds,
        "warmup": args.warmup,
        "least": QUICK_INVOKES if args.quick else MIN_INVOKES,
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
        pooled = np.concatenate([unpack(run.pop("invoke_ns")) for run in runs[key]])
        scored = {"accuracy": None, "images": 0, "predictions_sha256": None, **runs[key][0]}
        row.update({name: scored[name] for name in ("accuracy", "images", "predictions_sha256")})
        row["xnnpack"] = all(run.get("xnnpack") for run in runs[key])
        row["note"] = scored.get("note", "")
        rows.append({**row, **combine(runs[key], pooled), "error": None, "runs": runs[key]})
    return rows


def expected_seconds(args: argparse.Namespace) -> float:
    """Return about how long the run takes, where models are fast."""
    probes = PROBE_SECONDS * (len(args.threads) + 1)
    one_round = (args.seconds + args.warmup + START_SECONDS) * len(args.names) * len(args.threads)
    timed = float(one_round * args.repeats)
    if args.quick:  # the first round is whole, what follows takes the time that is left
        timed = max(min(QUICK_SECONDS, timed), float(one_round))
    return probes + timed


def benchmark(args: argparse.Namespace) -> int:
    """Measure all models, write the result even after Ctrl-C, and return the exit code."""
    name, version, module = find_runtime(args.runtime)
    work = read_facts(args.facts)
    files = {model: describe_model(path) for model, path in args.names.items()}
    settings = ("threads", "repeats", "seconds", "warmup", "seed", "quick", "scaling")
    config = {key: getattr(args, key) for key in settings}
    journal = Journal(args.out, make_plan(args, files, config, f"{name} {version}"), args.resume)
    total = len(args.names) * len(args.threads) * args.repeats
    count = total - len(journal.entries)
    about = span(expected_seconds(args) * count / total)
    say(f"{count} processes, about {about}, and more where models are slow")
    runs: Runs = {}
    errors: dict[Key, str] = {}
    course = measure_between_looks(args, module, journal, runs, errors)
    on_stop(signal.SIG_IGN)
    rows = make_rows({m: {**f, **work_of(work, f)} for m, f in files.items()}, runs, errors)
    ran = {"runtime": name, "runtime_version": version, **describe_machine()}
    result = make_result(args, journal, course, rows, {"config": config, "environment": ran})
    write_result(result, args.out, args.force or args.resume)
    journal.close(finished=course.complete and not args.keep_journal)
    for note in result["notes"]:
        say(f"note: {note}")
    if result["noise"]:
        say(in_words(result["noise"]))
    say(f"wrote {args.out}")
    return int(bool(errors)) if course.complete else 130


def measure_between_looks(
    args: argparse.Namespace, module: str, journal: Journal, runs: Runs, errors: dict[Key, str]
) -> Course:
    """Look at the machine, fill `runs` and `errors`, look again; Ctrl-C leaves out what is to come.

    Raises:
        RunnerError: the runtime cannot be used.
    """
    loops: list[dict[str, float]] = []
    left_out = 0
    try:
        if not journal.first:
            journal.first = first_look(args, module)
            journal.add({"first": journal.first})
        loops = [journal.first["loop"]]
        left_out = measure(args, module, journal, runs, errors)
        loops += last_look(args, module)
        return Course(True, left_out, loops)
    except KeyboardInterrupt:
        # Who gave the facts runs this as a part of its own and cannot go on from there.
        later = "" if args.facts else "; --resume goes on from there"
        say("interrupted: writing what is complete" + later)
        return Course(False, left_out, loops)
    except RunnerError:
        journal.close(finished=True)
        raise


def make_result(
    args: argparse.Namespace,
    journal: Journal,
    course: Course,
    rows: list[dict[str, Any]],
    about: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Return what is written.

    Args:
        args: the command line's, checked.
        journal: of the run.
        course: how far it came.
        rows: of the models.
        about: the `config`, and the `environment` but for the machine's states.
    """
    machine = about_machine(journal, rows, course.loops)
    environment = {**about["environment"], **machine.pop("states")}
    return {
        "schema": SCHEMA,
        "complete": course.complete,
        "emulated": emulated(),
        "config": about["config"],
        "environment": environment,
        "sample": describe_sample(args.sample, args.images) if args.sample else None,
        "notes": notes_on(journal, course.left_out),
        **machine,
        "rows": rows,
    }


def last_look(args: argparse.Namespace, module: str) -> list[dict[str, float]]:
    """Return the steadiness afterwards; nothing where that fails: all is measured by then."""
    try:
        return [probe(args, module, args.threads[0], False)["loop"]]
    except RunnerError:
        return []


def notes_on(journal: Journal, left_out: int) -> list[str]:
    """Return what a reader of the result has to know of how it came about."""
    notes = [f"resumed after {len(journal.entries)} processes"] if journal.entries else []
    if left_out:
        notes.append(f"{left_out} processes were left out: the time of a quick run was over")
    if not journal.first.get("pinned", True):
        notes.append("processes were not bound to CPUs: the system does not allow it")
    return notes


def about_machine(
    journal: Journal, rows: list[dict[str, Any]], loops: list[dict[str, float]]
) -> dict[str, Any]:
    """Return the machine's peaks, the verdict on its noise, and its `states`."""
    first, after = journal.first, machine_state()
    before = first.get("before", after)
    states = [before, *journal.during, after]
    return {
        "peaks": first.get("peaks", []),
        "noise": judge(rows, loops, states) if loops else None,
        "states": {"before": before, "after": after, "pinned": first.get("pinned", False)},
    }


def work_of(work: dict[str, Any], file: dict[str, Any]) -> dict[str, Any]:
    """Return what the bundle knows of a model, for its row."""
    return {"work": work[file["sha256"]]} if file["sha256"] in work else {}


def make_plan(
    args: argparse.Namespace, files: dict[str, dict[str, Any]], config: dict[str, Any], runtime: str
) -> dict[str, Any]:
    """Return what has to be the same for a run to go on."""
    plan = {
        **config,
        "models": {model: file["sha256"] for model, file in files.items()},
        "sample": digest(args.sample) if args.sample else None,
        "runtime": runtime,
        "numpy": np.__version__,
        "machine": f"{platform.node()} {platform.machine()} {cpu_model()}",
        "runner": digest(Path(__file__)),
    }
    return dict(json.loads(json.dumps(plan)))


# ---- the command line ----


def thread_counts(text: str) -> list[int]:
    """Return the distinct counts in a list such as 1,0, where 0 stands for every CPU."""
    cpus = len(cpus_allowed())
    counts = list(dict.fromkeys(int(word) or cpus for word in text.split(",")))
    if not all(1 <= count <= cpus for count in counts):
        raise argparse.ArgumentTypeError(f"{text}: expected 0 to {cpus}, the CPUs there are")
    return counts


def mean_and_std(text: str) -> list[float]:
    """Return the two numbers in a text such as 127.5,127.5."""
    mean, std = (float(word) for word in text.split(","))
    if not (abs(mean) < 1e6 and 1e-6 < std < 1e6):
        raise argparse.ArgumentTypeError(f"{text}: expected MEAN,STD with STD above 0")
    return [mean, std]


def check(args: argparse.Namespace) -> None:
    """Check the arguments and add `names` (model name to path) and `images` to them.

    Raises:
        RunnerError: a value is out of range, a file missing, damaged, or in the way of `out`.
    """
    if not 1 <= args.repeats <= REPEATS_LIMIT:
        raise RunnerError(f"expected --repeats in 1..{REPEATS_LIMIT}")
    if args.seed < 0 or not 0 < args.seconds <= 86400:
        raise RunnerError("expected --seed >= 0, and --seconds in 0..86400")
    if not 0 <= args.warmup <= 86400:
        raise RunnerError("expected --warmup in 0..86400")
    for path in args.models:
        if not path.is_file():
            raise RunnerError(f"model {path} does not exist")
    if len({path.resolve() for path in args.models}) < len(args.models):
        raise RunnerError("a model is given twice")
    files = [path.name for path in args.models]
    args.names = {str(p) if files.count(p.name) > 1 else p.name: p for p in args.models}
    for name in args.names:
        # Whoever reads the result refuses others.
        if not name.isprintable() or len(name) > NAME_LIMIT:
            raise RunnerError(f"model {one_line(name)}: rename it, no result can hold its name")
    args.images = open_sample(args.sample, whole=True).shape[0] if args.sample else 0
    if not args.out.name or args.out.is_dir():
        raise RunnerError(f"--out {args.out} is a folder: name a file in it")
    if not os.access(args.out.parent, os.W_OK):
        raise RunnerError(f"the folder of {args.out} does not exist or cannot be written")
    partial = journal_path(args.out)
    if args.force:
        return
    if partial.exists() and not args.resume:
        raise RunnerError(
            f"{partial} is of an interrupted run: --resume goes on, --force starts anew"
        )
    if args.out.exists() and not (args.resume and partial.exists()):
        left = "it is complete" if args.resume else "choose another --out, or give --force"
        raise RunnerError(f"{args.out} exists: {left}")


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the arguments with their defaults filled in; exits with 2 when one is unknown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("models", nargs="+", type=Path, metavar="MODEL.tflite")
    add("--sample", type=Path, help="npz: images uint8 (N,H,W,3), labels (N,), class_names if any")
    add("--out", type=Path, required=True, help="the JSON to write")
    add("--threads", type=thread_counts, help="counts; 0 is every CPU [1,0; 1 with --quick]")
    add("--repeats", type=int, help="processes for each model and thread count [5]")
    add("--seconds", type=float, help="least time of timed invokes in each process [2]")
    add("--warmup", type=float, help="seconds of warm-up in each process [0.5]")
    add("--seed", type=int, default=0, help="of the order and of the random input [0]")
    add("--quick", action="store_true", help="a rough look, under a minute: 2 repeats of 0.2 s")
    add("--resume", action="store_true", help="go on with what was interrupted")
    add("--force", action="store_true", help="replace --out where it exists")
    names = [name for name, _, _ in RUNTIMES]
    add("--runtime", choices=names, help="which runtime, where there are several")
    scaling = "float32 inputs take (pixel - MEAN) / STD, for models without preprocessing [0,1]"
    add("--scaling", type=mean_and_std, default=[0.0, 1.0], metavar="MEAN,STD", help=scaling)
    add("--tied", action="store_true", help="stop as after Ctrl-C when standard input ends")
    kept = "keep the record of a complete run, too: with --resume it gives the result again"
    add("--keep-journal", action="store_true", help=kept)
    add("--facts", type=Path, help="a bundle.json: what the models cost [the one beside this file]")
    args = parser.parse_args(argv)
    usual: dict[str, tuple[Any, Any]] = {"repeats": (5, 2), "seconds": (2.0, 0.2)}
    usual.update(warmup=(0.5, 0.1), threads=(thread_counts("1,0"), [1]))
    for name, values in usual.items():
        if getattr(args, name) is None:
            setattr(args, name, values[args.quick])
    return args


class Stop:
    """Whether a stop has to wait, and whether one came meanwhile."""

    waits = came = False


@contextlib.contextmanager
def stop_put_off() -> Iterator[None]:
    """Let a stop wait for the end of the block: a worker that is starting cannot be ended yet.

    Raises:
        KeyboardInterrupt: at the end, where one came.
    """
    Stop.waits = True
    try:
        yield
    finally:
        Stop.waits = False
        if Stop.came:
            Stop.came = False
            raise KeyboardInterrupt


def interrupt(signum: int, frame: object) -> None:
    """Raise KeyboardInterrupt once: a second Ctrl-C must not cut the writing short."""
    on_stop(signal.SIG_IGN)
    Stop.came = Stop.waits
    if not Stop.waits:
        raise KeyboardInterrupt


def on_stop(handler: Any) -> None:
    """Choose what Ctrl-C, a kill and a closed terminal do.

    The last is left alone where it is ignored, as under nohup, or seen to, as in a bundle.
    """
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)
    # Windows has none.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) in (signal.SIG_DFL, interrupt):
        signal.signal(signal.SIGHUP, handler)


def stop_with_stdin() -> None:
    """Do what Ctrl-C does as soon as standard input ends.

    Who asks for it gave a pipe and holds its other end, which the system closes when they are gone.
    """
    main = threading.main_thread().ident or 0

    def wait() -> None:
        with contextlib.suppress(OSError):  # closed, which is an end as well
            while os.read(0, 1 << 10):
                pass
        # Sent to the process, it could find this thread, and the main one would go on waiting.
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(main, signal.SIGINT)
        else:  # on Windows, which looks for it between two workers
            signal.raise_signal(signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


def main(argv: list[str]) -> int:
    """Run the command line and return its exit code."""
    if argv[:1] == ["--worker"]:
        return worker_main(argv[1])
    args = parse(argv)
    on_stop(interrupt)
    try:
        if args.tied:
            stop_with_stdin()
        check(args)
        return benchmark(args)
    except (RunnerError, OSError) as error:
        say(f"error: {one_line(error)}")
        return 2
    except KeyboardInterrupt:  # before anything was measured
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
