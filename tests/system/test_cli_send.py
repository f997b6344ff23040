"""`send` and `tx`."""

from pathlib import Path

import pytest
from command_line import CommandLine
from ledger_helpers import balance, publish, two_on_different_shards

from pipeline.cli import send_command
from pipeline.cli.assets import asset_of
from pipeline.cli.names import KeyRing
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.errors import CrossShardCommunicationFailed, OutcomeUnknown
from pipeline.ledger.transactions import Freeze
from pipeline.log.port import Append
from pipeline.node.layout import NodeLayout
from pipeline.node.node import Node
from pipeline.node.settling import finish


@pytest.mark.parametrize("crossing", [False, True])
def test_send_pays(cli: CommandLine, funded: Path, crossing: bool) -> None:
    low, high = two_on_different_shards(cli, funded)
    payer, payee = (low, high) if crossing else (low, low)
    (sent,) = cli.ok(
        "send", funded, "--from", payer, "--to", payee, "--amount", "12.5", "--reference", "rent", "--json"
    ).objects()
    assert sent["code"] == "OK"
    assert sent["settled"] is True
    assert sent["crossed_shards"] is crossing
    assert balance(cli, funded, payer) == 100_000 - 1_250 * crossing
    assert balance(cli, funded, payee) == 100_000 + 1_250 * crossing
    (found,) = cli.ok("tx", funded, sent["tx_id"], "--json").objects()
    assert found == {**sent, "attempts": []}
    shown = cli.ok("tx", funded, sent["tx_id"]).out
    assert "result     done" in shown
    assert f"({payer}), nonce 1" in shown
    assert ("bundle" in shown) is crossing


def test_send_to_an_address_that_nobody_knows(cli: CommandLine, funded: Path, tmp_path: Path) -> None:
    cli.ok("init", tmp_path / "other", "--shards", 1)
    address = cli.ok("keygen", tmp_path / "other", "zoe").out.split()[1]
    shown = cli.ok("send", funded, "--from", "a", "--to", address, "--amount", "1000")
    assert shown.out.rstrip().endswith(" done")
    (found,) = cli.ok("account", funded, address, "--json").objects()
    assert found == {"address": address, "name": None, "nonce": 0, "balances": {"UNIT": "100000"}}
    assert balance(cli, funded, "a") == 0


def test_overdraft_is_told_with_code_1(cli: CommandLine, funded: Path) -> None:
    result = cli("send", funded, "--from", "a", "--to", "b", "--amount", "1000.01")
    assert result.code == 1
    assert "failed: INSUFFICIENT_FUNDS" in result.out
    tx_id = result.out.split()[0]
    assert "failed: INSUFFICIENT_FUNDS" in cli.ok("tx", funded, tx_id).out
    assert balance(cli, funded, "a") == 100_000
    # The nonce was used all the same, so the next payment has the next one.
    cli.ok("send", funded, "--from", "a", "--to", "b", "--amount", "1000")
    assert balance(cli, funded, "b") == 200_000


def test_sender_that_was_never_paid(cli: CommandLine, funded: Path) -> None:
    cli.ok("keygen", funded, "poor")
    result = cli("send", funded, "--from", "poor", "--to", "b", "--amount", "1")
    assert result.code == 1
    assert "rejected: UNKNOWN_SENDER; nothing changed" in result.out


