"""What `bloodedge export` may be asked for."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from bloodedge.deploy import verify
from bloodedge.deploy.audit import CALIBRATED
from bloodedge.deploy.compat import RUNTIMES
from bloodedge.deploy.convert import ALL_VARIANTS, IO_TYPES, VARIANTS
from bloodedge.deploy.ranges import MINMAX, RangeConfig
from bloodedge.errors import ConfigError, check_range
from bloodedge.runs import check_name

_MAX_BATCH = 1024
_MAX_TEXT = 200


@dataclass(frozen=True)
class ExportConfig:
    """What `bloodedge export` converts and where it puts it.

    Attributes:
        model: the parent: a run, a file or a zoo model.
        name: the run to write.
        variants: of `ALL_VARIANTS`.
        per_class: calibration images of each class, drawn from train.
        seed: fixes the draws.
        verify_images: val images to compare on: see `verify.verification_indices`.
        force: replace a run of that name.
        batch: images an inference takes.
        io: of `IO_TYPES`: what int8 takes and gives.
        compat: of `compat.RUNTIMES`, or empty: files that runtime loads.
        max_drop, max_class_drop, max_ece: instead of the gates' own limits.
        allow_failing: write what fails its gate, marked as such.
        author, licence: for the files' metadata.
        c_array: write a C header beside each file.
        snippets: write Kotlin and C++ that call the model beside each file.
        ranges: how int8 and mixed choose the ranges of activations.
        float_layers: how many layers mixed leaves in float; by default a tenth.
        audit: over how many draws of calibration images accuracy is taken; 0 for none.

    Raises:
        ConfigError: an unknown or repeated variant, a number out of range, or a choice that none
            of the variants heeds.
        RunError: a name that no run can have.
    """

    model: str
    name: str
    variants: tuple[str, ...] = tuple(VARIANTS)
    per_class: int = 32
    seed: int = 0
    verify_images: int | None = None
    force: bool = False
    batch: int = 1
    io: str = "uint8"
    compat: str = ""
    max_drop: float | None = None
    max_class_drop: float | None = None
    max_ece: float | None = None
    allow_failing: bool = False
    author: str = ""
    licence: str = ""
    c_array: bool = False
    snippets: bool = False
    ranges: RangeConfig = MINMAX
    float_layers: int | None = None
    audit: int = 0

    def __post_init__(self) -> None:
        check_name(self.name)
        for variant in self.variants:
            _check_variant(variant)
        if not self.variants or len(set(self.variants)) < len(self.variants):
            raise ConfigError(
                f"--variants {','.join(self.variants)!r}",
                expected="each variant once, one at least",
            )
        check_range("--calibration-per-class", self.per_class, 1, 10_000)
        check_range("--seed", self.seed, 0, 2**31)
        check_range("--batch", self.batch, 1, _MAX_BATCH)
        if self.verify_images is not None and self.verify_images < 0:
            raise ConfigError(f"{self.verify_images} images to verify on", expected="0 or more")
        if self.io not in IO_TYPES:
            raise ConfigError(f"--io {self.io!r}", expected=", ".join(IO_TYPES))
        if self.compat and self.compat not in RUNTIMES:
            raise ConfigError(f"--compat {self.compat!r}", expected=", ".join(RUNTIMES))
        for text in (self.author, self.licence):
            if len(text) > _MAX_TEXT or not text.isprintable():
                raise ConfigError(
                    "--author or --license", expected=f"a line of {_MAX_TEXT} at most"
                )
        self.gate(self.variants[0])
        self._check_calibration()

    def _check_calibration(self) -> None:
        if self.float_layers is not None:
            check_range("--float-layers", self.float_layers, 1, 10_000)
        check_range("--audit", self.audit, 0, 100)
        chosen = set(self.variants)
        if self.io != IO_TYPES[0] and not chosen & {"int8", "mixed"}:
            raise ConfigError(
                f"--io {self.io} is for int8 and mixed, not for {', '.join(self.variants)}"
            )
        if self.ranges != MINMAX and not chosen & {"int8", "mixed"}:
            raise ConfigError(
                f"--calibration {self.ranges.method} is for int8 and mixed, not for "
                f"{', '.join(self.variants)}"
            )
        if self.float_layers and "mixed" not in chosen:
            raise ConfigError("--float-layers is for mixed", fix="leave it out")
        if self.audit and not chosen & set(CALIBRATED):
            raise ConfigError(
                f"{', '.join(self.variants)} takes no calibration images to audit",
                expected=", ".join(CALIBRATED),
            )

    def gate(self, variant: str) -> verify.Gate:
        """Return what a variant must keep of its parent.

        Raises:
            ConfigError: a limit is no fraction.
        """
        return verify.limits(variant, **self.own_limits)

    @property
    def own_limits(self) -> dict[str, float]:
        """The limits that were given instead of the gates' own, by name."""
        given = {name: getattr(self, name) for name in ("max_drop", "max_class_drop", "max_ece")}
        return {name: limit for name, limit in given.items() if limit is not None}


def _check_variant(variant: str) -> None:
    if variant in ALL_VARIANTS:
        return
    near = difflib.get_close_matches(variant, ALL_VARIANTS, n=1, cutoff=0.3)
    raise ConfigError(
        f"unknown variant {variant!r}",
        expected=", ".join(ALL_VARIANTS),
        fix=f"did you mean {near[0]!r}?" if near else "",
    )
