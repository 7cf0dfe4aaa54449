"""`bloodedge bundle`: everything a device needs to measure models, in one folder or zip.

Models, labelled test images, the runner, its start script, and one that classifies pictures.
The device needs Python, NumPy and one TFLite runtime. The same inputs give the same bytes, so a
bundle's own digest says which one was measured.
"""

from __future__ import annotations

import io
import json
import os
import unicodedata
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.benchmarks.host import RUNNER
from bloodedge.benchmarks.model_work import known_work
from bloodedge.benchmarks.stage import sample_indices, told_apart, write_sample
from bloodedge.console import say
from bloodedge.data.dataset import Dataset, images_licence
from bloodedge.deploy.evaluate import check_fit
from bloodedge.deploy.interpreter import Classifier
from bloodedge.deploy.predict import are_probabilities, open_model
from bloodedge.errors import (
    BloodedgeError,
    ConfigError,
    DataError,
    ModelError,
    check_range,
    in_words,
)
from bloodedge.files import atomic_path, partial_folder_in, read_json
from bloodedge.references import ModelReference, find_models
from bloodedge.swap import end_swap, replaced, swap_in
from bloodedge.text import some

SCHEMA = "bloodedge-bundle/1"
SUMS, DESCRIPTION, SCRIPT = "SHA256SUMS", "bundle.json", "run.sh"
# The earliest date a zip can hold.
_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
START = Path(__file__).with_name("start.py")
CLASSIFY = Path(__file__).with_name("classify.py")
_PROGRAMS = (SCRIPT, "run.py", "runner.py", CLASSIFY.name)
# How many files an error names.
_NAMED = 3
_MAX_NAME = 200
# Images on which a model's answers are looked at.
_LOOKED_AT = 8
# What one of FAT, Windows and a Mac has no file names with, and what Windows takes for a device,
# whatever follows the first dot.
_FORBIDDEN = frozenset('\\:<>"|?*')
_DEVICES = frozenset(("con", "prn", "aux", "nul", "conin$", "conout$")) | {
    f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³"
}
_RUN = """\
#!/bin/sh
# The same as `python3 run.py`, by another Python where PYTHON names one.
if ! "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 8))'; then
  echo "error: Python 3.8 or newer is needed; PYTHON=python3.11 sh run.sh chooses one" >&2
  exit 2
fi
exec "${PYTHON:-python3}" "$(dirname "$0")/run.py" "$@"
"""
_README = """\
# A bloodedge bundle

{models} to measure, and {images} labelled test images of {title}{synthetic}.

On the device, with Python 3.8 or newer, NumPy, and `ai-edge-litert` (64-bit) or `tflite-runtime`
(Python up to 3.11, NumPy below 2):

    python3 run.py

It checks the files, measures accuracy, latency and memory of every model, and writes
`result.json`; `python3 run.py --quick` is a rough look, and `sh run.sh` the same. A
terminal that is closed ends it with what is complete; `nohup python3 run.py &` goes on.
`python3 run.py --resume` continues what was interrupted. Back on the computer,

    bloodedge report --benchmark result.json

puts the figures beside those of the other runs. With Pillow (`python3-pil`) as well,

    python3 classify.py PICTURES --csv cells.csv

says what a model makes of pictures of one cell each; `--help` lists its options. Results are for
research; this is no diagnostic device. Licence of the images: {licence}.
"""


