"""Tables for a terminal: no figure is cut, no name is lost, nothing is markup."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from bloodedge.tables import print_table, table

HEAD = ("model", "KB", "accuracy % [95 %]", "median µs", "note")
ROWS = [
    ("cnn_se-tflite/cnn_se-float32.tflite", "214.3", "99.12 [98.75, 99.39]", "58.2", ""),
    (
        "vgg16-tflite/vgg16-float32.tflite",
        "58,879.3",
        "99.24 [98.89, 99.48]",
        "12,429",
        "[b] drift",
    ),
    (),
    ("both", "59,093.6", "", "", ""),
]
FIGURES = {cell for row in ROWS for cell in row[1:4] if cell}


def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int) -> str:
    monkeypatch.setattr(Console, "is_terminal", property(lambda _: True))
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(table(HEAD, ROWS, words=("note",), title="[x] all", caption="val [y]"))
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_terminal_is_too_narrow_for_a_figure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    lines = shown(capsys, monkeypatch, width).splitlines()
    for row in filter(None, ROWS):
        assert any(all(cell in line for cell in row[1:4]) for line in lines), row
    assert "…" not in "".join(lines)


def test_names_are_folded_and_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(capsys, monkeypatch, 80).splitlines()
    assert max(map(len, lines)) <= 80
    names = "".join(line.split("  ")[0].strip() for line in lines)
    assert all(row[0] in names for row in ROWS if row)


def test_a_pipe_gets_whole_lines_and_the_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    title = "[x] all " + "of them " * 20 + "here"
    print_table(table(HEAD, ROWS, words=("note",), title=title, caption="val [y]"))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    # However narrow the table is.
    assert [lines[0], lines[-1]] == ["[x] all " + "of them " * 20 + "here", "val [y]"]
    assert re.split(" {2,}", lines[-4]) == list(ROWS[1])
    # Headings are broken where their figures are shorter, and end where those end.
    heads = lines[1:3]
    assert "median" in heads[0]
    assert "µs" in heads[1]
    assert "accuracy % [95 %]" in heads[1]
    end = lines[-4].index("12,429") + len("12,429")
    assert heads[0][:end].endswith("median")
    assert heads[1][:end].endswith("µs")


def test_a_table_may_have_no_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(table(HEAD, []))
    assert "median" in capsys.readouterr().out
