"""Writes `corpus/*.txt` anew: `python -m tests.fuzz.make_corpus`. One line an input: label, yes or no, hexadecimal.

"yes" is a record of a real (deterministic) run that must decode; "no" is one that must not.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from audit_net import played
from sync_net import Net, address_of_key, key_of

from pipeline.client.proof_file import prove
from pipeline.client.trust import SeenCheckpoint, Trust
from pipeline.codec.avro import codec
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import Hash32
from pipeline.crypto.addresses import format_address
from pipeline.crypto.keystore import KdfCost, save_key
from pipeline.errors import PoisonRecord
from pipeline.ledger.checkpoints import Assurance, CheckpointProposal
from pipeline.ledger.control import CollectFees, CreateShard, Quarantine, SetAttestors, SetProtocol, encode_action
from pipeline.ledger.genesis import SignerKey
from pipeline.ledger.leaves import Account, Asset, Balance, balance_key
from pipeline.ledger.receipts import DeadLetter, DeadLetterReason, ReceiptChunk
from pipeline.ledger.relay import RelayBundle
from pipeline.ledger.transactions import (
    Burn,
    CreateAsset,
    DeleteData,
    Freeze,
    Mint,
    PutData,
    RotateKey,
    SignedTransaction,
    Transfer,
)
from pipeline.log.port import Append
from pipeline.log.records import encode_record
from pipeline.shards.outputs import encode_appends
from pipeline.state.records import pack_leaf
from pipeline.testing.suite import TEST_SUITES
from pipeline.testing.world import World
from tests.fuzz.decoders import LEAF, PASSPHRASE, PLACE

HERE: Final = Path(__file__).parent / "corpus"
USED: Final = (Topic.RELAY, Topic.TRANSACTIONS, Topic.BLOCKS, Topic.RECEIPTS)
Samples = dict[str, dict[str, bytes]]


def from_log(net: Net) -> Samples:
    """What a played ledger holds on its topics."""
    first = {topic: [record.value or b"" for record in net.read(topic, 1)] for topic in USED}
    transactions = net.read(Topic.TRANSACTIONS, 0) + net.read(Topic.TRANSACTIONS, 1)
    signed = sorted((record.value or b"" for record in transactions), key=len)[:3]
    bundle = first[Topic.RELAY][0]
    chunk = first[Topic.RECEIPTS][1]
    root = net.state_roots(1)[-1]
    checkpoints = [record.value or b"" for record in net.read(Topic.CHECKPOINTS)]
    proposal = next(raw for raw in checkpoints if is_proposal(raw))
    signature = next(raw for raw in checkpoints if not is_proposal(raw))
    return {
        "SignedTransaction": {f"pays{at}": raw for at, raw in enumerate(signed)},
        "TransactionBody": {f"pays{at}": SignedTransaction.from_record(raw).body for at, raw in enumerate(signed)},
        "RelayBundle": {"credits": bundle},
        "RelayGroups": {"credits": RelayBundle.from_record(bundle).groups},
        "Genesis": {"chain": net.chain.genesis.to_record()},
        "BlockHeader": {f"block{at}": raw for at, raw in enumerate(first[Topic.BLOCKS][:3])},
        "ReceiptChunk": {"chunk": chunk},
        "Receipt": {f"receipt{at}": raw for at, raw in enumerate(ReceiptChunk.from_record(chunk).receipts[:4])},
        "CheckpointProposal": {"proposal": proposal},
        "Checkpoint": {"checkpoint": CheckpointProposal.from_record(proposal).checkpoint},
        "CheckpointSignature": {"signature": signature},
        "SignedStateRoot": {"root": root.to_record()},
        "StateRoot": {"root": root.state_root},
    }


def is_proposal(raw: bytes) -> bool:
    try:
        CheckpointProposal.from_record(raw)
    except PoisonRecord:
        return False
    return True


def of_control() -> Samples:
    """Control records, bodies of every action, and a body of every operation."""
    world = World(2)
    key = world.operators[0].key
    listed = SignerKey(key.suite_id, key.public_key)
    actions = {
        "create_shard": CreateShard(2),
        "collect_fees": CollectFees(world.treasury.address),
        "set_protocol": SetProtocol(2),
        "set_attestors": SetAttestors((listed,), 1),
        "quarantine": Quarantine(Topic.TRANSACTIONS, 0, 7, Hash32(bytes(32))),
    }
    alice = world.actor("alice")
    operations = (
        Transfer(world.asset, bytes(48), b"rent"),
        CreateAsset(b"GOLD", 2),
        Mint(world.asset, bytes(48), b""),
        Burn(world.asset, 5),
        Freeze(world.asset, alice.address, True),
        RotateKey(255, key.public_key, bytes(64)),
        PutData(b"name", b"value"),
        DeleteData(b"name"),
    )
    every = world.signed(alice, *operations, valid_until_ms=2**40)
    record = world.control.records[world.govern(CreateShard(2))].value
    assert record is not None
    return {
        "SignedControl": {"create_shard": record},
        "ControlBody": {name: encode_action(1, action) for name, action in actions.items()},
        "TransactionBody": {"all_operations": every.body},
        "SignedTransaction": {"all_operations": every.to_record()},
    }


def of_clients(net: Net) -> Samples:
    """Proof files, trust file, key file, settings, CSV, addresses."""
    known, root = address_of_key(key_of("p0")), net.state_roots(0)[-1]
    here = [
        name for name in (f"q{n}" for n in range(99)) if net.chain.shard_map.owner_of(address_of_key(key_of(name))) == 0
    ]
    owner = net.chain.shard_map.owner_of(known)
    present = prove(net.stores[owner], balance_key(known, net.asset), net.state_roots(owner)[-1])
    absent = prove(net.stores[0], balance_key(address_of_key(key_of(here[0])), net.asset), root)
    trust = Trust.of(net.chain, Assurance.HEADERS)
    with TemporaryDirectory() as directory:
        path = Path(directory) / "a.key"
        save_key(path, key_of("p0"), PASSPHRASE, TEST_SUITES, KdfCost(2, 8, 1))
        key = path.read_bytes()
    address = format_address(known).encode()
    return {
        "proof": {"present": present.to_bytes(), "absent": absent.to_bytes()},
        "trust": {
            "new": trust.to_json().encode(),
            "seen": trust.seen(SeenCheckpoint(3, Hash32(bytes(32)))).to_json().encode(),
        },
        "key": {"key": key},
        "address": {"lower": address, "upper": address.upper()},
        "amount": {"whole": b"12", "zeros": b"+3.00", "largest": str(2**128 - 1).encode()},
        "config": {"empty": b"", "some": b'[sync]\nassurance = "headers"\n[store]\ndurability = "process"\n'},
        "csv": {
            "plain": b"from,to,amount\na,b,1\nb,c,2\n",
            "quoted": b'\xef\xbb\xbffrom,to,amount,note\r\n"a ""x""",b,1,"two\r\nlines"\r\n',
            "rejects": b"from,to,amount\na,b\n,b,1\na,b,-1\n\xff,b,1\n",
        },
    }


