"""Proofs through files: what they show, and every way in which a forger or a fool could hand one in."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
from command_line import CommandLine

from pipeline.audit.log_editor import LogEditor
from pipeline.cli import prove_command, verify_command
from pipeline.cli.assets import asset_of
from pipeline.cli.proving import check_expected, prove_signed, shown_line, shown_value
from pipeline.cli.surroundings import running_node
from pipeline.client.light import LightClient, VerifiedValue
from pipeline.client.proof_file import StateProof
from pipeline.client.trust import SeenCheckpoint, Trust, load_trust
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Address, AssetId, ChainId, Hash32, StateKey
from pipeline.crypto.addresses import format_address
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import ConfigError, VerificationFailed
from pipeline.kv.rocks import open_rocks
from pipeline.ledger.checkpoints import Assurance, SignedStateRoot
from pipeline.ledger.genesis import SignerKey
from pipeline.ledger.leaves import account_key
from pipeline.log.port import Append
from pipeline.node.layout import NodeLayout
from pipeline.node.reader import LedgerReader
from pipeline.node.settling import finish

STRANGER = Address(bytes(range(32)))


@pytest.fixture
def proof(funded: Path, cli: CommandLine) -> Path:
    """Of a's balance."""
    path = funded / "a.proof"
    cli.ok("prove", funded, "a", "-o", path)
    return path


@pytest.fixture
def trust(funded: Path) -> Path:
    return NodeLayout(funded).trust


def test_a_balance_is_proved_and_verified(proof: Path, trust: Path, cli: CommandLine) -> None:
    result = cli.ok("verify", proof, "--trust", trust)
    first, second = result.out.splitlines()
    assert first.startswith("balance of hb1")
    assert first.endswith(": 100000 minor units")
    assert second.startswith("round ")
    assert "UTC" in second
    assert "assurance HEADERS" in second
    (shown,) = cli.ok("verify", proof, "--trust", trust, "--json").objects()
    assert shown["balance"] == "100000"
    assert shown["present"] is True
    assert shown["frozen"] is False
    assert shown["round"] >= 0
    assert shown["age_ms"] >= 0


def test_prove_says_what_it_wrote(funded: Path, cli: CommandLine) -> None:
    path = funded / "b.proof"
    assert f"{path}: " in cli.ok("prove", funded, "b", "-o", path).out
    (said,) = cli.ok("prove", funded, "b", "-o", path, "--json").objects()
    assert said["bytes"] == path.stat().st_size
    assert said["file"] == str(path)


def test_absence_of_an_account_is_proved(funded: Path, trust: Path, cli: CommandLine) -> None:
    path, address = funded / "nobody.proof", format_address(STRANGER)
    cli.ok("prove", funded, address, "-o", path)
    assert f"account {address}: absent: never credited" in cli.ok("verify", path, "--trust", trust).out
    (shown,) = cli.ok("verify", path, "--trust", trust, "--json").objects()
    assert shown["present"] is False
    assert shown["nonce"] is None


def test_absence_of_a_balance_is_proved(funded: Path, trust: Path, cli: CommandLine) -> None:
    path = funded / "fee.proof"
    cli.ok("prove", funded, "a", "--asset", "FEE", "-o", path)
    assert "absent: it is 0" in cli.ok("verify", path, "--trust", trust).out


def address_and_asset(funded: Path, cli: CommandLine, name: str) -> tuple[str, str]:
    (found,) = cli.ok("account", funded, name, "--json").objects()
    (treasury,) = cli.ok("account", funded, "treasury", "--json").objects()
    return found["address"], f"UNIT@{treasury['address']}"


