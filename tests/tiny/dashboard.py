"""A stand-in for the dashboard of a cluster that this machine cannot be: of another version, or open to everybody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any


@contextmanager
def dashboard(status: int, data: dict[str, Any] | None, host: str = "127.0.0.1") -> Iterator[tuple[str, list[str]]]:
    """Gives every request this answer -> the URL, and the requests that came: method, path, and if it has a token."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(f"{self.command} {self.path} {'Authorization' in self.headers}")
            body = json.dumps({"result": True, "data": data}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer((host, 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
