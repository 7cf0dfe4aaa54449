"""`bloodedge predict`: the class of image files, by any model a user can name."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.console import Meter, say
from bloodedge.errors import ConfigError, DataError, ModelError
from bloodedge.images import IMAGE_SUFFIXES, is_image_name, read_image
from bloodedge.metrics import softmax
from bloodedge.references import ModelReference, find_model
from bloodedge.text import counted, printable

_MAX_NAME = 200
# Below this, starting one interpreter per core takes longer than it saves.
_PARALLEL_FROM = 256
# Images in memory together: a folder may hold any number.
_AT_ONCE = 1024


@dataclass(frozen=True)
class LoadedModel:
    """A model that has been checked and can be asked.

    Attributes:
        reference: where it came from.
        size: the side of the images it takes in pixels; None when it takes any.
        classes: how many probabilities it gives.
        keras: the Keras model; None for a TFLite file.
    """

    reference: ModelReference
    size: int | None
    classes: int
    keras: Any = None

    def probabilities(
        self, images: NDArray[np.uint8], workers: int | None = None
    ) -> NDArray[np.float32]:
        """Return `(N, C)` probabilities for images `(N, S, S, 3)`.

        Args:
            images: RGB pixel values 0..255.
            workers: how many TFLite interpreters share the images; by default one per core.

        Raises:
            ModelError: what comes out are no probabilities.
        """
        if self.keras is not None:
            from bloodedge.train.loop import predict_logits

            p = softmax(predict_logits(self.keras, images)).astype(np.float32)
        elif len(images) < _PARALLEL_FROM and workers is None:
            from bloodedge.deploy.interpreter import Classifier

            p = Classifier(self.reference.path).predict(images)
        else:
            from bloodedge.deploy.interpreter import predict_parallel

            p = predict_parallel(self.reference.path, images, workers=workers)
        return _checked(p, self.reference.path)


def open_model(reference: ModelReference) -> LoadedModel:
    """Load a model that may come from anywhere.

    Raises:
        ModelError: the file is damaged, or is no image classifier.
    """
    if reference.is_tflite:
        from bloodedge.deploy.interpreter import Classifier, probe

        # In a child process first: a crafted file may crash the runtime, and us with it.
        probe(reference.path)
        classifier = Classifier(reference.path)
        _tell_of_metadata(reference.path)
        if classifier.takes_shifted_bytes:
            say(f"{reference.path}: int8 input for scaled pixels; it gets bytes less 128")
        return LoadedModel(reference, classifier.input_size, classifier.classes)
    from bloodedge.train.restore import restore

    model = restore(reference)
    size, classes = image_sides(model, reference.path)
    return LoadedModel(reference, size, classes, model)


def _tell_of_metadata(path: Path) -> None:
    """Say what a file's metadata asks for that is not done here."""
    from bloodedge.deploy.metadata import read_metadata

    try:
        foreign = read_metadata(path.read_bytes()).foreign
    except ModelError as error:
        say(f"{path}: its metadata was not read: {error}")
        return
    if foreign:
        say(f"{path}: metadata of another tool; pixels are given as 0..255 whatever it says")


def image_sides(model: Any, path: Path) -> tuple[int | None, int]:
    """Return the image side, None for any, and the class count of a Keras model.

    Raises:
        ModelError: it has several inputs or outputs, or takes no square RGB images.
    """
    taken: Any = getattr(model, "input_shape", None)
    given: Any = getattr(model, "output_shape", None)
    is_image = isinstance(taken, tuple) and len(taken) == 4 and taken[3] == 3
    gives_classes = isinstance(given, tuple) and len(given) == 2 and (given[1] or 0) > 1
    if not is_image or not gives_classes:
        raise ModelError(
            f"{path} maps {taken} to {given}",
            expected="(N, S, S, 3) images to (N, C) classes, at least two",
        )
    if taken[1] != taken[2]:
        raise ModelError(f"{path} takes {taken[1]}x{taken[2]} images", expected="square ones")
    return taken[1], int(given[1])


