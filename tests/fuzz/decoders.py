"""Every decoder of bytes from outside, in one shape: bytes in, bytes of what was read out, or a documented error."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline.cli.csv_source import Columns, CsvSource, parse_amount
from pipeline.client.proof_file import StateProof
from pipeline.client.trust import load_trust
from pipeline.codec.avro import codec
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.config.sources import load_config
from pipeline.crypto.addresses import format_address, parse_address
from pipeline.crypto.keystore import load_key
from pipeline.errors import ConfigError, Fatal, HauptbuchError, PoisonRecord, VerificationFailed
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.checkpoints import Checkpoint, CheckpointProposal, CheckpointSignature, SignedStateRoot, StateRoot
from pipeline.ledger.control import SignedControl, decode_action, encode_action
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.genesis import Genesis
from pipeline.ledger.leaves import Account, Asset, Balance
from pipeline.ledger.receipts import DeadLetter, ReceiptChunk, decode_receipt, encode_receipt
from pipeline.ledger.relay import RelayBundle, decode_groups, encode_groups
from pipeline.ledger.transactions import SignedTransaction, TransactionBody
from pipeline.log.catalog import load_catalog
from pipeline.log.records import decode_page, encode_record, record_key
from pipeline.shards.outputs import decode_appends, encode_appends
from pipeline.state.records import pack_leaf, place_of_leaf, unpack_leaf
from pipeline.state.store import StateStore
from pipeline.testing.suite import TEST_SUITES
from pipeline.tree.keys import leaf_key_of, slot_of_key
from pipeline.tree.proofs import root_of

PASSPHRASE: Final = "correct horse"
PLACE: Final = record_key(TopicPartition(Topic.TRANSACTIONS, 1), 7)
LEAF: Final = b"data/" + b"\x11" * 32 + b"/name"


class Decoder(NamedTuple):
    """`again`: decodes and encodes. `canonical`: the bytes must be the same; else decoding those must end at them."""

    name: str
    again: Callable[[bytes], bytes]
    errors: tuple[type[HauptbuchError], ...]
    canonical: bool = True


def _record(kind: Any) -> Callable[[bytes], bytes]:
    def again(raw: bytes) -> bytes:
        decoded = kind.from_record(raw)
        decoded = decoded if isinstance(decoded, kind) else decoded[0]
        if hasattr(decoded, "to_record"):
            return bytes(decoded.to_record())
        return codec(kind.__name__).frame(decoded.to_bytes())

    return again


def _datum(kind: Any) -> Callable[[bytes], bytes]:
    return lambda raw: bytes(kind.from_bytes(raw).to_bytes())


@cache
def _directory() -> Path:
    """Removed with the process; one file a decoder is written over and over."""
    holder = tempfile.TemporaryDirectory(prefix="fuzz-")
    _directory.holder = holder  # type: ignore[attr-defined]
    return Path(holder.name)


def _file(name: str, raw: bytes) -> Path:
    path = _directory() / name
    path.write_bytes(raw)
    path.chmod(0o600)
    return path


def _address(raw: bytes) -> bytes:
    return format_address(parse_address(raw.decode("utf-8", "surrogateescape"))).encode()


def _trust(raw: bytes) -> bytes:
    return load_trust(_file("trust.json", raw)).to_json().encode()


def _key(raw: bytes) -> bytes:
    key = load_key(_file("a.key", raw), PASSPHRASE, TEST_SUITES)
    return key.suite_id.to_bytes(1, "big") + key.public_key


def _config(raw: bytes) -> bytes:
    return load_config(_file("hauptbuch.toml", raw)).model_dump_json().encode()


def _amount(raw: bytes) -> bytes:
    try:
        return str(parse_amount(raw.decode("utf-8", "surrogateescape"), 0)).encode()
    except ValueError as error:  # the documented refusal of a row
        raise ConfigError(str(error)) from None


def _csv(raw: bytes) -> bytes:
    rows = list(CsvSource(_file("payments.csv", raw), Columns("from", "to", "amount")).rows())
    for row in rows:
        assert "\n" not in getattr(row, "reason", "")
    return repr(rows).encode()


def _stored_record(raw: bytes) -> bytes:
    found: list[Any] = []
    decode_page(TopicPartition(Topic.TRANSACTIONS, 1), [(PLACE, raw)], found, 1 << 30)
    return encode_record(PLACE, found[0].key, found[0].value)


def _stored_leaf(raw: bytes) -> bytes:
    key, value = unpack_leaf(place_of_leaf(slot_of_key(LEAF), leaf_key_of(LEAF)), raw)  # type: ignore[arg-type]
    return pack_leaf(key, value)


def _metadata(raw: bytes) -> bytes:
    """One entry of a log's metadata beside a sound one: its kind, the length of its key, key and value."""
    key_end = 2 + int.from_bytes(raw[1:2])
    kv = MemoryKeyValue()
    kv.write({b"t" + bytes([Topic.BLOCKS]): (3).to_bytes(4)}, sync=True)
    kv.write({raw[:1] + raw[2:key_end]: raw[key_end:]}, sync=True)
    load_catalog(kv)
    return raw


