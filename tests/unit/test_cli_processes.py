"""How long-running commands are watched: HTTP for each process, also while no broker answers."""

import logging

import pytest
from sync_net import make_chain
from watch_net import get, series, verdict

from pipeline.cli.processes import shown
from pipeline.cli.worker_command import _http
from pipeline.config import Config, KafkaConfig
from pipeline.errors import ConfigError
from pipeline.watch.server import HttpAddress, WatchServer
from pipeline.watch.worker import WorkerWatch

NOBODY = KafkaConfig(bootstrap="127.0.0.1:1", librdkafka={"log_level": 0, "fetch.wait.max.ms": 7})  # type: ignore[arg-type]


def test_each_of_several_workers_has_a_port_of_its_own() -> None:
    assert [_http("9100", number) for number in (0, 2)] == [["--http", "127.0.0.1:9100"], ["--http", "127.0.0.1:9102"]]
    assert _http("[::1]:0", 3) == ["--http", "[::1]:0"]
    assert _http("", 3) == []


def test_without_http_nothing_is_opened() -> None:
    chain = make_chain()
    watch = WorkerWatch(chain)
    with shown(watch, "", chain, Config()):
        assert watch.meter is None


def test_metrics_are_served_while_no_broker_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    chain = make_chain()
    watch, served = WorkerWatch(chain), list[WatchServer]()

    class Kept(WatchServer):
        def __init__(self, address: HttpAddress, watched: WorkerWatch) -> None:
            super().__init__(address, watched)
            served.append(self)

    monkeypatch.setattr("pipeline.cli.processes.WatchServer", Kept)
    with shown(watch, "0", chain, Config(kafka=NOBODY)):
        (server,) = served
        seen = series(get(server, "/metrics")[2].decode())
        assert seen["hauptbuch_log_answers",] == 0
        assert seen["hauptbuch_step_age_seconds",] < 60
        assert verdict(server, "/healthz") == (200, [])
    with pytest.raises(ConnectionRefusedError):
        get(server, "/healthz")
    with pytest.raises(ConfigError, match="HOST:PORT"), shown(watch, "nowhere", chain, Config(kafka=NOBODY)):
        pass
