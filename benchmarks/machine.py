"""What a result says of the machine beside its rows: peaks, noise, and the models' work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bloodedge.benchmarks.fields import count, number, text
from bloodedge.benchmarks.model_work import Work

VERDICTS = ("quiet", "noisy", "unknown")
_MAX_ITEMS = 100
# A thousand times the fastest machine there is, in 1e9 a second.
_MAX_SPEED = 1e9


@dataclass(frozen=True)
class Peaks:
    """What a machine can do at most with some number of threads.

    Attributes:
        threads: how many.
        int8_gmacs: 1e9 int8 multiply-accumulates a second; None where the runtime has no kernel.
        float_gmacs: the same in float32, the runtime's or NumPy's, whichever is faster.
        copies: size of what is read and written, in bytes, and 1e9 bytes a second, by size.
    """

    threads: int
    int8_gmacs: float | None
    float_gmacs: float | None
    copies: tuple[tuple[int, float], ...]

    def bandwidth(self, resident_bytes: int) -> float:
        """Return 1e9 bytes a second for data of some size: a small model stays in a cache."""
        fitting = (speed for size, speed in self.copies if size >= resident_bytes)
        return next(fitting, self.copies[-1][1])


@dataclass(frozen=True)
class Noise:
    """Whether the machine was quiet enough to conclude: one of `VERDICTS`, and why not."""

    verdict: str
    reasons: tuple[str, ...]


def read_peaks(value: object) -> tuple[Peaks, ...]:
    """Return the `peaks` of a result; none where it has none.

    Raises:
        ValueError: they are damaged.
    """
    found = tuple(_peaks(item) for item in _objects(value, "peaks"))
    if len({peaks.threads for peaks in found}) < len(found):
        raise ValueError("`peaks` has a thread count twice")
    return found


def _peaks(item: Mapping[str, Any]) -> Peaks:
    def speed(key: str) -> float | None:
        return None if item.get(key) is None else number(item, key, most=_MAX_SPEED)

    copies = sorted(
        (count(copy, "resident_bytes", least=1), number(copy, "gb_s", most=_MAX_SPEED))
        for copy in _objects(item.get("copy"), "copy")
    )
    floats = [v for v in (speed("float32_gmacs"), speed("numpy_float32_gmacs")) if v]
    if not copies or not all(size_and_speed[1] for size_and_speed in copies):
        raise ValueError("`copy` has no speeds, or one of 0")
    threads = count(item, "threads", least=1)
    return Peaks(threads, speed("int8_gmacs") or None, max(floats, default=None), tuple(copies))


def read_noise(value: object) -> Noise | None:
    """Return the `noise` of a result; None where it has none.

    Raises:
        ValueError: it is damaged.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or value.get("verdict") not in VERDICTS:
        raise ValueError(f"`noise` has no verdict of {', '.join(VERDICTS)}")
    reasons = value.get("reasons")
    if not isinstance(reasons, list) or len(reasons) > _MAX_ITEMS:
        raise ValueError(f"`reasons` is not a list of at most {_MAX_ITEMS} texts")
    said = tuple(text({"reasons": reason}, "reasons") for reason in reasons)
    return Noise(value["verdict"], said)


def read_work(value: object) -> Work | None:
    """Return the `work` of a row; None where it has none.

    Raises:
        ValueError: it is damaged.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("`work` is not an object")
    keys = ("macs_int8", "macs_float", "traffic_bytes", "resident_bytes")
    return Work(*(count(value, key) for key in keys))


def _objects(value: object, key: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    objects = isinstance(value, list) and all(isinstance(item, dict) for item in value)
    if not objects or not isinstance(value, list) or len(value) > _MAX_ITEMS:
        raise ValueError(f"`{key}` is not a list of at most {_MAX_ITEMS} objects")
    return value
