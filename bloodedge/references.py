"""What a user's name for a model means: a run, a file, or a model of the zoo."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from bloodedge.errors import BloodedgeError, ModelError
from bloodedge.files import read_json, sha256_of
from bloodedge.runs import MANIFEST, Run, is_name, load_run, run_folders, runs_root
from bloodedge.swap import replaced

KERAS_SUFFIX = ".keras"
TFLITE_SUFFIX = ".tflite"
# Weights of a registered model in half precision: how the zoo keeps large teachers.
WEIGHTS_SUFFIX = ".f16.npz"
# Too large for the package.
_OF_A_CHECKOUT = ("vgg16",)
_SUFFIXES = (KERAS_SUFFIX, TFLITE_SUFFIX, WEIGHTS_SUFFIX)


@dataclass(frozen=True)
class ModelReference:
    """A model file and what is known of it.

    Attributes:
        name: for people: the run's name, or the file's without its suffix.
        path: the `.keras`, `.tflite` or `.f16.npz` file.
        manifest: the manifest beside the file; empty when there is none.
    """

    name: str
    path: Path
    manifest: Mapping[str, Any]

    @property
    def is_tflite(self) -> bool:
        """Whether the file is a TFLite model."""
        return self.path.name.endswith(TFLITE_SUFFIX)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, empty when unknown."""
        names = self.manifest.get("model", {}).get("class_names", ())
        return tuple(names) if isinstance(names, list | tuple) else ()

    @property
    def sha256(self) -> str:
        """The digest of the file."""
        return sha256_of(self.path)


def zoo_folders() -> list[Path]:
    """Return where zoo models are looked for: `BLOODEDGE_ZOO`, `zoo/` here, the source tree's.

    The source tree's is only there when the package is installed editable.
    """
    here = [Path(os.environ["BLOODEDGE_ZOO"])] if "BLOODEDGE_ZOO" in os.environ else []
    return [*here, Path("zoo"), Path(__file__).parent.parent / "zoo", packaged_zoo()]


def packaged_zoo() -> Path:
    """Return the folder of the models that ship inside the package."""
    return Path(str(resources.files("bloodedge") / "zoo"))


def find_models(reference: str) -> list[ModelReference]:
    """Return the models a name or path means; an export run means all its variants.

    A name is a run's, also where a file or folder here has it: `./name` means that.

    Raises:
        ModelError: nothing of that name is there, or a run without a model; names close to it are
            suggested.
        RunError: the run's manifest is damaged.
        DataError: the manifest beside a file is.
    """
    # A file of a run may be named as `run/file`, wherever the runs are.
    places = [runs_root() / reference, Path(reference)]
    if reference.startswith("."):
        places.reverse()
    for path in places:
        if path.is_file():
            if not path.name.endswith(_SUFFIXES):
                *some, last = _SUFFIXES
                raise ModelError(
                    f"{path} is no model",
                    expected=f"a file ending in {', '.join(some)} or {last}",
                )
            return [_from_file(path)]
    for folder in (*places, *(zoo / reference for zoo in zoo_folders())):
        if (folder / MANIFEST).is_file():
            return _from_folder(folder)
    raise ModelError(
        f"no run, file or zoo model {reference!r}",
        expected=f"a run in {runs_root()}, a .keras or .tflite file, or a name in the zoo",
        fix=_suggest(reference),
    )


def find_model(reference: str) -> ModelReference:
    """Return the one model a name or path means.

    Raises:
        ModelError: nothing or several models are meant.
        RunError: the run's manifest is damaged.
        DataError: the manifest beside a file is.
    """
    return _the_one(reference, find_models(reference))


def where_from(reference: str, model: ModelReference) -> str:
    """Return which file a name means, and of one of the zoo that there is no such run.

    Args:
        reference: the name or path.
        model: what `find_model` found for it.
    """
    folder = model.path.parent
    is_run = folder == runs_root() / reference
    if is_name(reference) and not is_run and folder in [zoo / reference for zoo in zoo_folders()]:
        return f"{model.path} (zoo; no run {reference} in {runs_root()})"
    return str(model.path)


def find_keras(reference: str) -> ModelReference:
    """Return the one model a name or path means, for what no .tflite can be used for.

    Raises:
        ModelError: as `find_model`, or only .tflite files are meant; the model that they were made
            from is named.
        RunError: the run's manifest is damaged.
        DataError: the manifest beside a file is.
    """
    found = find_models(reference)
    if all(model.is_tflite for model in found):
        raise no_keras(repr(reference), found[0])
    return _the_one(reference, found)


