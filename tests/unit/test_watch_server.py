"""The HTTP side: addresses, paths, many and slow clients."""

import socket
from collections.abc import Iterator

import pytest
from prometheus_client.metrics_core import Metric
from structlog.testing import capture_logs
from watch_net import get, serving

from pipeline.errors import ConfigError
from pipeline.watch.log_meter import MeasuredLog
from pipeline.watch.process import ProcessWatch
from pipeline.watch.server import HttpAddress, WatchServer


class Plain(ProcessWatch):
    """Nothing of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.registry.register(self)

    def obstacles(self) -> list[str]:
        return ["shard 3: recovering, block 17"]

    def measure(self, log: MeasuredLog) -> list[Metric]:
        return []

    def collect_own(self) -> Iterator[Metric]:
        return iter(())


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("9100", "127.0.0.1", 9100, "127.0.0.1:9100"),
        ("0.0.0.0:9100", "0.0.0.0", 9100, "0.0.0.0:9100"),
        ("metrics.example:1", "metrics.example", 1, "metrics.example:1"),
        ("[::1]:0", "::1", 0, "[::1]:0"),
    ],
)
def test_addresses(text: str, host: str, port: int, shown: str) -> None:
    address = HttpAddress.parse(text)
    assert (address.host, address.port, str(address)) == (host, port, shown)


@pytest.mark.parametrize("text", ["", "host", "host:", ":9100", "host:65536", "::1:80", "a b:1", "1.2.3.4:5:6", "-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="give HOST:PORT"):
        HttpAddress.parse(text)


def test_paths_and_methods() -> None:
    with serving(Plain()) as server:
        assert get(server, "/healthz?x=1")[0] == 200
        status, _, body = get(server, "/readyz")
        assert (status, body) == (503, b'{"status": "unavailable", "reasons": ["shard 3: recovering, block 17"]}\n')
        assert get(server, "/readyz", "HEAD")[::2] == (503, b"")
        assert get(server, "/")[0] == get(server, "/metrics/x")[0] == 404
        assert get(server, "/metrics", "POST")[0] == 501
        assert b"hauptbuch_step_age_seconds" in get(server, "/metrics")[2]


def test_an_address_in_use_is_a_setting_to_change() -> None:
    with serving(Plain()) as server, pytest.raises(ConfigError, match=r"can't serve HTTP on 127.0.0.1:\d+: .*--http"):
        WatchServer(server.address, Plain())


def test_who_serves_to_everybody_is_told() -> None:
    with capture_logs() as said:
        WatchServer(HttpAddress("0.0.0.0", 0), Plain()).close()
        WatchServer(HttpAddress("localhost", 0), Plain()).close()
    assert [line["log_level"] for line in said] == ["warning", "info", "info"]


def closed_at_once(connection: socket.socket) -> bool:
    """Before the five seconds that one who was taken has to say something."""
    connection.settimeout(4)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_clients_that_say_nothing_hold_up_no_others_until_there_are_too_many() -> None:
    with serving(Plain()) as server:
        silent = [socket.create_connection(server.address) for _ in range(7)]
        try:
            assert get(server, "/healthz")[0] == 200
            silent += [socket.create_connection(server.address) for _ in range(3)]
            assert closed_at_once(silent[-1])
        finally:
            for connection in silent:
                connection.close()


def test_a_client_that_goes_away_breaks_nothing() -> None:
    with serving(Plain()) as server:
        with socket.create_connection(server.address) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert get(server, "/healthz")[0] == 200
