from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.data.synthetic import synthesize
from bloodedge.errors import BloodedgeError, DataError

CLASSES = 8
BASOPHIL, EOSINOPHIL, ERYTHROBLAST, IG, LYMPHOCYTE, MONOCYTE, NEUTROPHIL, PLATELET = range(CLASSES)
PER_CLASS = 40


def of_class(data: tuple[NDArray[np.uint8], NDArray[np.uint8]], label: int) -> NDArray[np.uint8]:
    images, labels = data
    chosen: NDArray[np.uint8] = images[labels[:, 0] == label]
    return chosen


def only(label: int, count: int) -> list[int]:
    return [count if c == label else 0 for c in range(CLASSES)]


def as_set(images: NDArray[np.uint8]) -> set[bytes]:
    return {image.tobytes() for image in images}


@pytest.mark.parametrize("size", [16, 28, 64])
def test_shape_dtype_and_counts(size: int) -> None:
    counts = [3, 0, 1, 2, 4, 1, 0, 2]
    images, labels = synthesize(counts, size, 0)
    assert images.shape == (13, size, size, 3)
    assert labels.shape == (13, 1)
    assert images.dtype == labels.dtype == np.uint8
    assert np.bincount(labels[:, 0], minlength=CLASSES).tolist() == counts
    assert images.std(axis=(1, 2, 3)).min() > 5


def test_same_arguments_give_the_same_set() -> None:
    first, second = synthesize([2] * CLASSES, 28, 7), synthesize([2] * CLASSES, 28, 7)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_seeds_share_no_image() -> None:
    first, second = synthesize([3] * CLASSES, 28, 0)[0], synthesize([3] * CLASSES, 28, 1)[0]
    assert len(as_set(first) | as_set(second)) == 48


def test_images_do_not_depend_on_the_counts() -> None:
    larger = synthesize([5] * CLASSES, 28, 3)
    for label in range(CLASSES):
        alone = as_set(synthesize(only(label, 3), 28, 3)[0])
        assert len(alone) == 3
        assert alone <= as_set(of_class(larger, label))


def test_order_is_shuffled_by_the_seed() -> None:
    first, second = synthesize([5] * CLASSES, 16, 0)[1], synthesize([5] * CLASSES, 16, 1)[1]
    assert (np.diff(first[:, 0].astype(int)) < 0).any()
    assert not np.array_equal(first, second)


def test_a_scene_is_the_same_at_every_size() -> None:
    large, small = synthesize([1] * CLASSES, 64, 5)[0], synthesize([1] * CLASSES, 32, 5)[0]
    halved = large.reshape(CLASSES, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    distance = np.abs(halved[:, np.newaxis] - small).mean(axis=(2, 3, 4))
    assert distance.argmin(axis=1).tolist() == list(range(CLASSES))
    assert np.diag(distance).max() < 8


def test_an_empty_set_is_allowed() -> None:
    images, labels = synthesize([0] * CLASSES, 28, 0)
    assert images.shape == (0, 28, 28, 3)
    assert labels.shape == (0, 1)


@pytest.mark.parametrize(
    ("counts", "size", "seed", "message"),
    [
        ([1] * 7, 28, 0, "7 entries"),
        ([1] * 9, 28, 0, "9 entries"),
        ([], 28, 0, "0 entries"),
        ([1, 1, 1, 1, 1, 1, 1, -1], 28, 0, "negative"),
        ([1] * 8, 15, 0, "size is 15"),
        ([1] * 8, 0, 0, "size is 0"),
        ([1] * 8, 28, -1, "seed is -1"),
    ],
)
def test_bad_input_is_refused(counts: list[int], size: int, seed: int, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        synthesize(counts, size, seed)
    assert isinstance(caught.value, BloodedgeError)


class Measures:
    """Mean per class of what a haematologist would look at, from optical densities."""

    def __init__(self, size: int) -> None:
        data = synthesize([PER_CLASS] * CLASSES, size, 11)
        y, x = np.mgrid[:size, :size] / size - 0.5
        self.disc = np.hypot(x, y) < 0.4
        rows = [self._of(of_class(data, label)) for label in range(CLASSES)]
        self.area, self.dark, self.orange, self.deepest, self.blue = np.array(rows).T

    def _of(self, images: NDArray[np.uint8]) -> list[float]:
        light = images + 1.0
        empty = np.percentile(light, 90, axis=(1, 2), keepdims=True)
        red, green, blue = np.moveaxis(np.log10(empty / light), -1, 0)
        stained = (green > 0.14) & self.disc
        nuclear = (green > 0.38) & self.disc
        rim = stained & ~nuclear
        orange = rim & (blue > 0.8 * green) & (red < 0.6 * green)
        return [
            float(stained.mean()),
            float(nuclear.sum() / stained.sum()),
            float(orange.mean()),
            float(np.percentile(green, 99, axis=(1, 2)).mean()),
            float((red - green)[rim].mean()),
        ]


@pytest.fixture(scope="module", params=[28, 64])
def measures(request: pytest.FixtureRequest) -> Measures:
    return Measures(request.param)


def test_platelets_are_the_smallest_and_erythroblasts_next(measures: Measures) -> None:
    assert np.argsort(measures.area)[:2].tolist() == [PLATELET, ERYTHROBLAST]


def test_monocytes_are_larger_than_mature_cells(measures: Measures) -> None:
    for other in (BASOPHIL, ERYTHROBLAST, LYMPHOCYTE, NEUTROPHIL, PLATELET):
        assert measures.area[MONOCYTE] > measures.area[other]


def test_erythroblast_nuclei_are_the_darkest(measures: Measures) -> None:
    assert measures.deepest.argmax() == ERYTHROBLAST


def test_eosinophils_are_the_orange_ones(measures: Measures) -> None:
    assert measures.orange[EOSINOPHIL] > 5 * np.delete(measures.orange, EOSINOPHIL).max()


def test_basophils_are_covered_by_dark_granules(measures: Measures) -> None:
    assert measures.dark.argmax() == BASOPHIL


def test_lymphocytes_have_more_nucleus_and_a_bluer_rim(measures: Measures) -> None:
    assert measures.dark[LYMPHOCYTE] > measures.dark[ERYTHROBLAST]
    assert measures.blue.argmax() == LYMPHOCYTE


def test_immature_nuclei_fill_more_of_the_cell_than_segmented_ones(measures: Measures) -> None:
    assert measures.dark[IG] > measures.dark[NEUTROPHIL]
