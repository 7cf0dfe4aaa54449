r"""Put a finished model into the zoo: a teacher's half-precision weights, or a student's .tflite.

A run's history, figures and model card go with it.

    python -m bloodedge.benchmarks.publish teacher vgg16 --name vgg16 --out zoo
    python -m bloodedge.benchmarks.publish student cnn_se-tflite/cnn_se-int8.tflite --name cnn_se \\
        --out bloodedge/zoo
    python -m bloodedge.benchmarks.publish tested bloodedge/zoo/cnn_se RUN/manifest.json
    python -m bloodedge.benchmarks.publish licensed bloodedge/zoo/cnn_se

An export reads no test image, so its card has no figure of the file on test: `tested` puts that of
`bloodedge evaluate` into the shipped card. `licensed`, which `student` does as well, says there and
in the manifest whose model and images they are, and names in the card the file that ships.

Models go in rarely, so this is a script for maintainers and no command of the tool.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.report.read import entry, read_scores
from bloodedge.data.dataset import images_licence
from bloodedge.data.npz import KNOWN_SETS
from bloodedge.deploy.card import CARD
from bloodedge.errors import ModelError
from bloodedge.files import read_json, sha256_of, write_json, write_text
from bloodedge.references import TFLITE_SUFFIX, WEIGHTS_SUFFIX, ModelReference, find_model
from bloodedge.runs import MANIFEST, check_name, runs_root

# What a run tells beside its manifest, where it is there.
_COMPANIONS = ("history.csv", "learning_curves.png", "confusion_val.png", CARD)
# What the package is under.
AUTHOR, LICENCE = "the bloodedge authors", "Apache-2.0"
# Where the card tells of test, and where its next section begins.
_TEST, _NEXT = "## Test\n\n", "\n\n## "

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)
Out = Annotated[Path, typer.Option("--out", help="The zoo's folder.")]
Name = Annotated[str, typer.Option("--name", help="Its name in the zoo.")]


@app.command()
def teacher(reference: str, name: Name, out: Out) -> None:
    """Store a Keras run's weights in half precision, 2 bytes each."""
    from bloodedge.backend import use_backend

    use_backend()
    from bloodedge.train.restore import restore, save_half_weights

    found = _of_a_run(find_model(reference))
    model = restore(found)
    folder = _new_folder(out, name)
    path = folder / f"{folder.name}{WEIGHTS_SUFFIX}"
    save_half_weights(model, path)
    _write_manifest(folder, path, found)


@app.command()
def student(reference: str, name: Name, out: Out) -> None:
    """Copy an exported .tflite."""
    found = _of_a_run(find_model(str(runs_root() / reference)))
    if not found.is_tflite:
        raise ModelError(f"{found.path} is no .tflite")
    folder = _new_folder(out, name)
    path = folder / f"{name}.tflite"
    shutil.copyfile(found.path, path)
    _write_manifest(folder, path, found)
    if (folder / CARD).is_file():
        licensed(folder)


@app.command()
def licensed(
    folder: Path,
    author: Annotated[str, typer.Option("--author", help="Of the model.")] = AUTHOR,
    licence: Annotated[str, typer.Option("--license", help="Of the model.")] = LICENCE,
) -> None:
    """Say in a shipped card and manifest whose they are; the card names the file that ships."""
    manifest, (path, card) = read_json(folder / MANIFEST), _shipped(folder)
    known = KNOWN_SETS.get(manifest["data"]["fingerprint"])
    if known:
        manifest["data"]["licence"] = known.licence
    manifest["config"] |= {"author": author, "licence": licence}
    whose = {
        "Licence of the images: ": f"{images_licence(manifest['data'])}.",
        "Author of the model: ": f"{author}. Licence of the model: {licence}.",
    }
    lines = card.read_text().splitlines()
    for start, rest in whose.items():
        places = [i for i, line in enumerate(lines) if line.startswith(start)]
        if len(places) != 1:
            raise ModelError(f"{card} has {len(places)} lines {start!r}", expected="one")
        lines[places[0]] = start + rest
    text = "\n".join(lines) + "\n"
    _write_card(folder, manifest, _with_the_file(text, manifest, path))


