"""`account`, `accounts`, `history`, `status`, `roots` on a ledger that is at rest."""

import json
import re
from pathlib import Path

import pytest
from command_line import COLUMNS, CommandLine, write_csv
from ledger_helpers import balance, publish, two_on_different_shards

from pipeline.cli.assets import asset_of, format_amount
from pipeline.cli.names import KeyRing
from pipeline.client.trust import SeenCheckpoint, load_trust, save_trust
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Address, AssetId, Hash32, ShardId
from pipeline.crypto.addresses import parse_address
from pipeline.crypto.keystore import load_key
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.errors import ConfigError
from pipeline.kv.rocks import open_rocks
from pipeline.ledger.genesis import SignerKey
from pipeline.ledger.packing import RELAY_ENTRY, pack_transfers
from pipeline.ledger.relay import EffectKind, RelayBundle, RelayGroup, encode_groups
from pipeline.ledger.transactions import Burn, CreateAsset, Freeze, Mint, Operation, Transfer, asset_id_of
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.node.layout import NodeLayout
from pipeline.node.node import Node
from pipeline.shards.manager import NewShard
from pipeline.system import ShardingSystem

# account and accounts


def test_accounts_are_listed_by_address(cli: CommandLine, funded: Path) -> None:
    found = cli.ok("accounts", funded, "--json").objects()
    addresses = [parse_address(item["address"]) for item in found]
    assert addresses == sorted(addresses)
    assert {item["name"] for item in found} == {*"abcdefgh", "treasury"}
    for item in found:
        expected = {"UNIT": "100000"} if len(item["name"]) == 1 else {}
        assert item["balances"] == expected
        assert item["nonce"] == 1
    table = cli.ok("accounts", funded).out.splitlines()
    assert len(table) == 2 + len(found)
    assert sum("1000.00" in row for row in table) == 8


def test_account_by_name_and_by_address(cli: CommandLine, funded: Path) -> None:
    (by_name,) = cli.ok("account", funded, "a", "--json").objects()
    (by_address,) = cli.ok("account", funded, by_name["address"].upper(), "--json").objects()
    assert by_name == by_address
    shown = cli.ok("account", funded, "a").out
    assert by_name["address"] in shown
    assert "1000.00" in shown


def test_account_that_was_never_paid(cli: CommandLine, funded: Path) -> None:
    assert "no account yet" in cli("account", funded, "operator").error


def test_an_asset_of_the_same_symbol_is_told_apart(cli: CommandLine, funded: Path) -> None:
    ring = KeyRing(NodeLayout(funded))
    account = ring.require("a")
    ring.close()
    (issuer,) = cli.ok("account", funded, "a", "--json").objects()
    for symbol in (b"UNIT", b"\x1b[2J", b"\xff", b"X@Y"):
        mint = Mint(asset_id_of(account.address, symbol), pack_transfers([(account.address, 5)]))
        operations: list[Operation] = [CreateAsset(symbol, 3), mint]
        publish(funded, "a", *operations)
    (found,) = cli.ok("account", funded, "a", "--json").objects()
    at = f"@{issuer['address']}"
    assert found["balances"] == {
        "UNIT": "100000",
        f"UNIT{at}": "5",
        f"0x1b5b324a{at}": "5",
        f"0xff{at}": "5",
        f"0x584059{at}": "5",
    }
    cli.ok("send", funded, "--from", "a", "--to", "b", "--amount", "0.002", "--asset", f"UNIT{at}")
    assert balance(cli, funded, "b", f"UNIT{at}") == 2
    assert balance(cli, funded, "b") == 100_000


# history


