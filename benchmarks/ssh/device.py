"""A device that the bundle is copied to, and the conversation with the agent there."""

from __future__ import annotations

import io
import json
import shlex
import tarfile
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from bloodedge.benchmarks.profile.litert import CHILD
from bloodedge.benchmarks.runner import one_line
from bloodedge.benchmarks.ssh.connection import CommandError, Connection, SshError, Target
from bloodedge.console import Meter, say
from bloodedge.errors import ConfigError, DataError

_AGENT = Path(__file__).with_name("agent")
# In the user's home: /tmp may be in memory, or forbid programs.
BASE = ".cache/bloodedge-ssh"
_CHUNK = 1 << 18
_OLDEST = (3, 8)
# Seconds between tries to connect again.
_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
# For any Python, however old: it says how old. Before it the shell says that it is one.
_LOOK = """\
echo '{"shell": true}'
command -v python3 >/dev/null 2>&1 || { echo '{"version": null}'; exit 0; }
exec python3 -c 'import json, os, sys
print(json.dumps({"version": sys.version_info[:3], "there": os.path.exists(sys.argv[1])}))' "$1"
"""


class Device:
    """One machine, and one bundle on it.

    Args:
        target: the machine.
        key: names the bundle's folder there; hexadecimal.
    """

    def __init__(self, target: Target, key: str) -> None:
        self._connection = Connection(target)
        self._host = target.host
        self._folder = f"{BASE}/{key}"

    def look(self) -> bool:
        """Return whether a measurement of this bundle was started there and not fetched.

        Raises:
            SshError: it cannot be reached, or refuses.
            ConfigError: it has no Python that is new enough.
            DataError: it gives no answer, as where the login has no shell.
        """
        words = ["sh", "-c", _LOOK, "sh", f"{self._folder}/state.json"]
        facts = self._facts(shlex.join(words))
        version = facts["version"]
        if not isinstance(version, list) or not all(isinstance(part, int) for part in version):
            raise ConfigError(f"{self._host} has no python3", fix="sudo apt install python3")
        if tuple(version) < _OLDEST:
            found = ".".join(map(str, version))
            raise ConfigError(
                f"{self._host} has Python {one_line(found)}",
                expected="3.8 or newer",
                fix="install a newer system, as Raspberry Pi OS bookworm",
            )
        return facts.get("there") is True

    def _facts(self, command: str) -> dict[str, Any]:
        """Return what `_LOOK` says; a login without a shell writes to stdout what it is instead."""
        shell, said = False, ""
        try:
            with closing(self._connection.lines(command)) as lines:
                for line in lines:
                    message = _message(line)
                    if message is None:
                        said = one_line(line.decode("utf-8", "replace")) or said
                    elif "version" in message:
                        return message
                    else:
                        shell = shell or message.get("shell") is True
        except CommandError as error:
            if shell:
                raise
            said = said or str(error)
        what = f"{self._host} gives no answer" + (f" but {said!r}" if said else "")
        raise DataError(what, expected="a login with a shell")

    def send(self, files: Mapping[str, bytes]) -> None:
        """Copy a bundle into a new private folder, in place of one that was there.

        Raises:
            SshError: the connection broke.
            DataError: it cannot be written there.
        """
        agent = {f"agent/{path.name}": path.read_bytes() for path in sorted(_AGENT.glob("*.py"))}
        packed = _tar({**agent, CHILD.name: CHILD.read_bytes(), **files})
        size = len(packed)
        say(f"copying {size / 1e6:.1f} MB to {self._host}")
        script = (
            f"umask 077 && rm -rf {self._folder} && mkdir -p {self._folder} "
            f"&& exec tar -xf - -C {self._folder}"
        )
        with Meter("copying", -(-size // _CHUNK)) as meter:

            def chunks() -> Iterator[bytes]:
                for start in range(0, size, _CHUNK):
                    yield packed[start : start + _CHUNK]
                    meter.update()

            for _ in self._connection.lines(shlex.join(["sh", "-c", script]), chunks()):
                pass

    def ask(self, command: str, **options: Any) -> Mapping[str, Any]:
        """Let the agent do something, show what it says, and return its answer.

        Raises:
            SshError: the connection broke.
            ConfigError: the agent says what is wrong.
            DataError: it gave no answer.
        """
        with closing(self._messages(self._agent(command, options))) as messages:
            for message in messages:
                if isinstance(done := self._hear(message), dict):
                    return done
        raise DataError(f"{self._host} gave no answer to {command!r}")

    def measure(self, python: str, options: list[str]) -> tuple[int | None, str]:
        """Run the bundle there, or follow one that runs, over several connections if need be.

        Returns:
            The runner's exit code, none when the device went down; and its last line.

        Raises:
            SshError: the device cannot be reached any more.
        """
        at, last, tries = 0, "", 0
        while True:
            command = self._agent("measure", {"python": python, "options": options, "from": at})
            try:
                with closing(self._messages(command)) as messages:
                    for message in messages:
                        tries = 0
                        if isinstance(done := self._hear(message), dict):
                            code = done.get("code")
                            return (code if isinstance(code, int) else None), last
                        last = one_line(message.get("say", last))
                        at = message["at"] if isinstance(message.get("at"), int) else at
                raise DataError(f"{self._host} stopped answering")
            except SshError as error:
                if tries == len(_PAUSES):
                    fix = "the measurement goes on there: the same command fetches it"
                    raise SshError(f"the connection to {self._host} is lost", fix=fix) from error
                say(f"{error}; trying again in {_PAUSES[tries]:.0f} s")
                time.sleep(_PAUSES[tries])
                tries += 1

    def profile(self, python: str, words: list[str]) -> str:
        """Return what `litert_child.py` printed there, less what others did.

        Raises:
            SshError: the connection broke.
            ConfigError: the agent says what is wrong.
            DataError: it gave no answer.
        """
        said = ""
        with closing(
            self._messages(self._agent("profile", {"python": python, "words": words}))
        ) as messages:
            for message in messages:
                if "summaries" in message or "refused" in message:
                    said = json.dumps(message)
                elif self._hear(message) is not None:
                    return said
        raise DataError(f"{self._host} gave no answer to 'profile'")

    def forget(self) -> None:
        """Leave all there, but the next measurement of the bundle starts anew.

        Raises:
            SshError: the connection broke.
            DataError: it could not be done.
        """
        for _ in self._connection.lines(f"rm -f {self._folder}/state.json"):
            pass

    def remove(self) -> None:
        """Leave nothing behind.

        Raises:
            SshError: the connection broke.
            DataError: it could not be removed.
        """
        script = f"(cd {self._folder} && python3 -m agent remove) || rm -rf {self._folder}"
        for _ in self._connection.lines(shlex.join(["sh", "-c", script])):
            pass

    def _agent(self, command: str, options: Mapping[str, Any]) -> str:
        script = 'cd "$1" && exec python3 -m agent "$2" "$3"'
        words = [self._folder, command, json.dumps(options)]
        return shlex.join(["sh", "-c", script, "sh", *words])

    def _messages(self, command: str) -> Generator[dict[str, Any], None, None]:
        """Yield what the agent says; what a login writes besides is no message."""
        with closing(self._connection.lines(command)) as lines:
            yield from filter(None, map(_message, lines))

    def _hear(self, message: Mapping[str, Any]) -> object:
        """Show a message, and return the answer if it is one."""
        if "error" in message:
            what, fix = (one_line(message.get(key, "")) for key in ("error", "fix"))
            raise ConfigError(f"{self._host}: {what}", fix=fix)
        if "say" in message:
            say(one_line(message["say"]))
        return message.get("done")


def _message(line: bytes) -> dict[str, Any] | None:
    """Return the message on a line, or nothing where it is none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _tar(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    # For names of more than 100 bytes; GNU's tar reads it, and busybox's.
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mtime = int(time.time())
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
