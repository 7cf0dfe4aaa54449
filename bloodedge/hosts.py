"""Several hosts that train one model together (JAX): who this is, and what the first one decides.

Every host runs the same program on the same data. The first alone prints, and writes what remains;
what it knows alone, such as a checkpoint, the others are sent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from bloodedge.errors import BloodedgeError, ConfigError

T = TypeVar("T")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Hosts:
    """Where this process stands among those that train together.

    Attributes:
        coordinator: `ADDRESS:PORT` of the first host, which all others can reach.
        count: how many processes there are, one a host.
        number: this one's, from 0.

    Raises:
        ConfigError: a value is missing or out of range.
    """

    coordinator: str = ""
    count: int = 1
    number: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 4096:
            raise ConfigError(f"--hosts {self.count}", expected="1 to 4096")
        if not 0 <= self.number < self.count:
            raise ConfigError(f"--host {self.number}", expected=f"0 to {self.count - 1}")
        address, _, port = self.coordinator.rpartition(":")
        if self.count > 1 and not (address and port.isdecimal() and int(port) < 1 << 16):
            raise ConfigError(
                f"--coordinator {self.coordinator!r}", expected="ADDRESS:PORT of the first host"
            )


_here = Hosts()


def join(hosts: Hosts) -> None:
    """Meet the other hosts; call it before anything is computed. All but the first fall silent.

    Raises:
        ConfigError: they do not all come within five minutes.
    """
    global _here
    if hosts.count == 1:
        return
    import jax

    try:
        jax.distributed.initialize(hosts.coordinator, hosts.count, hosts.number)
    except RuntimeError as error:
        raise ConfigError(
            f"the {hosts.count} hosts did not meet at {hosts.coordinator} "
            f"({str(error).splitlines()[0]})",
            fix="start the same command on each, with its own --host",
        ) from error
    # JAX takes SIGTERM for the notice of a preemption, and goes on; here it ends a run, as alone.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    _here = hosts
    if not is_first():
        # The libraries below print as well.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def count() -> int:
    """Return how many hosts train together."""
    return _here.count


def is_first() -> bool:
    """Return whether this is the host that prints and writes."""
    return _here.number == 0


def own_rows(batch: int) -> slice:
    """Return which rows of a batch are this host's: its part of equal ones."""
    if _here.count == 1:
        return slice(None)
    part = batch // _here.count
    return slice(_here.number * part, (_here.number + 1) * part)


def lead(make: Callable[[], T]) -> T:
    """On the first host: do what only it can do, and let the others go on, or stop with it.

    Returns:
        What `make` returns.

    Raises:
        BaseException: whatever `make` raises, once the others know.
    """
    try:
        made = make()
    except BaseException:
        _send(b"\0")
        raise
    _send(b"\1")
    return made


def follow() -> None:
    """On any other host: wait for what the first does in `lead`.

    Raises:
        BloodedgeError: it failed.
    """
    if _send(b"\0") != b"\1":
        raise BloodedgeError("the first host stopped", fix="see what it says")


def from_first(make: Callable[[], bytes]) -> bytes:
    """Return what the first host makes, on all of them.

    Raises:
        BloodedgeError: it failed.
    """
    if _here.count == 1:
        return make()
    if is_first():
        return _send(lead(make))
    follow()
    return _send(b"")


def agree(value: T) -> T:
    """Return the first host's value, of what JSON can hold."""
    if _here.count == 1:
        return value
    agreed: T = json.loads(from_first(lambda: json.dumps(value).encode()))
    return agreed


def _send(content: bytes) -> bytes:
    """Return the first host's bytes."""
    if _here.count == 1:
        return content
    size = _broadcast(np.array(divmod(len(content), _CHUNK), np.int32))
    if not size.any():
        return b""
    buffer = np.zeros(int(size[0]) * _CHUNK + int(size[1]), np.uint8)
    if is_first():
        buffer[:] = np.frombuffer(content, np.uint8)
    return bytes(_broadcast(buffer).tobytes())


def _broadcast(array: Any) -> Any:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(array))