def _checked(p: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    """Refuse NaN and logits: every figure computed from them would look plausible."""
    if not are_probabilities(p):
        # No layer mends NaN.
        fix = "end the model with a softmax and convert it again" if np.isfinite(p).all() else ""
        raise ModelError(
            f"the outputs of {path} are no probabilities", expected="0..1, summing to 1", fix=fix
        )
    return p


def are_probabilities(p: NDArray[np.float32]) -> bool:
    """Return whether all rows of `(N, C)` are in 0..1 and sum to 1, as far as 8 bits can tell."""
    # An 8-bit output is off by up to half a step of 1/256 for each class.
    tolerance = 0.02 + p.shape[1] / 512
    in_range = np.isfinite(p).all() and p.min(initial=0.0) > -1e-6 and p.max(initial=0.0) < 1 + 1e-3
    return bool(in_range and np.abs(p.sum(axis=1) - 1).max(initial=0.0) <= tolerance)


@dataclass(frozen=True)
class PredictConfig:
    """What to classify.

    Attributes:
        model: the model, or the name or path of one.
        images: image files, and folders that hold some.
        top: how many classes to give for each image; None for all.
        crop: side of the central square that is used, in pixels of the file; None for the largest.

    Raises:
        ConfigError: no images, fewer than one class asked for, or a crop out of range.
    """

    model: ModelReference | str
    images: tuple[Path, ...]
    top: int | None = None
    crop: int | None = None

    def __post_init__(self) -> None:
        """Refuse what could not give an answer."""
        if not self.images:
            raise ConfigError("no image given", expected="image files, or a folder of them")
        if self.top is not None and self.top < 1:
            raise ConfigError(f"--top {self.top}", expected="at least 1")
        if self.crop is not None and self.crop < 1:
            raise ConfigError(f"--crop {self.crop}", expected="at least 1 pixel")


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        image: the file.
        ranked: class names with their probabilities in 0..1, the likeliest first.
    """

    image: Path
    ranked: tuple[tuple[str, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        name, probability = self.ranked[0]
        return {
            "image": str(self.image),
            "class": name,
            "probability": probability,
            "probabilities": dict(self.ranked),
        }


def predict(config: PredictConfig) -> tuple[list[Prediction], list[DataError]]:
    """Classify image files.

    Returns:
        what the model says of the images that could be read, in order, and why others could not.

    Raises:
        DataError: a folder holds no images.
        ModelError: the model is unknown or damaged.
    """
    reference = config.model
    if isinstance(reference, str):
        reference = find_model(reference)
    files = image_files(config.images)
    model = open_model(reference)
    if model.size is None:
        raise ModelError(f"{reference.path} takes images of any size", expected="one fixed size")
    names = class_names(reference, model.classes)
    found: list[Prediction] = []
    unread: list[DataError] = []
    with Meter("images", len(files)) as meter:
        for start in range(0, len(files), _AT_ONCE):
            chunk = files[start : start + _AT_ONCE]
            images, whole = [], []
            for path in chunk:
                try:
                    images.append(read_image(path, model.size, config.crop))
                    whole.append(path)
                except DataError as error:
                    unread.append(error)
                meter.update(printable(path.name))
            if images:
                rows = zip(whole, model.probabilities(np.stack(images)), strict=True)
                found += [Prediction(path, _ranked(row, names, config.top)) for path, row in rows]
    return found, unread


def _ranked(
    row: NDArray[np.float32], names: Sequence[str], top: int | None
) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-row, kind="stable")[:top]
    return tuple((names[i], round(float(row[i]), 6)) for i in order)


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files, and in place of each folder the image files in it, sorted by name.

    Hidden files are passed over, as a Mac adds them; how many others are, is said.

    Raises:
        DataError: a folder holds no images.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        seen = _seen(path)
        inside = [p for p in seen if _is_image(p)]
        if not inside:
            raise _no_images(
                path, [p for p in seen if p.is_dir() and any(map(_is_image, _seen(p)))]
            )
        if others := len(seen) - len(inside):
            say(f"{path}: {counted(others, 'item')} left out, named as no image")
        files += inside
    return files


def _seen(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return is_image_name(path) and not path.is_dir()


def _no_images(folder: Path, full: Sequence[Path]) -> DataError:
    """Return the error for a folder without images; those of `full` are its sub-folders with."""
    if not full:
        return DataError(f"{folder} holds no images", expected=" ".join(IMAGE_SUFFIXES))
    return DataError(
        f"{folder} holds no images, but {counted(len(full), 'sub-folder')} with some",
        fix=f"name those: {shlex.quote(str(folder))}/*/",
    )


def class_names(reference: ModelReference, classes: int) -> tuple[str, ...]:
    """Return the names from the manifest, else from the .tflite's labels, else `class i`."""
    for names, place in ((reference.class_names, "manifest"), (embedded(reference), "labels")):
        clean = tuple(printable(name, _MAX_NAME) for name in names)
        if len(clean) == classes and len(set(clean)) == classes and all(clean):
            return clean
        if clean:
            say(f"{reference.path}: its {place} do not name {classes} classes; they are numbered")
    return tuple(f"class {i}" for i in range(classes))


def embedded(reference: ModelReference) -> tuple[str, ...]:
    """Return the class names inside a .tflite; empty where there are none that can be read."""
    if not reference.is_tflite:
        return ()
    from bloodedge.deploy.labels import read_labels

    try:
        return read_labels(reference.path)
    # Labels are a convenience: a file without them, or with damaged ones, still classifies.
    except (ModelError, DataError):
        return ()
