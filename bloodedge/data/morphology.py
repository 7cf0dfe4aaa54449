"""Morphology of the eight peripheral-blood cell classes, as numbers to draw from.

Classes and their order follow Acevedo et al. (2020), "A dataset of microscopic peripheral blood
cell images for development of automatic recognition systems", Data in Brief 30, 105474, as used by
BloodMNIST. The descriptions (lobe counts, nucleus-to-cell ratio, granule colours, vacuoles) are the
standard haematological ones for May-Grünwald-Giemsa stained smears, for example Bain, "Blood
Cells: A Practical Guide", chapter 3. The ranges of neighbouring classes overlap on purpose: a
band neutrophil and a late immature granulocyte differ by degree, not by kind.

Colours are optical densities (base 10, without unit) per RGB channel over the empty background, so
that materials lying on top of each other add up (Beer-Lambert law).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

Range = tuple[float, float]
"""Lower and upper end of a uniform distribution."""

Stain = tuple[float, float, float]
"""Optical density in R, G and B."""

CHROMATIN: Final[Stain] = (0.50, 0.62, 0.26)
RED_CELL: Final[Stain] = (0.08, 0.13, 0.09)
PURPLE_GRANULE: Final[Stain] = (0.32, 0.46, 0.22)
ORANGE_GRANULE: Final[Stain] = (0.08, 0.24, 0.25)
BASOPHIL_GRANULE: Final[Stain] = (0.48, 0.60, 0.26)
SKY_BLUE: Final[Stain] = (0.28, 0.22, 0.05)
GREY_BLUE: Final[Stain] = (0.20, 0.21, 0.07)
GREY_PINK: Final[Stain] = (0.13, 0.19, 0.09)
PALE_PINK: Final[Stain] = (0.06, 0.10, 0.06)
LILAC: Final[Stain] = (0.16, 0.22, 0.09)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellMorphology:
    """Parameter ranges of one cell class; every pair is the range of a uniform draw.

    The defaults stand for "has none": no nuclear arc, no nucleus, no vacuoles.

    Attributes:
        radius: Cell radius, as a fraction of the image side.
        elongation: Ratio of the long to the short axis of the cell, 1 or more.
        ruffle: Relative amplitude of the irregularities of the cell outline.
        cytoplasm: Two stains; the cytoplasm of one cell is a random mixture of them.
        lobes: Numbers of nuclear lobes, equally likely; 0 means no nucleus.
        lobe_radius: Lobe radius, as a fraction of the cell radius.
        arc_radius: Radius of the arc the lobes lie on, as a fraction of the cell radius.
        arc_span: Angle between the first and the last lobe, in degrees.
        bridge: Width of the strand joining the lobes, as a fraction of the lobe diameter. Near 1
            the lobes merge into a band, a kidney or a horseshoe.
        eccentricity: Shift of the nucleus off the cell centre, as a fraction of the cell radius.
        nucleus_density: Amount of chromatin dye; 1 is the density of `CHROMATIN`.
        clumping: Relative contrast of the chromatin texture.
        granule_stain: Optical density of the granules.
        granule_density: Amount of granule dye; 1 is the density of `granule_stain`.
        granule_radius: Granule radius, as a fraction of the image side.
        granule_cover: Summed granule area over cell area, before overlap.
        granule_over_nucleus: Share of the granules over the nucleus that stay visible.
        vacuoles: Lowest and highest number of vacuoles.
    """

    radius: Range
    elongation: Range
    ruffle: Range
    cytoplasm: tuple[Stain, Stain]
    lobes: tuple[int, ...]
    lobe_radius: Range = (0.0, 0.0)
    arc_radius: Range = (0.0, 0.0)
    arc_span: Range = (0.0, 0.0)
    bridge: Range = (0.0, 0.0)
    eccentricity: Range = (0.0, 0.0)
    nucleus_density: Range = (0.0, 0.0)
    clumping: Range = (0.0, 0.0)
    granule_stain: Stain = PURPLE_GRANULE
    granule_density: Range
    granule_radius: Range
    granule_cover: Range
    granule_over_nucleus: float = 0.0
    vacuoles: tuple[int, int] = (0, 0)


BASOPHIL: Final = CellMorphology(
    radius=(0.26, 0.37),
    elongation=(1.0, 1.2),
    ruffle=(0.02, 0.08),
    cytoplasm=(LILAC, GREY_PINK),
    lobes=(2, 2, 3),
    lobe_radius=(0.42, 0.60),
    arc_radius=(0.30, 0.42),
    arc_span=(90.0, 180.0),
    bridge=(0.4, 0.9),
    eccentricity=(0.0, 0.12),
    nucleus_density=(0.55, 0.9),
    clumping=(0.05, 0.2),
    granule_stain=BASOPHIL_GRANULE,
    granule_density=(0.5, 1.1),
    granule_radius=(0.011, 0.02),
    granule_cover=(0.3, 0.91),
    granule_over_nucleus=0.6,
    vacuoles=(0, 1),
)

EOSINOPHIL: Final = CellMorphology(
    radius=(0.29, 0.41),
    elongation=(1.0, 1.25),
    ruffle=(0.01, 0.05),
    cytoplasm=(PALE_PINK, GREY_PINK),
    lobes=(2, 2, 2, 3),
    lobe_radius=(0.32, 0.46),
    arc_radius=(0.40, 0.54),
    arc_span=(80.0, 180.0),
    bridge=(0.2, 0.7),
    eccentricity=(0.0, 0.2),
    nucleus_density=(0.75, 1.05),
    clumping=(0.05, 0.2),
    granule_stain=ORANGE_GRANULE,
    granule_density=(0.4, 1.1),
    granule_radius=(0.01, 0.017),
    granule_cover=(0.3, 1.06),
    granule_over_nucleus=0.1,
    vacuoles=(0, 2),
)

ERYTHROBLAST: Final = CellMorphology(
    radius=(0.16, 0.28),
    elongation=(1.0, 1.25),
    ruffle=(0.02, 0.08),
    cytoplasm=(GREY_BLUE, GREY_PINK),
    lobes=(1,),
    lobe_radius=(0.48, 0.86),
    eccentricity=(0.0, 0.25),
    nucleus_density=(0.95, 1.4),
    clumping=(0.05, 0.25),
    granule_density=(0.1, 0.4),
    granule_radius=(0.008, 0.013),
    granule_cover=(0.0, 0.12),
)

IMMATURE_GRANULOCYTE: Final = CellMorphology(
    radius=(0.29, 0.43),
    elongation=(1.0, 1.3),
    ruffle=(0.01, 0.07),
    cytoplasm=(GREY_BLUE, PALE_PINK),
    lobes=(1, 1, 2, 2),
    lobe_radius=(0.42, 0.72),
    arc_radius=(0.18, 0.40),
    arc_span=(40.0, 130.0),
    bridge=(0.85, 1.0),
    eccentricity=(0.08, 0.3),
    nucleus_density=(0.6, 1.0),
    clumping=(0.1, 0.3),
    granule_density=(0.3, 0.9),
    granule_radius=(0.007, 0.013),
    granule_cover=(0.18, 0.76),
    granule_over_nucleus=0.4,
    vacuoles=(0, 2),
)

LYMPHOCYTE: Final = CellMorphology(
    radius=(0.19, 0.31),
    elongation=(1.0, 1.2),
    ruffle=(0.02, 0.09),
    cytoplasm=(SKY_BLUE, GREY_BLUE),
    lobes=(1,),
    lobe_radius=(0.70, 0.95),
    eccentricity=(0.0, 0.15),
    nucleus_density=(0.8, 1.15),
    clumping=(0.08, 0.3),
    granule_density=(0.2, 0.5),
    granule_radius=(0.008, 0.013),
    granule_cover=(0.0, 0.09),
    granule_over_nucleus=0.2,
    vacuoles=(0, 1),
)

MONOCYTE: Final = CellMorphology(
    radius=(0.31, 0.46),
    elongation=(1.0, 1.35),
    ruffle=(0.03, 0.12),
    cytoplasm=(GREY_BLUE, LILAC),
    lobes=(2, 2, 3),
    lobe_radius=(0.38, 0.54),
    arc_radius=(0.34, 0.48),
    arc_span=(80.0, 190.0),
    bridge=(0.7, 1.0),
    eccentricity=(0.0, 0.2),
    nucleus_density=(0.6, 0.95),
    clumping=(0.08, 0.28),
    granule_density=(0.2, 0.5),
    granule_radius=(0.007, 0.011),
    granule_cover=(0.0, 0.3),
    granule_over_nucleus=0.2,
    vacuoles=(0, 10),
)

NEUTROPHIL: Final = CellMorphology(
    radius=(0.27, 0.40),
    elongation=(1.0, 1.25),
    ruffle=(0.01, 0.06),
    cytoplasm=(PALE_PINK, GREY_PINK),
    lobes=(2, 3, 3, 4, 5),
    lobe_radius=(0.23, 0.38),
    arc_radius=(0.38, 0.56),
    arc_span=(120.0, 280.0),
    bridge=(0.15, 1.0),
    eccentricity=(0.0, 0.15),
    nucleus_density=(0.8, 1.1),
    clumping=(0.05, 0.2),
    granule_density=(0.1, 0.5),
    granule_radius=(0.007, 0.011),
    granule_cover=(0.15, 0.76),
    granule_over_nucleus=0.1,
    vacuoles=(0, 2),
)

PLATELET: Final = CellMorphology(
    radius=(0.07, 0.16),
    elongation=(1.0, 1.4),
    ruffle=(0.03, 0.16),
    cytoplasm=(LILAC, GREY_BLUE),
    lobes=(0,),
    granule_density=(0.5, 1.1),
    granule_radius=(0.01, 0.017),
    granule_cover=(0.45, 1.36),
)

MORPHOLOGY: Final[tuple[CellMorphology, ...]] = (
    BASOPHIL,
    EOSINOPHIL,
    ERYTHROBLAST,
    IMMATURE_GRANULOCYTE,
    LYMPHOCYTE,
    MONOCYTE,
    NEUTROPHIL,
    PLATELET,
)
"""One entry per class, in BloodMNIST label order."""
