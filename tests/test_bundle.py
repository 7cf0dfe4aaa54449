"""Bundles are reproducible, run on their own, and hostile ones are refused before any write."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import struct
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodedge.benchmarks import bundle_check
from bloodedge.benchmarks.bundle import (
    START,
    BundleConfig,
    bundle,
    clash,
    is_allowed,
    write_folder,
    zip_of,
)
from bloodedge.benchmarks.bundle_check import check_bundle, unpack_bundle
from bloodedge.benchmarks.model_work import model_work
from bloodedge.cli.app import app
from bloodedge.data.dataset import Dataset
from bloodedge.deploy import interpreter
from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.tree import Vector
from bloodedge.deploy.flat.writer import write_tables
from bloodedge.errors import BloodedgeError, ConfigError, DataError, ModelError


@pytest.fixture
def model(tmp_path: Path, brightest_tflite: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("bloodedge.deploy.interpreter.probe", interpreter.check_file)
    path = tmp_path / "first" / "brightest.tflite"
    path.parent.mkdir()
    path.write_bytes(brightest_tflite)
    return path


@pytest.fixture
def packed(model: Path, colours: Dataset, tmp_path: Path) -> Path:
    return bundle(BundleConfig((str(model),), tmp_path / "device.zip", images=9), colours)


def test_the_same_inputs_give_the_same_bytes(
    packed: Path, model: Path, colours: Dataset, tmp_path: Path
) -> None:
    again = bundle(BundleConfig((str(model),), tmp_path / "again.zip", images=9), colours)
    assert packed.read_bytes() == again.read_bytes()
    other = BundleConfig((str(model),), tmp_path / "other.zip", images=9, seed=1)
    assert bundle(other, colours).read_bytes() != packed.read_bytes()


def test_it_holds_models_a_balanced_sample_and_the_runner(
    packed: Path, model: Path, colours: Dataset
) -> None:
    files = check_bundle(packed).files
    assert files["models/brightest.tflite"] == model.read_bytes()
    sample = np.load(io.BytesIO(files["sample.npz"]), allow_pickle=False)
    assert np.bincount(sample["labels"]).tolist() == [3, 3, 3]
    for image, label in zip(sample["images"], sample["labels"], strict=True):
        found = (colours["test"].images == image).all(axis=(1, 2, 3))
        assert (colours["test"].labels[found] == label).any()
    assert sample["class_names"].tolist() == ["red", "green", "blue"]
    described = json.loads(files["bundle.json"])
    # The runner finds it beside itself, and its rows carry what each model costs.
    work = model_work("brightest", model.read_bytes()).as_dict()
    assert described["models"]["brightest.tflite"]["work"] == work
    assert described["data"]["fingerprint"] == colours.fingerprint
    assert described["sample"] == {"split": "test", "images": 9, "seed": 0}
    assert b"(synthetic)" in files["README.md"]
    assert b"--resume" in files["README.md"]
    # As the model card says.
    assert b"Licence of the images: nobody's, they are drawn." in files["README.md"]
    with zipfile.ZipFile(packed) as archive:
        assert archive.getinfo("run.sh").external_attr >> 16 & 0o111
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.slow
def test_it_runs_with_nothing_but_itself(packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    unpack_bundle(packed, folder)
    assert (folder / "run.sh").stat().st_mode & stat.S_IXUSR
    done = subprocess.run(
        [str(folder / "run.sh"), "--quick", "--threads", "1"],
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "result.json").read_text())
    (row,) = result["rows"]
    assert (row["accuracy"], row["images"]) == (1.0, 9)
    # Which images these are goes with the result, synthetic ones among them.
    described = json.loads((folder / "bundle.json").read_text())
    assert result["sample"] == {"file": "sample.npz", "images": 9, "data": described["data"]}
    # What the device wrote is no part of the bundle.
    check_bundle(folder)
    (folder / "sample.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"sample\.npz is damaged"):
        check_bundle(folder)


@pytest.mark.slow
def test_a_closed_terminal_leaves_what_is_complete(packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    unpack_bundle(packed, folder)
    command = [sys.executable, "run.py", "--repeats", "50", "--seconds", "0.01", "--threads", "1"]
    reading, writing = os.pipe()
    child = subprocess.Popen(
        command, cwd=folder, stderr=writing, start_new_session=True,
        # Under nohup, which the runner respects, the signal would mean nothing.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip
    os.close(writing)
    with os.fdopen(reading) as log:
        assert any("[1/50]" in line for line in log)
    # As a terminal does: nobody reads any more, and every process of it is told, here late.
    time.sleep(1)
    os.killpg(child.pid, signal.SIGHUP)
    assert child.wait(timeout=300) == 130
    result = json.loads((folder / "result.json").read_text())
    assert (result["complete"], result["rows"][0]["accuracy"]) == (False, 1.0)


def test_an_old_python_is_one_line(packed: Path, tmp_path: Path) -> None:
    unpack_bundle(packed, tmp_path / "device")
    old = tmp_path / "python3.6"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(old)}
    done = subprocess.run(
        ["sh", str(tmp_path / "device" / "run.sh")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: Python 3.8 or newer is needed")


def test_it_starts_from_any_folder_and_measures_its_own_models_alone(tmp_path: Path) -> None:
    device, elsewhere = tmp_path / "the device", tmp_path / "elsewhere"
    (device / "models").mkdir(parents=True)
    elsewhere.mkdir()
    # macOS leaves the second beside the first on a FAT stick or SD card.
    for name in ("net.tflite", "._net.tflite"):
        (device / "models" / name).write_bytes(b"x")
    (device / "run.py").write_bytes(START.read_bytes())
    (device / "SHA256SUMS").write_text("")
    runner = "import json, os, sys\nprint(json.dumps([os.getcwd(), *sys.argv[1:]]))\n"
    (device / "runner.py").write_text(runner)
    command = [sys.executable, str(device / "run.py"), "--out", "mine.json"]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=True)
    usual = "--sample", str(device / "sample.npz"), "--out", str(device / "result.json")
    # The user's own --out comes last, so that it counts, and is of the folder he is in.
    expected = [str(elsewhere), str(device / "models" / "net.tflite"), *usual, "--out", "mine.json"]
    assert json.loads(done.stdout) == expected


def test_sums_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_bytes(START.read_bytes())
    (tmp_path / "SHA256SUMS").write_bytes(b"\xff\xfe\n")
    command = [sys.executable, str(tmp_path / "run.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "SHA256SUMS is damaged or missing" in done.stderr


def test_what_a_run_leaves_in_a_bundle_does_not_damage_it(packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    unpack_bundle(packed, folder)
    for name in ("result.json", "result.json.partial", "nohup.out", "models/.DS_Store"):
        (folder / name).write_text("{}")
    assert check_bundle(folder).files == check_bundle(packed).files


def test_files_of_one_name_keep_their_folders(
    model: Path, colours: Dataset, tmp_path: Path
) -> None:
    second = tmp_path / "second" / model.name
    second.parent.mkdir()
    second.write_bytes(model.read_bytes() + b"\0")
    config = BundleConfig((str(model), str(second), str(model)), tmp_path / "folder", images=3)
    names = sorted(p.name for p in (bundle(config, colours) / "models").iterdir())
    assert names == ["first-brightest.tflite", "second-brightest.tflite"]


@pytest.mark.parametrize("name", ["a:b", "a\nb", "a\\b", ".a", "x" * 190, "a?b", "con", "Aux.x"])
def test_a_name_that_its_check_would_refuse_is_not_packed(
    name: str, model: Path, colours: Dataset, tmp_path: Path
) -> None:
    odd = model.rename(tmp_path / f"{name}.tflite")
    with pytest.raises(ConfigError, match="no name for every device"):
        bundle(BundleConfig((str(odd),), tmp_path / "out.zip", images=3), colours)
    assert not (tmp_path / "out.zip").exists()


def test_models_whose_names_differ_in_case_alone_are_not_packed(
    model: Path, colours: Dataset, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "Brightest.tflite"
    other.parent.mkdir()
    other.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(ConfigError, match=r"called brightest\.tflite and Brightest\.tflite"):
        bundle(BundleConfig((str(model), str(other)), tmp_path / "out.zip", images=3), colours)
    assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize(
    "name",
    [
        *(f"a{sign}b" for sign in '<>"|?*:\\'),
        "con", "NUL.tflite", "models/aux", "prn.a.b", "com1", "LPT9.txt", "com0", "com\u00b9.x",
        "con/x", "nul .txt", "CONIN$", "a.", "a ", "models./x", "models /x", "..",
    ],
)  # fmt: skip
def test_a_name_that_some_device_changes_or_refuses_is_not_allowed(name: str) -> None:
    assert not is_allowed(name)


@pytest.mark.parametrize(
    "name",
    ["models/cnn_se-w1.0-int8.tflite", "a b.tflite", "icon", "con1", "com10", "console.txt",
     "a.con", "null", "com", "caf\u00e9 (2) 'x'; $(y).tflite", " a"],
)  # fmt: skip
def test_other_names_are_allowed(name: str) -> None:
    assert is_allowed(name)


@pytest.mark.parametrize(
    ("names", "both"),
    [
        (("a", "b", "A"), ("a", "A")),
        (("models/x", "MODELS/X"), ("models/x", "MODELS/X")),
        (("stra\u00dfe", "STRASSE"), ("stra\u00dfe", "STRASSE")),
        (("caf\u00e9", "cafe\u0301"), ("caf\u00e9", "cafe\u0301")),
        (("models", "models/x"), ("models", "models/x")),
        (("models/a/x", "models/A"), ("models/a/x", "models/A")),
        (("x", "x"), ("x", "x")),
        (("models/a", "Models/b", "models/ab", "a", "b/a"), None),
    ],
)
def test_names_of_which_a_device_holds_one_alone_clash(
    names: tuple[str, ...], both: tuple[str, str] | None
) -> None:
    assert clash(names) == both


def test_a_folder_is_replaced_only_when_asked(
    model: Path, colours: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "folder"
    config = BundleConfig((str(model),), out, images=3)
    bundle(config, colours)
    with pytest.raises(ConfigError, match="exists"):
        BundleConfig((str(model),), out)
    before = check_bundle(out).files["sample.npz"]
    bundle(replace(config, images=6, force=True), colours)
    assert check_bundle(out).files["sample.npz"] != before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".bloodedge-")] == []


def test_an_empty_folder_is_replaced(model: Path, colours: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "empty"
    out.mkdir()
    check_bundle(bundle(BundleConfig((str(model),), out, images=3, force=True), colours))


@pytest.mark.parametrize(
    ("added", "named"),
    [
        (("result.json",), "holds result.json,"),
        (("result.json.partial", "models/mine.txt"), "holds models/mine.txt, result.json.partial,"),
        (("a", "b", "c", "d"), "holds a, b, c and 1 more,"),
    ],
)
def test_what_was_measured_or_added_in_a_bundle_is_never_deleted(
    added: tuple[str, ...], named: str, model: Path, colours: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "device"
    config = BundleConfig((str(model),), out, images=3, force=True)
    bundle(config, colours)
    files = dict(check_bundle(out).files)
    for name in added:
        (out / name).write_text("kept")
    with pytest.raises(ConfigError, match=named):
        BundleConfig((str(model),), out, force=True)
    # And if it came while the new bundle was being made.
    with pytest.raises(ConfigError, match=named):
        bundle(config, colours)
    with pytest.raises(ConfigError, match=named):
        write_folder(files, out)
    assert {(out / name).read_text() for name in added} == {"kept"}


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BloodedgeError, match=r"could not write .*device: .*; to mend it: free"):
        write_folder({"a": b"b"}, tmp_path / "file" / "device")


def test_a_bundle_behind_a_link_is_replaced_there(tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    link = tmp_path / "device"
    link.symlink_to(tmp_path / "large")
    write_folder({"a": b"b"}, link)
    assert link.is_symlink()
    assert (tmp_path / "large" / "a").read_bytes() == b"b"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["device", "large"]


def test_a_disks_own_folder_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "link"):
        with pytest.raises(ConfigError, match="disk's own folder"):
            BundleConfig(("m",), out, force=True)


def test_a_link_to_a_folder_on_another_disk_is_no_disks_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some versions of Python take it for one, as the disk is not that of the link."""
    large = tmp_path / "large"
    large.mkdir()
    (tmp_path / "device").symlink_to(large)
    monkeypatch.setattr(Path, "is_mount", Path.is_symlink)
    config = BundleConfig(("m",), tmp_path / "device", force=True)
    assert config.out == tmp_path / "device"