@dataclass(frozen=True)
class BundleConfig:
    """What to pack.

    Attributes:
        models: runs, files or zoo names; an export run means all its variants.
        out: a `.zip`, or a folder to make.
        images: test images, class-balanced; 0 for all.
        seed: fixes the draw.
        force: replace a `.zip`, an empty folder or a bundle's folder at `out`.

    Raises:
        ConfigError: no model, a negative number, or something at `out` that is to stay.
    """

    models: tuple[str, ...]
    out: Path
    images: int = 400
    seed: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse what could not be packed, before anything is loaded."""
        if not self.models:
            raise ConfigError("no model to bundle", fix="name a run or a .tflite file")
        if self.images < 0:
            raise ConfigError(f"--images {self.images}", expected="0 (all) or more")
        check_range("--seed", self.seed, 0, 2**31)
        # A bundle that a power cut left half replaced is one, too.
        there = self.out if self.out.exists() else replaced(_place(self.out))
        if os.path.lexists(there) and not self.force:
            raise ConfigError(f"{there} exists", fix="choose another --out, or add --force")
        if self.out.suffix != ".zip":
            check_replaceable(self.out)


def bundle(config: BundleConfig, data: Dataset) -> Path:
    """Pack models and test images, and return where the bundle is.

    Raises:
        ModelError: a name means no TFLite model, or one does not fit the data.
        ConfigError: a folder at `out` holds what is no part of a bundle.
        BloodedgeError: the bundle cannot be written.
    """
    models = bundle_models(config.models, data)
    index = sample_indices(data, config.images, config.seed)
    files = bundle_files(models, data, index, config.seed)
    say(f"{config.out}: {len(models)} models, {len(index)} test images of {data.title}")
    if config.out.suffix == ".zip":
        with atomic_path(config.out) as temporary:
            temporary.write_bytes(zip_of(files))
    else:
        write_folder(files, config.out)
    return config.out


def bundle_files(
    models: Mapping[str, ModelReference], data: Dataset, index: NDArray[np.int64], seed: int
) -> dict[str, bytes]:
    """Return what a bundle holds, by name.

    Args:
        models: from `bundle_models`.
        data: whose test images are packed.
        index: which of them.
        seed: that drew them.
    """
    sample = io.BytesIO()
    write_sample(sample, data["test"].images[index], data["test"].labels[index], data.class_names)
    files = {f"models/{name}": model.path.read_bytes() for name, model in models.items()}
    files["sample.npz"] = sample.getvalue()
    files["labels.txt"] = "".join(f"{name}\n" for name in data.class_names).encode()
    files["runner.py"] = RUNNER.read_bytes()
    files["run.py"] = START.read_bytes()
    files[CLASSIFY.name] = CLASSIFY.read_bytes()
    files[SCRIPT] = _RUN.encode()
    files["README.md"] = _readme(models, data, len(index)).encode()
    described = _description(models, data, seed, len(index))
    files[DESCRIPTION] = (json.dumps(described, indent=1, sort_keys=True) + "\n").encode()
    files[SUMS] = "".join(
        f"{sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items())
    ).encode()
    return files


def bundle_models(models: tuple[str, ...], data: Dataset) -> dict[str, ModelReference]:
    """Return the models by the file name each has in the bundle.

    Raises:
        ModelError: a name means no TFLite model, one does not fit the data, or takes several images
            at once.
        ConfigError: two models would have one name on some device, or one has a name that
            `is_allowed` refuses.
    """
    found = [m for model in models for m in find_models(model) if m.is_tflite]
    if not found:
        raise ModelError(f"{', '.join(models)}: no .tflite file", fix="export the run first")
    distinct = list({m.path.resolve(): m for m in found}.values())
    names = told_apart([m.path for m in distinct])
    named: dict[str, ModelReference] = {}
    for model in distinct:
        check_fit(open_model(model), data)
        _check_usable(model.path, data)
        name = names[model.path]
        if found_twice := clash([*named, name]):
            both = " and ".join(dict.fromkeys(found_twice))
            raise ConfigError(f"two models are called {both}", fix="rename one of the files")
        if not is_allowed(f"models/{name}"):
            raise ConfigError(f"{name!r} is no name for every device", fix="rename the file")
        named[name] = model
    return named


def _check_usable(path: Path, data: Dataset) -> None:
    """Refuse what no program of a bundle takes, and say what one of them does not take."""
    classifier = Classifier(path)
    if classifier.batch != 1:
        raise ModelError(
            f"{path} takes a batch of {classifier.batch} images",
            expected="one at a time, as a bundle gives them",
            fix="export it with --batch 1",
        )
    if not are_probabilities(classifier.predict(data["test"].images[:_LOOKED_AT])):
        say(f"{path}: its answers are no probabilities; {CLASSIFY.name} cannot use it, run.py can")


def is_allowed(name: str) -> bool:
    """Return whether a bundle may hold a file of that name: every device takes it as it is."""
    parts = PurePosixPath(name).parts
    plain = name.isprintable() and not _FORBIDDEN & set(name) and len(name) <= _MAX_NAME
    # Windows drops dots and spaces at the end, also before an extension of a device's name.
    kept = not any(
        part[-1] in ". " or part.partition(".")[0].rstrip().casefold() in _DEVICES for part in parts
    )
    # The runner leaves out what is hidden, as file systems of a Mac add such files by themselves.
    hidden = any(part.startswith(".") for part in parts)
    return plain and kept and bool(parts) and not hidden and "/".join(parts) == name


def clash(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two names of which some device can hold only one; nothing if there are none.

    They are one but for case or the way in which accents are written, or one is the other's folder.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(unicodedata.normalize("NFC", name).casefold())
        above = [str(parent) for parent in path.parents][:-1]
        others = [files.get(str(path)), folders.get(str(path)), *map(files.get, above)]
        if other := next(filter(None, others), None):
            return other, name
        files[str(path)] = name
        folders |= dict.fromkeys(above, name)
    return None


def _readme(models: Mapping[str, ModelReference], data: Dataset, images: int) -> str:
    return _README.format(
        models=f"{len(models)} model{'s' * (len(models) > 1)}",
        images=images,
        title=data.title,
        synthetic=" (synthetic)" if data.synthetic else "",
        licence=images_licence(data.describe()),
    )


def _description(
    models: Mapping[str, ModelReference], data: Dataset, seed: int, images: int
) -> dict[str, Any]:
    described = data.describe()
    work = known_work({name: model.path for name, model in models.items()})
    kept = ("name", "title", "synthetic", "fingerprint", "size", "class_names")
    return {
        "schema": SCHEMA,
        "models": {
            name: {"name": m.name, "sha256": m.sha256, **work.get(name, {})}
            for name, m in models.items()
        },
        "sample": {"split": "test", "images": images, "seed": seed},
        "data": {key: described[key] for key in kept},
    }


def zip_of(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of the files: fixed dates, order and modes, and stored, not compressed.

    What a compressor writes depends on its version; the digest of a bundle must not.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = _UNIX
            entry.external_attr = (0o100000 | _mode(name)) << 16
            archive.writestr(entry, content)
    return packed.getvalue()


def check_replaceable(folder: Path) -> None:
    """Refuse to put a bundle in the place of anything but an empty folder or a bundle alone.

    Files that the old bundle's sums do not list are somebody's own, or were measured with it.

    Raises:
        ConfigError: a file, another folder, a bundle with further files in it, a disk's own, or a
            link that leads back to itself.
    """
    place = _place(folder)
    if place.is_symlink():
        raise ConfigError(f"{folder} is a link that leads nowhere", fix="choose another --out")
    if place.is_mount():
        raise ConfigError(
            f"{folder} is a disk's own folder, which cannot be replaced",
            fix="choose a folder in it as --out",
        )
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        ours = read_json(folder / DESCRIPTION).get("schema") == SCHEMA
        sums = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    except (DataError, OSError):
        ours = False
    if not ours:
        raise ConfigError(
            f"{folder} is there and is no bundle",
            expected="an empty folder or a bundle's to replace",
            fix="choose another --out",
        )
    listed = {SUMS, *(line.partition("  ")[2] for line in sums)}
    paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    if own := sorted({path.relative_to(folder).as_posix() for path in paths} - listed):
        raise ConfigError(
            f"the bundle {folder} also holds {some(own, _NAMED)}, which replacing it would delete",
            fix="move that away first, or choose another --out",
        )


def _place(folder: Path) -> Path:
    """Return the folder that is meant, where a link leads; one that leads back to itself stays."""
    return Path(os.path.realpath(folder))


def write_folder(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files into a folder that appears whole, in place of a bundle that was there.

    Raises:
        ConfigError: see `check_replaceable`.
        BloodedgeError: it cannot be written.
    """
    try:
        _write(files, folder)
    except OSError as error:
        raise BloodedgeError(
            f"could not write {folder}: {in_words(error)}",
            fix="free some disk space, or choose a folder that can be written",
        ) from error


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    # What a link points to is replaced, not the link.
    folder = _place(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    end_swap(folder)
    with partial_folder_in(folder.parent) as temporary:
        made = temporary / "made"
        for name, content in files.items():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(_mode(name))
        # Again: since the first look somebody may have measured with what was there.
        check_replaceable(folder)
        swap_in(made, folder)


def _mode(name: str) -> int:
    return 0o755 if name in _PROGRAMS else 0o644
