"""Text for people is harmless to a terminal, and says numbers as people do."""

from __future__ import annotations

import pytest

from bloodedge.errors import DataError
from bloodedge.text import counted, one_line, printable, some


def test_what_acts_on_a_terminal_is_replaced() -> None:
    assert printable("Zelle \x1b[31mä\u202e\udcff", 12) == "Zelle ?[31mä"
    assert one_line(" a \n b\t\x07c ") == "a b ?c"
    assert len(one_line("x" * 999)) == 300
    assert one_line("x" * 999, None) == "x" * 999


def test_an_error_is_one_harmless_line_however_long() -> None:
    error = DataError("no \x1b[2J file\n" + "x" * 999, expected="a\nb", fix="c\x07")
    assert str(error) == f"no ?[2J file {'x' * 999}; expected a b; to mend it: c?"


@pytest.mark.parametrize(
    ("number", "said"), [(0, "no images"), (1, "1 image"), (2, "2 images"), (12, "12 images")]
)
def test_numbers_ask_for_their_form(number: int, said: str) -> None:
    assert counted(number, "image") == said


def test_names_are_listed_up_to_some() -> None:
    assert some(["a", "b"], 2) == "a, b"
    assert some(["a", "b", "c", "d"], 2) == "a, b and 2 more"