def test_history_adds_up_to_the_balance(cli: CommandLine, funded: Path, tmp_path: Path) -> None:
    low, high = two_on_different_shards(cli, funded)
    rows = [(low, high, "1.00"), (low, low, "2.00"), (high, low, "3.00"), (low, high, "4.50")]
    file = write_csv(tmp_path / "p.csv", rows)
    cli.ok("load", funded, file, *COLUMNS, "--decimals", 2, "--batch", 3)
    cli("send", funded, "--from", low, "--to", high, "--amount", "5000")
    cli.ok("send", funded, "--from", low, "--to", high, "--amount", "6", "--reference", "a\x1b[2Jb")
    for name in (low, high):
        found = cli.ok("history", funded, name, "--json").objects()
        held = sum(int(item["amount"]) * (1 if item["direction"] == "in" else -1) for item in found)
        assert held == balance(cli, funded, name)
        assert {item["state"] for item in found} == {"settled"}
        times = [item["timestamp_ms"] for item in found]
        assert times == sorted(times)
    out = [item for item in cli.ok("history", funded, low, "--json").objects() if item["direction"] == "out"]
    # The account paid itself 1000.00 when it was funded; the overdraft moved nothing.
    assert [(item["amount"], item["peer_name"]) for item in out] == [
        ("100000", low),
        ("100", high),
        ("200", low),
        ("450", high),
        ("600", high),
    ]
    assert out[-1]["reference"] == "0x611b5b324a62"
    shown = " ".join(cli.ok("history", funded, low).out.split())
    assert f"-6.00 UNIT to {high} 0x611b5b324a62 settled" in shown
    assert "+1000.00 UNIT mint from treasury load settled" in shown


def test_history_of_refunds_and_burns(cli: CommandLine, funded: Path) -> None:
    low, high = two_on_different_shards(cli, funded)
    ring = KeyRing(NodeLayout(funded))
    owner, frozen = ring.require(low), ring.address(high)
    ring.close()
    asset = asset_id_of(owner.address, b"X")
    mint = Mint(asset, pack_transfers([(owner.address, 9)]))
    publish(funded, low, CreateAsset(b"X"), mint, Burn(asset, 4), Freeze(asset, frozen, frozen=True))
    publish(funded, low, Transfer(asset, pack_transfers([(frozen, 3)]), b"\xff"))
    found = [item for item in cli.ok("history", funded, low, "--json").objects() if item["asset"].startswith("X@")]
    assert [(item["kind"], item["direction"], item["amount"], item["state"]) for item in found] == [
        ("mint", "in", "9", "settled"),
        ("burn", "out", "4", "settled"),
        ("transfer", "out", "3", "refunded"),
    ]
    assert found[-1]["reference"] == "0xff"
    assert "X@" not in cli.ok("history", funded, high).out
    assert "burn" in cli.ok("history", funded, low).out


def test_history_of_nobody(cli: CommandLine, funded: Path) -> None:
    assert cli.ok("history", funded, "operator", "--json").out == ""
    assert "neither a name" in cli("history", funded, "nobody").error


# status and roots


def test_status_of_a_ledger_at_rest(cli: CommandLine, funded: Path) -> None:
    status = json.loads(cli.ok("status", funded, "--json").out)
    assert status["pid"] is None
    assert status["last_round"] >= 1
    assert status["log_bytes"] > 10_000
    for shard in status["shards"]:
        assert shard["height"] == shard["signed_height"] >= 1
        assert (shard["waiting"], shard["in_flight"]) == (0, 0)
    shown = cli.ok("status", funded).out
    assert "not running" in shown
    assert status["ledger_root"] in shown


def test_status_shows_which_control_record_relay_waits_for(cli: CommandLine, funded: Path) -> None:
    log = EmbeddedLog(open_rocks(funded / "log"))
    relay = TopicPartition(Topic.RELAY, 1)
    chain_id = NodeLayout(funded).chain().chain_id
    entry = RELAY_ENTRY.pack(0, bytes(32), (1).to_bytes(16))
    group = RelayGroup(Hash32(bytes(32)), Address(bytes(32)), AssetId(bytes(32)), EffectKind.CREDIT, b"", entry)
    bundle = RelayBundle(chain_id, ShardId(0), ShardId(1), 9, 77, 10**6, Hash32(bytes(32)), encode_groups([group]))
    (offset,) = log.append([Append(relay, None, bundle.to_record())])
    log.close()
    status = json.loads(cli.ok("status", funded, "--json").out)
    assert [shard["waits_for_control"] for shard in status["shards"]] == [None, 77]
    words = f"shard 1 waits for control 77, which bundle 1000000 of shard 0 names (relay offset {offset})"
    assert words in " ".join(cli.ok("status", funded).out.split())


def test_status_before_anything_ran(cli: CommandLine, fresh: Path) -> None:
    status = json.loads(cli.ok("status", fresh, "--json").out)
    assert status["last_round"] is None
    assert [shard["height"] for shard in status["shards"]] == [-1, -1]
    assert "none yet" in cli.ok("status", fresh).out
    assert cli.ok("accounts", fresh, "--json").out == ""
    assert cli.ok("roots", fresh).out == ""


