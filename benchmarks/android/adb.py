"""Talking to one Android device through the `adb` program."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bloodedge.benchmarks.runner import one_line
from bloodedge.errors import BloodedgeError, ConfigError, DataError

_QUICK_SECONDS = 60.0
_PUSH_SECONDS = 600.0
_TOO_LATE = 124
# What `adb devices` says of a device that cannot be used, and what helps.
_STATES = {
    "unauthorized": "unlock the phone and allow USB debugging",
    "offline": "unplug it and plug it in again",
    "no permissions": "see adb's own message: udev has no rule for it",
}


class LostDeviceError(BloodedgeError):
    """The device went away: what was measured before stays."""


@dataclass(frozen=True)
class Answer:
    """What a command on the device wrote, and its exit code (0 on devices that give none)."""

    code: int
    out: str
    err: str


class Adb:
    """One device.

    Args:
        serial: which; empty for the only one.

    Raises:
        ConfigError: adb is not installed, or there is no such device, or more than one.
    """

    def __init__(self, serial: str = "") -> None:
        program = shutil.which("adb")
        if program is None:
            raise ConfigError("adb is not installed", fix="apt install adb, or Android's SDK tools")
        self._program = program
        self.serial = _choose(self._devices(), serial)

    def shell(self, command: str, timeout: float = _QUICK_SECONDS) -> Answer:
        """Run a command line on the device, whatever its exit code; 124 is too late.

        Raises:
            LostDeviceError: the device is gone.
        """
        answer = self._run(["-s", self.serial, "shell", command], timeout)
        if answer.code:
            self._check_there(answer)
        return answer

    def push(self, source: Path, target: str) -> None:
        """Copy a file or a folder to the device.

        Raises:
            LostDeviceError: the device is gone.
            DataError: it could not be written there.
        """
        self._copy(["push", str(source), target])

    def pull(self, source: str, target: Path) -> None:
        """Copy a file or a folder from the device.

        Raises:
            LostDeviceError: the device is gone.
            DataError: it could not be read there.
        """
        self._copy(["pull", source, str(target)])

    def _copy(self, words: list[str]) -> None:
        answer = self._run(["-s", self.serial, *words], _PUSH_SECONDS)
        if answer.code:
            self._check_there(answer)
            why = one_line(answer.err or answer.out)
            raise DataError(f"adb {words[0]} failed: {why}", fix="free some space on the device")

    def _check_there(self, failed: Answer) -> None:
        """A failing command and an unplugged cable can look alike: ask for the device's state."""
        state = self._run(["-s", self.serial, "get-state"], _QUICK_SECONDS)
        if state.code or state.out.strip() != "device":
            why = one_line(failed.err or state.err) or "no answer"
            raise LostDeviceError(f"the device {self.serial} is gone: {why}")

    def _devices(self) -> dict[str, str]:
        answer = self._run(["devices"], _QUICK_SECONDS)
        if answer.code:
            raise ConfigError(f"adb devices failed: {one_line(answer.err)}")
        # Notices of the daemon come before the heading, on lines that start with a star.
        _, _, listed = answer.out.partition("List of devices attached")
        found = (re.split(r"\s+", line.strip(), maxsplit=1) for line in listed.splitlines())
        return {words[0]: words[1] for words in found if len(words) == 2}

    def _run(self, words: list[str], timeout: float) -> Answer:
        try:
            done = subprocess.run(
                [self._program, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Answer(_TOO_LATE, "", f"no answer within {timeout:.0f} s")
        out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
        return Answer(done.returncode, out.replace("\r\n", "\n"), err.replace("\r\n", "\n"))


def _choose(devices: dict[str, str], serial: str) -> str:
    if serial and serial not in devices:
        listed = ", ".join(map(one_line, devices)) or "none"
        raise ConfigError(f"no device {serial!r}", expected=f"one of adb devices: {listed}")
    if not devices:
        raise ConfigError(
            "no Android device is connected",
            fix="plug it in and turn on USB debugging in its developer options",
        )
    if not serial and len(devices) > 1:
        listed = ", ".join(map(one_line, devices))
        raise ConfigError(f"{len(devices)} devices are connected", fix=f"--serial: {listed}")
    chosen = serial or next(iter(devices))
    state = devices[chosen]
    if state != "device":
        fix = next((fix for said, fix in _STATES.items() if state.startswith(said)), "")
        raise ConfigError(f"the device {one_line(chosen)} is {one_line(state)}", fix=fix)
    return chosen