def of_stores(net: Net) -> Samples:
    """What stores keep."""
    task = net.tasks[1]
    outputs = [
        Append(target, None, b"value")
        for target in (task.committed.source(Topic.RELAY), task.committed.source(Topic.TRANSACTIONS))
    ]
    letter = DeadLetter.of(
        net.chain.chain_id,
        0,
        3,
        TopicPartition(Topic.TRANSACTIONS, 0),
        LogRecord(9, None, b"junk"),
        DeadLetterReason.UNDECODABLE,
    )
    issuer = net.chain.genesis.treasury
    return {
        "cursor": {"cursor": task.committed.to_bytes()},
        "outputs": {"two": encode_appends(outputs), "none": b""},
        "account": {"account": Account(3, 255, Hash32(b"\x22" * 32)).to_bytes()},
        "balance": {"balance": Balance(5, True).to_bytes() or b""},
        "asset": {"asset": Asset(issuer, b"GOLD", 2, 9, 1).to_bytes()},
        "log_record": {
            "value": encode_record(PLACE, None, b"value"),
            "key": encode_record(PLACE, b"key", b""),
            "null": encode_record(PLACE, None, None),
        },
        "log_metadata": {
            "topic": b"t\x01\x02" + (3).to_bytes(4, "big"),
            "end": b"e\x03\x03\x00\x01" + (9).to_bytes(8, "big"),
            "writer": b"w\x04name" + (2).to_bytes(8, "big"),
        },
        "stored_leaf": {"leaf": pack_leaf(LEAF, b"value")},
        "stored_root": {"root": bytes.fromhex("0111") + b"\x33" * 32},
        "DeadLetter": {"junk": letter.to_record()},
    }