def test_a_shard_that_operators_created(cli: CommandLine, funded: Path) -> None:
    operator = load_key(funded / "keys" / "operator.json", "", STANDARD_SUITES)
    node = Node.open(funded)
    try:
        system = ShardingSystem(node, node.config.system)
        system.start()
        assert system.create_shard(NewShard((operator,))).shard == 2
    finally:
        node.close()
    cli.ok("send", funded, "--from", "a", "--to", "b", "--amount", "1")
    shards = json.loads(cli.ok("status", funded, "--json").out)["shards"]
    assert [shard["shard"] for shard in shards] == [0, 1, 2]
    assert shards[2]["signed_height"] == shards[2]["height"] == 0
    assert 2 in {root["shard"] for root in cli.ok("roots", funded, "--json").objects()}
    assert balance(cli, funded, "b") == 100_100


def test_roots_are_verified(cli: CommandLine, funded: Path) -> None:
    roots = cli.ok("roots", funded, "--json").objects()
    assert [(r["round"], r["shard"]) for r in roots] == sorted((r["round"], r["shard"]) for r in roots)
    status = json.loads(cli.ok("status", funded, "--json").out)
    newest = {r["shard"]: r["state_root"] for r in roots}
    assert [newest[s["shard"]] for s in status["shards"]] == [s["signed_root"] for s in status["shards"]]
    assert len(cli.ok("roots", funded).out.splitlines()) == len(roots)


def test_roots_of_another_signer_are_false(cli: CommandLine, funded: Path, tmp_path: Path) -> None:
    cli.ok("init", tmp_path / "other", "--shards", 2)
    trust, other = load_trust(funded / "trust.json"), load_trust(tmp_path / "other" / "trust.json")
    attestors: tuple[SignerKey, ...] = other.attestors
    save_trust(funded / "trust.json", type(trust)(trust.chain_id, 2, attestors, 1, trust.assurance))
    result = cli("roots", funded)
    assert result.code == 1
    assert result.out == ""
    refused = result.err.splitlines()
    assert len(refused) > 1, "it goes on"
    for line in refused:
        assert re.fullmatch(r"refused: state-roots partition \d offset \d+: .*valid signatures of 0 attestors.*", line)
    (funded / "trust.json").write_text("{}")
    assert cli("roots", funded).code == 2


def test_roots_of_one_refused_record_are_all_the_others(cli: CommandLine, funded: Path) -> None:
    before = cli.ok("roots", funded).out
    log = EmbeddedLog(open_rocks(funded / "log"))
    (offset,) = log.append([Append(TopicPartition(Topic.STATE_ROOTS, 1), None, b"junk")])
    log.close()
    cli.ok("send", funded, "--from", "a", "--to", "b", "--amount", 1)
    result = cli("roots", funded)
    assert result.code == 1
    assert result.out.startswith(before)
    assert len(result.out) > len(before)
    (line,) = result.err.splitlines()
    assert line.startswith(f"refused: state-roots partition 1 offset {offset}: ")


def test_roots_begin_at_the_round_that_was_seen_or_that_is_asked_for(
    cli: CommandLine, funded: Path, tmp_path: Path
) -> None:
    for _ in range(3):
        cli.ok("send", funded, "--from", "a", "--to", "b", "--amount", 1)
    roots = cli.ok("roots", funded, "--json").objects()
    last, trust = roots[-1], tmp_path / "trust.json"
    seen = SeenCheckpoint(last["round"], bytes.fromhex(last["checkpoint"]))
    save_trust(trust, load_trust(funded / "trust.json").seen(seen))
    newest = [root for root in roots if root["round"] == last["round"]]
    assert cli.ok("roots", funded, "--trust", trust, "--json").objects() == newest
    later = [root for root in roots if root["round"] >= 2]
    assert cli.ok("roots", funded, "--trust", trust, "--from-round", 2, "--json").objects() == later
    assert cli.ok("roots", funded, "--from-round", 10**6).out == ""


