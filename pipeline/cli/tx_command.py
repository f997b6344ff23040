"""`hauptbuch tx`."""

from typing import Annotated, Final

import typer

from pipeline.cli.names import NameBook
from pipeline.cli.outcome import Outcome, outcome_of
from pipeline.cli.output import json_line, line
from pipeline.cli.surroundings import Directory, Json, reading
from pipeline.client.receipts import ReceiptWatcher
from pipeline.codec.topics import LogRecord, Topic
from pipeline.codec.types import TxId
from pipeline.crypto.addresses import format_address
from pipeline.errors import ConfigError, PoisonRecord
from pipeline.ledger.transactions import SignedTransaction, tx_id_of
from pipeline.node.reader import LedgerView

_PAGE: Final = 256
_PAGE_BYTES: Final = 8 << 20


def run(
    directory: Directory,
    tx_id: Annotated[str, typer.Argument(metavar="ID", help="64 hexadecimal digits, as `send` prints them.")],
    as_json: Json = False,
) -> None:
    """Show what became of a transaction, and other records with the same body. Works beside a running node."""
    wanted = _parse(tx_id)
    with reading(directory) as reader:
        watcher = ReceiptWatcher(reader.log, reader.chain.chain_id, range(len(reader.stores)))
        watcher.poll()
        outcomes = [outcome_of(reader.log, watcher, receipt) for receipt in watcher.attempts(wanted)]
        if not outcomes and _waits(reader, wanted):
            raise ConfigError(
                f"transaction {tx_id} is published and waits for its block: run the node (load, send), which executes "
                "it, and do not send it once more"
            )
        if not outcomes:
            raise ConfigError(f"no transaction {tx_id} has a receipt here; check the id, or wait for its block")
        # The record that consumed the nonce is the result, wherever it stands among the attempts.
        outcomes.sort(key=lambda outcome: not outcome.receipt.nonce_consumed)
        result, attempts = outcomes[0], outcomes[1:]
        if as_json:
            json_line({**result.to_object(), "attempts": [attempt.to_object() for attempt in attempts]})
            return
        book = NameBook(reader.layout.names)
        try:
            name = book.name_of(result.receipt.sender)
        finally:
            book.close()
        _print(result, name)
        for attempt in attempts:
            line(f"attempt    {attempt.receipt.code.name}, {_place(attempt)}")


def _waits(reader: LedgerView, wanted: TxId) -> bool:
    """Whether it is among the records that no block has consumed."""
    for shard in range(len(reader.stores)):
        cursor = reader.cursor(shard)
        source, position = cursor.source(Topic.TRANSACTIONS), cursor.positions[2]
        while records := reader.log.read(source, position, _PAGE, _PAGE_BYTES):
            if any(_tx_id(record) == wanted for record in records):
                return True
            position = records[-1].offset + 1
    return False


def _tx_id(record: LogRecord) -> TxId | None:
    try:
        return tx_id_of(SignedTransaction.from_record(record.value).body)
    except PoisonRecord:
        return None


def _parse(text: str) -> TxId:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise ConfigError("a transaction id has 64 hexadecimal digits and no 0x; copy it again in full")
    return TxId(raw)


def _print(outcome: Outcome, name: str | None) -> None:
    receipt = outcome.receipt
    line(f"result     {outcome.verdict()}")
    line(f"sender     {format_address(receipt.sender)}{f' ({name})' if name else ''}, nonce {receipt.nonce}")
    line(f"record     {_place(outcome)}")
    line(f"gas        {receipt.gas_used}, fee {receipt.fee}")
    for use in receipt.channels:
        line(f"effects    bundle {use.sequence} to shard {use.destination}")


def _place(outcome: Outcome) -> str:
    return f"transactions partition {outcome.receipt.partition} offset {outcome.receipt.offset}"
