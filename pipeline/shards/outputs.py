"""What one block puts on the log, in this order, in one transaction; and how the store keeps it.

The header comes first: a delayed end of a transaction can commit a prefix of the next one, and header first turns
that into a header without its bundles, which republishing the last block's outputs mends. A bundle whose header never
came could not be mended.
"""

from struct import Struct
from struct import error as StructError  # noqa: N812 - the module has no class of its own name
from typing import Final

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.errors import Fatal
from pipeline.ledger.blocks import frame_header
from pipeline.ledger.engine import ExecutedBlock
from pipeline.ledger.receipts import chunk_receipts
from pipeline.log.port import Append

_APPEND: Final = Struct(">BHI")


def block_appends(executed: ExecutedBlock) -> list[Append]:
    """Header, bundles, receipts, dead letters."""
    header = executed.header
    shard = header.shard
    appends = [Append(TopicPartition(Topic.BLOCKS, shard), None, frame_header(executed.datum))]
    for bundle in executed.bundles:
        appends.append(Append(TopicPartition(Topic.RELAY, bundle.destination), None, bundle.to_record()))
    receipts = TopicPartition(Topic.RECEIPTS, shard)
    for chunk in chunk_receipts(header.chain_id, shard, header.height, executed.receipts):
        appends.append(Append(receipts, None, chunk.to_record()))
    dead = TopicPartition(Topic.DEAD_LETTERS, shard)
    appends += [Append(dead, None, letter.to_record()) for letter in executed.dead_letters]
    return appends


def encode_appends(appends: list[Append]) -> bytes:
    """Keyless records as n x (topic 1 ‖ partition 2 ‖ length 4 ‖ value)."""
    parts: list[bytes] = []
    for target, key, value in appends:
        assert key is None, "outputs have no key"
        assert value is not None, "outputs have a value"
        parts += [_APPEND.pack(target.topic, target.partition, len(value)), value]
    return b"".join(parts)


def decode_appends(raw: bytes) -> list[Append]:
    """Read back. Raises `Fatal` for bytes that no shard wrote."""
    appends: list[Append] = []
    position = 0
    try:
        while position < len(raw):
            topic, partition, length = _APPEND.unpack_from(raw, position)
            position += _APPEND.size
            value = raw[position : position + length]
            position += length
            assert len(value) == length, "cut short"
            appends.append(Append(TopicPartition(Topic(topic), partition), None, value))
    except (StructError, ValueError, AssertionError) as error:
        raise Fatal(f"the outputs kept of the last block are damaged ({error}): restore the state store") from None
    return appends