@pytest.mark.parametrize("command", ["roots", "audit"])
def test_without_a_directory_brokers_and_a_trust_file_are_needed(cli: CommandLine, funded: Path, command: str) -> None:
    for arguments, words in (
        ((), "give a directory, or --kafka BOOTSTRAP and --trust FILE"),
        (("--kafka", "localhost:1"), "give a directory, or --kafka BOOTSTRAP and --trust FILE"),
        (("--trust", funded / "trust.json"), "no brokers are set: give --kafka BOOTSTRAP"),
        (("--trust", funded / "none"), "can't be read"),
    ):
        result = cli(command, *arguments)
        assert result.code == 2
        assert words in result.error


# what is no ledger


@pytest.mark.parametrize(
    "command", ["account", "accounts", "history", "status", "roots", "tx", "send", "keygen", "load"]
)
def test_a_directory_that_is_no_ledger(cli: CommandLine, tmp_path: Path, command: str) -> None:
    file = tmp_path / "x.csv"
    file.write_text("from,to,amount\n")
    rest: dict[str, tuple[object, ...]] = {
        "account": ("a",),
        "history": ("a",),
        "tx": ("00" * 32,),
        "send": ("--from", "a", "--to", "b", "--amount", 1),
        "keygen": ("a",),
        "load": (file, "--from", "from", "--to", "to", "--amount", "amount"),
    }
    for directory in (tmp_path, tmp_path / "nowhere", file):
        refused = cli(command, directory, *rest.get(command, ()))
        assert refused.code == 2
        assert str(directory) in refused.error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.csv"]


def test_damaged_files(cli: CommandLine, funded: Path) -> None:
    (funded / "genesis.avro").write_bytes(b"\xc3\x01" + bytes(40))
    assert "is no genesis" in cli("status", funded).error


def test_bad_settings(cli: CommandLine, funded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send = ("send", funded, "--from", "a", "--to", "b", "--amount", "1")
    monkeypatch.setenv("HAUPTBUCH_SHARD__LINGER_MS", "soon")
    assert "linger_ms" in cli(*send).error
    monkeypatch.delenv("HAUPTBUCH_SHARD__LINGER_MS")
    (funded / "hauptbuch.toml").write_text("[shard]\nlinger = 5\n")
    refused = cli(*send)
    assert refused.code == 2
    assert "hauptbuch.toml: shard.linger: no such setting" in refused.error


def test_missing_store(cli: CommandLine, funded: Path) -> None:
    (funded / "shards" / "1").rename(funded / "shards" / "gone")
    refused = cli("accounts", funded)
    assert refused.code == 2
    assert "has no store to read" in refused.error


# amounts and assets


@pytest.mark.parametrize(
    ("amount", "decimals", "text"),
    [(0, 0, "0"), (5, 0, "5"), (5, 2, "0.05"), (1250, 2, "12.50"), (2**128 - 1, 38, f"3.{str(2**128 - 1)[1:]}")],
)
def test_amounts_are_shown_exactly(amount: int, decimals: int, text: str) -> None:
    assert format_amount(amount, decimals) == text


def test_asset_names() -> None:
    treasury, other = Address(bytes(32)), Address(b"\x01" * 32)
    assert asset_of(treasury, "A") != asset_of(other, "A")
    with pytest.raises(ConfigError):
        asset_of(treasury, "A@nowhere")


def test_what_is_not_there_says_where_to_look(cli: CommandLine, funded: Path) -> None:
    for command in ("account", "history"):
        assert f"`hauptbuch accounts {funded}` lists both" in cli(command, funded, "nobody").error
    assert "and no 0x" in cli("tx", funded, "0x" + "00" * 32).error
    file = funded / "hauptbuch.toml"
    assert cli("account", file, "a").error == f"{file} is no directory; give one that `hauptbuch init` made"


@pytest.mark.parametrize(
    "arguments",
    [
        ("account", "a\udcff"),
        ("send", "--from", "a\udcff", "--to", "b", "--amount", "1"),
        ("send", "--from", "a", "--to", "b", "--amount", "1", "--asset", "\udcff"),
        ("send", "--from", "a", "--to", "b", "--amount", "1", "--reference", "\udcff"),
    ],
)
def test_an_argument_that_is_not_utf_8_is_one_line(cli: CommandLine, funded: Path, arguments: tuple[str, ...]) -> None:
    refused = cli(arguments[0], funded, *arguments[1:])
    assert refused.code == 2
    assert refused.error.startswith("an argument or variable is not UTF-8; ")
