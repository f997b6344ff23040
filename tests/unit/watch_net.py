"""What tests of watches share: a log that can be measured, an HTTP client, a scrape as numbers."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.codec.topics import LogRecord, TopicPartition
from pipeline.log.embedded import EmbeddedLog
from pipeline.watch.process import ProcessWatch
from pipeline.watch.server import HttpAddress, WatchServer

Series = dict[tuple[str, ...], float]
"""(name, values of labels in the order of their names) -> value."""


class Measured:
    """An embedded log whose last stable offset a test holds back."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self.hidden: dict[TopicPartition, int] = {}
        self.reads = 0
        self.before: Callable[[], None] = lambda: None

    def read(self, source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        self.reads += 1
        return self._log.read(source, start, max_records, max_bytes)

    def end_offset(self, source: TopicPartition) -> int:
        self.before()
        return self._log.end_offset(source)

    def stable_end(self, source: TopicPartition) -> int:
        return self._log.end_offset(source) - self.hidden.get(source, 0)

    def close(self) -> None:
        """The test's."""


def series(text: str) -> Series:
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def numbers(watch: ProcessWatch) -> Series:
    return series(generate_latest(watch.registry).decode())


def get(server: WatchServer, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    """Status, content type, body."""
    connection = HTTPConnection(server.address.host, server.address.port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read()
    finally:
        connection.close()


def verdict(server: WatchServer, path: str) -> tuple[int, Any]:
    status, content_type, body = get(server, path)
    assert content_type == "application/json"
    return status, json.loads(body)["reasons"]


@contextmanager
def serving(watch: ProcessWatch) -> Iterator[WatchServer]:
    server = WatchServer(HttpAddress("127.0.0.1", 0), watch)
    try:
        yield server
    finally:
        server.close()
