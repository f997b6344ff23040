"""Lines of long-running processes: sentences and objects, ours and librdkafka's."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import typer

from pipeline.cli.main import run
from pipeline.cli.processes import logging_as
from pipeline.errors import ConfigError, VerificationFailed
from pipeline.watch.logs import LogFormat, LogLevel, Repeats, set_up_logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def said(form: LogFormat, level: LogLevel = LogLevel.INFO) -> list[str]:
    """What a few events become."""
    stream = io.StringIO()
    set_up_logs(form, level, stream)
    log = structlog.get_logger("hauptbuch").bind(shard=3)
    log.info("shard 3: leading, block 7", height=7, state="leading")
    log.debug("round 4", round=4)
    log.error("shard 3: halted: audit the log", height=None)
    logging.getLogger("pipeline.log.kafka").warning("FAIL %s", "broker away")
    try:
        int("a bug")
    except ValueError:
        log.exception("unexpected")
    return stream.getvalue().splitlines()


def test_machines_get_an_object_a_line_with_fields() -> None:
    lines = [json.loads(text) for text in said(LogFormat.JSON)]
    assert [line["level"] for line in lines] == ["info", "error", "warning", "error"]
    assert list(lines[0])[:3] == ["timestamp", "level", "event"]
    assert lines[0].items() >= {"event": "shard 3: leading, block 7", "shard": 3, "height": 7}.items()
    assert lines[0]["timestamp"].endswith("Z")
    assert "height" not in lines[1], "no value, no field"
    assert lines[2]["event"] == "FAIL broker away"
    assert "ValueError: invalid literal" in lines[3]["exception"]


def test_people_get_sentences() -> None:
    lines = said(LogFormat.CONSOLE)
    assert [text.partition(" ")[2] for text in lines[:3]] == [
        "info    shard 3: leading, block 7",
        "error   shard 3: halted: audit the log",
        "warning FAIL broker away",
    ]
    assert lines[-1].startswith("ValueError: invalid literal")


@pytest.mark.parametrize(("level", "count"), [(LogLevel.DEBUG, 5), (LogLevel.WARNING, 3), (LogLevel.ERROR, 2)])
def test_levels(level: LogLevel, count: int) -> None:
    assert len(said(LogFormat.JSON, level)) == count


def test_a_client_that_repeats_itself_is_heard_once_in_ten_seconds() -> None:
    now_s = 0.0
    repeats = Repeats(lambda: now_s)

    def heard(name: str, text: str) -> bool:
        return repeats.filter(logging.LogRecord(name, logging.ERROR, "", 0, text, None, None))

    kafka = "pipeline.log.kafka"
    assert heard(kafka, "FAIL [rdkafka#consumer-6] [thrd:b:1]: b:1: refused (after 0ms in state CONNECT)")
    assert not heard(kafka, "FAIL [rdkafka#producer-9] [thrd:b:1]: b:1: refused (after 7ms in state CONNECT)")
    assert heard(kafka, "FAIL [rdkafka#consumer-6] [thrd:b:2]: b:2: refused (after 0ms in state CONNECT)")
    assert heard("hauptbuch", "shard 1: fencing")
    assert heard("hauptbuch", "shard 1: fencing")
    now_s = 10.0
    assert heard(kafka, "FAIL [rdkafka#consumer-6] [thrd:b:1]: b:1: refused (after 0ms in state CONNECT)")
    for number in range(2_000):
        heard(kafka, f"{number}")
    assert len(repeats._said) <= 1_000


def test_why_a_process_ends_is_its_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    for error, code in (
        (ConfigError("no such file"), 2),
        (VerificationFailed("forged"), 1),
        (KeyboardInterrupt(), 130),
    ):
        with pytest.raises(typer.Exit) as caught, logging_as(LogFormat.JSON, LogLevel.INFO):
            raise error
        assert caught.value.exit_code == code
        assert json.loads(capsys.readouterr().err)["event"] == (str(error) or "interrupted")
        with pytest.raises(type(error)), logging_as(LogFormat.CONSOLE, LogLevel.INFO):
            raise error
        assert capsys.readouterr().err == "", "told by whoever runs the commands"


@pytest.mark.parametrize("command", ["worker", "sync", "attest"])
@pytest.mark.parametrize("form", ["console", "json"])
def test_commands_end_in_one_line_of_the_form(
    command: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = [] if command != "attest" else ["--key", str(tmp_path / "none")]
    arguments = [command, "--kafka", "127.0.0.1:1", "--genesis", str(tmp_path / "none"), "--data", str(tmp_path), *key]
    assert run([*arguments, "--log", form]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "can't be read" in (json.loads(error)["event"] if form == "json" else error.removeprefix("hauptbuch: "))
