"""The vectors of docs/protocol.md, made anew by what its section "Bytes" says alone, and by the product's code.

What stands above the line `the product` uses SHA-256 and nothing of this project: it is what an implementer in another
language would write.
"""

import json
import re
from hashlib import sha256
from pathlib import Path

import pytest

from pipeline.client.proof_file import StateProof
from pipeline.codec.avro import schema_directory
from pipeline.codec.topics import LogRecord
from pipeline.codec.types import UNOWNED_SLOT
from pipeline.crypto.addresses import address_of, format_address, key_hash
from pipeline.ledger.blocks import BlockHeader, Counts, InputRange, SlotUpdate, block_hash, frame_header, input_root
from pipeline.ledger.checkpoints import (
    Assurance,
    Checkpoint,
    SignedStateRoot,
    StateRoot,
    checkpoint_hash,
    heads_root,
)
from pipeline.ledger.codes import Code
from pipeline.ledger.control import KeySignature
from pipeline.ledger.leaves import Account, Balance, balance_key
from pipeline.ledger.packing import ChannelHead, pack_transfers
from pipeline.ledger.receipts import ChannelUse, ReceiptChunk, TransactionReceipt, encode_receipt
from pipeline.ledger.relay import EffectKind, RelayBundle, RelayGroup, bundle_head, channel_start, encode_groups
from pipeline.ledger.shard_map import ShardMap
from pipeline.ledger.signed_root import check_place
from pipeline.ledger.transactions import SignedTransaction, TransactionBody, Transfer, asset_id_of, tx_id_of
from pipeline.tree.keys import leaf_key_of
from pipeline.tree.proofs import root_of
from pipeline.tree.rfc6962 import merkle_root

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
BYTES = TEXT[TEXT.index("\n## Bytes\n") :]
BYTES = BYTES[: BYTES.index("\n## ", 1)]
VECTORS: dict[str, str] = dict(
    line.split(" ", 1)
    for block in re.findall(r"^```text\n(.*?)^```$", BYTES, re.M | re.S)
    for line in block.splitlines()
)


def given(name: str) -> bytes:
    return bytes.fromhex(VECTORS[name])


def tagged(tag: str, *parts: bytes) -> bytes:
    return sha256(b"hauptbuch/" + tag.encode() + b"/v1\x00" + b"".join(parts)).digest()


def long(value: int) -> bytes:
    rest, out = value * 2 if value >= 0 else -value * 2 - 1, b""
    while rest > 127:
        out, rest = out + bytes([rest % 128 + 128]), rest // 128
    return out + bytes([rest])


def data(raw: bytes) -> bytes:
    return long(len(raw)) + raw


def array(items: list[bytes]) -> bytes:
    return long(len(items)) + b"".join(items) + b"\0" if items else b"\0"


