"""Running a chain: what is finished is kept, what was interrupted is continued."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum

from bloodedge.compress.chain.link import Link
from bloodedge.console import say
from bloodedge.data.dataset import Dataset
from bloodedge.errors import RunError
from bloodedge.runs import Run, is_finished, is_interrupted, load_run, runs_root


class State(Enum):
    """What has become of a step."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    TO_DO = "to do"
    DIFFERS = "differs"


def states(links: Sequence[Link], data: Dataset) -> list[tuple[State, list[str]]]:
    """Return the state of every step, and for those that differ from a finished run, how.

    Behind the first step that is not finished the parents are not known yet: of those only the
    settings are compared.
    """
    found: list[tuple[State, list[str]]] = []
    whole = True
    for link in links:
        state, reasons = _state(link, data, with_parents=whole)
        whole = whole and state is State.FINISHED
        found.append((state, reasons))
    return found


def run_chain(links: Sequence[Link], data: Dataset, *, force: bool = False) -> list[Run]:
    """Make what is missing of a chain and return the run of every step.

    Args:
        links: the steps; each starts from the one before, or from models that are there.
        data: for all of them.
        force: replace finished runs that were made otherwise, and start interrupted ones over.

    Raises:
        RunError: a finished run was made with other settings, data or parents; it says which.
        BloodedgeError: whatever a step raises; what was finished before stays.
    """
    if not force:
        for link, (state, reasons) in zip(links, states(links, data), strict=True):
            if state is State.DIFFERS:
                raise _differs(link, reasons)
    return list(_run(links, data, force=force))


def _run(links: Sequence[Link], data: Dataset, *, force: bool) -> Iterator[Run]:
    import keras

    for number, link in enumerate(links, start=1):
        state, reasons = _state(link, data, with_parents=True)
        if state is State.DIFFERS and not force:
            raise _differs(link, reasons)
        say(f"[{number}/{len(links)}] {link.step}: {link.name}, {state.value}")
        if state is State.FINISHED:
            yield load_run(runs_root() / link.name)
            continue
        # Layers without a name are numbered anew, as in a process of the step's own.
        keras.utils.clear_session()
        yield link.made(data, force=force)


def _state(link: Link, data: Dataset, *, with_parents: bool) -> tuple[State, list[str]]:
    if is_finished(link.name):
        manifest = load_run(runs_root() / link.name).manifest
        reasons = link.settings_that_differ(manifest, data)
        if with_parents:
            reasons += link.parents_that_differ(manifest)
        return (State.DIFFERS if reasons else State.FINISHED), reasons
    return (State.INTERRUPTED if is_interrupted(link.name) else State.TO_DO), []


def _differs(link: Link, reasons: list[str]) -> RunError:
    return RunError(
        f"the step {link.step} is finished as {link.name}, but was made otherwise: "
        + ", ".join(reasons),
        fix="repeat the settings it was made with, choose another --name, or add --force",
    )
