"""Make an Arm userland in a folder, with one Python for each TFLite runtime.

Debian's packages are unpacked, not installed: nothing runs in it but Python, and that through
`qemu-user` with a named processor. qemu's default one computes wrong int8 results.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from bloodedge.benchmarks.emulator import tools
from bloodedge.benchmarks.emulator.wheels import fetch, unpack
from bloodedge.console import say
from bloodedge.errors import ConfigError
from bloodedge.files import user_folder

PYTHON = "python3.11"
_BASE = (PYTHON, f"{PYTHON}-venv", "libstdc++6", "libatomic1")
# The version that answers on this machine, with which the device's answers are compared.
_NEW = f"ai-edge-litert=={metadata.version('ai-edge-litert')}"
_OLD = "tflite-runtime==2.14.0"


@dataclass(frozen=True)
class Architecture:
    """One kind of device.

    Attributes:
        name: as Debian calls it.
        machine: as Python wheels call it.
        qemu: the program that runs its programs.
        cpu: the processor qemu imitates, and what `/proc/cpuinfo` says of it.
        part: that processor's number.
        multiarch: its folder in `/usr/lib`.
        packages: of Debian, with what they depend on.
        runtimes: what pip brings, by the name of the runtime.
    """

    name: str
    machine: str
    qemu: str
    cpu: str
    part: str
    multiarch: str
    packages: tuple[str, ...]
    runtimes: dict[str, tuple[str, ...]]


ARCHITECTURES = {
    "arm64": Architecture(
        "arm64",
        "aarch64",
        "qemu-aarch64-static",
        "cortex-a72",
        "0xd08",
        "aarch64-linux-gnu",
        _BASE,
        # The old runtime works with NumPy 1 only.
        {"ai-edge-litert": (_NEW,), "tflite-runtime": (_OLD, "numpy<2")},
    ),
    "armhf": Architecture(
        "armhf",
        "armv7l",
        "qemu-arm-static",
        "cortex-a15",
        "0xc0f",
        "arm-linux-gnueabihf",
        # As on a 32-bit Raspberry Pi OS: PyPI has no NumPy for it.
        (*_BASE, "python3-numpy"),
        {"tflite-runtime": (_OLD,)},
    ),
}


@dataclass(frozen=True)
class Userland:
    """A finished one.

    Attributes:
        folder: its root.
        architecture: what it imitates.
    """

    folder: Path
    architecture: Architecture

    @property
    def bare(self) -> Path:
        """The folder with a `python3` that knows no runtime."""
        return self.folder / "usr/bin"

    def with_runtime(self, runtime: str) -> Path:
        """Return the folder with a `python3` that imports the runtime."""
        return self.folder / "opt" / runtime / "bin"

    def wheels(self, runtime: str) -> Path:
        """Return the folder with the wheels that pip would fetch to install the runtime."""
        return self.folder / "opt" / runtime / "wheels"


def default_folder() -> Path:
    """Return where userlands are kept, in the user's cache.

    Raises:
        ConfigError: nobody knows the user's folders.
    """
    return user_folder("XDG_CACHE_HOME", ".cache") / "bloodedge" / "emulator"


def make_userland(name: str, root: Path | None = None, mirror: str = "") -> Userland:
    """Return the userland of an architecture, made now unless there is a finished one.

    Args:
        name: of `ARCHITECTURES`.
        root: where userlands are kept.
        mirror: of Debian's packages; empty for what this machine's apt uses.

    Raises:
        ConfigError: a tool is missing, or packages cannot be had.
    """
    if name not in ARCHITECTURES:
        raise ConfigError(f"no architecture {name!r}", expected=", ".join(ARCHITECTURES))
    architecture = ARCHITECTURES[name]
    for tool in (architecture.qemu, "mmdebstrap"):
        tools.program(tool)
    root = root or default_folder()
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"{name}-{_fingerprint(architecture)}"
    with _alone(root / f".{name}.lock"):
        if not folder.exists():
            for left in root.glob(f".making-{name}-*"):
                shutil.rmtree(left, ignore_errors=True)
            _make(architecture, folder, mirror or tools.mirror())
    made = Userland(folder, architecture)
    _imitate_cpus(made)
    return made


def _fingerprint(architecture: Architecture) -> str:
    """Return what changes when a userland must be made anew."""
    files = (Path(__file__).with_name(name) for name in ("userland.py", "wheels.py"))
    sources = [path.read_text(encoding="utf-8") for path in files]
    text = json.dumps([asdict(architecture), sources])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock: two at once would make the same folder twice."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(architecture: Architecture, folder: Path, mirror: str) -> None:
    say(f"making a userland for {architecture.name}: about a minute")
    prefix = f".making-{architecture.name}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent) as temporary:
        made = Path(temporary) / "root"
        command = [
            tools.program("mmdebstrap"),
            "--quiet",
            "--variant=extract",
            # Without root nothing is changed into; with it, chrootless is refused.
            f"--mode={'chrootless' if os.geteuid() else 'root'}",
            f"--architectures={architecture.name}",
            f"--include={','.join(architecture.packages)}",
            tools.SUITE,
            str(made),
            mirror,
        ]
        tools.run(command, f"unpacking Debian for {architecture.name}")
        # The wrappers hold the final path.
        _link_alternatives(made / "usr/lib" / architecture.multiarch)
        _write_python(made, folder, architecture)
        for runtime, packages in architecture.runtimes.items():
            site = made / "opt" / runtime
            fetch(packages, site / "wheels", architecture.machine)
            unpack(site / "wheels", site / "site")
            found = shlex.quote(f"{folder}/opt/{runtime}/site")
            start = f'PYTHONPATH={found} exec {shlex.quote(f"{folder}/usr/bin/python3")} "$@"'
            _write_script(site / "bin/python3", f"#!/bin/sh\n{start}\n")
        shutil.rmtree(made / "usr/share/doc", ignore_errors=True)
        made.replace(folder)


def _write_python(made: Path, folder: Path, architecture: Architecture) -> None:
    """Write `usr/bin/python3`, which this machine can start, and which a venv can link to.

    It stands beside the real program, because Python looks for its library from there: on 32 bits
    qemu does not redirect every system call that looks for a file. The processor variable of
    OpenBLAS is this machine's, not the device's.
    """
    qemu, root = shlex.quote(tools.program(architecture.qemu)), shlex.quote(str(folder))
    start = f'{qemu} -cpu {architecture.cpu} -L {root} -0 "$0" {root}/usr/bin/{PYTHON} "$@"'
    unset = "unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE"
    _write_script(made / "usr/bin/python3", f"#!/bin/sh\n{unset}\nexec {start}\n")


def _write_script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def _link_alternatives(libraries: Path) -> None:
    """Link NumPy's BLAS and LAPACK, which Debian's installation scripts would choose."""
    for name in ("blas", "lapack"):
        for library in (libraries / name).glob("*.so.3"):
            (libraries / library.name).symlink_to(f"{name}/{library.name}")


def _imitate_cpus(userland: Userland) -> None:
    """Write what the kernel of such a device says of its cores, as many as this machine has.

    LiteRT crashes on the description of an x86 processor.
    """
    count = os.cpu_count() or 1
    architecture = userland.architecture
    core = (
        "BogoMIPS\t: 108.00\nFeatures\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 "
        "fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        f"CPU variant\t: 0x0\nCPU part\t: {architecture.part}\nCPU revision\t: 3\n\n"
    )
    cpuinfo = "".join(f"processor\t: {i}\n{core}" for i in range(count))
    files = {
        "proc/cpuinfo": f"{cpuinfo}Model\t\t: qemu-user {architecture.cpu}\n",
        "sys/devices/system/cpu/possible": f"0-{count - 1}\n",
        "sys/devices/system/cpu/present": f"0-{count - 1}\n",
    }
    for name, text in files.items():
        path = userland.folder / name
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
