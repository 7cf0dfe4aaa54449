"""What LiteRT.js answers in a headless Chromium: a page, a local server and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = "2.5.3"
_TIMEOUT_S = 600.0
_PAGE = """<!doctype html><meta charset="utf-8">
<script type="importmap">{"imports": {
  "@litertjs/core": "/node_modules/@litertjs/core/dist/index.js",
  "@litertjs/wasm-utils": "/node_modules/@litertjs/wasm-utils/dist/index.js"}}</script>
<script type="module">
const found = [];
try {
  const {loadLiteRt, loadAndCompile, Tensor} = await import('@litertjs/core');
  const work = await (await fetch('work.json')).json();
  await loadLiteRt('/node_modules/@litertjs/core/wasm/');
  for (const file of work.files) {
    try {
      const model = await loadAndCompile(file, {accelerator: 'wasm'});
      const {dtype} = model.getInputDetails()[0];
      const make = {float32: Float32Array, uint8: Uint8Array, int32: Int32Array}[dtype];
      if (!make) throw new Error(`input of type ${dtype}`);
      const answers = [];
      for (const image of work.images) {
        const input = new Tensor(new make(image), work.shape);
        const [output] = await model.run(input);
        answers.push(Array.from(await output.data()));
        input.delete();
        output.delete();
      }
      found.push({file, answers, uint8: answers.every(row => row.every(Number.isInteger))});
      model.delete();
    } catch (error) {
      found.push({file, error: String(error.message ?? error)});
    }
  }
} catch (error) {
  found.push({error: String(error.message ?? error)});
}
await fetch('/found', {method: 'POST', body: JSON.stringify(found)});
</script>
"""


class _Handler(SimpleHTTPRequestHandler):
    """Serves a folder, isolated as threads in WebAssembly want, and takes what the page found."""

    done: threading.Event
    found: list[Any]

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.found.extend(json.loads(body))
        self.send_response(204)
        self.end_headers()
        self.done.set()

    def log_message(self, *words: Any) -> None:
        pass


def missing() -> str:
    """Return why LiteRT.js cannot be tried here; empty when it can."""
    tools = {"npm": _npm(), "chromium": _chromium()}
    gone = [name for name, path in tools.items() if path is None]
    return f"no {' and no '.join(gone)}" if gone else ""


def _npm() -> str | None:
    return shutil.which("npm")


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def answer_in_browser(
    files: Sequence[Path], images: NDArray[np.uint8]
) -> tuple[dict[Path, list[list[float]]], dict[Path, str]]:
    """Return the probabilities of the files that run, and why the others do not.

    Raises:
        OSError: LiteRT.js cannot be installed, or the page did not answer in time.
    """
    with tempfile.TemporaryDirectory(prefix="bloodedge-browser-") as name:
        folder = Path(name)
        _install(folder)
        urls = {f"{i}.tflite": path for i, path in enumerate(files)}
        for url, path in urls.items():
            shutil.copy(path, folder / url)
        work = {
            "files": list(urls),
            "images": images.reshape(len(images), -1).tolist(),
            "shape": [1, *images.shape[1:]],
        }
        (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
        (folder / "index.html").write_text(_PAGE, encoding="utf-8")
        found = _visit(folder)
    answers, refused = {}, {}
    for entry in found:
        if "file" not in entry:
            raise OSError(f"LiteRT.js did not start: {entry['error']}")
        path = urls[entry["file"]]
        if "error" in entry:
            refused[path] = str(entry["error"])
        else:
            # LiteRT.js gives no scale; ours is 1/256 with zero point 0.
            step = 1 / 256 if entry["uint8"] else 1.0
            answers[path] = [[value * step for value in row] for row in entry["answers"]]
    return answers, refused


def _install(folder: Path) -> None:
    command = [str(_npm()), "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
    package = f"@litertjs/core@{VERSION}"
    done = subprocess.run(
        [*command, package], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise OSError(f"npm could not install {package}")


def _visit(folder: Path) -> list[Any]:
    """Open the page in Chromium until it has posted what it found."""
    done, found = threading.Event(), list[Any]()
    handler = type("Handler", (_Handler,), {"done": done, "found": found})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/index.html"
    # --no-sandbox: in a container, as root. The page is our own.
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'user'}"]
    browser = subprocess.Popen(
        [str(_chromium()), *options, "--remote-debugging-port=0", url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        if not done.wait(_TIMEOUT_S):
            raise OSError(f"the page did not answer within {_TIMEOUT_S:g} s")
    finally:
        browser.terminate()
        browser.wait(30)
        server.shutdown()
        server.server_close()
    return found