def big(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


def merkle(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\1" + merkle(leaves[:half]) + merkle(leaves[half:])).digest()


def crc64(text: str) -> bytes:
    crc = empty = 0xC15D213AA4D7A795
    for byte in text.encode():
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (empty if crc & 1 else 0)
    return crc.to_bytes(8, "little")


def canonical(schema: object) -> object:
    """The parsing canonical form of Avro 1.11: full names, no docs, fields in this order."""
    match schema:
        case str() if schema in ("null", "boolean", "int", "long", "bytes"):
            return schema
        case str():
            return f"hauptbuch.v1.{schema}"
        case list():
            return [canonical(item) for item in schema]
        case {"type": "array", "items": items}:
            return {"type": "array", "items": canonical(items)}
        case {"type": "fixed", "name": name, "size": size}:
            return {"name": f"hauptbuch.v1.{name}", "type": "fixed", "size": size}
        case {"type": "record", "name": name, "fields": fields}:
            shown = [{"name": field["name"], "type": canonical(field["type"])} for field in fields]
            return {"name": f"hauptbuch.v1.{name}", "type": "record", "fields": shown}
    raise AssertionError(schema)


FRAMES = {
    path.stem: b"\xc3\x01" + crc64(json.dumps(canonical(json.loads(path.read_text())), separators=(",", ":")))
    for path in sorted(schema_directory().glob("*.avsc"))
}


def bech32m(prefix: str, raw: bytes) -> str:
    bits = "".join(f"{byte:08b}" for byte in raw)
    groups = [int(bits[at : at + 5].ljust(5, "0"), 2) for at in range(0, len(bits), 5)]
    check = 1
    for value in [*(ord(c) >> 5 for c in prefix), 0, *(ord(c) & 31 for c in prefix), *groups, *[0] * 6]:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= term if top >> bit & 1 else 0
    check ^= 0x2BC830A3
    groups += [check >> 5 * (5 - place) & 31 for place in range(6)]
    return f"{prefix}1" + "".join("qpzry9x8gf2tvdw0s3jn54khce6mua7l"[group] for group in groups)


def made() -> dict[str, str]:
    """Every vector that is not given, from those that are."""
    chain, key, other, signature = given("chain_id"), given("public_key"), given("receiver"), given("signature")
    suite, unit = 2, b"UNIT"
    sender = tagged("address", bytes([suite]), key)
    hashed = tagged("asset", sender, unit)
    asset = sender[:1] + bytes([sender[1] & 0xF0 | hashed[1] & 0x0F]) + hashed[2:]
    slot, shard = sender[0] * 16 + sender[1] // 16, (sender[0] * 16 + sender[1] // 16) * 4 // 4096
    key_id = sha256(bytes([suite]) + key).digest()

    entries = other + big(1275, 16)
    transfer = b"\0" + asset + data(entries) + data(b"A-5")
    body = long(1) + chain + sender + long(7) + b"\0" + long(2**62) + big(0, 16) + long(0) + array([transfer])
    tx_id = tagged("transaction", body)
    signed = FRAMES["SignedTransaction"] + data(body) + long(suite) + b"\2" + data(key) + data(signature)

    group = tx_id + sender + asset + long(0) + data(b"A-5") + data(big(0, 2) + entries)
    start = tagged("channel-start", chain, big(shard, 2), big(1, 2))
    bundle = chain + long(shard) + long(1) + long(5) + long(0) + long(1) + start + data(array([group]))
    head = tagged("channel", bundle)

    receipt = b"\0" + long(shard) + long(9) + tx_id + sender + long(7) + long(0) + b"\1" + long(1_510_000) + big(0, 16)
    receipt += data(b"") + data(big(1, 2) + big(1, 8))
    chunk = FRAMES["ReceiptChunk"] + chain + long(shard) + long(5) + long(0) + array([data(receipt)])

    name, value = b"balance/" + sender + b"/" + asset, big(8725, 16) + b"\0"
    account = b"account/" + sender, big(8, 8) + bytes([suite]) + key_id
    leaves = sorted((tagged("state-key", k), sha256(v).digest()) for k, v in (account, (name, value)))
    page = b"".join(leaf + digest for leaf, digest in leaves)
    slot_root = sha256(b"\2" + page).digest()
    unowned = tagged("unowned-slot")
    nodes = [(unowned if number * 4 // 4096 != shard else bytes(32)) for number in range(4096)]
    nodes[slot] = slot_root
    siblings, at = b"", slot
    while len(nodes) > 1:
        siblings += nodes[at ^ 1]
        pairs = [nodes[left] + nodes[left + 1] for left in range(0, len(nodes), 2)]
        nodes, at = [bytes(32) if pair == bytes(64) else sha256(b"\3" + pair).digest() for pair in pairs], at // 2
    (state_root,) = nodes

    leaf = big(9, 8) + big(0xFFFFFFFF, 4) + big(len(signed), 4) + signed
    ranges = [(0, 0, 1, 1, 0, sha256(b"").digest()), (1, shard, 0, 0, 0, sha256(b"").digest())]
    ranges.append((2, shard, 9, 10, 1, merkle([leaf])))
    inputs = array([b"".join(map(long, numbers)) + root for *numbers, root in ranges])
    positions = [b"\0" + big(t, 1) + big(p, 2) + big(n, 8) for t, p, _, n, _, _ in ranges]
    out = big(1, 2) + big(1, 8) + head
    cursors = merkle([*positions, b"\2" + out])
    header = long(1) + chain + long(shard) + long(5) + long(0) + long(1_700_000_000_000) + given("previous_hash")
    header += inputs + merkle([receipt]) + state_root + cursors
    header += data(big(slot, 2) + slot_root + big(1_510_000, 8)) + data(out) + data(b"")
    header += b"".join(map(long, (1, 0, 0, 0, 0, 0))) + long(1_510_000)
    block = tagged("block", header)

    root = long(shard) + long(5) + block + state_root + long(1_700_000_000_000) + long(4) + given("previous_hash")
    heads = [long(n) + long(-1) + bytes(64) + long(0) + long(-1) + bytes(32) for n in range(4)]
    heads[shard] = root
    checkpoint = chain + long(3) + bytes(32) + long(1_700_000_000_020) + long(0) + long(1) + bytes(32) + merkle(heads)
    hashes = [sha256(b"\0" + item).digest() for item in heads]
    halves = [sha256(b"\1" + hashes[0] + hashes[1]).digest(), sha256(b"\1" + hashes[2] + hashes[3]).digest()]
    path = hashes[shard ^ 1] + halves[shard // 2 ^ 1]
    quorum = array([key_id + long(suite) + data(signature)])
    signed_root = data(root) + long(4) + data(path) + data(checkpoint) + quorum
    proof = FRAMES["StateProof"] + data(name) + b"\2" + data(value) + data(page) + data(b"") + data(siblings)
    proof += data(signed_root)
    found = {
        "unowned_slot": unowned,
        "address": sender,
        "key_id": key_id,
        "asset_id": asset,
        "body": body,
        "tx_id": tx_id,
        "transactions_record": signed,
        "channel_start": start,
        "relay_record": FRAMES["RelayBundle"] + bundle,
        "channel_head": head,
        "receipt": receipt,
        "receipts_record": chunk,
        "balance_key": name,
        "balance_value": value,
        "balance_leaf_key": tagged("state-key", name),
        "account_value": account[1],
        "page": page,
        "slot_root": slot_root,
        "state_root": state_root,
        "input_leaf_sha256": sha256(leaf).digest(),
        "blocks_record": FRAMES["BlockHeader"] + header,
        "block_hash": block,
        "checkpoint": checkpoint,
        "checkpoint_hash": tagged("checkpoint", checkpoint),
        "state_roots_record": FRAMES["SignedStateRoot"] + signed_root,
        "proof_file": proof,
    }
    numbers = {"address_text": bech32m("hb", sender), "slot": str(slot), "partition": str(shard)}
    frames = {f"frame_{schema}": frame.hex() for schema, frame in FRAMES.items()}
    return {**{name: value.hex() for name, value in found.items()}, **numbers, **frames}


GIVEN = {"chain_id", "public_key", "receiver", "signature", "previous_hash"}


@pytest.mark.parametrize("name", sorted(made()))
def test_a_vector_of_the_document_follows_from_its_rules(name: str) -> None:
    assert VECTORS[name] == made()[name]


def test_every_vector_is_made() -> None:
    assert set(VECTORS) == GIVEN | set(made())


# the product


def test_the_product_makes_the_same_bytes() -> None:
    chain, key, other, signature = given("chain_id"), given("public_key"), given("receiver"), given("signature")
    sender = address_of(2, key)
    assert (sender, format_address(sender)) == (given("address"), VECTORS["address_text"])
    assert key_hash(2, key) == given("key_id")
    asset = asset_id_of(sender, b"UNIT")
    assert asset == given("asset_id")
    shard = ShardMap.initial(4).owner_of(sender)
    assert shard == int(VECTORS["partition"])
    body = TransactionBody(chain, sender, 7, (Transfer(asset, pack_transfers([(other, 1275)]), b"A-5"),)).to_bytes()
    assert (body, tx_id_of(body)) == (given("body"), given("tx_id"))
    record = SignedTransaction(body, 2, key, signature).to_record()
    assert record == given("transactions_record")

    packed = bytes(2) + pack_transfers([(other, 1275)])
    group = RelayGroup(tx_id_of(body), sender, asset, EffectKind.CREDIT, b"A-5", packed)
    start = channel_start(chain, shard, 1)
    bundle = RelayBundle(chain, shard, 1, 5, 0, 1, start, encode_groups([group]))
    assert (start, bundle.to_record()) == (given("channel_start"), given("relay_record"))
    assert bundle_head(bundle.to_bytes()) == given("channel_head")

    use = ChannelUse(1, 1)
    receipt = TransactionReceipt(shard, 9, tx_id_of(body), sender, 7, Code.OK, True, 1_510_000, 0, (), (use,))
    datum = encode_receipt(receipt)
    assert datum == given("receipt")
    assert ReceiptChunk(chain, shard, 5, 0, (datum,)).to_record() == given("receipts_record")

    assert given("unowned_slot") == UNOWNED_SLOT
    assert balance_key(sender, asset) == given("balance_key")
    assert leaf_key_of(balance_key(sender, asset)) == given("balance_leaf_key")
    assert Balance(8725).to_bytes() == given("balance_value")
    assert Account(8, 2, key_hash(2, key)).to_bytes() == given("account_value")
    proof = StateProof.from_bytes(given("proof_file"))
    assert proof.proof.page == given("page")
    assert root_of(proof.proof) == given("state_root")

    header, found = BlockHeader.from_record(given("blocks_record"))
    empty = merkle_root([])
    inputs = (
        InputRange(0, 0, 1, 1, 0, empty),
        InputRange(1, shard, 0, 0, 0, empty),
        InputRange(2, shard, 9, 10, 1, input_root([LogRecord(9, None, record)])),
    )
    assert header.inputs == inputs
    assert header.slots == (SlotUpdate(int(VECTORS["slot"]), given("slot_root"), 1_510_000),)
    assert header.channels_out == (ChannelHead(1, 1, given("channel_head")),)
    assert header.counts == Counts(transactions=1)
    assert header.receipts_root == merkle_root([datum])
    assert frame_header(header.to_bytes()) == given("blocks_record")
    assert block_hash(header.to_bytes()) == found == given("block_hash")

    root = StateRoot(
        shard, 5, found, given("state_root"), header.timestamp_ms, header.height - 1, given("previous_hash")
    )
    heads = [root if number == shard else StateRoot(number) for number in range(4)]
    checkpoint = Checkpoint(
        chain, 3, bytes(32), 1_700_000_000_020, 0, Assurance.EXECUTION, bytes(32), heads_root(heads)
    ).to_bytes()
    assert (checkpoint, checkpoint_hash(checkpoint)) == (given("checkpoint"), given("checkpoint_hash"))
    signed = SignedStateRoot.from_record(given("state_roots_record"))
    check_place(signed, root, Checkpoint.from_bytes(checkpoint))
    assert signed.signatures == (KeySignature(key_hash(2, key), 2, signature),)
    assert signed == proof.root