def test_a_link_that_leads_back_to_itself_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "device").symlink_to(tmp_path / "device")
    with pytest.raises(ConfigError, match="device is a link that leads nowhere"):
        BundleConfig(("m",), tmp_path / "device")


@pytest.mark.parametrize("name", ["device", "link"])
def test_a_bundle_whose_replacement_a_power_cut_ended_is_replaced_only_when_asked(
    name: str, tmp_path: Path
) -> None:
    out = tmp_path / "device"
    (tmp_path / "link").symlink_to(out)
    old = {"bundle.json": b'{"schema": "bloodedge-bundle/1"}', "SHA256SUMS": b"0  bundle.json\n"}
    write_folder(old, out)
    out.rename(tmp_path / ".device.replaced")
    with pytest.raises(ConfigError, match=r"\.device\.replaced exists; .* --force"):
        BundleConfig(("m",), tmp_path / name)
    BundleConfig(("m",), tmp_path / name, force=True)
    write_folder({"a": b"new"}, tmp_path / name)
    assert (out / "a").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["device", "link"]


def test_what_a_power_cut_left_of_a_replaced_bundle_is_not_in_the_way(tmp_path: Path) -> None:
    out = tmp_path / "device"
    old = {"bundle.json": b'{"schema": "bloodedge-bundle/1"}', "SHA256SUMS": b"0  bundle.json\n"}
    write_folder(old, out)
    write_folder(old, tmp_path / ".device.replaced")
    write_folder({"a": b"new"}, out)
    assert (out / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["device"]


@pytest.mark.parametrize("description", [None, "no JSON", "{}", '{"schema": "another/1"}'])
def test_a_folder_that_is_no_bundle_is_never_replaced(
    description: str | None, tmp_path: Path
) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "thesis.txt").touch()
    if description is not None:
        (out / "bundle.json").write_text(description)
    with pytest.raises(ConfigError, match="is no bundle"):
        BundleConfig(("m",), out, force=True)
    with pytest.raises(ConfigError, match="is no bundle"):
        BundleConfig(("m",), out / "thesis.txt", force=True)


