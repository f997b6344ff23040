"""The two passes of a load over its rows: what to mint for each payer, then which rows go into one transaction."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from pipeline.cli.csv_records import Reject
from pipeline.cli.csv_source import Payment
from pipeline.codec.types import MAX_AMOUNT
from pipeline.errors import ConfigError

MAX_HELD_PAYMENTS: Final = 100_000


@dataclass(frozen=True, slots=True)
class FundingPlan:
    """Minor units that each payer spends: `totals[payer][asset]`, in order of first appearance; numbers of rows."""

    totals: dict[str, dict[str, int]]
    payments: int
    rejects: int


class Batch(NamedTuple):
    """Payments of one payer in one asset, in the file's order, for one transaction."""

    payer: str
    asset: str
    payments: tuple[Payment, ...]


def plan_funding(rows: Iterable[Payment | Reject], on_reject: Callable[[Reject], None] | None = None) -> FundingPlan:
    """Pass 1: sum what each payer spends of each asset; memory grows with payers, not with rows.

    Raises `ConfigError` where all payments of an asset exceed 2^128 - 1, since no asset can be minted beyond that.
    """
    totals: dict[str, dict[str, int]] = {}
    minted: dict[str, int] = {}
    payments = rejects = 0
    for row in rows:
        if isinstance(row, Reject):
            rejects += 1
            if on_reject is not None:
                on_reject(row)
            continue
        payments += 1
        spent = totals.setdefault(row.payer, {})
        spent[row.asset] = spent.get(row.asset, 0) + row.amount
        minted[row.asset] = minted.get(row.asset, 0) + row.amount
        if minted[row.asset] > MAX_AMOUNT:
            raise ConfigError(
                f"line {row.line}: payments in {row.asset} add up to over 2^128 - 1 minor units; "
                "give fewer --decimals or a --limit"
            )
    return FundingPlan(totals, payments, rejects)


class _Open:
    """A batch that may still grow."""

    __slots__ = ("closed", "payments")

    def __init__(self, first: Payment) -> None:
        self.payments = [first]
        self.closed = False


def batches(rows: Iterable[Payment | Reject], batch: int, held: int = MAX_HELD_PAYMENTS) -> Iterator[Batch]:
    """Pass 2: each payer's next `batch` payments together, rejects left out.

    A batch ends when it is full or its payer goes on in another asset. Batches come in the order of their first rows,
    and a payer's payments keep theirs. While the oldest batch waits for more rows those behind it wait too: beyond
    `held` waiting payments the oldest one ends early, so memory is bounded. The same rows always give the same batches.
    Raises `ConfigError` for a batch below 1.
    """
    if batch < 1:
        raise ConfigError(f"--batch must be 1 or more, not {batch}")
    waiting: deque[_Open] = deque()
    growing: dict[str, _Open] = {}
    count = 0
    for row in rows:
        if isinstance(row, Reject):
            continue
        count += 1
        current = growing.get(row.payer)
        if current is not None and current.payments[0].asset == row.asset:
            current.payments.append(row)
        else:
            if current is not None:
                current.closed = True
            current = growing[row.payer] = _Open(row)
            waiting.append(current)
        if len(current.payments) == batch:
            current.closed = True
            del growing[row.payer]
        while waiting and (waiting[0].closed or count > held):
            oldest = waiting.popleft()
            if not oldest.closed:
                del growing[oldest.payments[0].payer]
            count -= len(oldest.payments)
            yield _finished(oldest)
    for rest in waiting:
        yield _finished(rest)


def _finished(opened: _Open) -> Batch:
    first = opened.payments[0]
    return Batch(first.payer, first.asset, tuple(opened.payments))
