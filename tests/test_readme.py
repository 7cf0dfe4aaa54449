"""Every command the README shows exists with the options it is shown with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from bloodedge.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "benchmarks/results/README.md")


def shell_lines() -> list[str]:
    lines = []
    for name in DOCUMENTS:
        for block in re.findall(r"```sh\n(.*?)```", (ROOT / name).read_text(), re.DOTALL):
            lines += block.replace("\\\n", " ").splitlines()
    inline = [
        text
        for name in DOCUMENTS
        for text in re.findall(r"`(bloodedge [a-z][^`]*)`", (ROOT / name).read_text())
    ]
    return [line.split("#")[0].strip() for line in [*lines, *inline] if line.strip()]


BLOODEDGE = sorted({line for line in shell_lines() if line.startswith("bloodedge ")})
MAKE = sorted({line for line in shell_lines() if line.startswith("make ")})


def test_the_missions_commands_are_shown():
    assert "bloodedge train --model vgg16" in BLOODEDGE
    assert "bloodedge distill --teacher vgg16 --student cnn_se" in BLOODEDGE
    assert "bloodedge export --tflite" in BLOODEDGE
    assert {"make demo", "make test"} <= set(MAKE)


@pytest.mark.parametrize("line", BLOODEDGE)
def test_a_shown_command_parses(line: str):
    command = get_command(app)
    words = shlex.split(line)[1:]
    context = command.make_context("bloodedge", list(words), resilient_parsing=False)
    while hasattr(command, "resolve_command") and context._protected_args + context.args:
        words = context._protected_args + context.args
        name, command, rest = command.resolve_command(context, words)
        assert command is not None, line
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("line", MAKE)
def test_a_shown_make_target_exists(line: str):
    target = line.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
