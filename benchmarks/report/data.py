"""What a report tells: sections, one for each data set, with a row for each model file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bloodedge.benchmarks.machine import Noise, Peaks
from bloodedge.benchmarks.result import BenchmarkRow

# The test split is what is reported; a figure of another split stands in only where it is missing.
SPLIT_ORDER = ("test", "val", "train")


@dataclass(frozen=True)
class Scores:
    """A model's figures on one split; per-class tuples follow the section's class names.

    Attributes:
        split: `test`, `val` or `train`.
        images: how many images were classified.
        accuracy: in 0..1.
        interval: the 95 % interval of the accuracy.
        auc: the mean one-vs-rest AUC; None where a class is absent.
        macro_f1: in 0..1.
        ece: the expected calibration error, in 0..1.
        precision: by class, in 0..1, as are `recall` and `f1`.
        recall: see `precision`.
        f1: see `precision`.
        confusion: `(C, C)` image counts, rows the truth.
    """

    split: str
    images: int
    accuracy: float
    interval: tuple[float, float]
    auc: float | None
    macro_f1: float
    ece: float
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]

    @property
    def worst(self) -> int:
        """The index of the class with the lowest recall among those that have images."""
        seen = [i for i, row in enumerate(self.confusion) if sum(row)] or [0]
        return min(seen, key=lambda i: self.recall[i])


@dataclass(frozen=True)
class Latency:
    """One model's speed on one device.

    Attributes:
        device: processor or board, and architecture.
        runtime: the runtime and its version, and what ran it where there is a choice.
        single: with one thread; None when that was not measured.
        all_cores: with the most threads, more than one; None when that was not measured.
        protocol: how it was measured; only latencies of one `place` are ranked.
        quick: whether that was only a rough look, which is another protocol.
        emulated: whether the device was an emulator: then only its answers mean anything.
        delegate: what ran it, as the result says; empty where there was no choice.
        when: when the benchmark began, in ISO 8601; empty where that is unknown.
        until: when it ended, likewise.
        source: the result file or run it is from.
        data: the fingerprint of the images that gave its accuracy; empty where that is unknown.
        int8_dot: whether the processor names an int8 dot product; None where it names nothing.
        peaks: what the machine can do at most, by thread count; empty where nobody measured it.
        noise: whether it was quiet enough to conclude; None where nobody looked.
        superseded: what else was measured there of the same file, and is not shown.
        merged: the results that its figures are from, each as it was read; empty where it is one.
    """

    device: str
    runtime: str
    single: BenchmarkRow | None
    all_cores: BenchmarkRow | None
    protocol: str = "runner"
    quick: bool = False
    emulated: bool = False
    delegate: str = ""
    when: str = ""
    until: str = ""
    source: str = ""
    data: str = ""
    int8_dot: bool | None = None
    peaks: tuple[Peaks, ...] = ()
    noise: Noise | None = None
    superseded: tuple[Latency, ...] = ()
    merged: tuple[Latency, ...] = ()

    @property
    def results(self) -> tuple[Latency, ...]:
        """The results that the figures are from: of each its own source, times and noise.

        The first is that of `single`, the last that of `all_cores`.
        """
        return self.merged or (self,)

    @property
    def place(self) -> str:
        """The device and how it was measured; the runner's full protocol goes without saying."""
        words = [self.device]
        words += [self.protocol] if self.protocol != "runner" else []
        words += ["quick"] if self.quick else []
        return ", ".join([*words, "emulated"] if self.emulated else words)

    @property
    def column(self) -> str:
        """The place and the runtime: what one column of a comparison is about."""
        return f"{self.place}, {self.runtime}"

    @property
    def figures(self) -> BenchmarkRow | None:
        """With one thread, or where that was not measured with the most."""
        return self.single or self.all_cores


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a model file, and where it was timed, a device.

    Attributes:
        model: the model it is a variant of.
        variant: such as `keras`, `float32`, `int8`.
        family: the architecture, or the model where that is unknown.
        file: the file's name.
        sha256: the file's digest.
        bytes: the file's size.
        gzip_bytes: its size gzipped at level 9; None when nobody measured it.
        scores: None when it was not evaluated on this section's data.
        latency: None when it was not timed.
        parent: the digest of the model it was exported from; empty where that is unknown.
        home: the run or folder that holds the file; empty where that is unknown.
        mark: what tells it from other files of the same model and variant; empty for the only one.
        failed: whether it failed the gate of its export; None where nothing says so.
    """

    model: str
    variant: str
    family: str
    file: str
    sha256: str
    bytes: int
    gzip_bytes: int | None
    scores: Scores | None = None
    latency: Latency | None = None
    parent: str = ""
    home: str = ""
    mark: str = ""
    failed: bool | None = None

    @property
    def name(self) -> str:
        """The model as tables name it."""
        return f"{self.model} ({self.mark})" if self.mark else self.model

    @property
    def gate(self) -> str:
        """What follows its name where it failed its gate; empty for all others."""
        return ", failed its gate" if self.failed else ""

    @property
    def kind(self) -> str:
        """The variant as tables name it."""
        return f"{self.variant}{self.gate}"

    @property
    def label(self) -> str:
        """Model and variant, as figures name them."""
        return f"{self.name} {self.kind}"


@dataclass(frozen=True)
class Curve:
    """A training run's history: column name to one value per epoch."""

    run: str
    columns: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Origin:
    """How one run was made, as pairs of a heading and a text."""

    run: str
    kind: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """Everything about one data set, known by its fingerprint.

    The fingerprint is empty where models are known only from what devices measured: nothing says
    then which images they classified. `emulated` are rows of emulators, which are in no ranking.
    """

    fingerprint: str
    title: str
    synthetic: bool
    class_names: tuple[str, ...]
    rows: tuple[Row, ...]
    curves: tuple[Curve, ...]
    origins: tuple[Origin, ...]
    emulated: tuple[Row, ...] = ()

    @property
    def models(self) -> list[Row]:
        """One row for each model file, whatever the number of devices."""
        return list({row.sha256: row for row in reversed(self.rows)}.values())[::-1]

    @property
    def split(self) -> str:
        """The split that the section's figures are about."""
        have = {row.scores.split for row in self.rows if row.scores}
        return next((split for split in SPLIT_ORDER if split in have), SPLIT_ORDER[0])

    @property
    def scored(self) -> list[tuple[Row, Scores]]:
        """The models with figures on `split`."""
        pairs = [(row, row.scores) for row in self.models if row.scores]
        return [(row, scores) for row, scores in pairs if scores.split == self.split]

    @property
    def best(self) -> list[tuple[Row, Scores]]:
        """The most accurate model of each family; of equals the smallest."""
        found: dict[str, tuple[Row, Scores]] = {}
        for row, scores in sorted(self.scored, key=lambda p: (-p[1].accuracy, p[0].bytes)):
            found.setdefault(row.family, (row, scores))
        return list(found.values())


@dataclass(frozen=True)
class ReportData:
    """All sections, and what was left out with the reason; `bad` are files that are damaged."""

    sections: tuple[Section, ...]
    origins: tuple[Origin, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    bad: tuple[str, ...] = ()
