"""Running commands on one machine through the user's own `ssh`, and what its failures mean."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bloodedge.benchmarks.runner import one_line
from bloodedge.errors import BloodedgeError, ConfigError, DataError

# A name, an address, or an alias of the user's ssh settings. Nothing starts with a dash, which
# would be an option of ssh.
_HOST = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.+\\-]{0,63}@)?[A-Za-z0-9_:][A-Za-z0-9_.:%-]{0,254}")
_OPTIONS = (
    # Never a question that nobody sees: not for a password, not about an unknown host's key.
    ("BatchMode", "yes"),
    ("ConnectTimeout", "15"),
    # A silent network is noticed within a minute.
    ("ServerAliveInterval", "15"),
    ("ServerAliveCountMax", "4"),
    # Whatever the user's settings add to a login has no place here.
    ("ClearAllForwardings", "yes"),
    ("ForwardAgent", "no"),
    ("ForwardX11", "no"),
    ("PermitLocalCommand", "no"),
    ("RemoteCommand", "none"),
    ("RequestTTY", "no"),
    ("LogLevel", "ERROR"),
)
_FAILED = 255
# A result has at most 16 MiB, and some more as a JSON string.
_MAX_LINE = 64 << 20
_MAX_ERRORS = 1 << 16


class CommandError(DataError):
    """A command on the machine failed: its exit code, and what it said last on stderr."""


class SshError(BloodedgeError):
    """There is no connection, or it broke: what runs on the device goes on there."""


@dataclass(frozen=True)
class Target:
    """Which machine.

    Attributes:
        host: `user@host`, or an alias of the user's ssh settings.
        port: 0 for the one of the user's settings.
        identity: the file of a private key; none for the user's settings.

    Raises:
        ConfigError: the host is no name, the port out of range, or the file missing.
    """

    host: str
    port: int = 0
    identity: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what ssh could take for something else."""
        if not _HOST.fullmatch(self.host):
            raise ConfigError(f"--ssh {self.host[:80]!r}", expected="user@host")
        if not 0 <= self.port < 1 << 16:
            raise ConfigError(f"--ssh-port {self.port}", expected="1 to 65535")
        if self.identity and not self.identity.is_file():
            raise ConfigError(f"--identity {self.identity} does not exist")

    def options(self) -> list[str]:
        """Return what comes between `ssh` and the command."""
        words = [word for key, value in _OPTIONS for word in ("-o", f"{key}={value}")]
        if self.port:
            words += ["-p", str(self.port)]
        if self.identity:
            # By its whole path: a name that starts with a dash would be an option.
            words += ["-i", str(self.identity.resolve()), "-o", "IdentitiesOnly=yes"]
        return [*words, "-T", "--", self.host]

    def by_hand(self) -> str:
        """Return the command a person would type."""
        return f"ssh -p {self.port} {self.host}" if self.port else f"ssh {self.host}"


class Connection:
    """Runs commands on a machine; each is a connection of its own.

    Raises:
        ConfigError: ssh is not installed.
    """

    def __init__(self, target: Target) -> None:
        program = shutil.which("ssh")
        if program is None:
            raise ConfigError("ssh is not installed", fix="apt install openssh-client")
        self._command = [program, *target.options()]
        self.target = target

    def lines(self, command: str, feed: Iterable[bytes] = ()) -> Generator[bytes, None, None]:
        """Run a command line in the machine's login shell and yield the lines of its stdout.

        Without `feed` its stdin stays open until it ends by itself: a program there that reads the
        end of its stdin has lost us. Ctrl-C does not reach ssh, and ends this generator.

        Raises:
            SshError: there was no connection, or it broke.
            CommandError: the command failed.
            DataError: it wrote a line without end.
        """
        with tempfile.TemporaryFile() as errors:
            words = [*self._command, command]
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                words, stdin=pipe, stdout=pipe, stderr=errors, start_new_session=True
            )
            try:
                yield from _converse(process, feed)
                code = process.wait()
            finally:
                process.kill()
                process.wait()
                for stream in (process.stdin, process.stdout):
                    _close(stream)
            errors.seek(0)
            said = errors.read(_MAX_ERRORS).decode("utf-8", "replace")
        if code == _FAILED:
            raise failure(self.target, said)
        if code:
            why = one_line((said.strip().splitlines() or ["no message"])[-1])
            raise CommandError(f"{self.target.host}: exit code {code}: {why}")


def _converse(process: subprocess.Popen[bytes], feed: Iterable[bytes]) -> Iterator[bytes]:
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        return
    # A command that ended early says on stderr why.
    with contextlib.suppress(BrokenPipeError):
        fed = False
        for chunk in feed:
            stdin.write(chunk)
            fed = True
        if fed:
            stdin.close()
    while line := stdout.readline(_MAX_LINE):
        if len(line) == _MAX_LINE:
            raise DataError(f"the device wrote a line of more than {_MAX_LINE >> 20} MiB")
        yield line
    _close(stdin)


def _close(stream: IO[bytes] | None) -> None:
    if stream:
        with contextlib.suppress(OSError):
            stream.close()


def failure(target: Target, said: str) -> SshError:
    """Return the error that ssh's own words mean.

    Args:
        target: that was asked for.
        said: what ssh wrote to stderr.
    """
    host, by_hand = target.host, target.by_hand()
    lines = [one_line(line) for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "no message"
    copy = by_hand.replace("ssh", "ssh-copy-id", 1)
    if "IDENTIFICATION HAS CHANGED" in said:
        fix = "ask who changed it; where it was set up anew: ssh-keygen -R, then connect by hand"
        return SshError(f"{host} has another host key than before: it may be another", fix=fix)
    for pattern, what, fix in (
        ("Could not resolve", "is no host known here", "check the name, or give the address"),
        (
            "Host key verification failed|host key is known",
            "is not known yet, and its key cannot be checked for you",
            f"{by_hand}, compare the fingerprint, and say yes",
        ),
        (
            "Too many authentication failures",
            "refused the login after too many keys",
            "--identity FILE names the right one",
        ),
        (
            "Permission denied|Load key",
            "refused the login with every key there is; no password is asked for",
            f"{copy}; a key with a passphrase must be in ssh-agent",
        ),
        (
            "refused|timed out|No route|unreachable|Host is down",
            f"cannot be reached: {last}",
            "is it on, in this network, with ssh switched on (raspi-config)?",
        ),
    ):
        if re.search(pattern, said):
            return SshError(f"{host} {what}", fix=fix)
    if re.search(r"closed|reset|broken pipe|not responding|disconnect|no message", last, re.I):
        return SshError(f"the connection to {host} broke: {last}", fix="the same command goes on")
    return SshError(f"ssh to {host} failed: {last}", fix=f"try {by_hand}")
