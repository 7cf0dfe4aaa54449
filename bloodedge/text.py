"""Text for people: on one line, harmless to a terminal, and as many words as numbers ask for."""

from __future__ import annotations

from collections.abc import Sequence


def printable(text: object, most: int | None = None) -> str:
    """Return text, as from an untrusted file, without what would act on a terminal.

    Args:
        text: what to show.
        most: to how many characters it is cut.
    """
    return "".join(c if c.isprintable() else "?" for c in str(text)[:most])


def one_line(text: object, most: int | None = 300) -> str:
    """Return the words of a text on one line, as `printable` makes them."""
    return printable(" ".join(str(text).split()), most)


def counted(number: int, noun: str) -> str:
    """Return so many of something, such as `1 image`, `2 images` or `no images`."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str], most: int) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def kilobytes(size: float) -> str:
    """Return bytes as KB of 1000 bytes."""
    return f"{size / 1000:,.1f}"
