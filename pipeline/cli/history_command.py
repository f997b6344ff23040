"""`hauptbuch history`."""

from typing import Annotated, Any

import typer

from pipeline.cli.assets import AssetNames, format_amount
from pipeline.cli.history import Movement, movements
from pipeline.cli.names import KeyRing
from pipeline.cli.output import json_line, table, when
from pipeline.cli.surroundings import Directory, Json, reading
from pipeline.client.receipts import ReceiptWatcher
from pipeline.codec.types import Address
from pipeline.crypto.addresses import format_address


def run(
    directory: Directory,
    who: Annotated[str, typer.Argument(metavar="ADDRESS|NAME")],
    as_json: Json = False,
) -> None:
    """List what moved into and out of an account, oldest first. Works beside a running node."""
    with reading(directory) as reader:
        ring = KeyRing(reader.layout)
        try:
            address = ring.address(who)
            watcher = ReceiptWatcher(reader.log, reader.chain.chain_id, range(len(reader.stores)))
            watcher.poll()
            found = movements(reader, watcher, address)
            names = ring.book.names_of({movement.peer for movement in found if movement.peer is not None})
        finally:
            ring.close()
        assets = AssetNames(reader)
        if as_json:
            for movement in found:
                json_line(_object(movement, names, assets))
            return
        columns = ("time", "amount", "asset", "what", "reference", "state", "transaction")
        table(columns, [_row(movement, names, assets) for movement in found], right=("amount",))


def _object(movement: Movement, names: dict[Address, str], assets: AssetNames) -> dict[str, Any]:
    peer = movement.peer
    return {
        "timestamp_ms": movement.moment.timestamp_ms,
        "kind": movement.kind,
        "direction": "out" if movement.is_out else "in",
        "peer": None if peer is None else format_address(peer),
        "peer_name": None if peer is None else names.get(peer),
        "asset": assets.label(movement.asset).symbol,
        "amount": str(movement.amount),
        "reference": _text(movement.reference),
        "state": movement.state,
        "tx_id": movement.tx_id.hex(),
    }


def _row(movement: Movement, names: dict[Address, str], assets: AssetNames) -> tuple[str, ...]:
    label, peer = assets.label(movement.asset), movement.peer
    who = "" if peer is None else names.get(peer) or format_address(peer)
    what = f"{'to' if movement.is_out else 'from'} {who}" if who else movement.kind
    return (
        when(movement.moment.timestamp_ms),
        f"{'-' if movement.is_out else '+'}{format_amount(movement.amount, label.decimals)}",
        label.symbol,
        f"{movement.kind} {what}" if movement.kind == "mint" else what,
        _text(movement.reference),
        movement.state,
        movement.tx_id.hex(),
    )


def _text(reference: bytes) -> str:
    """Anyone can send any bytes along: what is no plain text is shown as hexadecimal digits."""
    try:
        text = reference.decode()
    except UnicodeDecodeError:
        return f"0x{reference.hex()}"
    return text if text.isprintable() else f"0x{reference.hex()}"