@pytest.mark.parametrize(
    "options", [("--images", "400"), ("--out", "zzz"), ("--seed", "1", "--force")]
)
def test_options_that_a_check_ignores_are_refused(options: tuple[str, ...], packed: Path) -> None:
    done = CliRunner().invoke(app, ["bundle", "--check", str(packed), *options])
    assert isinstance(done.exception, ConfigError)
    named = ", ".join(option for option in options if option.startswith("--"))
    assert f"{named} with --check" in str(done.exception)


def test_a_data_set_of_the_environment_does_not_hinder_a_check(packed: Path) -> None:
    words = ["bundle", "--check", str(packed)]
    done = CliRunner().invoke(app, words, env={"BLOODEDGE_DATA": "synthetic"})
    assert done.exit_code == 0, done.output


def test_a_model_for_other_classes_is_refused(
    model: Path, colours: Dataset, tmp_path: Path
) -> None:
    four = replace(colours, class_names=("red", "green", "blue", "grey"))
    with pytest.raises(ModelError, match="has 3 classes"):
        bundle(BundleConfig((str(model),), tmp_path / "x.zip"), four)
    assert not (tmp_path / "x.zip").exists()


def test_a_model_of_a_fixed_batch_is_refused(model: Path, colours: Dataset, tmp_path: Path) -> None:
    root = read_model(model.read_bytes()).model
    (graph,) = root.tables("subgraphs")
    for tensor in graph.tables("tensors"):
        sides = tensor.numbers("shape")
        if len(sides) > 1:
            shape = struct.pack(f"<{len(sides)}i", 8, *sides[1:])
            tensor.fields["shape"] = Vector(shape, 4)
    model.write_bytes(write_tables(root))
    with pytest.raises(ModelError, match=r"takes a batch of 8 images.*export it with --batch 1"):
        bundle(BundleConfig((str(model),), tmp_path / "out"), colours)
    assert not (tmp_path / "out").exists()


