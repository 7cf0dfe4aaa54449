"""Synthetic blood-cell images: a labelled set that needs no download and carries nobody's licence.

Each image shows one cell drawn from the morphology table in `bloodedge.data.morphology`. The cell
is painted as maps of dye concentration (red cells, cytoplasm, chromatin, granules, debris), the
maps become light by the Beer-Lambert law, and the camera adds uneven lighting, defocus and noise.
All lengths are fractions of the image side, so the same scene can be rendered at any size.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodedge.data.morphology import (
    CHROMATIN,
    MORPHOLOGY,
    PURPLE_GRANULE,
    RED_CELL,
    CellMorphology,
    Range,
    Stain,
)
from bloodedge.errors import DataError

_Map = NDArray[np.float32]  # a cover or concentration per pixel of the canvas, (side, side)

_MIN_SIZE = 16
_SUBPIXEL_BITS = 4  # cv2 takes integer coordinates; these are the fractional bits of each
_TURN = np.exp(2j * np.pi * np.arange(36) / 36)  # the unit circle, as 36 complex numbers
# Waves of a cell outline, from oval (2 per turn) to crenated (6 per turn) and ever shallower.
_WAVES = [_TURN**k / np.sqrt(k) for k in range(2, 7)]
_RIPPLES = np.array([part for wave in _WAVES for part in (wave.real, wave.imag)])
_TEXTURE_CELLS = 40  # chromatin clumps are about 1/40 of the image side in a stained smear
_CREAM = np.array([0.985, 0.905, 0.790])  # usual background of a May-Grünwald-Giemsa smear
_LILAC = np.array([0.830, 0.830, 0.910])  # background of the rarer bluish slides


def synthesize(
    counts: Sequence[int], size: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a labelled set of synthetic blood-cell images.

    Image k of class c depends on (seed, c, k, size) alone, so a larger set contains the smaller
    one; only the order of the set depends on `counts`. The same call gives the same bytes on one
    installation; another processor or OpenCV version may round a pixel by one level. The classes
    are those of Acevedo et al. (2020), Data in Brief 30, 105474.

    Args:
        counts: Number of images of each of the 8 classes, in BloodMNIST label order.
        size: Side of the square images, in pixels, 16 or more.
        seed: Seed of every random choice, 0 or more.

    Returns:
        Images, uint8 RGB of shape (N, size, size, 3), and labels, uint8 of shape (N, 1), both in
        the same shuffled order.

    Raises:
        DataError: If `counts` has the wrong length or a negative entry, `size` is too small or
            `seed` is negative.
    """
    numbers = _checked(counts, size, seed)
    labels = np.repeat(np.arange(len(MORPHOLOGY), dtype=np.uint8), numbers)
    indices = np.concatenate([np.arange(n) for n in numbers])
    # The class part of this key is past the last class, so it never equals an image's key.
    order = np.random.default_rng([seed, len(MORPHOLOGY)]).permutation(len(labels))
    images = np.empty((len(labels), size, size, 3), dtype=np.uint8)
    for row, source in enumerate(order):
        label = int(labels[source])
        rng = np.random.default_rng([seed, label, int(indices[source])])
        images[row] = _draw(MORPHOLOGY[label], size, rng)
    return images, labels[order, np.newaxis]


def _checked(counts: Sequence[int], size: int, seed: int) -> list[int]:
    """Return the counts as a list of plain integers, or raise DataError."""
    numbers = [operator.index(n) for n in counts]
    if len(numbers) != len(MORPHOLOGY):
        raise DataError(
            f"counts has {len(numbers)} entries",
            expected=f"{len(MORPHOLOGY)} entries, one per class",
            fix="give one number of images for each class, 0 to leave a class out",
        )
    if min(numbers) < 0:
        raise DataError(f"counts has a negative entry: {numbers}", expected="0 or more per class")
    if size < _MIN_SIZE:
        raise DataError(f"size is {size}", expected=f"{_MIN_SIZE} pixels or more")
    if seed < 0:
        raise DataError(f"seed is {seed}", expected="0 or more")
    return numbers