def test_a_proof_is_about_what_was_asked_for(funded: Path, proof: Path, trust: Path, cli: CommandLine) -> None:
    (address, asset), (other, _) = address_and_asset(funded, cli, "a"), address_and_asset(funded, cli, "b")
    whole = asset_of(NodeLayout(funded).chain().genesis.treasury, "UNIT").hex()
    shown = cli.ok("verify", proof, "--trust", trust, "--account", address, "--asset", asset).out
    assert shown.startswith(f"balance of {address} in asset {whole}: 100000 minor units\n"), "no digit is left out"
    assert cli.ok("verify", proof, "--trust", trust, "--asset", whole.upper()).out.startswith("balance")
    look_alike = f"{whole[:16]}{'0' * 48}"
    for arguments, words in [
        (("--asset", look_alike), f"the proof is about asset {whole}, not {look_alike}"),
        (("--asset", f"UNIT@{other}"), f"the proof is about asset {whole}, not "),
        (("--account", other), f"the proof is about account {address}, not {other}"),
        (("--account", other, "--asset", asset, "--json"), "the proof is about account"),
    ]:
        refused = cli("verify", proof, "--trust", trust, *arguments)
        assert (refused.code, refused.out) == (1, "")
        assert words in refused.error
    for arguments in (("--asset", "UNIT"), ("--asset", "ab"), ("--asset", "UNIT@x"), ("--account", "a")):
        assert cli("verify", proof, "--trust", trust, *arguments).code == 2


def test_that_there_is_no_account_is_about_each_asset(funded: Path, trust: Path, cli: CommandLine) -> None:
    path, address = funded / "nobody.proof", format_address(STRANGER)
    (other, asset) = address_and_asset(funded, cli, "a")
    cli.ok("prove", funded, address, "-o", path)
    assert "absent" in cli.ok("verify", path, "--trust", trust, "--account", address, "--asset", asset).out
    assert cli("verify", path, "--trust", trust, "--account", other).code == 1


@pytest.mark.parametrize("shown", [{"present": True, "address": format_address(STRANGER)}, {"present": False}])
def test_what_is_about_no_asset(shown: dict[str, object]) -> None:
    with pytest.raises(VerificationFailed, match="about no asset"):
        check_expected(shown, None, AssetId(Hash32(bytes(32))))


def test_what_is_about_no_account() -> None:
    with pytest.raises(VerificationFailed, match="about no account"):
        check_expected({"present": False, "key": "00"}, STRANGER, None)


def test_verifying_remembers_the_newest_round(funded: Path, proof: Path, trust: Path, cli: CommandLine) -> None:
    cli.ok("verify", proof, "--trust", trust)
    (shown,) = cli.ok("verify", proof, "--trust", trust, "--json").objects()
    seen = load_trust(trust).last_checkpoint
    assert seen is not None
    assert seen.round == shown["round"]
    for payee in ("b", "c", "e", "h"):  # on both shards
        cli.ok("send", funded, "--from", "a", "--to", payee, "--amount", "1")
    later = funded / "later.proof"
    cli.ok("prove", funded, "a", "-o", later)
    (newer,) = cli.ok("verify", later, "--trust", trust, "--json").objects()
    assert newer["round"] > seen.round
    assert newer["balance"] == "99600"
    assert cli("verify", proof, "--trust", trust).code == 0, "an old proof holds as of its round"
    assert load_trust(trust).last_checkpoint != seen


def test_a_trust_file_that_can_not_be_written_is_remarked(
    proof: Path, trust: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, _trust: Trust) -> None:
        raise ConfigError(f"trust file {path} can't be written: Read-only file system")

    monkeypatch.setattr(verify_command, "save_trust", refuse)
    result = cli.ok("verify", proof, "--trust", trust)
    assert result.err.startswith("not remembered: trust file")


def test_age_is_limited(proof: Path, trust: Path, cli: CommandLine) -> None:
    assert cli("verify", proof, "--trust", trust, "--max-age", "3600").code == 0
    result = cli("verify", proof, "--trust", trust, "--max-age", "0")
    assert result.code == 1
    assert "ms old; at most 0 are allowed" in result.error
    for nonsense in ("-1", "nan", "inf", "soon"):
        assert cli("verify", proof, "--trust", trust, "--max-age", nonsense).code == 2


