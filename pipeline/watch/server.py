"""What a process shows over HTTP: /metrics for Prometheus, /healthz and /readyz for whoever restarts and routes.

A thread a request, a few at a time, none of which the driver ever waits for.
"""

import json
import re
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from socketserver import TCPServer
from threading import BoundedSemaphore, Thread
from typing import Any, Final, NamedTuple

import structlog
from prometheus_client.exposition import choose_encoder

from pipeline.errors import ConfigError
from pipeline.watch.process import ProcessWatch

_ADDRESS: Final = re.compile(r"(?:(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):)?(?P<port>[0-9]{1,5})")
_REQUESTS: Final = 8
_TIMEOUT_S: Final = 5.0


class HttpAddress(NamedTuple):
    """Where to serve; port 0 is any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "HttpAddress":
        """`HOST:PORT`, `[::1]:PORT`, or `PORT` alone for loopback. Raises `ConfigError`."""
        found = _ADDRESS.fullmatch(text)
        if found is None or int(found["port"]) >= 1 << 16:
            raise ConfigError(f"{text!r:.80} is no address to serve HTTP on: give HOST:PORT, or PORT for loopback only")
        return cls((found["host"] or "127.0.0.1").strip("[]"), int(found["port"]))

    def __str__(self) -> str:
        """As in a URL."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of three paths."""

    server: "_Server"
    server_version = "hauptbuch"
    sys_version = ""
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        """Answer."""
        watch = self.server.watch
        match self.path.partition("?")[0]:
            case "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(HTTPStatus.OK, content_type, encode(watch.registry))
            case "/healthz":
                self._judge(watch.ailments())
            case "/readyz":
                self._judge(watch.ailments() + watch.obstacles())
            case _:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"/metrics, /healthz, /readyz\n")

    do_HEAD = do_GET  # noqa: N815 - named by the base class

    def _judge(self, reasons: list[str]) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        body = {"status": "unavailable" if reasons else "ok", "reasons": reasons}
        self._answer(status, "application/json", json.dumps(body).encode() + b"\n")

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: probes come every few seconds."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: HttpAddress, watch: ProcessWatch) -> None:
        self.watch = watch
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._slots = BoundedSemaphore(_REQUESTS)
        super().__init__((address.host, address.port), _Handler)

    def server_bind(self) -> None:
        """Without the look-up of this machine's name that the base class makes, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Refuse what comes on top of a few requests at a time: each costs a thread."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One request, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - as the base class
        """Say what is a bug; a client that went away is none."""
        if not isinstance(sys.exc_info()[1], OSError):
            structlog.get_logger("hauptbuch").exception("http: a request failed")


class WatchServer:
    """Serves from its start until `close`."""

    def __init__(self, address: HttpAddress, watch: ProcessWatch) -> None:
        """Raises `ConfigError` where nothing can be served there."""
        try:
            self._server = _Server(address, watch)
        except OSError as error:
            raise ConfigError(f"can't serve HTTP on {address}: {error.strerror}; give another --http") from None
        self.address = address._replace(port=self._server.server_port)
        self._thread = Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()
        if not _is_loopback(address.host):
            structlog.get_logger("hauptbuch").warning(f"http: whoever reaches {self.address} can read these metrics")
        structlog.get_logger("hauptbuch").info(f"http: serving http://{self.address}/metrics, /healthz, /readyz")

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
