"""What the finished models of a preset are worth, from the manifests of their runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from bloodedge.deploy.pipeline.plan import FILES_END, QAT_END, run_name, tested_name
from bloodedge.deploy.pipeline.presets import QAT, Preset, Student, Teacher
from bloodedge.runs import is_finished, load_run, metrics_of, runs_root
from bloodedge.text import kilobytes

# How a row's files come to be, and what follows the name of the run in float.
FLOAT32, INT8, INT8_QAT = "float32", "int8", "int8, QAT"
_MADE = {FLOAT32: ("", "float32"), INT8: ("", "int8"), INT8_QAT: (QAT_END, "int8")}
HEAD = (
    *("model", "file", "seeds", "KB", "KB gzip", "val, %", "test, %", "against float32"),
    "worst class, %",
)


@dataclass(frozen=True)
class Score:
    """One file that is finished.

    Attributes:
        file: where it is, below the runs folder.
        size: bytes.
        gzip: bytes compressed.
        val: accuracy in percent.
        test: likewise, read once.
        interval: of `test`, 95 %.
        worst: the lowest recall of any class on test, in percent.
        failed: whether it loses more against its parent than its gate allows.
    """

    file: str
    size: int
    gzip: int
    val: float
    test: float
    interval: tuple[float, float]
    worst: float
    failed: bool = False


def student_scores(student: Student, kind: str, prefix: str = "") -> Iterator[Score]:
    """Yield the files of one kind that are finished, seed by seed."""
    end, variant = _MADE[kind]
    for seed in range(student.seeds):
        parent = run_name(student.model, seed, prefix) + end
        if not is_finished(parent + FILES_END):
            continue
        made = metrics_of(parent + FILES_END)["variants"].get(variant)
        if made and is_finished(tested_name(parent, variant)):
            yield _score(
                f"{parent}{FILES_END}/{made['file']}",
                made["accuracy_val"],
                tested_name(parent, variant),
                failed=bool(made["failed"]),
            )


def teacher_scores(teacher: Teacher, prefix: str = "") -> Iterator[Score]:
    """Yield the Keras model of a teacher if it is finished."""
    name = prefix + teacher.name
    if is_finished(name) and is_finished(f"{name}-test"):
        val = metrics_of(name)["val"]["accuracy"]
        yield _score(f"{name}/model.keras", val, f"{name}-test")


def _score(file: str, val: float, tested: str, *, failed: bool = False) -> Score:
    manifest = load_run(runs_root() / tested).manifest
    entry, test = manifest["model"]["file"], manifest["metrics"]["test"]
    low, high = (100 * bound for bound in test["accuracy_95ci"])
    # A class without images has no recall, and so cannot be the worst.
    seen = [r for r, row in zip(test["recall"], test["confusion"], strict=True) if sum(row)]
    return Score(
        file,
        entry["bytes"],
        entry["gzip_bytes"],
        100 * val,
        100 * test["accuracy"],
        (low, high),
        100 * min(seen),
        failed,
    )


def rows(preset: Preset) -> Iterator[tuple[str, ...]]:
    """Yield what is there, under `HEAD`: means over seeds, test with its standard deviation.

    A single seed has the 95 % interval of its accuracy on test instead.
    """
    for teacher in preset.teachers:
        found = list(teacher_scores(teacher, preset.prefix))
        yield _row(teacher.name, "Keras", found, [])
    for student in preset.students:
        real = list(student_scores(student, FLOAT32, preset.prefix))
        for kind in _kinds(student):
            found = list(student_scores(student, kind, preset.prefix))
            yield _row(student.model, kind, found, [] if kind == FLOAT32 else real)


def markdown(preset: Preset) -> str:
    """Return `rows` as a table in Markdown."""
    lines = [HEAD, ["---"] * len(HEAD)]
    lines += [(f"`{model}`", *cells) for model, *cells in rows(preset)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _kinds(student: Student) -> list[str]:
    return [kind for kind in _MADE if kind != INT8_QAT or student.int8 == QAT]


def _row(model: str, kind: str, found: list[Score], real: list[Score]) -> tuple[str, ...]:
    if not found:
        return (model, kind, "0", "not run yet", *[""] * (len(HEAD) - 4))
    kind += ", failed its gate" if any(score.failed for score in found) else ""
    test = _mean(lambda s: s.test, found)
    low, high = found[0].interval
    spread = f" [{low:.2f}, {high:.2f}]"
    if len(found) > 1:
        spread = f" ± {stdev(s.test for s in found):.2f}"
    against = f"{test - _mean(lambda s: s.test, real):+.2f}" if len(found) == len(real) else ""
    return (
        *(model, kind, str(len(found))),
        kilobytes(_mean(lambda s: s.size, found)),
        kilobytes(_mean(lambda s: s.gzip, found)),
        f"{_mean(lambda s: s.val, found):.2f}",
        f"{test:.2f}{spread}",
        against,
        f"{min(s.worst for s in found):.1f}",
    )


def _mean(figure: Callable[[Score], float], some: Sequence[Score]) -> float:
    return mean(map(figure, some))


def preferred(student: Student, prefix: str = "") -> str:
    """Return the int8 file that val prefers, below the runs folder; of equals the first.

    Empty where none is finished and has passed its gate.
    """
    kinds = [kind for kind in _kinds(student) if kind != FLOAT32]
    every = [score for kind in kinds for score in student_scores(student, kind, prefix)]
    found = [score for score in every if not score.failed]
    return max(found, key=lambda score: score.val).file if found else ""