def test_no_flipped_bit_is_accepted(proof: Path, trust: Path) -> None:
    client = LightClient(load_trust(trust), InlineVerifier(STANDARD_SUITES))
    raw = proof.read_bytes()
    truth = client.verify(StateProof.from_bytes(raw), 0)
    for place in [*range(40), *range(40, len(raw), 23), *range(len(raw) - 8, len(raw))]:
        forged = bytearray(raw)
        forged[place] ^= 1 << place % 8
        with pytest.raises(VerificationFailed) as error:
            client.verify(StateProof.from_bytes(bytes(forged)), 0)
        assert "\n" not in str(error.value)
    assert client.verify(StateProof.from_bytes(raw), 0) == truth


Forge = Callable[[bytes], bytes]


def _more(raw: bytes) -> bytes:
    proof = StateProof.from_bytes(raw)
    assert proof.proof.value is not None
    amount = (int.from_bytes(proof.proof.value[:16]) + 1).to_bytes(16)
    return replace(proof, proof=replace(proof.proof, value=amount + proof.proof.value[16:])).to_bytes()


def _absent(raw: bytes) -> bytes:
    proof = StateProof.from_bytes(raw)
    return replace(proof, proof=replace(proof.proof, value=None)).to_bytes()


def _other_account(raw: bytes) -> bytes:
    proof = StateProof.from_bytes(raw)
    return replace(proof, proof=replace(proof.proof, key=account_key(STRANGER))).to_bytes()


def _no_key(raw: bytes) -> bytes:
    proof = StateProof.from_bytes(raw)
    return replace(proof, proof=replace(proof.proof, key=StateKey(b"\xff\n"))).to_bytes()


def _unsigned(raw: bytes) -> bytes:
    proof = StateProof.from_bytes(raw)
    return replace(proof, root=replace(proof.root, signatures=())).to_bytes()


@pytest.mark.parametrize("forge", [_more, _absent, _other_account, _no_key, _unsigned])
def test_forged_proofs_are_refused(forge: Forge, proof: Path, trust: Path, cli: CommandLine) -> None:
    before = trust.read_bytes()
    proof.write_bytes(forge(proof.read_bytes()))
    result = cli("verify", proof, "--trust", trust)
    assert result.code == 1
    assert result.out == ""
    assert result.error
    assert trust.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:-1],
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw + b"\0",
        lambda raw: raw[2:],
        lambda raw: b"\xc3\x01" + bytes(8) + raw[10:],
        lambda raw: bytes(2**20 + 1),
        lambda raw: b"{}\n",
    ],
)
def test_what_is_no_proof_could_not_be_checked(damage: Forge, proof: Path, trust: Path, cli: CommandLine) -> None:
    before = trust.read_bytes()
    proof.write_bytes(damage(proof.read_bytes()))
    result = cli("verify", proof, "--trust", trust)
    assert (result.code, result.out) == (2, "")
    assert result.error.startswith(f"{proof} can't be checked: not a proof file: ")
    assert result.error.endswith("give a file that `hauptbuch prove` wrote, whole")
    assert trust.read_bytes() == before


def test_a_proof_under_another_shards_root_is_refused(funded: Path, trust: Path, cli: CommandLine) -> None:
    with LedgerReader(funded) as reader:
        by_shard: dict[int, str] = {}
        for account in reader.accounts():
            by_shard.setdefault(reader.chain.shard_map.owner_of(account.address), format_address(account.address))
    proofs = []
    for shard, address in by_shard.items():
        cli.ok("prove", funded, address, "-o", funded / f"{shard}.proof")
        proofs.append(StateProof.from_bytes((funded / f"{shard}.proof").read_bytes()))
    first, second = proofs
    (funded / "mixed.proof").write_bytes(StateProof(first.proof, second.root).to_bytes())
    result = cli("verify", funded / "mixed.proof", "--trust", trust)
    assert result.code == 1
    assert "belongs to shard" in result.error