def _with_the_file(text: str, manifest: Mapping[str, Any], path: Path) -> str:
    """Return a card whose table of files has the one that ships, by the name it has here."""
    for made in manifest["metrics"]["variants"].values():
        row = rf"^\| `{re.escape(made['file'])}` (.*)\n"
        ships = made["bytes"] == path.stat().st_size
        text = re.sub(row, rf"| `{path.name}` \1\n" if ships else "", text, flags=re.MULTILINE)
    if f"| `{path.name}` " not in text:
        raise ModelError(f"{path}: its card tells of no file of {path.stat().st_size} bytes")
    return text


@app.command()
def tested(
    folder: Path,
    evaluation: Annotated[Path, typer.Argument(help="The manifest of an evaluation on test.")],
) -> None:
    """Put into a shipped card what the shipped file itself reaches on test."""
    manifest, found = read_json(folder / MANIFEST), read_json(evaluation)
    path, card = _shipped(folder)
    if found.get("parents") != {"model": sha256_of(path)}:
        raise ModelError(f"{evaluation} is not of {path}", expected="an evaluation of this file")
    text = _on_test(found)
    head, here, rest = card.read_text().partition(_TEST)
    _, following, rest = rest.partition(_NEXT)
    if not here or not following:
        raise ModelError(f"{card} has no section on test with another behind it")
    _write_card(folder, manifest, f"{head}{here}{text}{following}{rest}")
    print(f"{card}: {text}")


def _shipped(folder: Path) -> tuple[Path, Path]:
    """Return the model that ships in a folder of the zoo, and its card."""
    path, card = folder / f"{folder.name}{TFLITE_SUFFIX}", folder / CARD
    if not path.is_file() or not card.is_file():
        raise ModelError(f"{folder} holds no {path.name} with a {CARD}")
    return path, card


def _write_card(folder: Path, manifest: dict[str, Any], text: str) -> None:
    """Write a shipped card, and the manifest that tells its digest."""
    card = folder / CARD
    write_text(card, text)
    manifest["files"][CARD] = {"bytes": card.stat().st_size, "sha256": sha256_of(card)}
    write_json(folder / MANIFEST, manifest)


def _on_test(evaluation: Mapping[str, Any]) -> str:
    names = entry(evaluation, "model").get("class_names") or []
    found = read_scores("test", entry(evaluation, "metrics").get("test"), len(names))
    low, high = (100 * bound for bound in found.interval)
    return (
        f"The file itself: {100 * found.accuracy:.2f} % [{low:.2f}, {high:.2f}] on "
        f"{found.images:,} images (run `{evaluation.get('name')}`), macro F1 {found.macro_f1:.4f}, "
        f"ECE {found.ece:.4f}, lowest recall {100 * found.recall[found.worst]:.1f} % "
        f"({names[found.worst]})."
    )


def _of_a_run(source: ModelReference) -> ModelReference:
    """Refuse a file whose run is unknown: a zoo with no manifest for one model lists none."""
    if not source.manifest:
        raise ModelError(f"{source.path} has no manifest beside it", fix="name a run's own file")
    return source


def _new_folder(out: Path, name: str) -> Path:
    folder = out / check_name(name)
    if folder.exists():
        raise ModelError(f"{folder} exists", fix="remove it first; models are replaced rarely")
    folder.mkdir(parents=True)
    return folder


def _write_manifest(folder: Path, path: Path, source: ModelReference) -> None:
    """Keep the run's manifest and companions, with the run's own model as a parent."""
    manifest: dict[str, Any] = {**source.manifest, "name": folder.name}
    manifest["parents"] = {**_mapping(manifest, "parents"), "run": source.sha256}
    beside = [source.path.with_name(name) for name in _COMPANIONS]
    kept = [path, *(Path(shutil.copy(file, folder)) for file in beside if file.is_file())]
    manifest["files"] = {
        file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in kept
    }
    write_json(folder / MANIFEST, manifest)
    print(f"{path}: {path.stat().st_size:,} bytes")


def _mapping(manifest: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = manifest.get(key, {})
    return value if isinstance(value, Mapping) else {}


if __name__ == "__main__":
    sys.exit(exit_code(app))
