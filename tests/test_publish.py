from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bloodedge import zoo
from bloodedge.benchmarks import publish
from bloodedge.deploy.card import CARD
from bloodedge.errors import DataError, ModelError
from bloodedge.files import read_json, sha256_of, write_json
from bloodedge.runs import MANIFEST

ZOO = Path(zoo.__file__).parent


def test_a_file_without_a_run_is_not_published(brightest_tflite: bytes, tmp_path: Path) -> None:
    """Its manifest would have no schema, and one such model hides the whole zoo."""
    path = tmp_path / "net.tflite"
    path.write_bytes(brightest_tflite)
    for command in (publish.teacher, publish.student):
        with pytest.raises(ModelError, match=r"net\.tflite has no manifest beside it"):
            command(str(path), "net", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_what_is_no_teacher_leaves_no_folder_behind(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no Keras model"):
        publish.teacher("cnn_se_pico", "net", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_a_shipped_card_tells_what_its_file_reaches_on_test(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ZOO / "cnn_se_pico", tmp_path / "cnn_se_pico"))
    before = (folder / CARD).read_text()
    found = {
        "name": "net-test",
        "parents": {"model": sha256_of(folder / "cnn_se_pico.tflite")},
        "model": {"class_names": ["a", "b"]},
        "metrics": {
            "test": {
                "images": 3421,
                "accuracy": 0.9,
                "accuracy_95ci": [0.8, 0.95],
                "macro_f1": 0.5,
                "ece": 0.01,
                "recall": [0.75, 0.25],
                "precision": [0.5, 0.5],
                "f1": [0.5, 0.5],
                "confusion": [[1500, 500], [1066, 355]],
            }
        },
    }
    evaluation = tmp_path / "manifest.json"
    for name in ("first", "again"):
        write_json(evaluation, {**found, "name": name})
        publish.tested(folder, evaluation)
    text = (folder / CARD).read_text()
    told = "The file itself: 90.00 % [80.00, 95.00] on 3,421 images (run `again`), macro F1 0.5000"
    assert told in text
    assert "lowest recall 25.0 % (b)." in text
    head, rest = before.split("## Test")
    assert text.startswith(head)
    assert text.endswith(rest[rest.index("## How it was made") :])
    entry = read_json(folder / MANIFEST)["files"][CARD]
    assert entry == {"bytes": len(text.encode()), "sha256": sha256_of(folder / CARD)}
    write_json(evaluation, {**found, "parents": {"model": "0" * 64}})
    with pytest.raises(ModelError, match="is not of"):
        publish.tested(folder, evaluation)
    write_json(evaluation, {**found, "metrics": {"val": {}}})
    with pytest.raises(DataError, match="the metrics of test are no object"):
        publish.tested(folder, evaluation)
    with pytest.raises(DataError, match="absent"):
        publish.tested(folder, tmp_path / "absent.json")
    assert (folder / CARD).read_text() == text
    (folder / CARD).write_text(before.replace("## Test", "## Other"))
    write_json(evaluation, found)
    with pytest.raises(ModelError, match="has no section on test"):
        publish.tested(folder, evaluation)
    (folder / "cnn_se_pico.tflite").unlink()
    with pytest.raises(ModelError, match=r"holds no cnn_se_pico\.tflite"):
        publish.tested(folder, evaluation)


@pytest.mark.parametrize("folder", sorted(p.parent for p in ZOO.glob(f"*/{MANIFEST}")), ids=str)
def test_what_ships_is_what_its_manifest_says(folder: Path) -> None:
    for name, entry in read_json(folder / MANIFEST)["files"].items():
        assert sha256_of(folder / name) == entry["sha256"], name
    card = (folder / CARD).read_text()
    for told in (
        "The file itself: ",
        "Licence of the images: CC BY 4.0, A. Acevedo et al.",
        f"Licence of the model: {publish.LICENCE}.",
        f"| `{folder.name}.tflite` | ",
    ):
        assert told in card, told


def test_a_shipped_card_says_whose_it_is_and_names_the_file_that_ships(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ZOO / "cnn_se_pico", tmp_path / "cnn_se_pico"))
    card, manifest = (folder / CARD).read_text(), read_json(folder / MANIFEST)
    (made,) = manifest["metrics"]["variants"].values()
    as_exported = card.replace("`cnn_se_pico.tflite`", f"`{made['file']}`")
    other = "| `other-float32.tflite` | 1.0 | 1.0 | 1 | 1 | 1 | -1 (within) |\n"
    at = as_exported.index(f"| `{made['file']}`")
    (folder / CARD).write_text(as_exported[:at] + other + as_exported[at:])
    float32 = {**made, "file": "other-float32.tflite", "bytes": made["bytes"] + 1}
    manifest["metrics"]["variants"]["float32"] = float32
    write_json(folder / MANIFEST, manifest)
    publish.licensed(folder, "A. Nother", "MIT")
    now = (folder / CARD).read_text()
    whose = f"{publish.AUTHOR}. Licence of the model: {publish.LICENCE}."
    assert now == card.replace(whose, "A. Nother. Licence of the model: MIT.") != card
    told = read_json(folder / MANIFEST)
    assert (told["config"]["author"], told["config"]["licence"]) == ("A. Nother", "MIT")
    assert told["files"][CARD]["sha256"] == sha256_of(folder / CARD)
    (folder / CARD).write_text(card.replace("Author of the model", "By"))
    with pytest.raises(ModelError, match="0 lines 'Author of the model"):
        publish.licensed(folder)