Distrust = Callable[[Trust], Trust]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda trust: replace(trust, chain_id=ChainId(bytes(32))), "belongs to chain"),
        (lambda trust: replace(trust, assurance=Assurance.EXECUTION), "the trust file demands EXECUTION"),
        (lambda trust: replace(trust, attestors=(SignerKey(2, bytes(1952)),)), "valid signatures of 0 attestors"),
        (lambda trust: trust.seen(SeenCheckpoint(_round_of(trust), Hash32(bytes(32)))), "equivocation: round"),
    ],
)
def test_whom_the_trust_file_does_not_trust(
    change: Distrust, message: str, proof: Path, trust: Path, cli: CommandLine
) -> None:
    cli.ok("verify", proof, "--trust", trust)
    trust.write_text(change(load_trust(trust)).to_json())
    result = cli("verify", proof, "--trust", trust)
    assert result.code == 1
    assert message in result.error


def _round_of(trust: Trust) -> int:
    assert trust.last_checkpoint is not None
    return trust.last_checkpoint.round


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "not json",
        "[" * 100_000,
        '{"format": 2}',
        '{"format": 1}',
        '{"format": 1, "chain_id": "00", "shards": 1, "attestors": [], "threshold": 1, "assurance": "HEADERS"}',
    ],
)
def test_what_is_no_trust_file_is_an_error(text: str, proof: Path, trust: Path, cli: CommandLine) -> None:
    trust.write_text(text)
    result = cli("verify", proof, "--trust", trust)
    assert result.code == 2
    assert result.error.startswith(f"trust file {trust} can't be used: ")
    assert "Error" not in result.error
    assert "as `hauptbuch init` makes it" in result.error


@pytest.mark.parametrize("content", [b"\xff\xfe", bytes(2**24 + 1)])
def test_what_is_no_text_is_no_trust_file(content: bytes, proof: Path, trust: Path, cli: CommandLine) -> None:
    trust.write_bytes(content)
    result = cli("verify", proof, "--trust", trust)
    assert result.code == 2
    assert result.error.startswith(f"trust file {trust} ")
    assert "as `hauptbuch init` makes it" in result.error


def test_a_trust_file_without_a_size_is_not_read_without_end(proof: Path, trust: Path, cli: CommandLine) -> None:
    """A pipe's or a device's size is told as 0, so only what was read can be counted."""
    pipe = trust.with_name("pipe")
    os.mkfifo(pipe)
    unread: list[int] = []

    def write() -> None:
        with suppress(BrokenPipeError), pipe.open("wb", buffering=0) as file:
            for left in range(64, 0, -1):
                unread[:] = [left]
                file.write(b" " * 2**20)
            unread.clear()

    writer = Thread(target=write)
    writer.start()
    result = cli("verify", proof, "--trust", pipe)
    writer.join()
    assert result.code == 2
    assert "too large to be one" in result.error
    assert unread


@pytest.mark.parametrize(
    ("field", "value"), [("threshold", 0), ("threshold", 2), ("threshold", "1"), ("shards", 0), ("attestors", [{}])]
)
def test_a_trust_file_must_make_sense(field: str, value: object, proof: Path, trust: Path, cli: CommandLine) -> None:
    trust.write_text(json.dumps(json.loads(trust.read_text()) | {field: value}))
    result = cli("verify", proof, "--trust", trust)
    assert result.code == 2
    assert "get it again" in result.error


def test_files_that_are_not_there(funded: Path, proof: Path, trust: Path, cli: CommandLine) -> None:
    assert cli("verify", funded / "none", "--trust", trust).code == 2
    assert cli("verify", funded, "--trust", trust).code == 2
    assert cli("verify", proof, "--trust", funded / "none").code == 2
    assert cli("verify", proof).code == 2
    assert cli("prove", funded / "none", "a", "-o", proof).code == 2
    assert "neither a name" in cli("prove", funded, "nobody", "-o", proof).error
    assert "can't be written" in cli("prove", funded, "a", "-o", funded / "no" / "such").error
    assert cli("prove", funded, "hb1qqqq", "-o", proof).code == 2


