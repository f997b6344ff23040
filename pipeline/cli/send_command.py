"""`hauptbuch send`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from pipeline.cli.assets import DEFAULT_ASSET, asset_of, scaled_amount
from pipeline.cli.names import KeyRing, NamedAccount, shown
from pipeline.cli.outcome import Outcome, outcome_of
from pipeline.cli.output import json_line, line
from pipeline.cli.state_reading import read_account, read_asset
from pipeline.cli.surroundings import AcceptTime, Directory, Json, Kafka, passphrase, running_node
from pipeline.client.producer import Sender, Signed, TransactionProducer
from pipeline.client.receipts import ReceiptWatcher
from pipeline.codec.types import Address, TxId
from pipeline.errors import ConfigError, InvalidTransactionResult
from pipeline.ledger.packing import pack_transfers
from pipeline.ledger.transactions import Transfer
from pipeline.node.running import RunningLedger
from pipeline.node.settling import finish, settle


def run(
    directory: Directory,
    payer: Annotated[str, typer.Option("--from", metavar="NAME", help="Who pays; its key is in DIR.")],
    payee: Annotated[str, typer.Option("--to", metavar="ADDRESS|NAME", help="Who is paid.")],
    amount: Annotated[str, typer.Option("--amount", help="How much, in units of the asset, such as 12.5.")],
    asset: Annotated[str, typer.Option("--asset", help="SYMBOL, or SYMBOL@ISSUER.")] = DEFAULT_ASSET,
    reference: Annotated[str, typer.Option("--reference", help="A text for the payee, in the clear.")] = "",
    accept_time: AcceptTime = False,
    kafka: Kafka = "",
    as_json: Json = False,
) -> int:
    """Pay one amount, and run the node until the payment is settled and under a signed root.

    Exit code 1 where the ledger refused it. Where it ends otherwise, the payment may still happen: the error names it.
    """
    published: list[TxId] = []
    with _naming(directory, published):
        with running_node(directory, accept_time=accept_time, kafka=kafka) as node:
            ring = KeyRing(node.layout, passphrase())
            try:
                account = ring.require(payer)
                signed = _sign(node, ring, account, ring.address(payee), amount, asset, reference)
            finally:
                ring.close()
            published.append(signed.tx_id)
            outcome = _publish(node, signed)
        if as_json:
            json_line(outcome.to_object())
        else:
            line(f"{outcome.receipt.tx_id.hex()} {outcome.verdict()}")
    return 0 if outcome.is_ok else 1


@contextmanager
def _naming(directory: Path, published: Sequence[TxId]) -> Iterator[None]:
    """Whatever ends the command names what it published, since who just sends again pays twice."""
    try:
        yield
    except BaseException as error:  # an interrupt too
        for tx_id in published:
            look = f"hauptbuch tx {quote(str(directory))} {tx_id.hex()}"
            error.add_note(f"payment {tx_id.hex()} may be published: look at `{look}` before paying again")
        raise


def _sign(
    node: RunningLedger, ring: KeyRing, account: NamedAccount, to: Address, amount: str, symbol: str, reference: str
) -> Signed:
    settle(node)  # what an earlier run left decides about nonce and balance
    genesis = node.chain.genesis
    asset = asset_of(genesis.treasury, symbol)
    leaf = read_asset(node, asset)
    if leaf is None:
        raise ConfigError(f"there is no asset {shown(symbol)} here; see `hauptbuch accounts`")
    note = reference.encode()
    if len(note) > genesis.limits.reference_bytes:
        raise ConfigError(f"--reference has {len(note)} bytes; at most {genesis.limits.reference_bytes} are allowed")
    transfer = Transfer(asset, pack_transfers([(to, scaled_amount(amount, leaf.decimals))]), note)
    sender = Sender(ring.key(account), read_account(node, account.address), account.address)
    producer = TransactionProducer(node.log, node.chain, _watcher(node))
    (signed,) = producer.sign([producer.build(sender, [transfer], gas_price=genesis.gas.min_price)])
    return signed


def _publish(node: RunningLedger, signed: Signed) -> Outcome:
    watcher = _watcher(node)
    (future,) = TransactionProducer(node.log, node.chain, watcher).publish([signed])
    finish(node)
    watcher.poll()
    receipt = future.result()
    if receipt is None:
        raise InvalidTransactionResult(f"no receipt for offset {future.offset}; audit the log")
    return outcome_of(node.log, watcher, receipt)


def _watcher(node: RunningLedger) -> ReceiptWatcher:
    return ReceiptWatcher(node.log, node.chain.chain_id, range(len(node.tasks)))
