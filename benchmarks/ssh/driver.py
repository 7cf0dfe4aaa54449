"""Measure models on a machine that ssh reaches, with the runner that also measures this one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from bloodedge.benchmarks.bundle import SUMS
from bloodedge.benchmarks.elsewhere import DriverConfig, Material, Measured
from bloodedge.benchmarks.host import check_threads
from bloodedge.benchmarks.result import PROTOCOLS, BenchmarkResult, load_result
from bloodedge.benchmarks.runner import one_line
from bloodedge.benchmarks.ssh.connection import SshError, Target
from bloodedge.benchmarks.ssh.device import BASE, Device
from bloodedge.benchmarks.ssh.profiling import profile
from bloodedge.console import say
from bloodedge.errors import BloodedgeError, ConfigError, DataError
from bloodedge.files import read_json, sha256_of

_REFUSED, _INTERRUPTED = 2, 130
# How the runner ends its line on a record that it cannot go on from.
_ANEW = "--force starts anew"


@dataclass(frozen=True)
class SshConfig:
    """What runs where.

    Attributes:
        target: the machine.
        threads: thread counts; 0 is every core.
        quick: the runner's rough look.
        keep: leave the folder and the runtime that was installed on the machine.
        profile: whether to find out where each model's time goes, by operator.

    Raises:
        ConfigError: thread counts that are none.
    """

    target: Target
    threads: tuple[int, ...] = (1, 0)
    quick: bool = False
    keep: bool = False
    profile: bool = False

    def __post_init__(self) -> None:
        """Refuse what could not be run, before anything is connected."""
        check_threads(self.threads)


@dataclass(frozen=True)
class Ssh:
    """The driver: `benchmark_elsewhere` calls it."""

    config: SshConfig

    def __call__(self, material: Material, config: DriverConfig) -> Measured:
        """Measure everything; after Ctrl-C, what was complete.

        Raises:
            SshError: no connection, or it was lost, or the machine or the runner went down.
            ConfigError: the machine lacks something.
            DataError: what came back is no result of these models.

        Whatever is raised, what was measured stays there, and the same command goes on with it.
        """
        files = material.pack()
        options = self._options(config)
        key = sha256(files[SUMS] + json.dumps(options).encode()).hexdigest()[:16]
        device = Device(self.config.target, key)
        python = ""
        if device.look():
            say("a measurement of these very files was started there before: going on with it")
        else:
            python = self._prepare(device, files)
        host = self.config.target.host
        try:
            code, last, fetched = self._measure(device, python, options)
            result = fetched.get("result")
            if result is not None:
                measured, found = _measured(result, host, material)
                seconds = 0.5 if self.config.quick else config.seconds
                profiles = profile(device, found, seconds) if self.config.profile else []
                clean_up = partial(self._clean_up, device)
                return replace(measured, profiles=profiles, clean_up=clean_up)
            self._check_over(code, last, fetched.get("partial") is True)
        except BaseException:
            where = f"{host} keeps what was measured in {BASE}/{key}"
            say(f"{where}: the same command goes on or fetches it; without that folder, anew")
            raise
        # Nothing was measured.
        self._clean_up(device)
        raise self._why_none(code, last)

    def _options(self, config: DriverConfig) -> list[str]:
        options = ["--threads", ",".join(map(str, self.config.threads))]
        options += ["--repeats", str(config.repeats), "--seconds", str(config.seconds)]
        options += ["--seed", str(config.seed)]
        return [*options, "--quick"] if self.config.quick else options

    def _prepare(self, device: Device, files: Mapping[str, bytes]) -> str:
        """Copy the bundle there, and return the Python that is to run it."""
        try:
            device.send(files)
            found = device.ask("runtime")
        except SshError:
            raise
        except (BloodedgeError, KeyboardInterrupt):
            self._clean_up(device)
            raise
        say(f"{self.config.target.host} has {one_line(found.get('runtime'))}")
        return str(found.get("python"))

    def _clean_up(self, device: Device) -> None:
        """Leave nothing there, or with `keep` nothing that a measurement would go on with."""
        try:
            if self.config.keep:
                device.forget()
            else:
                device.remove()
        except (BloodedgeError, KeyboardInterrupt) as error:
            why = str(error) or "interrupted"
            say(f"what was brought to {self.config.target.host} is still there: {why}")

    def _measure(
        self, device: Device, python: str, options: list[str]
    ) -> tuple[int | None, str, Mapping[str, Any]]:
        """Return the runner's exit code, its last line, and what there was to fetch."""
        try:
            code, last = device.measure(python, options)
        except KeyboardInterrupt:
            say("interrupted: ending the measurement there and fetching what is complete")
            device.ask("stop")
            code, last = _INTERRUPTED, ""
        return code, last, device.ask("fetch")

    def _check_over(self, code: int | None, last: str, partial: bool) -> None:
        """Check that the runner has nothing to go on from.

        Args:
            code: how the runner ended; none when the device went down.
            last: its last line.
            partial: whether it has left a record of what it had measured until then.

        Raises:
            SshError: it has.
        """
        host = self.config.target.host
        fix = "check its power, memory and disk; the same command goes on where it was"
        if code is None:
            raise SshError(f"{host} went down in the middle of the measurement", fix=fix)
        # As after an update of the runtime: the runner itself goes on from there no more.
        if partial and _ANEW not in last:
            what = f"the runner on {host} ended in the middle of the measurement"
            raise SshError(f"{what} with exit code {code}: {last}", fix=fix)

    def _why_none(self, code: int | None, last: str) -> BaseException:
        """Return why nothing was measured, by the runner's exit code and last line."""
        host = self.config.target.host
        if code == _REFUSED:
            return ConfigError(f"the runner on {host} refused: {last.removeprefix('error: ')}")
        if code == _INTERRUPTED:
            return KeyboardInterrupt()
        return DataError(f"the runner on {host} died with exit code {code}: {last}")


def _measured(result: object, host: str, material: Material) -> tuple[Measured, BenchmarkResult]:
    """Return the result twice, after a look at every field that anyone uses.

    Raises:
        DataError: it is damaged, or not of these files, or no result of the runner.
    """
    with tempfile.TemporaryDirectory(prefix="bloodedge-ssh-") as temporary:
        path = Path(temporary) / "result.json"
        # The device may escape in JSON what no text can hold.
        path.write_text(str(result), encoding="utf-8", errors="replace")
        try:
            found = load_result(path)
            value = read_json(path)
        except DataError as error:
            raise DataError(f"{host} gave a result that cannot be used: {error}") from error
    digests = {name: sha256_of(model) for name, model in material.models.items()}
    for row in value["rows"]:
        if digests.get(row["model"]) != row.get("sha256"):
            raise DataError(f"{host} gave a result of another file, {one_line(row['model'])}")
    if found.protocol != PROTOCOLS[0]:
        raise DataError(f"{host} gave a result that its runner did not make")
    config = value.get("config")
    measured = Measured(
        complete=found.complete,
        protocol=found.protocol,
        environment=found.environment,
        rows=value["rows"],
        config=config if isinstance(config, dict) else {},
        more=value,
    )
    return measured, found
