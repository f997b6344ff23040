"""Playing a file of payments: pass 1 sums and funds, pass 2 pays.

What is published is bounded ahead of what is executed, and what is signed ahead of what is published, so memory does
not grow with the file but with the number of its names.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from time import perf_counter
from typing import Final

from pipeline.cli.csv_plan import Batch, FundingPlan, batches, plan_funding
from pipeline.cli.csv_records import Reject
from pipeline.cli.csv_source import CsvSource, Payment
from pipeline.cli.funding import Funder
from pipeline.cli.names import KeyRing, NamedAccount, is_address
from pipeline.cli.receipt_tally import ReceiptTally
from pipeline.cli.state_reading import read_account
from pipeline.client.producer import Sender, TransactionProducer, Unsigned
from pipeline.client.receipts import ReceiptWatcher
from pipeline.codec.types import AssetId
from pipeline.errors import ConfigError
from pipeline.ledger.leaves import Account
from pipeline.ledger.packing import pack_transfers
from pipeline.ledger.transactions import Mode, Operation, Transfer, asset_id_of
from pipeline.node.running import RunningLedger
from pipeline.node.settling import drive_until, finish, settle, waiting_transactions
from pipeline.shards.signed_roots import SignedRoots

_SIGN_TOGETHER: Final = 512
_SIGN_BYTES: Final = 8 << 20
_AHEAD: Final = 1_024
"""Transactions published and not executed, beyond which publishing waits."""

Progress = Callable[[str, int, int | None], None]
"""Told of a stage, how far it is, and how far it goes (None: not known)."""


@dataclass(slots=True)
class LoadReport:
    """What a load did. Rates follow from `paying_s`, which includes `signing_s`.

    `minted`: minor units by symbol that the treasury issued to payers, as strings, since JSON readers cut long numbers.
    """

    payments: int = 0
    rejected: int = 0
    names: int = 0
    minted: dict[str, str] = field(default_factory=dict)
    funding_transactions: int = 0
    transactions: int = 0
    crossed: int = 0
    blocks: int = 0
    rounds: int = 0
    paying_s: float = 0.0
    signing_s: float = 0.0
    seconds: float = 0.0
    all_ok: bool = False
    problems: list[str] = field(default_factory=list)


class Loader:
    """Loads one file into a node that this process runs."""

    def __init__(
        self,
        node: RunningLedger,
        ring: KeyRing,
        source: CsvSource,
        batch: int,
        progress: Progress,
        *,
        mint: bool = True,
    ) -> None:
        """`mint`: the treasury issues what payers spend. Raises `ConfigError` where `batch` does not fit."""
        limits = node.chain.genesis.limits
        if not 1 <= batch <= limits.entries:
            raise ConfigError(f"--batch must be 1 to {limits.entries}, not {batch}")
        self._node = node
        self._ring = ring
        self._source = source
        self._batch = batch
        self._progress = progress
        self._mint = mint
        self._roles = ring.role_names(node.chain.genesis)
        self._short: frozenset[tuple[str, str]] = frozenset()
        self._report = LoadReport()
        watcher = ReceiptWatcher(node.log, node.chain.chain_id, ())  # results are tallied, not kept
        self._producer = TransactionProducer(node.log, node.chain, watcher)
        self._accounts: dict[str, NamedAccount] = {}
        self._next: dict[str, Account] = {}
        self._assets: dict[str, AssetId] = {}

    def run(self, on_reject: Callable[[Reject], None]) -> LoadReport:
        """Both passes, until all is settled and under a signed root. Raises as the node does, and `ConfigError`."""
        report, node, started = self._report, self._node, perf_counter()
        version = self._file_version()
        plan = self._plan(on_reject)
        settle(node)  # what an earlier run left decides about nonces and supply
        blocks, rounds = self._blocks(), self._round()
        tally = ReceiptTally.from_now(node.log, [task.committed.height for task in node.tasks])
        funder = Funder(node, self._ring, self._producer)
        if self._mint:
            report.funding_transactions = funder.fund(plan, self._accounts, self._source)
        else:
            self._short = funder.short_of(plan, self._accounts, self._source)
        settle(node)
        tally.poll()
        if tally.all_ok:
            report.minted = _totals(plan) if self._mint else {}
            if version != self._file_version():
                raise ConfigError(f"{self._source.path.name} changed while it was read; load it again")
            self._pay(plan, on_reject)
        finish(node)
        tally.poll()
        report.blocks, report.rounds = self._blocks() - blocks, self._round() - rounds
        report.all_ok = tally.all_ok and tally.transactions == report.funding_transactions + report.transactions
        report.problems = _problems(tally)
        report.seconds = perf_counter() - started
        return report

    def _file_version(self) -> tuple[int, int]:
        """Changes when the file does: both passes must read the same."""
        try:
            status = self._source.path.stat()
        except OSError as error:
            raise ConfigError(f"{self._source.path}: can't be read: {error.strerror}; give a CSV file") from None
        return status.st_size, status.st_mtime_ns

    # Pass 1

    def _plan(self, on_reject: Callable[[Reject], None]) -> FundingPlan:
        names: dict[str, None] = {}
        plan = plan_funding(self._noting_names(names), on_reject)
        report = self._report
        report.payments, report.rejected, report.names = plan.payments, plan.rejects, len(names)
        self._progress("making accounts", 0, len(names))
        self._accounts = self._ring.open_accounts(names)
        treasury = self._node.chain.genesis.treasury
        assets = dict.fromkeys(asset for spent in plan.totals.values() for asset in spent)
        self._assets = {asset: asset_id_of(treasury, asset.encode()) for asset in assets}
        return plan

    def _noting_names(self, names: dict[str, None]) -> Iterator[Payment | Reject]:
        for count, row in enumerate(self._rows(), 1):
            if isinstance(row, Payment):
                names[row.payer] = names[row.payee] = None
            if count % 4096 == 0:
                self._progress("reading", count, None)
            yield row

    def _rows(self) -> Iterator[Payment | Reject]:
        """Rows of the file. Names must not be addresses: the account of that name would be another.

        Nor names of the ledger's own keys, which a file of payments can only mean by accident: the treasury would pay.
        """
        for row in self._source.rows():
            if isinstance(row, Payment) and (is_address(row.payer) or is_address(row.payee)):
                yield Reject(row.line, "an address where a name is wanted", f"{row.payer},{row.payee}")
            elif isinstance(row, Payment) and not self._roles.isdisjoint((row.payer, row.payee)):
                yield Reject(row.line, "a name of this ledger's own keys; rename it", f"{row.payer},{row.payee}")
            else:
                yield row

    def _covered_rows(self, on_reject: Callable[[Reject], None]) -> Iterator[Payment | Reject]:
        for row in self._rows():
            if isinstance(row, Payment) and (row.payer, row.asset) in self._short:
                reject = Reject(row.line, "the payer has less than its rows add up to", f"{row.payer},{row.payee}")
                self._report.payments -= 1
                self._report.rejected += 1
                on_reject(reject)
                yield reject
            else:
                yield row

    # Pass 2

    def _pay(self, plan: FundingPlan, on_reject: Callable[[Reject], None]) -> None:
        report, started = self._report, perf_counter()
        paid = 0
        for chunk, payments in self._chunks(self._unsigned(on_reject)):
            signing = perf_counter()
            signed = self._producer.sign(chunk)
            report.signing_s += perf_counter() - signing
            self._producer.publish(signed)
            report.transactions += len(signed)
            paid += payments
            drive_until(self._node, lambda: waiting_transactions(self._node) <= _AHEAD)
            self._progress("paying", paid, plan.payments)
        settle(self._node)
        report.paying_s = perf_counter() - started

    def _chunks(self, items: Iterable[tuple[Unsigned, int]]) -> Iterator[tuple[list[Unsigned], int]]:
        """Transactions to sign together and how many payments they make, bounded in number and bytes."""
        chunk: list[Unsigned] = []
        payments = size = 0
        for unsigned, count in items:
            chunk.append(unsigned)
            payments += count
            size += len(unsigned.body)
            if len(chunk) >= _SIGN_TOGETHER or size >= _SIGN_BYTES:
                yield chunk, payments
                chunk, payments, size = [], 0, 0
        if chunk:
            yield chunk, payments

    def _unsigned(self, on_reject: Callable[[Reject], None]) -> Iterator[tuple[Unsigned, int]]:
        price = self._node.chain.genesis.gas.min_price
        for batch in batches(self._covered_rows(on_reject), self._batch):
            for operations, count in self._transactions(batch):
                sender = self._sender(batch.payer)
                # Rows of a file do not depend on each other: what one of them can't do must not undo its neighbours,
                # or the outcome would depend on --batch.
                mode = Mode.INDEPENDENT if count > 1 else Mode.ATOMIC
                unsigned = self._producer.build(sender, operations, mode=mode, gas_price=price)
                self._next[batch.payer] = Account(sender.next_nonce, sender.key.suite_id)
                yield unsigned, count

    def _sender(self, payer: str) -> Sender:
        """The payer as its last transaction leaves it. Keys are not kept here: the ring bounds how many there are."""
        account = self._accounts[payer]
        state = self._next.get(payer)
        if state is None:
            state = read_account(self._node, account.address)
        return Sender(self._ring.key(account), state, account.address)

    def _transactions(self, batch: Batch) -> Iterator[tuple[list[Operation], int]]:
        """A batch as operations, one for each run of equal references; as many transactions as the limit needs."""
        asset, most = self._assets[batch.asset], self._node.chain.genesis.limits.operations
        owners = self._node.chain.shard_map
        home = owners.owner_of(self._accounts[batch.payer].address)
        operations: list[Operation] = []
        count = 0
        for reference, run in groupby(batch.payments, key=lambda payment: payment.reference):
            entries = [(self._accounts[payment.payee].address, payment.amount) for payment in run]
            self._report.crossed += sum(owners.owner_of(to) != home for to, _ in entries)
            operations.append(Transfer(asset, pack_transfers(entries), reference))
            count += len(entries)
            if len(operations) == most:
                yield operations, count
                operations, count = [], 0
        if operations:
            yield operations, count

    def _blocks(self) -> int:
        return sum(task.committed.height for task in self._node.tasks)

    def _round(self) -> int:
        roots = SignedRoots(self._node.chain, self._node.log, self._node.verifier)
        heads = [roots.newest_head(task.shard) for task in self._node.tasks]
        return max((head.checkpoint.round for head in heads if head is not None), default=-1)


def _totals(plan: FundingPlan) -> dict[str, str]:
    totals: Counter[str] = Counter()
    for spent in plan.totals.values():
        totals.update(spent)
    return {symbol: str(amount) for symbol, amount in totals.items()}


def _problems(tally: ReceiptTally) -> list[str]:
    lines = [
        f"transaction {receipt.tx_id.hex()}: {receipt.code.name}"
        + "".join(f", entry {failure.entry} {failure.code.name}" for failure in receipt.failures[:3])
        for receipt in tally.failed
    ]
    if tally.refused:
        lines.append(f"{tally.refused} payments were refused by the receiver's shard and refunded")
    return lines
