"""What an Android device says of itself: name, SoC, cores, battery, temperature."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from bloodedge.benchmarks.android.adb import Adb
from bloodedge.benchmarks.runner import one_line

_PROPERTY = re.compile(r"^\[([\w.]+)\]: \[(.*)\]$", re.MULTILINE)
# Clocks in kHz; longer numbers are none, and may be too long for Python.
_CORE = re.compile(r"cpu(\d{1,4})/cpufreq/cpuinfo_max_freq:(\d{1,12})\s*$", re.MULTILINE)
_MAX_CORES = 1024
_KEPT = {
    "ro.soc.model": "soc",
    "ro.soc.manufacturer": "soc_manufacturer",
    "ro.board.platform": "platform",
    "ro.build.version.release": "android",
    "ro.build.version.sdk": "sdk",
    "ro.build.fingerprint": "build",
}
_BATTERY = {"level": 1.0, "temperature": 10.0, "status": 1.0}


def properties(adb: Adb) -> dict[str, str]:
    """Return the device's system properties."""
    return dict(_PROPERTY.findall(adb.shell("getprop").out))


def describe(found: Mapping[str, str], name: str = "") -> dict[str, Any]:
    """Return what stays the same: the device's name, SoC, system and architecture.

    Args:
        found: from `properties`.
        name: what to call it; empty for maker and model.
    """
    maker, model = (found.get(f"ro.product.{key}", "") for key in ("manufacturer", "model"))
    soc = found.get("ro.soc.model") or found.get("ro.board.platform", "")
    own = one_line(f"{maker} {model}").strip() or "unknown Android device"
    facts = {short: one_line(found[key]) for key, short in _KEPT.items() if found.get(key)}
    title = name or (f"{own}, {one_line(soc)}" if soc else own)
    return {"cpu_model": title, "machine": one_line(abi(found)), **facts}


def abi(found: Mapping[str, str]) -> str:
    """Return the device's architecture as Android names it, such as arm64-v8a."""
    return found.get("ro.product.cpu.abi") or "unknown"


def is_emulator(found: Mapping[str, str]) -> bool:
    """Return whether the device is Android's emulator, whose latencies mean nothing."""
    return "1" in (found.get("ro.kernel.qemu"), found.get("ro.boot.qemu"))


def state(adb: Adb) -> dict[str, Any]:
    """Return what may change in a run: battery (level in %, temperature in degrees C), clocks."""
    battery: dict[str, Any] = {}
    for line in adb.shell("dumpsys battery").out.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in _BATTERY and re.fullmatch(r"-?\d{1,6}", value):
            battery[f"battery_{key}"] = int(value) / _BATTERY[key]
        elif key.endswith(" powered") and value == "true":
            battery["powered"] = one_line(key)
    files = "cat /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    governors = sorted({one_line(line) for line in adb.shell(files).out.split()})
    utc = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"utc": utc, **battery, "governor": governors[:8]}


def cores(adb: Adb) -> list[int]:
    """Return the device's cores, the fastest first; of equals the highest number."""
    listed = adb.shell("grep -H . /sys/devices/system/cpu/cpu*/cpufreq/cpuinfo_max_freq").out
    speeds = [(int(khz), int(core)) for core, khz in _CORE.findall(listed)]
    if known := [core for _, core in sorted(speeds, reverse=True) if core < _MAX_CORES]:
        return known
    possible = re.fullmatch(
        r"0-(\d{1,4})", adb.shell("cat /sys/devices/system/cpu/possible").out.strip()
    )
    count = int(possible[1]) + 1 if possible else 1
    return list(range(count))[::-1][:_MAX_CORES]


def pin_prefix(adb: Adb, chosen: list[int]) -> str:
    """Return the words that bind a command to the cores; empty where the device refuses."""
    prefix = f"taskset {sum(1 << core for core in set(chosen)):x} "
    return prefix if "pinned" in adb.shell(f"{prefix}echo pinned").out else ""
