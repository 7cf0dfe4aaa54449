"""A real sshd on the loopback address whose logins land on a stand-in device.

Its own port, host key, authorized key and home folder are in a temporary folder; nothing of the
system's ssh is read or changed.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bloodedge.benchmarks.emulator import tools
from bloodedge.benchmarks.ssh.connection import Target

# SHLVL keeps bash from reading the .bashrc of whoever runs this.
_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {root}/host_key
PidFile none
AuthorizedKeysFile {root}/authorized_keys
AuthorizedPrincipalsFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
PrintLastLog no
SetEnv SHLVL=1
Subsystem sftp {sftp}
ForceCommand {root}/login
"""
# What a login finds: a home of its own, and no programs but the device's.
_LOGIN = """\
#!/bin/sh
export HOME={home} PATH={path} {variables}
cd "$HOME"
{noise}
exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""
# What there is on every Linux, and is asked for.
_PROGRAMS = ("sh", "tar", "rm", "mkdir", "dirname", "sleep")
_SFTP = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")


@dataclass
class Server:
    """One device that can be reached; `with` starts and ends it.

    Attributes:
        root: an empty folder.
        port: that it listens on.
        process: sshd, while it runs.
    """

    root: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> Target:
        """How the tests reach it."""
        return Target(f"{getpass.getuser()}@127.0.0.1", self.port, self.root / "key")

    def device(self, home: Path, programs: Path, noise: str = "", **variables: str) -> None:
        """Say what the next login lands on.

        Args:
            home: its home folder.
            programs: a folder with the device's `python3`; the usual programs are linked into it.
            noise: what the login shell runs before the command.
            variables: of the environment.
        """
        for name in _PROGRAMS:
            if not (programs / name).exists():
                (programs / name).symlink_to(tools.program(name))
        given = " ".join(f"{key}={shlex.quote(value)}" for key, value in variables.items())
        where = {"home": shlex.quote(str(home)), "path": shlex.quote(str(programs))}
        login = self.root / "login.new"
        login.write_text(_LOGIN.format(**where, variables=given, noise=noise))
        login.chmod(0o755)
        login.replace(self.root / "login")

    def __enter__(self) -> Server:
        for name in ("host_key", "key", "other_key"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.root / name)]
            subprocess.run(keygen, check=True, timeout=60)
        shutil.copy(self.root / "key.pub", self.root / "authorized_keys")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        if os.geteuid() == 0:
            # sshd refuses to start without it; only an init system makes it.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.start()
        return self

    def start(self) -> None:
        """Start sshd, and wait until it answers."""
        sftp = next((path for path in _SFTP if Path(path).exists()), "internal-sftp")
        config = self.root / "sshd_config"
        config.write_text(_CONFIG.format(port=self.port, root=self.root, sftp=sftp))
        command = [tools.program("sshd"), "-D", "-e", "-f", str(config)]
        with (self.root / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"sshd did not start: {(self.root / 'sshd.log').read_text()}")

    def stop(self, cut: bool = False) -> None:
        """End sshd, and the connections that are open where asked for."""
        open_now = self._sessions()
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=60)
        if cut:
            _kill(open_now)

    def cut(self) -> None:
        """End the connections that are open; what runs detached from them goes on."""
        _kill(self._sessions())

    def _sessions(self) -> list[int]:
        """Return the processes that sshd serves its connections with."""
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                name, _, rest = status.read_text().partition("(")[2].rpartition(")")
                if self.process and name == "sshd" and int(rest.split()[1]) == self.process.pid:
                    found.append(int(status.parent.name))
        return found

    def __exit__(self, *_: object) -> None:
        self.stop()

    def known_hosts(self) -> str:
        """Return the line that a person's first login would have written."""
        public = (self.root / "host_key.pub").read_text()
        return f"[127.0.0.1]:{self.port} {public}"

    def client(self) -> Path:
        """Return a folder with an `ssh` and `scp` that know this host, and no user's settings."""
        settings, known = self.root / "ssh_config", self.root / "known_hosts"
        known.write_text(self.known_hosts())
        files = f'UserKnownHostsFile "{known}"\nGlobalKnownHostsFile none\n'
        settings.write_text(f"{files}StrictHostKeyChecking ask\nIdentityAgent none\n")
        folder = self.root / "client"
        folder.mkdir(exist_ok=True)
        for name in ("ssh", "scp"):
            command = shlex.join([tools.program(name), "-F", str(settings)])
            write_program(folder / name, f'exec {command} "$@"')
        return folder


def write_program(path: Path, script: str) -> None:
    """Write a shell script as a program, in place of one that was there."""
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _kill(processes: list[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
