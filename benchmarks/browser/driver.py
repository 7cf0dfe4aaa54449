"""Serve the page, show where it is, and wait until a device has measured everything."""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bloodedge.benchmarks.browser.litertjs import load_litertjs
from bloodedge.benchmarks.browser.server import PageServer, page_files
from bloodedge.benchmarks.browser.session import Session
from bloodedge.benchmarks.elsewhere import DriverConfig, Material, Measured
from bloodedge.console import say
from bloodedge.errors import ConfigError

_POLL_SECONDS = 0.2
_MAX_DEVICE = 100


@dataclass(frozen=True)
class BrowserConfig:
    """Where the page is served.

    Attributes:
        litertjs: a folder with the archives of LiteRT.js; without it, the user's cache.
        address: of this machine, to listen on; empty for the one that reaches the network.
        port: to listen on; 0 for any.
        timeout_s: how long to wait without news from the device.
        device: what to call it in the result; empty for what its browser says.

    Raises:
        ConfigError: a value out of range.
    """

    litertjs: Path | None = None
    address: str = ""
    port: int = 0
    timeout_s: float = 600.0
    device: str = ""

    def __post_init__(self) -> None:
        """Refuse what could not be served."""
        if not 0 <= self.port < 1 << 16:
            raise ConfigError(f"--port {self.port}", expected="0 to 65535")
        if not 0 < self.timeout_s <= 86400:
            raise ConfigError(f"--timeout {self.timeout_s}", expected="more than 0, at most 86400")
        try:
            ipaddress.IPv4Address(self.address or "127.0.0.1")
        except ValueError:
            expected = "an IPv4 address of this machine"
            raise ConfigError(f"--address {self.address!r}", expected=expected) from None
        if len(self.device) > _MAX_DEVICE or not (self.device or "x").isprintable():
            raise ConfigError("--device is no name", expected=f"at most {_MAX_DEVICE} characters")


@dataclass(frozen=True)
class Browser:
    """The driver: `benchmark_elsewhere` calls it."""

    config: BrowserConfig

    def __call__(self, material: Material, config: DriverConfig) -> Measured:
        """Serve until a device has measured everything, was silent too long, or Ctrl-C."""
        session = Session(material, config, self.config.device)
        files = page_files(material, session.plan(), load_litertjs(self.config.litertjs))
        address = self.config.address or own_address()
        with PageServer((address, self.config.port), files, session) as server:
            thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,))
            thread.start()
            try:
                _show(server.url, ipaddress.IPv4Address(address).is_loopback)
                _wait(server, self.config.timeout_s)
            except KeyboardInterrupt:
                say("interrupted: keeping what is complete")
            finally:
                server.shutdown()
                thread.join()
        return Measured(
            complete=session.complete,
            protocol="browser",
            environment=session.environment(),
            rows=session.rows(),
        )


def _wait(server: PageServer, timeout_s: float) -> None:
    while not server.finished.wait(_POLL_SECONDS):
        if time.monotonic() - server.session.heard > timeout_s:
            what = "no more news from" if server.session.started else "nobody opened the page on"
            say(f"{what} the device within {timeout_s:g} s")
            return


def _show(url: str, loopback: bool) -> None:
    """Print the address, as text and for a phone's camera."""
    import segno

    if sys.stderr.isatty():
        segno.make(url, error="l").terminal(out=sys.stderr, border=2, compact=True)
    say(f"open on the device, and keep it in the foreground: {url}")
    if not loopback:
        say(
            "browsers give threads, WebGPU and a fine clock to localhost only: over USB with adb "
            "reverse and --address 127.0.0.1 all are measured"
        )


def own_address() -> str:
    """Return this machine's address in its network; loopback when it is in none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Chooses the interface; nothing is sent. The address is reserved for documentation.
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
