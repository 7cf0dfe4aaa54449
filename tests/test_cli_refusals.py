"""An option that is refused where nothing heeds it is one of the command's own."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from bloodedge.cli import starting
from bloodedge.cli.app import app
from bloodedge.cli.starting import TEACHING, refuse_unheeded


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The commands below a group, or the command itself, with the words that call it."""
    if not hasattr(command, "commands"):
        yield " ".join(words), command
        return
    for name, below in command.commands.items():
        yield from leaves(below, (*words, name))


COMMANDS = dict(leaves(get_command(app)))


def definitions(module: Any) -> dict[str, ast.AST]:
    """A module's functions and constants."""
    found: dict[str, ast.AST] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    return found


def refused(command: Any) -> set[str]:
    """The option names in refusals that a command reaches, in its module and what they share."""
    function = inspect.unwrap(command.callback)
    known = {**definitions(starting), **definitions(sys.modules[function.__module__])}
    names, waiting, seen = set(), [function.__name__], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in known:
            continue
        seen.add(name)
        nodes = list(ast.walk(known[name]))
        waiting += [node.id for node in nodes if isinstance(node, ast.Name)]
        texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        names |= {text for text in texts if re.fullmatch("--[a-z][a-z-]*", text)}
    return names if refuse_unheeded.__name__ in seen else set()


REFUSING = sorted(name for name, command in COMMANDS.items() if refused(command))


def test_the_lists_are_found():
    assert {"benchmark", "bundle", "compress", "distill", "evaluate", "lint"} <= set(REFUSING)
    assert {"prune", "quantize", "cluster", "verify"} <= set(REFUSING)
    assert refused(COMMANDS["cluster"]) >= {*TEACHING, "--temperature"}
    assert refused(COMMANDS["benchmark"]) >= {"--ssh-port", "--delegate", "--resume", "--threads"}
    assert refused(COMMANDS["compress"]) >= {"--floor", "--lr", "--calibration-per-class"}


@pytest.mark.parametrize("name", REFUSING)
def test_what_is_refused_is_an_option_of_the_command(name: str):
    command = COMMANDS[name]
    assert refused(command) <= {option.opts[0] for option in command.params}


def test_a_name_that_the_command_does_not_have_is_the_programs_error():
    small = typer.Typer()

    @small.command()
    def look(context: typer.Context, far: Annotated[int, typer.Option("--far", "-f")] = 0) -> None:
        refuse_unheeded(context, ("--far", "--wide", "-f"), "here")

    found = CliRunner().invoke(small, []).exception
    assert isinstance(found, LookupError)
    assert str(found).startswith("look has no --wide, -f; expected names of its options")
