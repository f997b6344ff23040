from pathlib import Path

import pytest
from log_contract import LogContract

from pipeline.kv.memory import MemoryKeyValue
from pipeline.kv.rocks import open_rocks
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import EventLog


class TestEmbeddedInMemory(LogContract):
    def make_log(self) -> EmbeddedLog:
        self.store = MemoryKeyValue()
        return EmbeddedLog(self.store)

    def reopen(self, log: EventLog) -> EmbeddedLog:
        log.close()
        self.store = self.store.reopen()
        return EmbeddedLog(self.store)


class TestEmbeddedOnRocks(LogContract):
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self.path = tmp_path / "log"

    def make_log(self) -> EmbeddedLog:
        return EmbeddedLog(open_rocks(self.path))

    def reopen(self, log: EventLog) -> EmbeddedLog:
        log.close()
        return self.make_log()


class TestEmbeddedWithoutSync(TestEmbeddedOnRocks):
    def make_log(self) -> EmbeddedLog:
        return EmbeddedLog(open_rocks(self.path), durability="process")
