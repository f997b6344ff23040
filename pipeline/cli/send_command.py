"""`hauptbuch send`."""

from typing import Annotated

import typer

from pipeline.cli.assets import DEFAULT_ASSET, asset_of, scaled_amount
from pipeline.cli.names import KeyRing, NamedAccount, shown
from pipeline.cli.outcome import Outcome, outcome_of
from pipeline.cli.output import json_line, line
from pipeline.cli.state_reading import read_account, read_asset
from pipeline.cli.surroundings import AcceptTime, Directory, Json, Kafka, passphrase, running_node
from pipeline.client.producer import Sender, TransactionProducer
from pipeline.client.receipts import ReceiptWatcher
from pipeline.codec.types import Address
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

    Exit code 1 where the ledger refused it.
    """
    with running_node(directory, accept_time=accept_time, kafka=kafka) as node:
        ring = KeyRing(node.layout, passphrase())
        try:
            account = ring.require(payer)
            outcome = _send(node, ring, account, ring.address(payee), amount, asset, reference)
        finally:
            ring.close()
    if as_json:
        json_line(outcome.to_object())
    else:
        line(f"{outcome.receipt.tx_id.hex()} {outcome.verdict()}")
    return 0 if outcome.is_ok else 1


def _send(
    node: RunningLedger, ring: KeyRing, account: NamedAccount, to: Address, amount: str, symbol: str, reference: str
) -> Outcome:
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
    watcher = ReceiptWatcher(node.log, node.chain.chain_id, range(len(node.tasks)))
    producer = TransactionProducer(node.log, node.chain, watcher)
    sender = Sender(ring.key(account), read_account(node, account.address), account.address)
    unsigned = producer.build(sender, [transfer], gas_price=genesis.gas.min_price)
    (future,) = producer.publish(producer.sign([unsigned]))
    finish(node)
    watcher.poll()
    receipt = future.result()
    if receipt is None:
        raise InvalidTransactionResult(f"no receipt for offset {future.offset}; audit the log")
    return outcome_of(node.log, watcher, receipt)
