"""Where a section's parts are put together: what it tells beside its comparison and plots."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bloodedge.benchmarks.report.data import Section
from bloodedge.benchmarks.report.devices import device_part
from bloodedge.benchmarks.report.energy import Meter, energy_part
from bloodedge.benchmarks.report.int8 import int8_part
from bloodedge.benchmarks.report.part import Part
from bloodedge.benchmarks.report.reasons import ModelFiles
from bloodedge.benchmarks.report.roofline import roofline_part

SYNTHETIC_MARK = "synthetic"


@dataclass(frozen=True)
class Evidence:
    """What parts look at beside the section.

    Attributes:
        files: where the .tflite of a digest is.
        meter: the log of a power meter, if one was given.
    """

    files: ModelFiles = field(default_factory=ModelFiles)
    meter: Meter | None = None


def section_parts(section: Section, evidence: Evidence) -> list[Part]:
    """Return a section's parts in the order in which they are shown.

    One more part is one more line here: terminal, Markdown, HTML and CSV follow by themselves.
    """
    parts = (
        device_part(section),
        int8_part(section, evidence.files),
        roofline_part(section),
        energy_part(section, evidence.meter),
    )
    return [_marked(part) if section.synthetic else part for part in parts if part]


def _marked(part: Part) -> Part:
    """Say of a table that it is about images that a program drew."""
    raw = tuple((*line, SYNTHETIC_MARK) for line in part.raw)
    return replace(part, heading=f"{part.heading} ({SYNTHETIC_MARK})", raw=raw)
