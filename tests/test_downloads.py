from __future__ import annotations

import hashlib
import http.server
import io
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.console import Meter
from bloodedge.data import download as downloading
from bloodedge.data import medmnist_files, sources
from bloodedge.data.dataset import SPLITS
from bloodedge.data.download import md5_of
from bloodedge.data.medmnist_files import (
    OfficialFile,
    fetch,
    load_official,
    official_file,
)
from bloodedge.data.npz import BLOODMNIST_CLASSES
from bloodedge.data.sources import load_data
from bloodedge.errors import BloodedgeError, ConfigError, DataError


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMNIST_ROOT", str(tmp_path / "medmnist"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def _not_installed() -> Any:
    raise ConfigError("medmnist is not installed", fix="pip install medmnist")


class Server(http.server.ThreadingHTTPServer):
    body = b""
    status = 200
    declared: int | None = None


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self.server.body
        self.send_response(self.server.status)
        declared = len(body) if self.server.declared is None else self.server.declared
        self.send_header("Content-Length", str(declared))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        buffer = io.BytesIO()
        rng = np.random.default_rng(0)
        arrays: dict[str, Any] = {}
        for split in SPLITS:
            arrays[f"{split}_images"] = rng.integers(0, 256, (8, 28, 28, 3), np.uint8)
            arrays[f"{split}_labels"] = np.arange(8, dtype=np.uint8)[:, None]
        np.savez(buffer, **arrays)
        running.body = buffer.getvalue()
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def published(server: Server) -> OfficialFile:
    url = f"http://127.0.0.1:{server.server_address[1]}/bloodmnist.npz?download=1"
    md5 = hashlib.md5(server.body).hexdigest()
    return replace(official_file("bloodmnist", 28), url=url, md5=md5)


def leftovers(file: OfficialFile) -> list[str]:
    return [p.name for p in file.path.parent.iterdir()] if file.path.parent.exists() else []


def test_download_verify_and_load(published: OfficialFile, server: Server) -> None:
    data = load_official(published)
    assert leftovers(published) == ["bloodmnist.npz"]
    assert published.path.read_bytes() == server.body
    assert (data.name, data.origin, data.size) == ("bloodmnist", "official", 28)
    assert data.class_names == BLOODMNIST_CLASSES
    assert data.title == "BloodMNIST 28x28 (official MedMNIST file)"
    assert data.describe()["md5"] == published.md5
    server.body = b"never asked for again"
    assert fetch(published) == published.path


def test_damaged_file_in_the_cache(published: OfficialFile) -> None:
    fetch(published)
    with published.path.open("r+b") as file:
        file.seek(100)
        file.write(b"\0\1\2\3")
    with pytest.raises(DataError, match=r"not the official file.*delete it"):
        load_official(published)
    assert published.path.exists()


def test_wrong_md5_leaves_nothing(published: OfficialFile) -> None:
    with pytest.raises(DataError, match="damaged on the way"):
        fetch(replace(published, md5="0" * 32))
    assert leftovers(published) == []


def test_truncated_download_leaves_nothing(published: OfficialFile, server: Server) -> None:
    server.declared = len(server.body) + 5
    with pytest.raises(DataError, match=r"could not download.*another machine and put it at"):
        fetch(published)
    assert leftovers(published) == []


@pytest.mark.parametrize("status", [403, 404, 500])
def test_refused_download(published: OfficialFile, server: Server, status: int) -> None:
    server.status = status
    with pytest.raises(DataError, match=f"HTTP Error {status}"):
        fetch(published)
    assert leftovers(published) == []


def test_too_large_download(published: OfficialFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "MAX_DOWNLOAD", 100)
    with pytest.raises(DataError, match="is larger than"):
        fetch(published)
    assert leftovers(published) == []


def test_interrupted_download_leaves_nothing(
    published: OfficialFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Meter, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(published)
    assert leftovers(published) == []


def test_offline_says_where_to_put_the_file(published: OfficialFile) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x.npz"
        with pytest.raises(DataError) as caught:
            fetch(replace(published, url=url))
    assert f"fetch {url} on another machine and put it at {published.path}" in str(caught.value)
    assert "refused" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_that_cannot_be_written(published: OfficialFile, tmp_path: Path) -> None:
    (tmp_path / "medmnist").write_text("a file where the folder should be")
    with pytest.raises(BloodedgeError, match="could not write"):
        fetch(published)


def test_official_file_is_recognised_by_its_path(
    tmp_path: Path, published: OfficialFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "renamed.npz"
    path.write_bytes(fetch(published).read_bytes())
    assert load_data(str(path)).origin == "npz"
    monkeypatch.setattr(medmnist_files, "BLOODMNIST_MD5", {28: md5_of(path)})
    monkeypatch.setattr(medmnist_files, "_BLOODMNIST_TRAIN", 8)
    monkeypatch.setattr(medmnist_files, "medmnist_info", _not_installed)
    data = load_data(str(path))
    assert (data.origin, data.class_names) == ("official", BLOODMNIST_CLASSES)


def test_another_file_of_as_many_images_is_not_official(
    tmp_path: Path, published: OfficialFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(fetch(published).read_bytes())
    monkeypatch.setattr(medmnist_files, "_BLOODMNIST_TRAIN", 8)
    assert load_data(str(path)).origin == "npz"


def test_default_folder_is_medmnist_s_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MEDMNIST_ROOT")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert official_file("bloodmnist", 64).path == tmp_path / ".medmnist" / "bloodmnist_64.npz"
    assert sources.DEFAULT_SIZE == 64
