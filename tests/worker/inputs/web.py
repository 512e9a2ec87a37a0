"""A web server on loopback that answers as a test tells it, and a clock for deadlines."""

import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Clock:
    """A clock that stands until a test moves it; in seconds, as `time.monotonic`."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        self.server.seen.append(self)
        # The client hangs up on what it does not want.
        with suppress(ConnectionError, ssl.SSLError):
            self.server.answers[self.path.partition("?")[0]](self)

    def reply(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def redirect(self, location: str, status: int = 302) -> None:
        self.reply(status=status, Location=location)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    answers: dict[str, Answer]
    seen: list[Handler]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A failed TLS handshake is what some tests want."""


class Web:
    def __init__(self, certificate: Path | None = None) -> None:
        """`certificate`: a PEM file with certificate and key, to speak TLS."""
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.answers, self._server.seen = {}, []
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def seen(self) -> list[Handler]:
        return self._server.seen

    def on(self, path: str, answer: Answer) -> str:
        """The URL at which `answer` is given."""
        self._server.answers[path] = answer
        return self.url + path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