def nasty(name: str, good: dict[str, bytes]) -> dict[str, bytes]:
    """What must not decode, made from what does."""
    sample = next(iter(good.values()))
    cases = {"tail": sample + b"\x00", "cut": sample[:-1]}
    if sample.startswith(b"\xc3\x01"):
        cases |= {
            "no_framing": sample[10:],
            "framing_only": sample[:10],
            "confluent_framing": b"\x00\x00\x00\x00\x01" + sample[10:],
            "framing_of_another_schema": codec("DeadLetter" if name != "DeadLetter" else "Genesis").framing
            + sample[10:],
            "endless_varint": sample[:10] + b"\x80" * 40,
            "all_ones": sample[:10] + b"\xff" * 40,
        }
    return cases


NASTY: Final[dict[str, dict[str, bytes]]] = {
    "RelayGroups": {"none": b"\x00", "least_count": b"\xff" * 9 + b"\x01",
        "sized_block": b"\x01\x00\x00", "huge_count": b"\xfe" * 8 + b"\x7f"},
    "TransactionBody": {"nothing": b"", "zeros": bytes(80)},
    "trust": {
        "suite_of_two_bytes": b'"suite": 255>>"suite": 256',
        "negative_suite": b'"suite": 255>>"suite": -1',
        "no_threshold": b'"threshold": 1>>"threshold": 0',
        "boolean": b'"threshold": 1>>"threshold": true',
        "unknown_assurance": b"HEADERS>>NONE",
    },
    "key": {"other_suite": b'"suite": 255>>"suite": 1', "greedy": b'"n": 2>>"n": 1073741824'},
    "config": {"unknown": b"[other]\nx = 1\n", "deep": b"x = " + b"[" * 3000, "not_text": b"\xff"},
    "csv": {"empty": b"", "no_column": b"a,b\n", "broken_gzip": b"\x1f\x8b" + bytes(40)},
    "address": {"bech32": b"hb1qqqqqqqqqqqqqq", "nothing": b"", "mixed": b"hb1Qq"},
    "amount": {"exponent": b"1e9", "separator": b"1,000", "zero": b"0",
        "other_digits": "\u0663".encode(), "too_large": str(2**128).encode()},
    "cursor": {"deep": b"[" * 3_000, "no_object": b"[]", "nothing": b""},
    "log_metadata": {"no_topic": b"t\x01\x63\x00\x00\x00\x01", "no_partition": b"e\x03\x03\x00\x07" + bytes(8)},
}  # fmt: skip


def main() -> None:
    """Write all files."""
    net, _ = played()
    samples: Samples = {}
    for part in (from_log(net), of_control(), of_clients(net), of_stores(net)):
        for name, cases in part.items():
            samples.setdefault(name, {}).update(cases)
    for name, good in samples.items():
        lines = [f"{label} yes {raw.hex()}" for label, raw in good.items()]
        text = name in {"csv", "config", "address", "amount", "trust", "key", "cursor"}
        tails = {} if text or name in {"stored_leaf", "asset"} else nasty(name, good)
        for label, raw in {**tails, **NASTY.get(name, {})}.items():
            old, edit, new = raw.partition(b">>")
            bad = next(iter(good.values())).replace(old, new) if edit else raw
            assert bad not in good.values(), (name, label)
            lines.append(f"{label} no {bad.hex()}")
        (HERE / f"{name}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
