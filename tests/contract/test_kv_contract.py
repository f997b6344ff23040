from functools import partial
from pathlib import Path

from kv_contract import KeyValueContract, Opener

from pipeline.kv.memory import MemoryKeyValue
from pipeline.kv.port import KeyValue
from pipeline.kv.rocks import open_rocks
from pipeline.testing.faulty_kv import FaultyKeyValue


def memory_opener() -> Opener:
    last: list[MemoryKeyValue] = []

    def open_store() -> MemoryKeyValue:
        last[:] = [last[0].reopen() if last else MemoryKeyValue()]
        return last[0]

    return open_store


class TestMemory(KeyValueContract):
    def opener(self, directory: Path) -> Opener:
        return memory_opener()


class TestRocks(KeyValueContract):
    def opener(self, directory: Path) -> Opener:
        return partial(open_rocks, directory)


class TestFaultyWithoutFaults(KeyValueContract):
    def opener(self, directory: Path) -> Opener:
        open_store = memory_opener()

        def open_faulty() -> KeyValue:
            return FaultyKeyValue(open_store())

        return open_faulty
