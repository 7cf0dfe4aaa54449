"""Which images count as errors, which labels are doubted, and what is written of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.errors import COMMAND
from bloodedge.benchmarks.errors.__main__ import main
from bloodedge.benchmarks.errors.found import CONFIDENT, find_errors, pairs
from bloodedge.benchmarks.errors.text import RULE, draw_gallery, render, table_rows
from bloodedge.data.dataset import Dataset, Split
from bloodedge.deploy import gallery, interpreter
from bloodedge.deploy.predict import LoadedModel

LABELS = np.array([0, 1, 2, 0, 1], np.int64)


def sure(*answers: tuple[int, float]) -> np.ndarray:
    """Probabilities of three classes: the class that is said, and what is left for the others."""
    rows = np.zeros((len(answers), 3), np.float32)
    for row, (said, p) in zip(rows, answers, strict=True):
        row[:] = (1 - p) / 2
        row[said] = p
    return rows


SAID = {
    # Right; all are sure of 2; all say 0, one unsure; two of three say 1; two differ.
    "a": sure((0, 0.9), (2, 0.95), (0, 0.99), (1, 0.6), (0, 0.7)),
    "b": sure((0, 0.9), (2, CONFIDENT), (0, 0.99), (1, 0.5), (2, 0.8)),
    "c": sure((0, 0.4), (2, 0.99), (0, CONFIDENT - 0.01), (0, 0.9), (1, 0.9)),
}


def test_errors_are_found_and_ordered() -> None:
    found = find_errors(LABELS, SAID)
    assert [one.index for one in found] == [1, 2, 3, 4]
    assert [one.likely_label_error for one in found] == [True, False, False, False]
    assert [one.wrong for one in found] == [3, 3, 2, 2]
    assert [one.agree for one in found] == [3, 3, 2, 1]
    # Of two classes that one model each says, the one it is surer of.
    assert [one.other for one in found] == [2, 0, 1, 2]
    assert found[2].said == {"a": (1, 0.6), "b": (1, 0.5), "c": (0, 0.9)}
    assert str(CONFIDENT) in RULE


def test_one_model_cannot_doubt_a_label() -> None:
    found = find_errors(LABELS, {"a": SAID["a"]})
    assert [one.index for one in found] == [1, 2, 3, 4]
    assert not any(one.likely_label_error for one in found)
    assert find_errors(LABELS, {"x": sure(*((int(c), 0.9) for c in LABELS))}) == []


def test_models_that_are_sure_of_different_classes_do_not_doubt_a_label() -> None:
    said = {"a": sure((1, 0.99)), "b": sure((2, 0.99))}
    (one,) = find_errors(LABELS[:1], said)
    assert (one.wrong, one.agree, one.likely_label_error) == (2, 1, False)


def test_pairs_count_images_first_and_answers_then() -> None:
    found = pairs(find_errors(LABELS, SAID))
    assert [(p["truth"], p["said"], p["images"], p["answers"]) for p in found] == [
        (1, 2, 2, 4),
        (2, 0, 1, 3),
        (0, 1, 1, 2),
        (1, 0, 1, 1),
    ]
    assert found[0]["by_model"] == {"a": 1, "b": 2, "c": 1}


# ---- the script ----


@pytest.fixture
def models(brightest_tflite: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(interpreter, "probe", interpreter.check_file)
    paths = [tmp_path / "one.tflite", tmp_path / "two.tflite"]
    for path in paths:
        path.write_bytes(brightest_tflite)
    return [str(path) for path in paths]


@pytest.fixture
def data(colours: Dataset, tmp_path: Path) -> str:
    """The colours, with the first two labels of test changed: the models are right, not they."""
    labels = colours["test"].labels.copy()
    labels[:2] = (labels[:2] + 1) % 3
    splits = {**colours.splits, "test": Split(colours["test"].images, labels)}
    arrays = {f"{s}_images": split.images for s, split in splits.items()}
    arrays |= {f"{s}_labels": split.labels[:, None] for s, split in splits.items()}
    path = tmp_path / "colours.npz"
    np.savez(path, class_names=np.array(colours.class_names), **arrays)
    return str(path)


def test_wrong_labels_are_found_and_every_file_is_written(
    models: list[str], data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "gallery-07.png").write_bytes(b"of an earlier gallery")
    mine = {"gallery-7.png", "gallery-best.png", "gallery-01-marked.png", "gallery-00.png"}
    for name in mine:
        (out / name).write_bytes(b"the user's own")
    main([*models, "--data", data, "--out", str(out)])
    said = capsys.readouterr()
    files = {path.name for path in out.iterdir()}
    assert files == {"errors.json", "errors.csv", "errors.md", "gallery-01.png", *mine}
    found = json.loads((out / "errors.json").read_text())
    assert found["command"] == f"{COMMAND} --data {data} {' '.join(models)}"
    assert [one["index"] for one in found["misread"]] == [0, 1]
    assert all(one["likely_label_error"] for one in found["misread"])
    assert (out / "errors.md").read_text() == render(found) == said.out.rstrip("\n") + "\n"
    rows = list(csv.reader((out / "errors.csv").open()))
    assert rows[0][-4:] == ["one", "one p", "two", "two p"]
    assert rows[1:] == [[str(cell) for cell in row] for row in table_rows(found)]
    assert rows[1][1] != rows[1][4] == rows[1][6] == rows[1][8]
    assert "gallery-01.png: shows cells; not to be published" in said.err


def test_the_size_is_heeded_and_recorded(
    models: list[str], data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*models, "--data", data, "--out", str(tmp_path / "out"), "--size"]
    main([*words, "16"])
    found = json.loads((tmp_path / "out" / "errors.json").read_text())
    assert found["command"] == f"{COMMAND} --data {data} --size 16 {' '.join(models)}"
    assert exit_code(lambda: main([*words, "8"])) == 2
    assert "holds images of 16x16 pixels, not 8x8" in capsys.readouterr().err


def test_the_text_says_what_was_found(models: list[str], data: str, tmp_path: Path) -> None:
    main([*models, "--data", data, "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "errors.json").read_text())
    text = render(found)
    assert "2 of them are misread by at least one of 2 models, 2 by all." in text
    assert "| `one` | 2 | 0 | 96.67 [88.64, 99.08] |" in text
    assert f"{RULE}\n2 of 2." in text
    # All of them are in the first table.
    assert text.endswith("## The other misread images\n\nNone.\n")
    none = render({**found, "misread": [], "pairs": []})
    assert "0 of them are misread by at least one of 2 models, 0 by all." in none
    assert "0 of 0." in none
    synthetic = {**found, "data": {**found["data"], "synthetic": True}}
    assert "**synthetic data**" in render(synthetic)


def test_a_long_gallery_has_several_sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bloodedge.benchmarks.errors.text.MAX_CELLS", 3)
    drawn: list[tuple[list[str], str]] = []
    monkeypatch.setattr(
        "bloodedge.benchmarks.errors.text.contact_sheet",
        lambda images, captions, title, path: drawn.append((captions, title)),
    )
    misread = [one.to_json() for one in find_errors(LABELS, SAID)]
    data = {"class_names": ["x", "y", "z"], "synthetic": True}
    found = {"data": data, "misread": misread, "models": dict.fromkeys(SAID), "split": "test"}
    paths = draw_gallery(found, np.zeros((5, 8, 8, 3), np.uint8), tmp_path)
    assert [path.name for path in paths] == ["gallery-01.png", "gallery-02.png"]
    assert [len(captions) for captions, _ in drawn] == [3, 1]
    assert drawn[0][0][0] == "1 label? y\n3/3 z 0.99\n0.95 0.90 0.99"
    assert drawn[1][0][0] == "4 y\n1/3 z 0.80\n?0.70 0.80 +0.90"
    assert drawn[1][1].endswith("4 to 4 of 4")
    assert drawn[1][1].startswith("synthetic data, ")
    assert gallery.MAX_CELLS > 3


def test_bad_input_is_one_line_and_leaves_nothing(
    models: list[str],
    data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    words = ["nothing-of-that-name", "--data", data, "--out", str(out)]
    assert exit_code(lambda: main(words)) == 2
    assert "no run, file or zoo model" in capsys.readouterr().err

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LoadedModel, "probabilities", interrupted)
    assert exit_code(lambda: main([*models, "--data", data, "--out", str(out)])) == 130
    assert not out.exists()
    with pytest.raises(SystemExit):
        main([*models, "--data", data, "--workers", "0"])


# ---- what is recorded ----

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"


def test_the_recorded_text_and_table_agree() -> None:
    text = (RESULTS / "errors.md").read_text()
    with (RESULTS / "errors.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [head for head in rows[0] if f"{head} p" in rows[0]]
    assert f"{len(rows)} of them are misread by at least one of {len(names)} models" in text
    for row in rows:
        wrong = [name for name in names if row[name] != row["truth"]]
        assert len(wrong) == int(row["wrong"]) > 0
        assert int(row["agree"]) == sum(row[name] == row["other"] for name in names)
        doubted = int(row["agree"]) == len(names) and all(
            float(row[f"{name} p"]) >= CONFIDENT for name in names
        )
        assert doubted == (row["likely_label_error"] == "yes")
        assert f"| {row['index']} | {row['truth']} | {row['wrong']} |" in text
    for name in names:
        misread = sum(row[name] != row["truth"] for row in rows)
        assert f"| `{name}` | {misread} | " in text


def test_no_sheet_of_cells_is_recorded() -> None:
    assert not list(RESULTS.rglob("gallery-*"))
