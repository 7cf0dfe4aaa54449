from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from bloodedge.cli.data import data_app
from bloodedge.data.dataset import SPLITS
from bloodedge.data.medmnist_files import official_file, supported_names
from bloodedge.data.sources import load_data
from bloodedge.errors import BloodedgeError, ConfigError, DataError


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMNIST_ROOT", str(tmp_path / "medmnist"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")


def run(*words: str) -> Result:
    return CliRunner().invoke(data_app, words)


def fails(*words: str) -> BloodedgeError:
    result = run(*words)
    assert result.exit_code == 1
    assert isinstance(result.exception, BloodedgeError)
    return result.exception


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    path = tmp_path / "drawn.npz"
    assert run("synth", "--out", str(path), "--per-class", "2", "--size", "16").exit_code == 0
    return path


def test_list_names_every_set_and_what_is_cached() -> None:
    file = official_file("bloodmnist", 64)
    file.path.parent.mkdir()
    file.path.write_bytes(b"")
    result = run("list")
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if "mnist" in line}
    assert sorted(rows) == sorted(supported_names())
    assert "17,092" in rows["bloodmnist"]
    # name, classes, images, shows, sizes, cached
    cells = {name: re.split(" {2,}", row.strip()) for name, row in rows.items()}
    assert cells["bloodmnist"][5] == "64"
    assert cells["pathmnist"][5] == "-"
    assert all(len(row) == 6 and row[3] for row in cells.values())


def test_synth_writes_a_marked_file_once(drawn: Path) -> None:
    data = load_data(str(drawn))
    assert data.synthetic
    assert {s: len(data[s]) for s in SPLITS} == {"train": 16, "val": 16, "test": 16}
    before = drawn.read_bytes()
    assert isinstance(fails("synth", "--out", str(drawn)), ConfigError)
    assert drawn.read_bytes() == before
    again = ("synth", "--out", str(drawn), "--per-class", "2", "--size", "16", "--force")
    assert run(*again).exit_code == 0
    assert load_data(str(drawn)).fingerprint == data.fingerprint
    assert run(*again, "--seed", "1").exit_code == 0
    assert load_data(str(drawn)).fingerprint != data.fingerprint


def test_synth_checks_the_name_and_size_first(tmp_path: Path) -> None:
    assert "give --out cells.npz" in str(fails("synth", "--out", str(tmp_path / "cells")))
    error = fails("synth", "--out", str(tmp_path / "a.npz"), "--size", "2")
    assert "16 pixels or more" in str(error)
    assert not list(tmp_path.glob("*.npz"))


def test_info_says_what_it_is(drawn: Path) -> None:
    result = run("info", str(drawn))
    assert result.exit_code == 0
    assert "origin: synthetic" in result.stdout
    assert f"fingerprint: {load_data(str(drawn)).fingerprint}" in result.stdout
    assert "size: 16" in result.stdout
    (row,) = (line for line in result.stdout.splitlines() if "monocyte" in line)
    assert row.split() == ["monocyte", "2", "2", "2"]


def test_class_names_are_text_not_markup(tmp_path: Path, drawn: Path) -> None:
    with np.load(drawn) as stored:
        arrays = dict(stored)
    arrays["class_names"] = np.array([f"[red]{k}[/nope]" for k in range(8)])
    np.savez(tmp_path / "markup.npz", **arrays)
    result = run("info", str(tmp_path / "markup.npz"))
    assert result.exit_code == 0
    assert "[red]7[/nope]" in result.stdout


def test_verify_counts_images_in_several_splits(drawn: Path, tmp_path: Path) -> None:
    result = run("verify", str(drawn))
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "verified")
    assert "warning" not in result.stdout
    with np.load(drawn) as stored:
        arrays = dict(stored)
    arrays["test_images"][:3] = arrays["train_images"][4]
    arrays["val_images"][0] = arrays["train_images"][0]
    np.savez(tmp_path / "leaky.npz", **arrays)
    result = run("verify", str(tmp_path / "leaky.npz"))
    assert result.exit_code == 0
    assert "warning: 3 images of test are in train too" in result.stdout
    assert "warning: 1 images of val are in train too" in result.stdout
    assert result.stdout.splitlines()[-1] == "verified, with warnings"


def test_verify_refuses_a_damaged_file(drawn: Path) -> None:
    drawn.write_bytes(drawn.read_bytes()[:-200])
    assert isinstance(fails("verify", str(drawn)), DataError)


def test_verify_downloads_nothing_and_checks_the_md5() -> None:
    assert "bloodedge data fetch bloodmnist --size 28" in str(
        fails("verify", "bloodmnist", "--size", "28")
    )
    file = official_file("bloodmnist", 28)
    file.path.parent.mkdir()
    file.path.write_bytes(b"not the file")
    assert "not the official file" in str(fails("verify", "BloodMNIST", "--size", "28"))
    assert "not the official file" in str(fails("fetch", "bloodmnist", "--size", "28"))


@pytest.mark.parametrize("name", ["chestmnist", "nosuchmnist"])
def test_fetch_of_what_cannot_be_used(name: str) -> None:
    assert isinstance(fails("fetch", name), DataError)


def test_folder_by_command(tmp_path: Path) -> None:
    for c, name in enumerate(("a", "b")):
        (tmp_path / "cells" / name).mkdir(parents=True)
        for k in range(5):
            pixels = np.full((9, 9), 20 * k + c, np.uint8)
            cv2.imwrite(str(tmp_path / "cells" / name / f"{k}.png"), pixels)
    result = run("info", str(tmp_path / "cells"), "--size", "8")
    assert result.exit_code == 0
    # The one that every command trains on: no other could be asked for there.
    assert "split: seeded 70/10/20 split, seed 0" in result.stdout
    assert run("info", str(tmp_path / "cells"), "--seed", "4").exit_code == 2
    assert run("verify", str(tmp_path / "cells"), "--seed", "4").exit_code == 2
    assert run("verify", str(tmp_path / "cells"), "--size", "8").exit_code == 0
