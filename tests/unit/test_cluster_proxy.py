"""The fault proxy, before a server that answers every frame with itself."""

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pipeline.testing.cluster.proxy import Direction, FaultProxy


class Echo(socketserver.ThreadingTCPServer):
    """Keeps what arrived, in order."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.frames: list[bytes] = []


class _Answer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while head := self.rfile.read(4):
            frame = self.rfile.read(int.from_bytes(head, "big"))
            self.server.frames.append(frame)  # type: ignore[attr-defined]
            self.wfile.write(head + frame)


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def free_port() -> int:
    with socket.socket() as item:
        item.bind(("127.0.0.1", 0))
        return int(item.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def proxy(echo: Echo, port: int) -> Iterator[FaultProxy]:
    made = FaultProxy({port: echo.server_address[1]})
    yield made
    made.close()
    made.close()


def frame(kind: int, text: bytes) -> bytes:
    body = kind.to_bytes(2, "big") + b"\x00\x01" + text
    return len(body).to_bytes(4, "big") + body


class Caller:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)

    def call(self, raw: bytes) -> bytes:
        self.socket.sendall(raw)
        return self.read(len(raw))

    def read(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            more = self.socket.recv(size - len(got))
            if not more:
                raise ConnectionResetError
            got += more
        return got

    def is_cut(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_frames_pass_and_are_cut_and_refused(proxy: FaultProxy, port: int) -> None:
    caller = Caller(port)
    assert caller.call(frame(3, b"hello")) == frame(3, b"hello")
    proxy.cut()
    assert caller.is_cut()
    proxy.refuse(on=True)
    with pytest.raises(ConnectionResetError):
        Caller(port).call(frame(3, b"nobody"))
    proxy.heal()
    again = Caller(port)
    assert again.call(frame(3, b"again")) == frame(3, b"again")
    again.socket.sendall(b"\xff\xff\xff\xff")  # no frame of a Kafka client
    assert again.is_cut()
    assert proxy.connections == 3


def test_a_broker_that_is_away_resets(proxy: FaultProxy, echo: Echo, port: int) -> None:
    away = free_port()
    lonely = FaultProxy({away: free_port()})
    try:
        assert Caller(away).is_cut()
    finally:
        lonely.close()
    assert echo.frames == []


def test_delays_are_of_each_direction(proxy: FaultProxy, port: int) -> None:
    caller = Caller(port)
    for delays in ({"up_s": 0.2}, {"down_s": 0.2}):
        proxy.delay(**delays)
        started = time.monotonic()
        caller.call(frame(3, b"slow"))
        assert time.monotonic() - started >= 0.2
    proxy.heal()
    assert caller.call(frame(3, b"quick")) == frame(3, b"quick")


def test_one_broker_of_several_is_out_of_reach(echo: Echo) -> None:
    near, far = free_port(), free_port()
    proxy = FaultProxy(dict.fromkeys((near, far), echo.server_address[1]))
    try:
        assert sorted(proxy.ports) == sorted((near, far))
        proxy.half_open(Direction.UP, port=far)
        lost = Caller(far)
        lost.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            lost.call(frame(3, b"lost"))
        assert Caller(near).call(frame(3, b"here")) == frame(3, b"here")
        proxy.heal()
        assert lost.is_cut()
        assert Caller(far).call(frame(3, b"back")) == frame(3, b"back")
    finally:
        proxy.close()


@pytest.mark.parametrize(("direction", "arrives"), [(Direction.UP, False), (Direction.DOWN, True)])
def test_half_open_connections_swallow_and_are_reset_when_healed(
    proxy: FaultProxy, echo: Echo, port: int, direction: Direction, arrives: bool
) -> None:
    caller = Caller(port)
    caller.call(frame(3, b"before"))
    proxy.half_open(direction)
    time.sleep(0.05)
    caller.socket.sendall(frame(3, b"lost"))
    caller.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        caller.read(1)
    assert (len(echo.frames) == 2) is arrives
    proxy.heal()
    caller.socket.settimeout(5)
    assert caller.is_cut()
    assert Caller(port).call(frame(3, b"after")) == frame(3, b"after")


def test_the_end_of_a_transaction_arrives_after_the_next_one_began(proxy: FaultProxy, echo: Echo, port: int) -> None:
    proxy.hold_end(r"writer-\d")
    first = Caller(port)
    first.call(frame(26, b"other"))  # of somebody else: passes
    first.socket.sendall(frame(26, b"writer-1 end"))
    assert first.is_cut()
    again = Caller(port)
    again.call(frame(26, b"writer-1 end again"))  # the client's retry passes, since one is held already
    again.call(frame(0, b"writer-1 records of the old"))
    again.call(frame(24, b"writer-1 partitions"))
    assert b"writer-1 end" not in {item[4:] for item in echo.frames}
    again.call(frame(0, b"writer-1 records of the new"))
    wait_until(lambda: len(echo.frames) == 6)
    arrived = [item[4:] for item in echo.frames]
    assert arrived.index(b"writer-1 end") > arrived.index(b"writer-1 partitions")
    assert proxy.late_ends == 1
