"""Running a chain: what is finished is kept, what was interrupted is continued."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from bloodedge.compress.chain.link import Link
from bloodedge.console import say
from bloodedge.data.dataset import Dataset
from bloodedge.errors import RunError
from bloodedge.runs import (
    Run,
    is_finished,
    is_interrupted,
    load_run,
    refuse_existing,
    runs_root,
)


class State(Enum):
    """What has become of a step."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    TO_DO = "to do"
    DIFFERS = "differs"


@dataclass(frozen=True)
class Planned:
    """One step, and how far it has come.

    Attributes:
        link: the step.
        state: whether it is finished,
        differs: and if it is but was made otherwise, how.
        seconds: how long it takes from its beginning, as far as anybody knows.
    """

    link: Link
    state: State
    differs: Sequence[str]
    seconds: float | None = None

    @property
    def left(self) -> float | None:
        """The seconds that it still takes, at most."""
        return 0.0 if self.state is State.FINISHED else self.seconds


def planned(links: Sequence[Link], data: Dataset) -> list[Planned]:
    """Return every step with its state, and where it differs from a finished run, how.

    Behind the first step that is not finished the parents are not known yet: of those only the
    settings are compared.
    """
    found: list[Planned] = []
    whole = True
    for link in links:
        state, reasons = _state(link, data, with_parents=whole)
        whole = whole and state is State.FINISHED
        found.append(Planned(link, state, reasons))
    return found


def run_chain(links: Sequence[Link], data: Dataset, *, force: bool = False) -> list[Run]:
    """Make what is missing of a chain and return the run of every step.

    Args:
        links: the steps; each starts from the one before, or from models that are there.
        data: for all of them.
        force: replace finished runs that were made otherwise, and start interrupted ones over.

    Raises:
        RunError: a finished run was made with other settings, data or parents; it says which. Or
            something else is where a run is to be.
        BloodedgeError: whatever a step raises; what was finished before stays.
    """
    if not force:
        check_places(links)
        for step in planned(links, data):
            if step.state is State.DIFFERS:
                raise _differs(step.link, step.differs)
    return list(_run(links, data, force=force))


def check_places(links: Sequence[Link]) -> None:
    """Refuse what a later step would fail at after hours: no run, and no room for one.

    Raises:
        RunError: something else is where a run is to be.
    """
    for link in links:
        if not is_finished(link.name):
            refuse_existing(runs_root() / link.name)


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


def _differs(link: Link, reasons: Sequence[str]) -> RunError:
    return RunError(
        f"the step {link.step} is finished as {link.name}, but was made otherwise: "
        + ", ".join(reasons),
        fix="repeat the settings it was made with, choose another --name, or add --force",
    )