@dataclass(frozen=True, slots=True)
class _Scene:
    """Where the cell lies; lengths in image sides, positions as complex numbers x + iy."""

    side: int  # of the canvas, in pixels
    centre: complex
    radius: float
    rng: np.random.Generator


def _draw(cell: CellMorphology, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one cell and photograph it; returns uint8 RGB of shape (size, size, 3)."""
    side = size * _supersampling(size)
    scene = _Scene(side, complex(*rng.normal(0.5, 0.035, 2)), rng.uniform(*cell.radius), rng)
    body = _cell_body(scene, cell)
    nucleus = _nucleus(scene, cell) * body
    cytoplasm = body * (1.0 - 0.7 * nucleus) * (1.0 - _vacuoles(scene, cell))
    granules = _granules(scene, cell) * body
    granules *= 1.0 - (1.0 - cell.granule_over_nucleus) * nucleus
    chromatin = nucleus * rng.uniform(*cell.nucleus_density)
    chromatin *= 1.0 + rng.uniform(*cell.clumping) * _texture(scene)
    outside = 1.0 - body
    layers = (_red_cells(scene) * outside, _debris(scene) * outside, cytoplasm, chromatin, granules)
    stains = (RED_CELL, PURPLE_GRANULE, _mixed(cell.cytoplasm, rng), CHROMATIN, cell.granule_stain)
    return _photograph(layers, stains, size, rng)


def _supersampling(size: int) -> int:
    """Return how many times finer than the image the canvas is."""
    # A granule is thinner than a pixel in a small image; in a large one the anti-aliased outlines
    # and the defocus, more than half a pixel there, already leave nothing to refine.
    return 4 if size < 48 else 2 if size < 192 else 1


def _mixed(ends: tuple[Stain, Stain], rng: np.random.Generator) -> Stain:
    """Return a random mixture of two stains."""
    share = rng.uniform()
    r, g, b = (share * x + (1.0 - share) * y for x, y in zip(*ends, strict=True))
    return r, g, b


def _to_fixed(points: NDArray[np.complex128], side: int) -> NDArray[np.int32]:
    """Convert positions to the fixed-point pixels cv2 draws with, shape (N, 2)."""
    pairs = points.view(np.float64).reshape(-1, 2)
    return np.rint(pairs * (side << _SUBPIXEL_BITS)).astype(np.int32)


def _fill_blob(
    mask: NDArray[np.uint8],
    scene: _Scene,
    at: complex,
    radius: float,
    elongation: Range,
    ruffle: float,
) -> None:
    """Fill a randomly turned, uneven ellipse of the given position and radius in `mask`."""
    rng = scene.rng
    stretch = np.sqrt(rng.uniform(*elongation))
    r = radius * (1.0 + ruffle * (rng.standard_normal(len(_RIPPLES)) @ _RIPPLES))
    ellipse = r * (stretch * _TURN.real + 1j / stretch * _TURN.imag)
    points = ellipse * np.exp(1j * rng.uniform(0.0, 2.0 * np.pi)) + at
    cv2.fillPoly(mask, [_to_fixed(points, scene.side)], 255, cv2.LINE_AA, _SUBPIXEL_BITS)


def _blank(scene: _Scene) -> NDArray[np.uint8]:
    """Return an empty canvas to draw on."""
    return np.zeros((scene.side, scene.side), np.uint8)


def _cover(mask: NDArray[np.uint8]) -> _Map:
    """Convert drawn pixels, 0 to 255, to a cover of 0 to 1."""
    return mask * np.float32(1.0 / 255.0)


def _cell_body(scene: _Scene, cell: CellMorphology) -> _Map:
    """Return the cover of the whole cell."""
    mask = _blank(scene)
    ruffle = scene.rng.uniform(*cell.ruffle)
    _fill_blob(mask, scene, scene.centre, scene.radius, cell.elongation, ruffle)
    return _cover(mask)


def _nucleus(scene: _Scene, cell: CellMorphology) -> _Map:
    """Return the cover of the nucleus: lobes along an arc, joined by a strand."""
    rng, mask = scene.rng, _blank(scene)
    lobes = int(rng.choice(cell.lobes))
    lobe_radius = rng.uniform(*cell.lobe_radius) * scene.radius
    shift, heading = rng.uniform(*cell.eccentricity) * scene.radius, rng.uniform(0.0, 2.0 * np.pi)
    # A lone lobe has no arc to lie on, and sits in the middle of the nucleus.
    bend = rng.uniform(*cell.arc_radius) * scene.radius if lobes > 1 else 0.0
    span = np.deg2rad(rng.uniform(*cell.arc_span))
    angles = rng.uniform(0.0, 2.0 * np.pi) + span * np.linspace(-0.5, 0.5, 17)
    arc = scene.centre + shift * np.exp(1j * heading) + bend * np.exp(1j * angles)
    for k in range(lobes):
        at = complex(arc[round(16 * k / max(lobes - 1, 1))])
        _fill_blob(mask, scene, at, lobe_radius * rng.uniform(0.85, 1.1), (1.0, 1.35), 0.035)
    if lobes > 1:
        width = max(1, round(2.0 * lobe_radius * rng.uniform(*cell.bridge) * scene.side))
        strand = [_to_fixed(arc, scene.side)]
        cv2.polylines(mask, strand, False, 255, width, cv2.LINE_AA, _SUBPIXEL_BITS)
    return _cover(mask)


def _granules(scene: _Scene, cell: CellMorphology) -> _Map:
    """Return the concentration of granule dye."""
    grain = scene.rng.uniform(*cell.granule_radius)
    spread = 1.15 * scene.radius  # far enough to reach the ends of an elongated cell
    number = round(scene.rng.uniform(*cell.granule_cover) * (spread / grain) ** 2)
    density = np.float32(scene.rng.uniform(*cell.granule_density))
    return density * _specks(scene, spread, grain, number)


def _vacuoles(scene: _Scene, cell: CellMorphology) -> _Map:
    """Return the cover of the clear vacuoles."""
    number = int(scene.rng.integers(*cell.vacuoles, endpoint=True))
    return _specks(scene, 0.85 * scene.radius, scene.rng.uniform(0.028, 0.057), number)


def _specks(scene: _Scene, spread: float, grain: float, number: int) -> _Map:
    """Return the cover of round specks of radius `grain`, strewn evenly over a disc."""
    away = spread * np.sqrt(scene.rng.uniform(size=number))
    at = scene.centre + away * np.exp(1j * scene.rng.uniform(0.0, 2.0 * np.pi, number))
    pixels = np.clip(np.stack((at.imag, at.real)) * scene.side, 0, scene.side - 1)
    impulses = np.zeros((scene.side, scene.side), np.float32)
    impulses[tuple(pixels.astype(int))] = 1.0
    # Blurring impulses draws any number of soft discs at the cost of one filter. A peak of 2,
    # cut at 1, gives a flat disc that falls to one half at 1.67 sigma: there its radius lies.
    sigma = 0.6 * grain * scene.side
    spots = cv2.GaussianBlur(impulses, (0, 0), sigma) * np.float32(4.0 * np.pi * sigma**2)
    return np.asarray(np.minimum(spots, 1.0), np.float32)


def _red_cells(scene: _Scene) -> _Map:
    """Return the concentration of red cells: discs with a paler centre, around the cell."""
    rng, layers = scene.rng, (_blank(scene), _blank(scene))
    usual = rng.uniform(0.13, 0.17)
    for k in range(int(rng.integers(5, 16))):
        at, rim = complex(*rng.uniform(-0.15, 1.15, 2)), usual * rng.uniform(0.9, 1.1)
        oval, turn, shade = rng.uniform(0.8, 1.0), rng.uniform(0.0, 360.0), rng.uniform(150, 230)
        pale, hollow = rng.uniform(0.35, 0.6), rng.uniform(0.2, 0.8)
        # Red cells may touch the cell and be dented by it, but do not lie on top of it.
        if abs(at - scene.centre) < scene.radius + 0.7 * rim:
            continue
        x, y = (round(v * scene.side) for v in (at.real, at.imag))
        for r, tone in ((rim, shade), (rim * pale, shade * hollow)):
            axes = (round(r * scene.side), round(r * oval * scene.side))
            cv2.ellipse(layers[k % 2], (x, y), axes, turn, 0.0, 360.0, tone, -1, cv2.LINE_AA)
    # Two layers, because overlapping red cells add up to a darker lens.
    total = _cover(layers[0]) + _cover(layers[1])
    return np.asarray(cv2.GaussianBlur(total, (0, 0), 0.012 * scene.side), np.float32)


def _debris(scene: _Scene) -> _Map:
    """Return the concentration of stray platelets and stain specks near the cell."""
    rng, mask = scene.rng, _blank(scene)
    for _ in range(int(rng.choice((0, 0, 0, 1, 1, 2)))):
        spot = rng.uniform(0.015, 0.06)
        away = scene.radius + spot + rng.uniform(0.0, 0.2)
        at = scene.centre + away * np.exp(1j * rng.uniform(0.0, 2.0 * np.pi))
        _fill_blob(mask, scene, at, spot, (1.0, 1.4), 0.08)
    return _cover(mask) * np.float32(rng.uniform(0.4, 1.1))


def _texture(scene: _Scene) -> _Map:
    """Return a smooth random field of about unit deviation."""
    noise = scene.rng.standard_normal((_TEXTURE_CELLS, _TEXTURE_CELLS), dtype=np.float32)
    field = cv2.resize(noise, (scene.side, scene.side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(field, np.float32)


def _photograph(
    layers: Sequence[_Map], stains: Sequence[Stain], size: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Turn dye concentrations into an image, as a camera on a microscope would see them.

    Args:
        layers: Concentrations of the K dyes, each of shape (side, side).
        stains: Optical density of each dye at concentration 1.
        size: Side of the image, in pixels.
        rng: Source of the stain shift, the light and the noise.

    Returns:
        The image, uint8 RGB of shape (size, size, 3).
    """
    # Slides differ in staining time (all channels) and in the balance of the two dyes (each).
    shift = -np.log(10.0) * rng.normal(1.0, 0.10) * rng.normal(1.0, 0.06, 3)
    # cv2 and not a matrix product: the threads of a BLAS library cost more than they gain here.
    absorption = cv2.transform(cv2.merge(layers), (np.array(stains) * shift).T.astype(np.float32))
    image = cv2.resize(cv2.exp(absorption), (size, size), interpolation=cv2.INTER_AREA)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.003, 0.014) * size)
    exposed = image * _lamp(size, rng)
    # The noise comes last in the random stream, so that the scene is the same at every size.
    exposed += rng.uniform(0.004, 0.016) * rng.standard_normal(exposed.shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(255.0 * exposed), 0.0, 255.0), np.uint8)


def _lamp(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the light that reaches the camera through empty glass, shape (size, size, 3)."""
    bluish = rng.beta(0.25, 2.0)
    white = (1.0 - bluish) * _CREAM + bluish * _LILAC + rng.normal(0.0, 0.010, 3)
    ramp = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    down, across = rng.normal(0.0, 0.03, 2).astype(np.float32)
    lamp = np.float32(rng.normal(1.0, 0.03)) + down * ramp[:, np.newaxis] + across * ramp
    return np.asarray(lamp[..., np.newaxis] * white.astype(np.float32), np.float32)
