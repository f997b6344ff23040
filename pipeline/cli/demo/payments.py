"""The payments of the packaged sample that a ledger can book, in the order of the chain."""

from importlib.resources import as_file
from itertools import islice
from typing import Final

from pipeline.cli.csv_source import Columns, CsvSource, Payment
from pipeline.data import SAMPLE_ROWS, sample
from pipeline.errors import ConfigError

ASSET: Final = "ETH"
DECIMALS: Final = 18
_COLUMNS: Final = Columns("from", "to", "value_wei", None, "transaction")


def sample_payments(count: int) -> list[Payment]:
    """The first `count` payments: a receiver other than the payer, an amount above 0, in wei.

    Raises `ConfigError` where the sample does not have so many.
    """
    with as_file(sample()) as path:
        rows = CsvSource(path, _COLUMNS).rows()
        payments = list(islice((row for row in rows if isinstance(row, Payment) and row.payer != row.payee), count))
    if not 1 <= len(payments) == count:
        raise ConfigError(
            f"--rows {count}: the sample has {len(payments)} payments in {SAMPLE_ROWS} rows; ask for 1 to that"
        )
    return payments
