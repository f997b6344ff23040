"""Histories of clients: their lines, the checker's rules one by one, and the client's loop."""

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.testing.cluster import client
from pipeline.testing.cluster.checker import Rule, check, count_events
from pipeline.testing.cluster.history import (
    Acked,
    Event,
    Proved,
    Recorder,
    Refused,
    SawRoot,
    Settled,
    Told,
    read_events,
    read_histories,
)
from pipeline.testing.cluster.observed import Balances, Observed, SeenReceipt

ROOT = SawRoot("r", 1, 4, "b4", "s4", 2, "c2")
HISTORY: list[Event] = [
    Acked("p", 0, 3, "aa"),
    Told("p", 0, 3, "d3", 0, True),
    Settled("p", 0, 3),
    ROOT,
    Proved("r", "al", "unit", 70, 1, 4),
]


def honest() -> Observed:
    """One record on shard 0 whose effect went to shard 1, which sent a part of it back."""
    balances = Balances()
    balances.note(2, "al", "unit", 60)
    balances.note(4, "al", "unit", 70)
    balances.note(5, "al", "unit", 80)
    return Observed(
        records={(0, 3): "aa"},
        receipts={(0, 3): [SeenReceipt("d3", "sender", 0, True, ((1, 1),))]},
        roots={(1, 4): {("b4", "s4")}, (1, 5): {("b5", "s5")}},
        sent={(0, 1, 1): {"x"}, (1, 0, 1): {"y"}},
        executed=Counter({(0, 1, 1): 1, (1, 0, 1): 1}),
        refunds={(0, 1, 1): [(0, 1)]},
        balances=balances,
    )


def test_lines_come_back_and_a_cut_one_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    events = [*HISTORY, Refused("r", "a root of nobody")]
    for part in (events[:2], events[2:]):
        with Recorder(path) as recorder:
            recorder.tell(part)
    assert read_histories([path, path]) == events * 2
    whole = path.read_text()
    assert read_events(whole[:-3]) == events[:-1]
    assert count_events(events)["Acked"] == 1
    for damaged in ("nonsense\n", '{"kind":"Acked"}\n', '{"kind":"Nothing"}\n', "[]\n"):
        with pytest.raises(ConfigError, match=r"client\.jsonl line 1 is no event"):
            read_events(damaged, "client.jsonl")


def test_an_honest_history_is_accepted() -> None:
    assert check(HISTORY, honest(), at_rest=True) == []


Harm = Callable[[list[Event], Observed], None]
HARMS: dict[str, tuple[Rule, Harm]] = {
    "gone": (Rule.ACKED_STANDS, lambda h, o: h.append(Acked("p", 0, 9, "aa"))),
    "another": (Rule.ACKED_STANDS, lambda h, o: o.records.update({(0, 3): "bb"})),
    "two answers": (Rule.ONE_ANSWER, lambda h, o: o.dead.update([(0, 3)])),
    "answer to nothing": (Rule.ONE_ANSWER, lambda h, o: o.dead.update([(0, 7)])),
    "no answer": (Rule.ANSWERED, lambda h, o: o.records.update({(0, 8): "cc"})),
    "nonce": (
        Rule.ONE_NONCE,
        lambda h, o: o.receipts.update({(0, 4): [SeenReceipt("d4", "sender", 0, True, ())]}),
    ),
    "told otherwise": (Rule.RECEIPT_STANDS, lambda h, o: h.append(Told("q", 0, 3, "d9", 0, True))),
    "fork": (Rule.ONE_ROOT, lambda h, o: o.roots[1, 4].add(("b4", "s9"))),
    "root of nothing": (Rule.ONE_ROOT, lambda h, o: h.append(ROOT._replace(client="q", height=6))),
    "another root": (Rule.ONE_ROOT, lambda h, o: h.append(ROOT._replace(client="q", state_root="s9"))),
    "round signed twice": (Rule.ONE_ROOT, lambda h, o: h.append(ROOT._replace(client="q", checkpoint="c9"))),
    "backwards": (
        Rule.FORWARD,
        lambda h, o: h.extend(
            [ROOT._replace(height=5, block_hash="b5", state_root="s5", round=3, checkpoint="c3"), ROOT]
        ),
    ),
    "balance": (Rule.BALANCE, lambda h, o: h.append(Proved("r", "al", "unit", 70, 1, 3))),
    "balance before all": (Rule.BALANCE, lambda h, o: h.append(Proved("r", "al", "unit", 60, 1, 1))),
    "two contents": (Rule.SETTLED_ONCE, lambda h, o: o.sent[0, 1, 1].add("z")),
    "executed twice": (Rule.SETTLED_ONCE, lambda h, o: o.executed.update([(0, 1, 1)])),
    "never executed": (Rule.SETTLED_ONCE, lambda h, o: o.executed.pop((1, 0, 1), None)),
    "made up": (Rule.SETTLED_ONCE, lambda h, o: o.executed.update([(0, 1, 2)])),
    "refused": (Rule.REFUSED, lambda h, o: h.append(Refused("r", "a root"))),
    "model": (Rule.MODEL, lambda h, o: o.complaints.append("a fee is wrong")),
}


@pytest.mark.parametrize("name", HARMS)
def test_each_rule_is_seen_broken(name: str) -> None:
    rule, harm = HARMS[name]
    history, observed = [*HISTORY], honest()
    harm(history, observed)
    found = check(history, observed, at_rest=True)
    assert rule in {one.rule for one in found}
    assert all(str(one).startswith(one.rule.name) for one in found)


def test_under_way_only_what_was_promised_must_be_there() -> None:
    observed = honest()
    observed.records[0, 8] = "cc"
    observed.executed.pop((1, 0, 1))
    without_promise = [event for event in HISTORY if not isinstance(event, Settled)]
    assert check(without_promise, observed, at_rest=False) == []
    assert {one.rule for one in check(HISTORY, observed, at_rest=False)} == {Rule.SETTLED_ONCE}


@dataclass
class Script:
    """A client that rests after two looks."""

    done: list[str] = field(default_factory=list)

    @property
    def is_resting(self) -> bool:
        return self.done[-2:] == ["follow", "follow"]

    def play(self) -> None:
        self.done.append("play")

    def follow(self) -> None:
        self.done.append("follow")


def test_a_client_does_what_it_is_told_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.sys, "stdin", io.StringIO("play\nrest\n"))
    orders, script = client.Orders(), Script()
    said: list[str] = []
    begun: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        orders.ended = len(said) == 2

    while not orders.ended:  # it has been read to its end
        pass
    orders.ended = False
    client.serve(script, orders, begun.append, say)
    assert said == ["playing", "resting"]
    assert begun == ["play", "rest"]
    assert script.done == ["play", "follow", "follow"]


def test_a_client_that_can_not_run_says_why_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ("--genesis", str(tmp_path / "none"), "--history", str(tmp_path / "history"))
    assert client.main(["pay", "p", "0", "1", "--kafka", "127.0.0.1:1", *files]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "none" in said
