"""`hauptbuch status`."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.cli.output import json_line, line, table, when
from pipeline.cli.surroundings import Directory, Json, Kafka, reading
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.ledger.composer import Awaited, awaited_control
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.reading import InputReader
from pipeline.node.layout import lock_holder
from pipeline.node.reader import LedgerView
from pipeline.shards.signed_roots import SignedHead


class _Shard(NamedTuple):
    """`lag`: transaction records that no block has consumed; `in_flight`: bundles sent to it and not executed.

    `awaited`: what its relay waits for although it has consumed all of control.
    """

    cursor: ShardCursor
    signed: SignedHead | None
    lag: int
    in_flight: int
    size: int
    awaited: Awaited | None


def run(directory: Directory, kafka: Kafka = "", as_json: Json = False) -> None:
    """Show shards, heights, lag, bundles in flight, bytes and the last root. Works beside a running node."""
    with reading(directory, kafka) as reader:
        shards = _shards(reader)
        genesis = reader.chain.genesis
        log_bytes = _bytes_under(reader.layout.log) if reader.layout.log.is_dir() else None
    heads = [shard.signed for shard in shards if shard.signed is not None]
    last = max(heads, key=lambda head: head.checkpoint.round, default=None)
    pid = lock_holder(reader.layout)
    if as_json:
        json_line(
            {
                "chain_id": reader.chain.chain_id.hex(),
                "name": genesis.name,
                "pid": pid,
                "log_bytes": log_bytes,
                "last_round": None if last is None else last.checkpoint.round,
                "last_round_ms": None if last is None else last.checkpoint.timestamp_ms,
                "ledger_root": None if last is None else last.checkpoint.ledger_root.hex(),
                "shards": [_object(shard) for shard in shards],
            }
        )
        return
    line(f"ledger      {genesis.name!r}, chain {reader.chain.chain_id.hex()}")
    if log_bytes is None:
        line("log         on a cluster")
    else:
        line(f"node        {'not running' if pid is None else f'running, pid {pid}'}")
        line(f"log         {_size(log_bytes)}")
    if last is None:
        line("last round  none yet")
    else:
        checkpoint = last.checkpoint
        line(f"last round  {checkpoint.round}, {when(checkpoint.timestamp_ms)}, {checkpoint.assurance.name.lower()}")
        line(f"ledger root {checkpoint.ledger_root.hex()}")
    line()
    columns = ("shard", "height", "signed", "block time", "waiting", "in flight", "state", "state root signed")
    right = ("shard", "height", "signed", "waiting", "in flight", "state")
    table(columns, [_row(shard) for shard in shards], right)
    for shard in shards:
        if shard.awaited is not None:
            line(
                f"shard {shard.cursor.shard} waits for control {shard.awaited.control_sequence}, which bundle "
                f"{shard.awaited.sequence} of shard {shard.awaited.source} names (relay offset {shard.awaited.offset})"
            )


def _shards(reader: LedgerView) -> list[_Shard]:
    cursors = [reader.cursor(number) for number in range(len(reader.stores))]
    found = []
    for number, cursor in enumerate(cursors):
        inbound = 0
        for peer in cursors:
            sent, executed = peer.channels_out.get(number), cursor.channels_in.get(peer.shard)
            inbound += (sent.sequence if sent else 0) - (executed.sequence if executed else 0)
        end = reader.log.end_offset(TopicPartition(Topic.TRANSACTIONS, number))
        size = _bytes_under(reader.layout.shard(number))
        # The destination's store may be read a moment after the source's, with bundles that it did not show yet.
        lag, awaited = max(0, end - cursor.positions[2]), _awaited(reader, cursor)
        found.append(_Shard(cursor, reader.signed_head(number), lag, max(0, inbound), size, awaited))
    return found


def _awaited(reader: LedgerView, cursor: ShardCursor) -> Awaited | None:
    control, relay, _ = cursor.positions
    records = reader.log.read(cursor.source(Topic.RELAY), relay, 1, 1)
    if not records or reader.log.read(cursor.source(Topic.CONTROL), control, 1, 1):
        return None
    return awaited_control(InputReader(reader.chain, cursor.shard), cursor, records[0])


def _object(shard: _Shard) -> dict[str, Any]:
    cursor, signed = shard.cursor, shard.signed
    return {
        "shard": cursor.shard,
        "height": cursor.height,
        "timestamp_ms": cursor.timestamp_ms,
        "signed_height": -1 if signed is None else signed.root.height,
        "signed_root": None if signed is None else signed.root.state_root.hex(),
        "waiting": shard.lag,
        "in_flight": shard.in_flight,
        "state_bytes": shard.size,
        "waits_for_control": None if shard.awaited is None else shard.awaited.control_sequence,
    }


def _row(shard: _Shard) -> tuple[str, ...]:
    cursor, signed = shard.cursor, shard.signed
    return (
        str(cursor.shard),
        str(cursor.height) if cursor.height >= 0 else "-",
        "-" if signed is None else str(signed.root.height),
        when(cursor.timestamp_ms) if cursor.height >= 0 else "-",
        str(shard.lag),
        str(shard.in_flight),
        _size(shard.size),
        "-" if signed is None else signed.root.state_root.hex(),
    )


def _bytes_under(directory: Path) -> int:
    total = 0
    for folder, _, files in os.walk(directory):
        for name in files:
            with suppress(OSError):  # the store's owner deletes files while we look
                total += os.stat(Path(folder) / name).st_size
    return total


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.1f} {unit}" if unit != "B" else f"{count} B"
