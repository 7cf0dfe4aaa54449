"""Python packages for another processor, by pip from where this machine's pip gets them."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from bloodedge.benchmarks.emulator.tools import run
from bloodedge.errors import ConfigError

# Debian bookworm has glibc 2.36.
_TAGS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")


def fetch(packages: Sequence[str], folder: Path, machine: str) -> None:
    """Download wheels for CPython 3.11 on Linux.

    Where PyPI has no wheel of a package that another depends on, as NumPy on 32-bit Arm, the
    first alone is fetched: the system has the other.

    Raises:
        ConfigError: pip is missing, or fails.
    """
    if importlib.util.find_spec("pip") is None:
        raise ConfigError("this Python has no pip", fix=f"{sys.executable} -m ensurepip")
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--dest", str(folder)]
    options += ["--only-binary=:all:", "--python-version=311", "--implementation=cp"]
    options += [f"--abi={abi}" for abi in ("cp311", "abi3", "none")]
    options += [f"--platform={tag}_{machine}" for tag in _TAGS]
    if machine == "armv7l":
        options.append("--no-deps")
    command = [sys.executable, "-m", "pip", "download", *options, *packages]
    run(command, f"fetching {packages[0]} for {machine}")


def unpack(wheels: Path, site: Path) -> None:
    """Unpack every wheel into one folder that Python can import from."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
