"""The demo's ledger: a directory as `hauptbuch init` makes it, what runs it, accounts with funds."""

from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Final, NamedTuple

from pipeline.cli.csv_plan import plan_funding
from pipeline.cli.csv_source import Payment
from pipeline.cli.demo.own_node import DemoNode
from pipeline.cli.demo.payments import ASSET, DECIMALS
from pipeline.cli.names import KeyRing
from pipeline.cli.surroundings import passphrase
from pipeline.client.producer import Sender, Signed, TransactionProducer
from pipeline.client.receipts import ReceiptWatcher
from pipeline.codec.types import Address
from pipeline.errors import Fatal, InvalidTransactionResult
from pipeline.ledger.codes import Code
from pipeline.ledger.packing import pack_transfers
from pipeline.ledger.transactions import CreateAsset, Mint, Transfer, asset_id_of

_MINT_ENTRIES: Final = 5_000
_SIGN_TOGETHER: Final = 1_000
_PATIENCE_MS: Final = 120_000


class Batch(NamedTuple):
    """Signed transactions, and how many signatures a second this machine made."""

    transactions: list[Signed]
    signatures_per_second: float


class DemoLedger:
    """A running ledger and the accounts of some payments. Close it."""

    def __init__(self, node: DemoNode, payments: Sequence[Payment]) -> None:
        """Make an account for each name; `node` is closed with this. Nothing is funded yet."""
        self.node = node
        try:
            self.ring = KeyRing(self.node.layout, passphrase())
            self.chain = self.node.chain
            self.shards = range(self.chain.genesis.shards)
            self.watcher = ReceiptWatcher(self.node.log, self.chain.chain_id, self.shards)
            self.producer = TransactionProducer(self.node.log, self.chain, self.watcher)
            self.asset = asset_id_of(self.chain.genesis.treasury, ASSET.encode())
            names = dict.fromkeys(name for payment in payments for name in (payment.payer, payment.payee))
            self._accounts = self.ring.open_accounts(names)
            self._senders: dict[str, Sender] = {}
        except BaseException:
            self.node.close()
            raise

    @property
    def addresses(self) -> dict[str, Address]:
        """The address of every payer and payee."""
        return {name: account.address for name, account in self._accounts.items()}

    def fund(self, payments: Iterable[Payment]) -> None:
        """The treasury creates the asset and mints for each payer what it will spend; waits until that has settled.

        Raises `InvalidTransactionResult` where a receipt says otherwise than OK.
        """
        plan = plan_funding(payments)
        treasury = Sender(self.ring.key(self.ring.require("treasury")), None)
        entries = [(self._accounts[payer].address, sum(spent.values())) for payer, spent in plan.totals.items()]
        unsigned = [self.producer.build(treasury, [CreateAsset(ASSET.encode(), DECIMALS)])]
        for start in range(0, len(entries), _MINT_ENTRIES):
            mint = Mint(self.asset, pack_transfers(entries[start : start + _MINT_ENTRIES]))
            unsigned.append(self.producer.build(treasury, [mint]))
        futures = self.producer.publish(self.producer.sign(unsigned))
        self.run_until(lambda: self.producer.all_settled(futures))
        for future in futures:
            receipt = future.result()
            if receipt is None or receipt.code is not Code.OK:
                raise InvalidTransactionResult(f"funding failed: {receipt}")

    def sign(self, payments: Sequence[Payment]) -> Batch:
        """One transaction a payment, each signed by its payer."""
        unsigned = [
            self.producer.build(
                self._sender(payment.payer),
                [
                    Transfer(
                        self.asset,
                        pack_transfers([(self._accounts[payment.payee].address, payment.amount)]),
                        payment.reference,
                    )
                ],
            )
            for payment in payments
        ]
        started = perf_counter()
        signed: list[Signed] = []
        for start in range(0, len(unsigned), _SIGN_TOGETHER):
            signed += self.producer.sign(unsigned[start : start + _SIGN_TOGETHER])
        return Batch(signed, len(signed) / (perf_counter() - started))

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Let it go on. Raises `Fatal` where it does not come to that in two minutes."""
        if not self.node.run_until(condition, _PATIENCE_MS):
            raise Fatal("the demo's ledger stood still for two minutes; look at the machine's load and disk")

    def heights(self) -> list[int]:
        """The last committed block of each shard, -1 before the first."""
        return self.node.heights()

    def blocks(self) -> int:
        """Blocks committed so far, all shards together."""
        return sum(height + 1 for height in self.heights())

    def close(self) -> None:
        """Stop it. Idempotent."""
        self.ring.close()
        self.node.close()

    def _sender(self, name: str) -> Sender:
        sender = self._senders.get(name)
        if sender is None:
            sender = self._senders[name] = Sender(self.ring.key(self._accounts[name]))
        return sender
