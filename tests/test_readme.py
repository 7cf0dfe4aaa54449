"""Every command that the documents show exists with the options it is shown with."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.main import get_command

from bloodedge.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
RESULTS = sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("benchmarks/results/*.md"))
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *RESULTS)
# Text that names a setting by the command that has it, and leaves out what else that needs.
SHORTENED = {
    "bloodedge distill --precision bfloat16",
    "bloodedge distill --teacher vgg16 --alpha 0.5",
    "bloodedge train --recipe strong",
    "python -m bloodedge.benchmarks.robustness --split val",
}


def shell_lines() -> list[str]:
    lines = []
    for name in DOCUMENTS:
        text = (ROOT / name).read_text()
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            lines += block.replace("\\\n", " ").splitlines()
        found = re.findall(r"`((?:bloodedge [a-z]|python -m bloodedge\.)[^`]*)`", text)
        lines += [" ".join(line.split()) for line in found]
    return [line.split("#")[0].strip() for line in lines if line.strip()]


LINES = sorted({*shell_lines()} - SHORTENED)
BLOODEDGE = [line for line in LINES if line.startswith("bloodedge ")]
MODULES = [line for line in LINES if line.startswith("python -m bloodedge.")]
MAKE = [line for line in LINES if line.startswith("make ")]


def test_the_missions_commands_are_shown():
    assert "bloodedge train --model vgg16" in BLOODEDGE
    assert "bloodedge distill --teacher vgg16 --student cnn_se" in BLOODEDGE
    assert "bloodedge export --tflite" in BLOODEDGE
    assert {"make demo", "make test"} <= set(MAKE)
    assert "python -m bloodedge.benchmarks.emulator --install" in MODULES


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


class ParsedError(Exception):
    """Raised once a script has parsed its words, before it begins."""


@pytest.mark.parametrize("line", MODULES)
def test_a_shown_script_parses(line: str, monkeypatch: pytest.MonkeyPatch):
    parse = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, words: list[str] | None = None) -> None:
        parse(parser, words)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    name, *words = shlex.split(line)[2:]
    monkeypatch.setattr(sys, "argv", [name, *words])
    spec = find_spec(name)
    assert spec is not None, name
    package = spec.submodule_search_locations is not None
    script = import_module(f"{name}.__main__" if package else name)
    with pytest.raises(ParsedError):
        script.main()


def test_the_files_that_contributors_are_sent_to_exist():
    found = re.findall(
        r"`((?:bloodedge|train|compress|deploy|benchmarks|tests)/[^`]*)`",
        (ROOT / "CONTRIBUTING.md").read_text(),
    )
    assert "compress/chain/" in found
    assert not [name for name in found if not (ROOT / name).exists()]
