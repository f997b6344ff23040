"""Lies that an operator could tell with the log in its hands, each told to a copy.

Checksums are put right after every change, so that only signatures and hashes can notice. `LIES` names them all;
`tell` tells one to the directory of an embedded log.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pipeline.audit.log_editor import LogEditor
from pipeline.audit.tamper_records import (
    alter_receipt,
    duplicate_transaction,
    flip_block_byte,
    forge_bundle,
    hide_transaction,
    raise_bundle_amount,
    raise_transaction_amount,
    remove_block,
    remove_bundle,
    remove_receipts,
    reorder_transactions,
    second_block,
)
from pipeline.audit.tamper_rounds import (
    alter_state_root,
    cut_history,
    remove_state_root,
    resign_checkpoint,
    resign_state_root,
    second_checkpoint,
)
from pipeline.audit.tamper_targets import Damage
from pipeline.crypto.suites import SuiteSet
from pipeline.kv.rocks import open_rocks

__all__ = ["LIES", "Damage", "Lie", "tell"]

Lie = Callable[[LogEditor], Damage]
"""Raises `ConfigError` where the log holds nothing to lie about."""

LIES: Final[Mapping[str, Lie]] = MappingProxyType(
    {
        lie.__name__: lie
        for lie in (
            flip_block_byte,
            remove_bundle,
            resign_state_root,
            raise_transaction_amount,
            raise_bundle_amount,
            cut_history,
            remove_block,
            second_block,
            hide_transaction,
            reorder_transactions,
            duplicate_transaction,
            alter_receipt,
            remove_receipts,
            forge_bundle,
            alter_state_root,
            remove_state_root,
            resign_checkpoint,
            second_checkpoint,
        )
    }
)
"""All lies by name; `cut_history` is seen only by one who kept a checkpoint."""


def tell(path: Path, lie: Lie, suites: SuiteSet) -> Damage:
    """Tell one lie to the embedded log in directory `path`, which nobody may have open. Work on a copy."""
    kv = open_rocks(path)
    try:
        return lie(LogEditor(kv, suites))
    finally:
        kv.close()
