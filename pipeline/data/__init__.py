"""Packaged data: real Ethereum payments for the demo, the tests and the benchmarks. See README.md beside this file."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

SAMPLE_FILE: Final = "ethereum_mainnet_2017_03_06.csv.gz"
SAMPLE_COLUMNS: Final = ("seq", "timestamp", "from", "to", "value_wei", "transaction")
SAMPLE_ROWS: Final = 19_999


def sample() -> Traversable:
    """The packaged sample, a gzipped CSV with a header of `SAMPLE_COLUMNS` and `SAMPLE_ROWS` rows in chain order.

    Use `importlib.resources.as_file` where a path is needed. A wheel that lacks it is broken: opening raises `OSError`.
    """
    return files(__name__) / SAMPLE_FILE
