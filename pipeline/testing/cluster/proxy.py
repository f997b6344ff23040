"""A TCP proxy before each broker that delays, cuts and swallows, and holds back the end of a transaction.

Requests are followed frame by frame: 4 bytes of length, then the request, which begins with its kind (2 bytes) and
version (2 bytes); answers are passed on as they come. Everything runs in one thread of its own.

A broker must advertise the proxy's address on the listener that the proxy reaches, or clients go around it.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeVar

_HEAD: Final = 4
_CHUNK: Final = 1 << 16
_MAX_FRAME: Final = 256 << 20
_PRODUCE: Final = (0).to_bytes(2, "big")
_ADD_PARTITIONS: Final = (24).to_bytes(2, "big")
_END: Final = (26).to_bytes(2, "big")
_HELD_AT_MOST_S: Final = 8.0
_START_S: Final = 10.0

T = TypeVar("T")


class Direction(Enum):
    """Seen from the client."""

    UP = "up"
    DOWN = "down"


@dataclass(slots=True, eq=False)
class _Pair:
    """One client's connection and the one to the broker behind it."""

    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    port: int
    """To which the client came."""
    deaf: set[Direction] = field(default_factory=set)
    """What is sent this way vanishes."""
    haunted: bool = False
    """The client is gone; the broker is still to be sent what was held back."""

    def end(self) -> None:
        self.client.transport.abort()
        if not self.haunted:
            self.broker.transport.abort()


@dataclass(slots=True)
class _Held:
    """The end of a transaction of `writer` that is on its way for too long."""

    writer: bytes
    begun: bool = False
    due: asyncio.Event = field(default_factory=asyncio.Event)


class FaultProxy:
    """Listens on ports of 127.0.0.1, each before a broker's port. All calls return at once and may come from any
    thread."""

    def __init__(self, routes: Mapping[int, int]) -> None:
        """`routes`: port to listen on -> the broker's. Raises `OSError` where one can't be had."""
        self._routes = routes
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._pairs: set[_Pair] = set()
        self._delay_s: dict[Direction, float] = dict.fromkeys(Direction, 0.0)
        self._deaf: dict[int, frozenset[Direction]] = dict.fromkeys(routes, frozenset())
        self._refuses = False
        self._hold: re.Pattern[bytes] | None = None
        self._held: dict[bytes, _Held] = {}
        self._haunts: set[asyncio.Task[None]] = set()
        self.connections = 0
        """How many were made."""
        self.late_ends = 0
        """How many held ends arrived after the next transaction of their writer had begun."""
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._thread.start()
        self._call(self._listen())

    # Faults

    def delay(self, up_s: float = 0.0, down_s: float = 0.0) -> None:
        """From now on everything takes this much longer; 0 heals."""
        self._delay_s = {Direction.UP: up_s, Direction.DOWN: down_s}

    def cut(self) -> None:
        """End every connection there is, with a reset."""
        self._loop.call_soon_threadsafe(self._cut)

    def refuse(self, *, on: bool) -> None:
        """New connections are reset at once."""
        self._refuses = on

    @property
    def ports(self) -> list[int]:
        """On which it listens."""
        return list(self._routes)

    def half_open(self, *directions: Direction, port: int | None = None) -> None:
        """What is sent in these directions vanishes on every connection (of `port`, if given), old and new; nobody is
        told. None heals: then connections that lost something are reset, as those of a peer that came back are."""
        ports = frozenset(self._routes) if port is None else frozenset({port})
        self._loop.call_soon_threadsafe(self._deafen, frozenset(directions), ports)

    def hold_end(self, writer: str) -> None:
        """Once for each writer whose id matches this pattern: its next EndTxn is taken from a connection that breaks,
        and reaches the broker only when that writer's next transaction has sent records."""
        self._hold = re.compile(writer.encode())

    def heal(self) -> None:
        """No faults from now on."""
        self.delay()
        self.refuse(on=False)
        self._hold = None
        self.half_open()

    def close(self) -> None:
        """End everything. Idempotent."""
        if self._thread.is_alive():
            self._call(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_START_S)

    # In the loop's thread

    async def _listen(self) -> None:
        for port in self._routes:

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int = port) -> None:
                await self._serve(reader, writer, port)

            self._servers.append(await asyncio.start_server(serve, "127.0.0.1", port))

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        for haunt in self._haunts:
            haunt.cancel()
        self._cut()
        await asyncio.sleep(0)

    def _cut(self) -> None:
        for pair in list(self._pairs):
            pair.end()

    def _deafen(self, directions: frozenset[Direction], ports: frozenset[int]) -> None:
        self._deaf |= dict.fromkeys(ports, directions)
        for pair in [pair for pair in self._pairs if pair.port in ports]:
            if pair.deaf - directions:
                pair.end()
            pair.deaf |= directions

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        self.connections += 1
        if self._refuses:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._routes[port])
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, up_writer, port, set(self._deaf[port]))
        self._pairs.add(pair)
        flows = [asyncio.ensure_future(self._up(reader, pair)), asyncio.ensure_future(self._down(up_reader, pair))]
        try:
            await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._pairs.discard(pair)
            for flow in flows:
                flow.cancel()
            await asyncio.gather(*flows, return_exceptions=True)
            pair.end()

    async def _up(self, reader: asyncio.StreamReader, pair: _Pair) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(_HEAD)
                size = int.from_bytes(head, "big")
                if size > _MAX_FRAME:
                    return  # no client of a broker
                frame = await reader.readexactly(size)
                if self._delay_s[Direction.UP]:
                    await asyncio.sleep(self._delay_s[Direction.UP])
                if Direction.UP in pair.deaf:
                    continue
                if frame.startswith(_END) and self._holds(frame, pair, head + frame):
                    return
                pair.broker.write(head + frame)
                await pair.broker.drain()
                if self._held:
                    self._look_for_next(frame)

    async def _down(self, reader: asyncio.StreamReader, pair: _Pair) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                if self._delay_s[Direction.DOWN]:
                    await asyncio.sleep(self._delay_s[Direction.DOWN])
                if Direction.DOWN not in pair.deaf:
                    pair.client.write(chunk)
                    await pair.client.drain()

    # Late ends

    def _holds(self, frame: bytes, pair: _Pair, whole: bytes) -> bool:
        """Keep the frame and break the connection, if this writer's end is to be held."""
        found = None if self._hold is None else self._hold.search(frame)
        if found is None or found[0] in self._held:
            return False
        held = self._held[found[0]] = _Held(found[0])
        pair.haunted = True
        haunt = asyncio.ensure_future(self._haunt(held, pair.broker, whole))
        self._haunts.add(haunt)
        haunt.add_done_callback(self._haunts.discard)
        return True

    def _look_for_next(self, frame: bytes) -> None:
        for held in self._held.values():
            if held.writer not in frame:
                continue
            if frame.startswith(_ADD_PARTITIONS):
                held.begun = True
            elif held.begun and frame.startswith(_PRODUCE):
                held.due.set()

    async def _haunt(self, held: _Held, broker: asyncio.StreamWriter, whole: bytes) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(held.due.wait(), _HELD_AT_MOST_S)
            self.late_ends += held.due.is_set()
            await asyncio.sleep(0.001)  # the records that were just passed on arrive first
            broker.write(whole)
            with contextlib.suppress(OSError):
                await broker.drain()
            await asyncio.sleep(0.5)  # the broker acts on it only while the connection lives
        finally:
            broker.transport.abort()
            del self._held[held.writer]