def _stored_root(raw: bytes) -> bytes:
    """The record of one slot's root under a store that is opened anew."""
    kv = MemoryKeyValue()
    StateStore(kv, ShardId(0), frozenset({slot_of_key(LEAF)}))  # type: ignore[arg-type]
    kv.write({b"r" + raw[:2]: raw[2:]}, sync=True)
    StateStore(kv, ShardId(0), frozenset({slot_of_key(LEAF)}))  # type: ignore[arg-type]
    return raw


def _proof(raw: bytes) -> bytes:
    """A proof file, and the way up to the root that it leads to."""
    proof = StateProof.from_bytes(raw)
    root_of(proof.proof)
    return proof.to_bytes()


POISON: Final = (PoisonRecord,)
STORED: Final = (Fatal,)
REFUSED: Final = (ConfigError,)

DECODERS: Final = {
    decoder.name: decoder
    for decoder in (
        Decoder("SignedTransaction", _record(SignedTransaction), POISON),
        Decoder("TransactionBody", _datum(TransactionBody), POISON),
        Decoder("RelayBundle", _record(RelayBundle), POISON),
        Decoder("RelayGroups", lambda raw: encode_groups(decode_groups(raw)), POISON),
        Decoder("SignedControl", _record(SignedControl), POISON),
        Decoder("ControlBody", lambda raw: encode_action(*decode_action(raw)), POISON),
        Decoder("Genesis", _record(Genesis), (PoisonRecord, ConfigError)),
        Decoder("BlockHeader", _record(BlockHeader), POISON),
        Decoder("Receipt", lambda raw: encode_receipt(decode_receipt(raw)), POISON),
        Decoder("ReceiptChunk", _record(ReceiptChunk), POISON),
        Decoder("DeadLetter", _record(DeadLetter), POISON),
        Decoder("StateRoot", _datum(StateRoot), POISON),
        Decoder("Checkpoint", _datum(Checkpoint), POISON),
        Decoder("CheckpointProposal", _record(CheckpointProposal), POISON),
        Decoder("CheckpointSignature", _record(CheckpointSignature), POISON),
        Decoder("SignedStateRoot", _record(SignedStateRoot), POISON),
        Decoder("proof", _proof, (VerificationFailed,)),
        Decoder("address", _address, REFUSED, canonical=False),
        Decoder("amount", _amount, REFUSED, canonical=False),
        Decoder("trust", _trust, REFUSED, canonical=False),
        Decoder("key", _key, REFUSED, canonical=False),
        Decoder("config", _config, REFUSED, canonical=False),
        Decoder("csv", _csv, REFUSED, canonical=False),
        Decoder("cursor", _datum(ShardCursor), STORED, canonical=False),
        Decoder("outputs", lambda raw: encode_appends(decode_appends(raw)), STORED),
        Decoder("account", _datum(Account), STORED),
        Decoder("balance", lambda raw: Balance.from_bytes(raw).to_bytes() or bytes(17), STORED),
        Decoder("asset", _datum(Asset), STORED),
        Decoder("log_record", _stored_record, STORED),
        Decoder("log_metadata", _metadata, STORED),
        Decoder("stored_leaf", _stored_leaf, STORED),
        Decoder("stored_root", _stored_root, STORED),
    )
}
"""By name; `tests/fuzz/corpus` has a file for each."""

ENDS_AT_ITSELF: Final = frozenset({"address", "amount", "trust", "cursor"})
"""Decoders of more than one spelling whose output is an input again, with the same meaning."""