def test_nothing_can_be_proved_before_the_first_block(fresh: Path, cli: CommandLine) -> None:
    result = cli("prove", fresh, "treasury", "-o", fresh / "x.proof")
    assert result.code == 2
    assert "has no block yet" in result.error


def test_unsigned_blocks_are_counted(funded: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    kv = open_rocks(NodeLayout(funded).log)
    editor = LogEditor(kv, STANDARD_SUITES)
    for source in editor.partitions(Topic.STATE_ROOTS):
        editor.cut(source, 0)
    kv.close()
    monkeypatch.setattr(prove_command, "prove_signed", partial(prove_signed, patience_s=0.3))
    result = cli("prove", funded, "a", "-o", funded / "x.proof")
    assert result.code == 2
    assert "blocks that no root signs after 0.3 s" in result.error
    assert not (funded / "x.proof").exists()


def test_a_last_root_that_was_damaged_leaves_its_block_unsigned(
    funded: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv = open_rocks(NodeLayout(funded).log)
    editor = LogEditor(kv, STANDARD_SUITES)
    for number in range(2):
        source = TopicPartition(Topic.STATE_ROOTS, number)
        editor.put(source, editor.records(source)[-1].offset, b"no root")
    kv.close()
    monkeypatch.setattr(prove_command, "prove_signed", partial(prove_signed, patience_s=0.3))
    result = cli("prove", funded, "a", "-o", funded / "x.proof")
    assert result.code == 2
    assert "that no root signs after 0.3 s" in result.error


def test_roots_that_nobody_signed_hinder_no_proof(funded: Path, trust: Path, cli: CommandLine) -> None:
    with running_node(funded, accept_time=False) as node:
        for shard in range(2):
            source = TopicPartition(Topic.STATE_ROOTS, shard)
            last = node.log.read(source, 0, 1_000, 1 << 24)[-1].value
            unsigned = replace(SignedStateRoot.from_record(last), signatures=())
            node.log.append([Append(source, None, value) for value in (unsigned.to_record(), b"no root")] * 50)
    path = funded / "x.proof"
    cli.ok("prove", funded, "a", "-o", path)
    assert "100000 minor units" in cli.ok("verify", path, "--trust", trust).out
    cli.ok("status", funded)


def test_proving_works_beside_a_running_node(funded: Path, trust: Path, cli: CommandLine) -> None:
    with running_node(funded, accept_time=False) as node:
        finish(node)  # where the ledger is a minute old, its start makes a block, which is to be signed first
        path = funded / "beside.proof"
        cli.ok("prove", funded, "c", "-o", path)
        assert ": 100000 minor units" in cli.ok("verify", path, "--trust", trust).out


def test_other_keys_are_shown_as_bytes_and_nonsense_is_refused(proof: Path, trust: Path) -> None:
    client = LightClient(load_trust(trust), InlineVerifier(STANDARD_SUITES))
    verified = client.verify(StateProof.from_bytes(proof.read_bytes()), 0)

    def shown(key: bytes, value: bytes | None) -> str:
        return shown_line(shown_value(VerifiedValue(key, value, verified.root, 0)))

    assert shown(b"fees/\0\1", b"\2" * 16) == f"state key {b'fees/'.hex()}0001: {'02' * 16}"
    assert shown(b"fees/\0\1", None).endswith(": absent")
    account = b"account/" + STRANGER
    assert shown(account, (7).to_bytes(8) + bytes(33)).endswith("exists, 7 transactions sent")
    balance = b"balance/" + bytes(32) + b"/" + bytes(32)
    assert shown(balance, (5).to_bytes(16) + b"\1").endswith(": 5 minor units, frozen")
    with pytest.raises(VerificationFailed, match="no balance or account"):
        shown(account, b"short")