def no_keras(what: str, model: ModelReference) -> ModelError:
    """Return the error for a file of another kind where a Keras model is needed.

    Args:
        what: the file or name, as the error calls it.
        model: the file; its manifest may know what it was made from.
    """
    return ModelError(
        f"{what} is no Keras model", expected="a .keras file or a run", fix=_keras_of(model)
    )


def find_all(references: Iterable[str]) -> list[ModelReference]:
    """Return every model that the names or paths mean, each file once.

    Raises:
        ModelError: nothing of one of the names is there.
        RunError: a run's manifest is damaged.
        DataError: the manifest beside a file is.
    """
    found = [model for reference in references for model in find_models(reference)]
    return list({model.path.resolve(): model for model in found}.values())


def known_names() -> list[str]:
    """Return the names of all finished runs and zoo models."""
    folders = [runs_root(), *zoo_folders()]
    return sorted({run.name for folder in folders for run in run_folders(folder)})


def zoo_models() -> list[ModelReference]:
    """Return the zoo's models by name; of two with one name the one that the name means.

    Raises:
        ModelError: a folder of the zoo holds no model.
        RunError: a manifest is damaged.
    """
    found: dict[str, ModelReference] = {}
    for zoo in zoo_folders():
        for folder in run_folders(zoo):
            (model,) = _from_folder(folder)[:1]
            found.setdefault(folder.name, model)
    return [found[name] for name in sorted(found)]


def latest_run(kinds: tuple[str, ...]) -> str:
    """Return the folder's name of the newest finished run of one of the kinds.

    Raises:
        ModelError: there is none.
    """
    runs = [load_run(folder) for folder in run_folders(runs_root())]
    ours = [run for run in runs if run.manifest["kind"] in kinds]
    if not ours:
        raise ModelError(f"no {' or '.join(kinds)} run in {runs_root()}", fix="name a model")
    return max(ours, key=_made).path.name


def _made(run: Run) -> tuple[str, int]:
    """Return when a run was made: copies have the files' times of the copying."""
    return str(run.manifest.get("created", "")), (run.path / MANIFEST).stat().st_mtime_ns


def _from_file(path: Path) -> ModelReference:
    beside = path.parent / MANIFEST
    manifest: Mapping[str, Any] = read_json(beside) if beside.is_file() else {}
    files = manifest.get("files")
    listed = isinstance(files, dict) and path.name in files
    manifest = load_run(path.parent).manifest if listed else {}
    stem = path.name
    for suffix in _SUFFIXES:
        stem = stem.removesuffix(suffix)
    own_run = manifest and not path.name.endswith(TFLITE_SUFFIX)
    return ModelReference(str(manifest["name"]) if own_run else stem, path, manifest)


def _from_folder(folder: Path) -> list[ModelReference]:
    run = load_run(folder)
    files = [folder / name for name in run.manifest.get("files", {}) if name.endswith(_SUFFIXES)]
    inside = [path for path in files if path.parent == folder and path.is_file()]
    if not inside:
        raise ModelError(f"the run {folder} holds no model")
    return [_from_file(path) for path in inside]


def _the_one(reference: str, found: Sequence[ModelReference]) -> ModelReference:
    """Return the only model that was found, or say that several were."""
    if len(found) > 1:
        names = ", ".join(str(model.path) for model in found)
        raise ModelError(f"{reference!r} means {len(found)} models", fix=f"name one of {names}")
    return found[0]


def _keras_of(model: ModelReference) -> str:
    """Return where a .tflite's Keras model is, empty if nothing is known of it."""
    source = model.manifest.get("config", {}).get("model")
    if not isinstance(source, str) or model.manifest.get("kind") != "export":
        return ""
    try:
        if any(not found.is_tflite for found in find_models(source)):
            return f"name its Keras model, {source}"
    except BloodedgeError:
        pass
    return f"train one: {source}, from which it was made, is not here"


def _suggest(reference: str) -> str:
    left = replaced(runs_root() / reference)
    if is_name(reference) and (left / MANIFEST).is_file():
        return f"its replacement was cut short: mv {left} {runs_root() / reference}"
    if reference in _OF_A_CHECKOUT:
        return f"bloodedge train --model {reference}; a checkout has it in zoo/, a package does not"
    near = difflib.get_close_matches(reference, known_names(), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else ""