def test_refusal_by_another_shard_is_a_refund(cli: CommandLine, funded: Path) -> None:
    low, high = two_on_different_shards(cli, funded)
    layout = NodeLayout(funded)
    asset = asset_of(layout.chain().genesis.treasury, "UNIT")
    ring = KeyRing(layout)
    frozen = ring.address(high)
    ring.close()
    publish(funded, "treasury", Freeze(asset, frozen, frozen=True))
    result = cli("send", funded, "--from", low, "--to", high, "--amount", "1")
    assert result.code == 1
    assert "refused by the receiver's shard and refunded: entry 0 FROZEN" in result.out
    assert balance(cli, funded, low) == 100_000
    assert "frozen" in cli.ok("account", funded, high).out
    (found,) = cli.ok("tx", funded, result.out.split()[0], "--json").objects()
    assert found["refused"] == [{"entry": 0, "code": "FROZEN"}]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--from", "nobody", "--to", "b", "--amount", 1), "no account is named 'nobody'"),
        (("--from", "a", "--to", "nobody", "--amount", 1), "neither a name"),
        (("--from", "a", "--to", "hb1qqqq", "--amount", 1), "not an address"),
        (("--from", "a", "--to", "b", "--amount", 0), "zero"),
        (("--from", "a", "--to", "b", "--amount", "-1"), "negative"),
        (("--from", "a", "--to", "b", "--amount", "1.001"), "decimal places"),
        (("--from", "a", "--to", "b", "--amount", "1e3"), "decimal number"),
        (("--from", "a", "--to", "b", "--amount", 2**128), "2^128"),
        (("--from", "a", "--to", "b", "--amount", 1, "--asset", "EUR"), "no asset 'EUR'"),
        (("--from", "a", "--to", "b", "--amount", 1, "--asset", "EUR@x"), "not an address"),
        (("--from", "a", "--to", "b", "--amount", 1, "--reference", "ä" * 33), "66 bytes"),
        (("--from", "a", "--to", "b"), "--amount"),
    ],
)
def test_send_refuses(cli: CommandLine, funded: Path, arguments: tuple[object, ...], word: str) -> None:
    refused = cli("send", funded, *arguments)
    assert refused.code == 2
    assert word in refused.error
    assert refused.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (CrossShardCommunicationFailed("not settled"), 2), (OutcomeUnknown("no answer"), 2)],
)
def test_whatever_ends_it_names_the_payment(
    cli: CommandLine, funded: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def ends(_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(send_command, "finish", ends)
        result = cli("send", funded, "--from", "a", "--to", "b", "--amount", "10")
    assert result.code == code
    said, _, advice = result.error.partition("; payment ")
    assert said == (str(error) or "interrupted")
    tx_id = advice.split()[0]
    assert advice == f"{tx_id} may be published: look at `hauptbuch tx {funded} {tx_id}` before paying again"
    waiting = cli("tx", funded, tx_id)
    assert waiting.code == 2
    assert "is published and waits for its block" in waiting.error
    assert "no transaction" in cli("tx", funded, "ab" * 32).error
    cli.ok("send", funded, "--from", "c", "--to", "d", "--amount", "1")  # runs the node
    assert " done" in cli.ok("tx", funded, tx_id).out
    assert balance(cli, funded, "a") == 99_000


def test_what_was_not_published_is_not_named(cli: CommandLine, funded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(send_command, "settle", ends)
    assert cli("send", funded, "--from", "a", "--to", "b", "--amount", "10").error == "interrupted"


def test_a_lost_key_file(cli: CommandLine, funded: Path) -> None:
    cli.ok("keygen", funded, "alice")
    (funded / "keys" / "alice.json").write_text("{")
    assert "key file" in cli("send", funded, "--from", "alice", "--to", "b", "--amount", "1").error
    (funded / "keys" / "alice.json").unlink()
    assert "no such key file" in cli("send", funded, "--from", "alice", "--to", "b", "--amount", "1").error


@pytest.mark.parametrize("text", ["", "xyz", "00", "00" * 31, "00" * 33])
def test_tx_wants_an_id(cli: CommandLine, funded: Path, text: str) -> None:
    assert "64 hexadecimal digits" in cli("tx", funded, text).error


def test_tx_that_nobody_sent(cli: CommandLine, funded: Path) -> None:
    missing = cli("tx", funded, "ab" * 32)
    assert missing.code == 2
    assert "no transaction" in missing.error


def test_tx_tells_the_result_from_other_attempts(cli: CommandLine, funded: Path) -> None:
    """Anyone can publish the same body again: that changes nothing and is shown as what it is."""
    (sent,) = cli.ok("send", funded, "--from", "a", "--to", "b", "--amount", "1", "--json").objects()
    node = Node.open(funded)
    try:
        source = TopicPartition(Topic.TRANSACTIONS, sent["shard"])
        (record,) = node.log.read(source, sent["offset"], 1, 1 << 20)
        node.log.append([Append(source, None, record.value)])
        finish(node)
    finally:
        node.close()
    (found,) = cli.ok("tx", funded, sent["tx_id"], "--json").objects()
    assert {name: found[name] for name in sent} == sent
    (attempt,) = found["attempts"]
    assert (attempt["code"], attempt["nonce_consumed"]) == ("DUPLICATE_NONCE", False)
    assert attempt["offset"] == sent["offset"] + 1
    assert "attempt    DUPLICATE_NONCE" in cli.ok("tx", funded, sent["tx_id"]).out
    assert balance(cli, funded, "b") == 100_100
