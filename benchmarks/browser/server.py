"""The web server of one measurement: a fixed table of files, four messages, one secret address.

A request path is only ever looked up in a table, never in the file system. Everything is below
a random token; without it there is nothing but 404.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Mapping
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from secrets import compare_digest, token_urlsafe
from typing import Any

from bloodedge.benchmarks.browser.session import RefusedError, Session
from bloodedge.benchmarks.elsewhere import Material
from bloodedge.benchmarks.runner import one_line
from bloodedge.console import say
from bloodedge.errors import BloodedgeError
from bloodedge.files import parse_json

MAX_UPLOAD = 2 << 20
KEY_HEADER = "X-Bloodedge-Key"
_SOCKET_SECONDS = 30.0
_PAGES = ("index.html", "job.html", "main.js", "job.js", "plot.js", "style.css")
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "wasm": "application/wasm",
    "json": "application/json",
}
# Cross-origin isolation gives threads and a finer clock; nothing is loaded from elsewhere.
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, max-age=3600",
}
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' {hashes}; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; worker-src 'self'; frame-src 'self'; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)


class PageServer(ThreadingHTTPServer):
    """Serves one page to one device until `finished` is set.

    Args:
        address: host and port to listen on; port 0 is any free one.
        files: what is served below the token: contents by name.
        session: acts on what the page sends.

    Raises:
        BloodedgeError: the address cannot be listened on.
    """

    def __init__(
        self, address: tuple[str, int], files: Mapping[str, bytes], session: Session
    ) -> None:
        self.files = files
        self.session = session
        self.token = token_urlsafe(16)
        self.finished = threading.Event()
        inline = [_inline(content) for name, content in files.items() if name.endswith(".html")]
        self.policy = _POLICY.format(hashes=" ".join(h for found in inline for h in found))
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            raise BloodedgeError(
                f"cannot listen on {address[0]} port {address[1]}: {error.strerror or error}",
                fix="choose another --address or --port",
            ) from error

    @property
    def url(self) -> str:
        """The address that a device opens."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}/{self.token}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a phone that goes away in the middle of a request is no error here."""


def page_files(
    material: Material, plan: Mapping[str, Any], runtime: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Return everything the page may load: itself, the runtime, the models and the images."""
    folder = resources.files("bloodedge.benchmarks.browser") / "page"
    files = {name: (folder / name).read_bytes() for name in _PAGES}
    files[""] = files["index.html"]
    files |= {f"litertjs/{name}": content for name, content in runtime.items()}
    models = enumerate(material.models.values())
    files |= {f"models/{index}.tflite": path.read_bytes() for index, path in models}
    files["images.bin"] = material.images.tobytes()
    files["plan.json"] = json.dumps(plan).encode()
    return files


def _inline(page: bytes) -> list[str]:
    """Return the policy's hashes of a page's inline scripts, which are import maps."""
    scripts = re.findall(rb'<script type="importmap">(.*?)</script>', page, re.DOTALL)
    return [f"'sha256-{base64.b64encode(sha256(s).digest()).decode()}'" for s in scripts]


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version = "bloodedge"
    sys_version = ""
    timeout = _SOCKET_SECONDS

    def do_GET(self) -> None:
        """Serve a file of the table."""
        name = self._name()
        content = None if name is None else self.server.files.get(name)
        if name is None or content is None:
            self._answer(404, {"error": "there is nothing here"})
        else:
            kind = _TYPES.get(name.rpartition(".")[2] if name else "html")
            self._send(200, content, kind or "application/octet-stream")

    def do_POST(self) -> None:
        """Act on a message of the page."""
        try:
            self._act()
        except RefusedError as refused:
            self._answer(refused.status, {"error": str(refused)})
        except (ValueError, RecursionError) as error:
            self._answer(400, {"error": str(error) or "not understood"})

    def _act(self) -> None:
        session = self.server.session
        actions: dict[str | None, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "start": self._start,
            "alive": lambda message: {},
            "job": self._job,
            "finish": self._finish,
        }
        name = self._name()
        if name not in actions:
            raise RefusedError(404, "there is nothing here")
        message = self._message()
        if name != "start":
            session.hear(self.headers.get(KEY_HEADER, ""))
        reply = actions[name](message)
        try:
            self._answer(200, reply)
        finally:
            # All is measured, even where the phone no longer waits for the answer.
            if name == "finish":
                self.server.finished.set()

    def _start(self, message: dict[str, Any]) -> dict[str, Any]:
        reply = self.server.session.start(message)
        about = self.server.session.environment()
        say(f"{about['cpu_model']}, {about['machine']} began: {self.server.session.total} jobs")
        if about["missing"]:
            say(f"not there: {about['missing']}")
        return reply

    def _job(self, message: dict[str, Any]) -> dict[str, Any]:
        line, reply = self.server.session.add(message)
        say(line)
        return reply

    def _finish(self, message: dict[str, Any]) -> dict[str, Any]:
        if "stopped" in message:
            say(f"the page stopped: {one_line(message['stopped'])}")
        return {"complete": self.server.session.complete}

    def _name(self) -> str | None:
        """Return what is asked for below the token; None without the token."""
        _, token, *rest = self.path.split("/", 2) if self.path.count("/") >= 2 else ("", "", "")
        if not compare_digest(token.encode(), self.server.token.encode()):
            return None
        return rest[0]

    def _message(self) -> dict[str, Any]:
        if self.headers.get("Content-Type") != "application/json":
            raise RefusedError(415, "expected application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise RefusedError(411, "expected a Content-Length")
        # The length of the digits comes first: int() refuses thousands of them.
        if len(length) > len(str(MAX_UPLOAD)) or int(length) > MAX_UPLOAD:
            raise RefusedError(413, f"more than {MAX_UPLOAD >> 20} MiB")
        message = parse_json(self.rfile.read(int(length)))
        if not isinstance(message, dict):
            raise ValueError("expected a JSON object")
        return message

    def _answer(self, status: int, value: Mapping[str, Any]) -> None:
        # What was not read of a refused message would be taken for the next request.
        self.close_connection = self.close_connection or status != 200
        self._send(status, json.dumps(value).encode(), _TYPES["json"])

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def end_headers(self) -> None:
        """Add what every answer carries, errors included."""
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", self.server.policy)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: progress is shown by job."""
