"""From a preset to the steps that make it, each a run of a name that is known beforehand.

For a student `cnn_se` with seed 0: `cnn_se-s0` (float), `cnn_se-s0-tflite` (its files),
`cnn_se-s0-int8-test` (one of them on test), and the same for `cnn_se-s0-qat`. For a teacher
`vgg16`: `vgg16`, `vgg16-test`, `vgg16-tflite`, `vgg16-int8-test`. All begin with the preset's
prefix.
"""

from __future__ import annotations

from collections.abc import Iterator

from bloodedge.compress.chain.link import Link
from bloodedge.compress.quantize import QatConfig, quantize
from bloodedge.deploy.convert import VARIANTS
from bloodedge.deploy.evaluate import EvaluateConfig, evaluate
from bloodedge.deploy.export import ExportConfig, export
from bloodedge.deploy.pipeline.presets import QAT, Preset, Student, Teacher
from bloodedge.train.recipes import fit_config, qat_tuning
from bloodedge.train.stage import TrainConfig, train

# What follows the name of the run in float.
QAT_END, FILES_END = "-qat", "-tflite"
# What a student is exported as before and after QAT.
FLOAT_FILES, QAT_FILES = ("float32", "int8"), ("int8",)
TRAIN, QAT_STEP, EXPORT, TEST = "train", "qat", "export", "test"


def run_name(model: str, seed: int, prefix: str = "") -> str:
    """Return the name of a student's run in float."""
    return f"{prefix}{model}-s{seed}"


def steps(preset: Preset) -> list[Link]:
    """Return every step in the order in which they are done: all students of a seed, then the next.

    Raises:
        ConfigError: settings that cannot work together.
        RunError: a name that no run can have.
    """
    chain: list[Link] = []
    for seed in range(max((s.seeds for s in preset.students), default=0)):
        for student in preset.students:
            if seed < student.seeds:
                chain += student_steps(preset.prefix, student, seed)
    for teacher in preset.teachers:
        chain += teacher_steps(preset.prefix, teacher)
    return chain


def trains(link: Link) -> bool:
    """Whether a step works on every Keras backend; what follows training needs TensorFlow."""
    return link.step not in (EXPORT, TEST)


def teacher_steps(prefix: str, teacher: Teacher) -> Iterator[Link]:
    """Yield the steps of a full-size model: trained, and as files to compare students with."""
    name = prefix + teacher.name
    fit = fit_config(
        "strong", teacher.model, epochs=teacher.epochs, seed=teacher.seed, **teacher.fit
    )
    yield Link(TRAIN, TrainConfig(teacher.model, fit, name, teacher.width), train)
    yield _tested(name, f"{name}-test")
    yield from _files(name, tuple(VARIANTS), tested=FLOAT_FILES)


def student_steps(prefix: str, student: Student, seed: int) -> Iterator[Link]:
    """Yield the steps of one student with one seed."""
    name = run_name(student.model, seed, prefix)
    fit = fit_config("strong", student.model, epochs=student.epochs, seed=seed, **student.fit)
    yield Link(TRAIN, TrainConfig(student.model, fit, name), train)
    # Where QAT follows, it is there because the file before it may be worse than is allowed.
    yield from _files(name, FLOAT_FILES, allow_failing=student.int8 == QAT)
    if student.int8 == QAT:
        tuning = qat_tuning(epochs=student.qat_epochs, seed=seed)
        yield Link(QAT_STEP, QatConfig(name, tuning, name + QAT_END), quantize, name)
        yield from _files(name + QAT_END, QAT_FILES)


def _files(
    parent: str,
    variants: tuple[str, ...],
    *,
    tested: tuple[str, ...] = (),
    allow_failing: bool = False,
) -> Iterator[Link]:
    """Yield the export of a run, and the evaluation of its files."""
    name = parent + FILES_END
    config = ExportConfig(parent, name, variants, allow_failing=allow_failing)
    yield Link(EXPORT, config, export, parent)
    for variant in tested or variants:
        yield _tested(f"{name}/{parent}-{variant}.tflite", tested_name(parent, variant))


def tested_name(parent: str, variant: str) -> str:
    """Return the name of the run that evaluates one file on test."""
    return f"{parent}-{variant}-test"


def _tested(model: str, name: str) -> Link:
    return Link(TEST, EvaluateConfig(model, name=name), evaluate, model, role="model")
