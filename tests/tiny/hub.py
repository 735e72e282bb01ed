"""A server on loopback that speaks as much of the Hugging Face hub's protocol as a download of models needs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class TinyHub:
    """Models by name, each a folder with one commit on the branch main. `gated` models refuse their files."""

    def __init__(self, models: dict[str, Path]) -> None:
        self.models = models
        self.gated: set[str] = set()
        self.sent: list[str] = []  # files sent whole, in order: "owner/name/config.json"
        self.address = ""

    @contextmanager
    def serving(self) -> Iterator[TinyHub]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: TinyHub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)/?", path):
            self._list(*match.groups())
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[3], body=body)
        else:
            self._refuse(404, "EntryNotFound")

    def _list(self, name: str, kind: str, revision: str) -> None:
        if name not in self.hub.models:
            return self._refuse(404, "RepoNotFound")
        if revision not in ("main", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        folder = self.hub.models[name]
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [str(path.relative_to(folder)) for path in files]
        answer = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in names]}
        tree = [
            {"type": "file", "path": file, "size": path.stat().st_size, "oid": _etag(path)}
            for file, path in zip(names, files, strict=True)
        ]
        self._send(json.dumps(answer if kind == "revision" else tree).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, file: str, *, body: bool) -> None:
        if name in self.hub.gated:
            return self._refuse(403, "GatedRepo")
        path = self.hub.models[name] / file
        if not path.is_file():
            return self._refuse(404, "EntryNotFound")
        content, status = path.read_bytes(), 200
        headers = {"ETag": f'"{_etag(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(span[1]), min(int(span[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            content, status = content[first : last + 1], 206
        elif body:
            self.hub.sent.append(f"{name}/{file}")
        self._send(content, headers, status, body=body)

    def _refuse(self, status: int, code: str) -> None:
        self._send(b"", {"X-Error-Code": code, "X-Error-Message": code}, status)

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200, *, body: bool = True) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keeps requests off the screen."""


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
