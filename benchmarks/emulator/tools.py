"""The programs that making and running a userland takes, and where its packages come from."""

from __future__ import annotations

import os
import shutil
import subprocess

from bloodedge.errors import ConfigError

# Program: Debian's package that holds it.
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "qemu-aarch64-static": "qemu-user-static",
    "qemu-arm-static": "qemu-user-static",
}
# What the tests of `benchmark --ssh` run beside them.
SERVER = {"sshd": "openssh-server", "ssh": "openssh-client"}
SUITE = "bookworm"
_LISTED = "$(ORIGIN) $(COMPONENT) $(RELEASE) $(REPO_URI)"


def program(name: str) -> str:
    """Return the path of a program.

    Raises:
        ConfigError: it is not installed.
    """
    path = _find(name)
    if path is None:
        package = {**TOOLS, **SERVER}.get(name, name)
        raise ConfigError(f"{name} is not installed", fix=f"apt install {package}")
    return path


def _find(name: str) -> str | None:
    # sshd is where ordinary users do not look.
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def install() -> None:
    """Install what is missing with apt.

    Raises:
        ConfigError: not root, no apt, or a package cannot be had.
    """
    asked = {**TOOLS, **SERVER}
    missing = {package for name, package in asked.items() if not _find(name)}
    if not missing:
        return
    apt = program("apt-get")
    if os.geteuid() != 0:
        wanted = " ".join(sorted(missing))
        raise ConfigError("--install needs root", fix=f"sudo apt install {wanted}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # After the update: which architectures and packages there are is in the lists.
    for words in (["update"], ["install", "--yes", "--no-install-recommends", *sorted(missing)]):
        run([apt, "--quiet", *words], "installing what the emulator needs", environment)


def mirror() -> str:
    """Return the address that this machine's own sources give for Debian's packages.

    Raises:
        ConfigError: they name none, or their lists were never fetched.
    """
    done = subprocess.run(
        [program("apt-get"), "indextargets", "--format", _LISTED, "Created-By: Packages"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    listed = [line.split(" ") for line in done.stdout.splitlines()]
    found = [
        (words[2] != SUITE, words[3])
        for words in listed
        if len(words) == 4 and words[:2] == ["Debian", "main"] and "-" not in words[2]
    ]
    if not found:
        raise ConfigError(
            "apt knows no address of Debian's packages",
            fix="apt-get update, or give --mirror URI",
        )
    return min(found)[1]


def run(command: list[str], what: str, environment: dict[str, str] | None = None) -> None:
    """Run a program to its end.

    Raises:
        ConfigError: it failed; its last line says why.
    """
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("E:", "ERROR"))]
        why = (errors or lines or ["no message"])[-1]
        raise ConfigError(f"{what} failed: {why}")
