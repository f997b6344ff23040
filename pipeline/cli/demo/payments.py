"""The payments of the packaged sample that a ledger can book, in the order of the chain."""

from importlib.resources import as_file
from itertools import islice
from typing import Final

from pipeline.cli.csv_source import Columns, CsvSource, Payment
from pipeline.data import sample
from pipeline.errors import ConfigError

ASSET: Final = "ETH"
DECIMALS: Final = 18
LEAST: Final = 2
"""Each of the two phases needs one."""
_COLUMNS: Final = Columns("from", "to", "value_wei", None, "transaction")


def sample_payments(count: int) -> list[Payment]:
    """The first `count` payments: a receiver other than the payer, an amount above 0, in wei.

    Raises `ConfigError` where the sample does not have so many, and below `LEAST`.
    """
    with as_file(sample()) as path:
        rows = CsvSource(path, _COLUMNS).rows()
        payments = list(
            islice((row for row in rows if isinstance(row, Payment) and row.payer != row.payee), max(count, 0))
        )
    if not LEAST <= len(payments) == count:
        raise ConfigError(f"--rows {count}: ask for {LEAST} to 17,917 payments; so many are in the sample")
    return payments
