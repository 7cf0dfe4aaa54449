"""What a login answers that has no shell, or whose shell has no Python that works."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bloodedge.benchmarks.emulator.server import write_program
from bloodedge.benchmarks.ssh.connection import SshError, Target
from bloodedge.benchmarks.ssh.device import Device
from bloodedge.errors import DataError

# As ssh: its last word is the command.
_SSH = """\
echo 'Welcome! {"not": 1}'; echo '{"say": 5}'; echo 'banner on stderr' >&2
for command; do :; done
HOME=%s; export HOME; cd "$HOME"
%s
"""
NO_SHELL = r"pi gives no answer but 'This account is not available'; expected a login with a shell"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def look(programs: Path, shell: str) -> bool:
    write_program(programs / "ssh", _SSH % (programs, shell))
    return Device(Target("pi"), "abc").look()


@pytest.mark.parametrize("code", [0, 1, 127])
def test_a_login_without_a_shell_is_quoted(code: int, programs: Path) -> None:
    with pytest.raises(DataError) as caught:
        look(programs, f"echo 'This account is not available'; echo; exit {code}")
    assert str(caught.value) == NO_SHELL


def test_a_login_that_says_on_stderr_alone_why_it_has_no_shell_is_quoted(programs: Path) -> None:
    write_program(programs / "ssh", "echo 'fatal: no interactive shell' >&2; exit 128")
    with pytest.raises(DataError) as caught:
        Device(Target("pi"), "abc").look()
    said = str(caught.value)
    assert "exit code 128: fatal: no interactive shell" in said
    assert said.endswith("expected a login with a shell")


def test_a_python_that_fails_is_no_missing_shell(programs: Path) -> None:
    write_program(programs / "python3", "echo noise; echo 'no libpython' >&2; exit 127")
    with pytest.raises(DataError) as caught:
        look(programs, 'exec /bin/sh -c "$command"')
    assert str(caught.value) == "pi: exit code 127: no libpython"


def test_a_connection_that_breaks_is_told_as_such(programs: Path) -> None:
    with pytest.raises(SshError, match="broke"):
        look(programs, "echo 'Connection closed by pi' >&2; exit 255")


def test_a_login_with_a_shell_answers_behind_its_banner(programs: Path) -> None:
    assert look(programs, 'exec /bin/sh -c "$command"') is False
    state = programs / ".cache/bloodedge-ssh/abc/state.json"
    state.parent.mkdir(parents=True)
    state.touch()
    assert look(programs, 'exec /bin/sh -c "$command"') is True