def test_of_answers_that_are_no_probabilities_it_says_what_cannot_use_them(
    model: Path,
    logits_tflite: bytes,
    colours: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle(BundleConfig((str(model),), tmp_path / "good", images=3), colours)
    assert "no probabilities" not in capsys.readouterr().err
    model.write_bytes(logits_tflite)
    bundle(BundleConfig((str(model),), tmp_path / "logits", images=3), colours)
    said = "its answers are no probabilities; classify.py cannot use it, run.py can"
    assert capsys.readouterr().err.count(said) == 1
    assert (tmp_path / "logits/models" / model.name).is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"models": ()}, "no model"), ({"images": -1}, "--images"), ({"seed": -1}, "--seed")],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        BundleConfig(**{"models": ("m",), "out": tmp_path / "x.zip", **changes})


def with_entry(packed: Path, name: str, mode: int = 0o100644, content: bytes = b"x") -> Path:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = mode << 16
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(entry, content)
    return packed


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("../outside", 0o100644, "not allowed"),
        ("models/../../outside", 0o100644, "not allowed"),
        ("/etc/outside", 0o100644, "not allowed"),
        ("C:outside", 0o100644, "not allowed"),
        ("a\\..\\outside", 0o100644, "not allowed"),
        ("./outside", 0o100644, "not allowed"),
        ("a//outside", 0o100644, "not allowed"),
        ("bell\a", 0o100644, "not allowed"),
        ("n" * 300, 0o100644, "not allowed"),
        ("models/con.tflite", 0o100644, "not allowed"),
        ("models/a?.tflite", 0o100644, "not allowed"),
        ("models/brightest.tflite.", 0o100644, "not allowed"),
        ("models", 0o100644, "both 'models/brightest.tflite' and 'models', which"),
        ("RUN.sh/x", 0o100644, "both 'run.sh' and 'RUN.sh/x', which"),
        ("Run.sh", 0o100644, "both 'run.sh' and 'Run.sh', which"),
        ("link", 0o120777, "link or a device"),
        ("pipe", 0o010644, "link or a device"),
        ("models/extra.tflite", 0o100644, "sums do not list"),
    ],
)
def test_hostile_entries_are_refused_and_nothing_is_written(
    packed: Path, tmp_path: Path, name: str, mode: int, message: str
) -> None:
    hostile = with_entry(packed, name, mode)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=message):
        unpack_bundle(hostile, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(packed: Path) -> None:
    with pytest.raises(DataError, match="twice"):
        check_bundle(with_entry(packed, "run.sh"))


def repacked(packed: Path, **changes: bytes | None) -> Path:
    files = {**check_bundle(packed).files, **changes}
    packed.write_bytes(zip_of({n: c for n, c in files.items() if c is not None}))
    return packed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run.sh": b"rm -rf /"}, "run.sh is damaged"),
        ({"run.sh": None}, "lacks run.sh"),
        ({"SHA256SUMS": None}, "no SHA256SUMS"),
        ({"SHA256SUMS": b"nonsense\n"}, "SHA256SUMS is damaged"),
        ({"SHA256SUMS": b"\xff\xfe"}, "SHA256SUMS is damaged"),
    ],
)
def test_wrong_sums_are_refused(packed: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_bundle(repacked(packed, **changes))


def test_bounds_hold_before_anything_is_unpacked(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_check, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="unpacks to more"):
        check_bundle(packed)
    monkeypatch.setattr(bundle_check, "MAX_FILES", 2)
    with pytest.raises(DataError, match="more than 2"):
        check_bundle(packed)


@pytest.mark.parametrize("content", [b"", b"PK\5\6 no zip", b"PK\3\4" + bytes(60)])
def test_what_is_no_bundle_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read") as caught:
        check_bundle(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_whose_damage_nobody_foresees_is_refused(method: int, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a", bytes(99))
    # Of LZMA the first byte of what is packed: the version of its properties.
    content = bytearray(path.read_bytes())
    content[31] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="neither stored nor deflated"):
        check_bundle(path)


def test_a_cut_bundle_is_refused(packed: Path) -> None:
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(DataError):
        check_bundle(packed)


def test_a_folder_with_a_link_is_refused(packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    unpack_bundle(packed, folder)
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="link"):
        check_bundle(folder)
    with pytest.raises(ConfigError, match="exists"):
        unpack_bundle(packed, folder)
