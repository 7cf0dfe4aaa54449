"""Measure models on an Android device with the official benchmark_model binary.

Every (model, threads, delegate) runs in a fresh process, in shuffled rounds, pinned to the
fastest cores. What is finished when the cable is pulled is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bloodedge.benchmarks.android import device
from bloodedge.benchmarks.android.adb import Adb, LostDeviceError
from bloodedge.benchmarks.android.output import parse
from bloodedge.benchmarks.android.pair import Pair, figures
from bloodedge.benchmarks.android.parity import Parity
from bloodedge.benchmarks.elsewhere import DriverConfig, Material, Measured
from bloodedge.benchmarks.host import check_threads
from bloodedge.benchmarks.profile.table import Profile
from bloodedge.benchmarks.profile.table import parse as parse_operators
from bloodedge.benchmarks.runner import describe_model, schedule
from bloodedge.console import say
from bloodedge.errors import ConfigError, DataError

FOLDER = "/data/local/tmp/bloodedge"
BINARY = f"{FOLDER}/benchmark_model"
DELEGATES = {
    "xnnpack": "--use_xnnpack=true",
    "cpu": "--use_xnnpack=false",
    "gpu": "--use_gpu=true --use_xnnpack=false",
    # Not by its own reference on the CPU, which would pass for an accelerator.
    "nnapi": "--use_nnapi=true --disable_nnapi_cpu=true --use_xnnpack=false",
}
_MACHINES = {183: "arm64-v8a", 40: "armeabi-v7a", 62: "x86_64", 3: "x86"}
_MIN_RUNS = 50
_PROFILED = " --warmup_runs=1 --num_runs=50 --min_secs=1 --enable_op_profiling=true"
_WARMUP_SECONDS = 0.5
# benchmark_model's own limit is 150 s; loading and slow first inferences come on top.
_RUN_SECONDS = 300.0
_MAX_THREADS = 64


@dataclass(frozen=True)
class AndroidConfig:
    """What runs on the device.

    Attributes:
        binary: benchmark_model for the device's architecture.
        serial: which device; empty for the only one.
        threads: thread counts; 0 is every core.
        delegates: of `DELEGATES`.
        device: what to call it in the result; empty for its own name.
        profile: whether to find out where each model's time goes, by operator.

    Raises:
        ConfigError: no binary, or a value that is unknown or out of range.
    """

    binary: Path
    serial: str = ""
    threads: tuple[int, ...] = (1, 0)
    delegates: tuple[str, ...] = ("xnnpack", "cpu")
    device: str = ""
    profile: bool = False

    def __post_init__(self) -> None:
        """Refuse what could not be run, before a device is looked for."""
        if unknown := [name for name in self.delegates if name not in DELEGATES]:
            expected = ", ".join(DELEGATES)
            raise ConfigError(f"no delegate {unknown[0]!r}", expected=f"one of {expected}")
        if not self.delegates or len(set(self.delegates)) < len(self.delegates):
            asked = f"--delegate {', '.join(self.delegates) or 'none'}"
            raise ConfigError(asked, expected="one or more, each once")
        check_threads(self.threads, _MAX_THREADS)
        architecture(self.binary)


def architecture(binary: Path) -> str:
    """Return the architecture a program is for, as Android names it.

    Raises:
        ConfigError: it is missing, or no Linux program for a known architecture.
    """
    try:
        with binary.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise ConfigError(f"{binary} cannot be read: {error.strerror or error}") from error
    found = _MACHINES.get(int.from_bytes(head[18:20], "little")) if head[:4] == b"\x7fELF" else None
    if found is None:
        raise ConfigError(f"{binary} is no program for Android", expected="benchmark_model")
    return found


@dataclass(frozen=True)
class Android:
    """The driver: `benchmark_elsewhere` calls it."""

    config: AndroidConfig

    def __call__(self, material: Material, config: DriverConfig) -> Measured:
        """Measure everything, or as much as is done when the device goes or at Ctrl-C."""
        adb = Adb(self.config.serial)
        found = device.properties(adb)
        self._check_abi(device.abi(found))
        try:
            _install(adb, self.config.binary, material)
            return self._measured(adb, found, material, config)
        finally:
            # Whatever happens to this costs nothing that was measured.
            with suppress(LostDeviceError, KeyboardInterrupt):
                adb.shell(f"rm -rf {FOLDER}")

    def _measured(
        self, adb: Adb, found: Mapping[str, str], material: Material, config: DriverConfig
    ) -> Measured:
        session = _Session(self.config, adb, material, config)
        environment: dict[str, Any] = {
            "runtime": "benchmark_model",
            "runtime_version": session.version(),
            **device.describe(found, self.config.device),
            "pinned": session.pinned,
            "before": device.state(adb),
        }
        complete = False
        profiles: list[Profile] = []
        try:
            session.measure()
            complete = True
            environment["after"] = device.state(adb)
            if self.config.profile:
                session.profile(environment["runtime_version"], profiles)
        except LostDeviceError as error:
            say(f"{error}: keeping what is complete")
        except KeyboardInterrupt:
            say("interrupted: keeping what is complete")
        return Measured(
            complete=complete,
            protocol="android",
            environment=environment,
            rows=session.rows(),
            config={"threads": list(self.config.threads), "pinned": session.pinned},
            profiles=profiles,
            more={"emulated": device.is_emulator(found)},
        )

    def _check_abi(self, abi: str) -> None:
        own = architecture(self.config.binary)
        # A 64-bit Arm device runs 32-bit programs too, and the likes of x86.
        runs = {own, "arm64-v8a"} if own == "armeabi-v7a" else {own}
        runs |= {"x86_64"} if own == "x86" else set()
        if abi not in runs:
            raise ConfigError(
                f"{self.config.binary} is for {own}, the device is {abi}",
                fix=f"give benchmark_model for {abi}",
            )


def _install(adb: Adb, binary: Path, material: Material) -> None:
    """Copy the program and the models into a fresh folder on the device."""
    made = adb.shell(f"rm -rf {FOLDER} && mkdir -p {FOLDER} && echo made")
    if "made" not in made.out:
        raise DataError(f"{FOLDER} cannot be made on the device")
    adb.push(binary, BINARY)
    adb.shell(f"chmod 755 {BINARY}")
    for index, path in enumerate(material.models.values()):
        adb.push(path, _model(index))


def _model(index: int) -> str:
    # By number: a model's own name could hold what a shell acts on.
    return f"{FOLDER}/{index}.tflite"


class _Session:
    """The jobs of one measurement, and what they have given."""

    def __init__(
        self, config: AndroidConfig, adb: Adb, material: Material, driver: DriverConfig
    ) -> None:
        self._adb, self._material, self._driver = adb, material, driver
        self._cores = device.cores(adb)
        counts = dict.fromkeys(n or len(self._cores) for n in config.threads)
        self._combos = [(n, d) for d in config.delegates for n in counts]
        self._pins = {n: device.pin_prefix(adb, self._cores[:n]) for n in counts}
        self._names = list(material.models)
        self._pairs: dict[tuple[int, int], Pair] = {}
        self._parity = Parity(adb, FOLDER, material)

    @property
    def pinned(self) -> bool:
        """Whether the device lets processes be pinned."""
        return all(self._pins.values())

    def version(self) -> str:
        """Return the version of TFLite that the program names, if it does."""
        said = self._adb.shell(f"{BINARY} --version 2>&1").out
        found = re.search(r"\b[Vv]ersion:? ?(\d+\.\d+[\w.-]{0,40})", said)
        return found[1] if found else "unknown"

    def measure(self) -> None:
        """Run every job in turn; a pair that failed is not tried again."""
        jobs = schedule(
            self._names,
            list(range(len(self._combos))),
            self._driver.repeats,
            self._driver.seed,
        )
        for done, job in enumerate(jobs, 1):
            key = self._names.index(job.model), job.threads
            pair = self._pairs.get(key, Pair())
            if not pair.error:
                self._run(key, pair)
                self._pairs[key] = pair
                threads, delegate = self._combos[key[1]]
                said = pair.error or f"{pair.runs[-1].median_us or pair.runs[-1].mean_us:.0f} us"
                say(f"[{done}/{len(jobs)}] {job.model} {delegate} threads={threads}: {said}")

    def _run(self, key: tuple[int, int], pair: Pair) -> None:
        threads, delegate = self._combos[key[1]]
        command = self._command(key[0], threads, delegate)
        timed = (
            f" --warmup_runs=1 --warmup_min_secs={_WARMUP_SECONDS} --num_runs={_MIN_RUNS} "
            f"--min_secs={self._driver.seconds} --report_peak_memory_footprint=true"
        )
        try:
            answer = self._adb.shell(command + timed, _RUN_SECONDS + self._driver.seconds)
            timings = parse(answer.out, answer.err)
            if not pair.runs:
                pair.scored = self._score(self._names[key[0]], command)
            pair.runs.append(timings)
        except ValueError as error:
            pair.error = str(error)

    def profile(self, version: str, found: list[Profile]) -> None:
        """Run each pair that worked once more with the tool's profiler, and add to `found`."""
        for (model, combo), pair in sorted(self._pairs.items()):
            if pair.error:
                continue
            name, (threads, delegate) = self._names[model], self._combos[combo]
            command = f"{self._command(model, threads, delegate)}{_PROFILED}"
            answer = self._adb.shell(command, _RUN_SECONDS)
            runtime = f"benchmark_model {version}, {delegate}"
            whole = float(np.median([run.median_us or run.mean_us for run in pair.runs]))
            try:
                operators = parse_operators(answer.out)
            except ValueError as error:
                say(f"{name} {delegate}: no profile by operator: {error}")
                continue
            found.append(Profile(name, threads, runtime, operators, whole))

    def _command(self, model: int, threads: int, delegate: str) -> str:
        return (
            f"{self._pins[threads]}{BINARY} --graph={_model(model)} --num_threads={threads} "
            f"{DELEGATES[delegate]}"
        )

    def _score(self, name: str, command: str) -> dict[str, Any]:
        """Return accuracy and parity; a build without files only has no accuracy."""
        try:
            scored = self._parity.compare(self._material.models[name], command)
        except ValueError as error:
            say(f"{name}: not compared with this machine: {error}")
            return {"accuracy": None, "images": 0, "parity": {"error": str(error)}}
        parity = scored["parity"]
        if parity["argmax_equal"] < parity["images"]:
            other = parity["images"] - parity["argmax_equal"]
            say(f"{name}: {other} of {parity['images']} images get another class than here")
        return scored

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each model, thread count and delegate that has given something."""
        files = {name: describe_model(path) for name, path in self._material.models.items()}
        rows = []
        for (model, combo), pair in sorted(self._pairs.items()):
            threads, delegate = self._combos[combo]
            name = self._names[model]
            row = {"model": name, "threads": threads, "delegate": delegate, **files[name]}
            rows.append({**row, **figures(pair)})
        return rows
