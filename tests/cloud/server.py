"""The HTTP server: hands requests to services, and lets faults happen to them."""

from __future__ import annotations

import contextlib
import socket
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.cloud.answers import Answer, Refused, Request

Serve = Callable[[Request], Answer | None]
"""Answers a request; None closes the connection without an answer."""


class Server:
    """Serves requests on 127.0.0.1, each connection in a thread of its own.

    Attributes:
        port: where.
        url: the address.

    Args:
        serve: answers requests.
        port: 0 for any.
    """

    def __init__(self, serve: Serve, port: int = 0):
        self._server = _Connections(("127.0.0.1", port), _handler(serve))
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}
        )

    def start(self) -> None:
        """Begins to serve; until then, requests wait."""
        self._thread.start()

    def close(self) -> None:
        """Closes all connections, and waits for what is under way."""
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()


class _Connections(ThreadingHTTPServer):
    """Knows its connections, so that none stays open when it closes."""

    daemon_threads = False
    request_queue_size = 256

    def __init__(self, *arguments: Any):
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is no error of ours."""

    def close_connections(self) -> None:
        with self._guard:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def _handler(serve: Serve) -> type[BaseHTTPRequestHandler]:
    numbers = _Numbers()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            fields = parse_qs(parts.query, keep_blank_values=True)
            request = Request(
                number=numbers.next(),
                method=self.command,
                path=parts.path,
                query={name: values[-1] for name, values in fields.items()},
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self._body(),
            )
            try:
                answer = serve(request)
            except Refused as refused:
                answer = refused.answer(request.service)
            except Exception as error:
                told = "".join(traceback.format_exception(error))
                answer = Refused(500, f"The stand-in failed: {told}").answer(request.service)
            if answer is None:
                self.close_connection = True
                return
            content, headers = answer.content()
            self.send_response(answer.status)
            for name, value in headers.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD" and answer.status != 204:
                self.wfile.write(content)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return body

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _serve  # noqa: N815

    return Handler


class _Numbers:
    """1, 2, 3, …"""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next(self) -> int:
        with self._lock:
            self._last += 1
            return self._last
