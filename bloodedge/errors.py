"""The errors a user can mend. The command line prints each as one line and exits non-zero."""

from __future__ import annotations

from bloodedge.text import one_line


class BloodedgeError(Exception):
    """Something the user can mend.

    Args:
        what: what happened, without a full stop.
        expected: what would have been right.
        fix: what to do about it.
    """

    def __init__(self, what: str, *, expected: str = "", fix: str = "") -> None:
        parts = [what]
        if expected:
            parts.append(f"expected {expected}")
        if fix:
            parts.append(f"to mend it: {fix}")
        super().__init__("; ".join(one_line(part, None) for part in parts))


class ConfigError(BloodedgeError):
    """A setting, or a combination of settings, that cannot work."""


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse a value that is not between two others, or not one of them.

    Raises:
        ConfigError: so it is, under `name`, as the user knows it.
    """
    if not low <= value <= high:
        raise ConfigError(f"{name} {value} is out of range", expected=f"{low} to {high}")


def in_words(error: OSError) -> str:
    """Return what the system refused, and of which file where it says so, on one line."""
    return ": ".join(str(part) for part in (error.strerror or error, error.filename) if part)


class DataError(BloodedgeError):
    """A data set, image or recorded result that is missing, damaged or not what was asked for."""


class ModelError(BloodedgeError):
    """A model that is unknown, damaged, or does not fit the data."""


class TrainingError(BloodedgeError):
    """A fit that cannot go on."""


class RunError(BloodedgeError):
    """A run folder that is missing, incomplete, or would be overwritten."""


class VerificationError(BloodedgeError):
    """An exported model that does not agree with its parent."""
