"""Hauptbuch: a sharded, event-sourced ledger on Kafka whose state anyone can verify.

The names below are the public API; everything else may change. They are imported when first used, so that a producer
does not pay for the auditor.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.audit.report import AuditReport
    from pipeline.audit.run import audit_log
    from pipeline.client.cluster import LedgerClient
    from pipeline.client.light import LightClient, VerifiedRoot, VerifiedValue, verify_state_root
    from pipeline.client.producer import Publication, PublicationUnknown, Sender, TransactionFuture, TransactionProducer
    from pipeline.client.proof_file import StateProof
    from pipeline.client.receipts import ReceiptWatcher
    from pipeline.client.subscriber import StateRootSubscriber
    from pipeline.client.trust import Trust, load_trust, save_trust
    from pipeline.crypto.addresses import address_of, format_address, parse_address
    from pipeline.crypto.keystore import load_key, save_key
    from pipeline.crypto.suites import STANDARD_SUITES, SuiteId
    from pipeline.crypto.verifier import PoolVerifier
    from pipeline.errors import HauptbuchError
    from pipeline.ledger.codes import Code
    from pipeline.ledger.leaves import Balance, balance_key
    from pipeline.ledger.packing import pack_transfers
    from pipeline.ledger.transactions import (
        Burn,
        CreateAsset,
        DeleteData,
        Freeze,
        Mint,
        Mode,
        PutData,
        RotateKey,
        Transfer,
        asset_id_of,
    )
    from pipeline.node.node import Node
    from pipeline.node.reader import LedgerReader
    from pipeline.shards.manager import NewShard
    from pipeline.system import ShardingSystem

_HOMES = {
    "audit.report": ("AuditReport",),
    "audit.run": ("audit_log",),
    "client.cluster": ("LedgerClient",),
    "client.light": ("LightClient", "VerifiedRoot", "VerifiedValue", "verify_state_root"),
    "client.producer": ("Publication", "PublicationUnknown", "Sender", "TransactionFuture", "TransactionProducer"),
    "client.proof_file": ("StateProof",),
    "client.receipts": ("ReceiptWatcher",),
    "client.subscriber": ("StateRootSubscriber",),
    "client.trust": ("Trust", "load_trust", "save_trust"),
    "crypto.addresses": ("address_of", "format_address", "parse_address"),
    "crypto.keystore": ("load_key", "save_key"),
    "crypto.suites": ("STANDARD_SUITES", "SuiteId"),
    "crypto.verifier": ("PoolVerifier",),
    "errors": ("HauptbuchError",),
    "ledger.codes": ("Code",),
    "ledger.leaves": ("Balance", "balance_key"),
    "ledger.packing": ("pack_transfers",),
    "ledger.transactions": (
        "Burn",
        "CreateAsset",
        "DeleteData",
        "Freeze",
        "Mint",
        "Mode",
        "PutData",
        "RotateKey",
        "Transfer",
        "asset_id_of",
    ),
    "node.node": ("Node",),
    "node.reader": ("LedgerReader",),
    "shards.manager": ("NewShard",),
    "system": ("ShardingSystem",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "STANDARD_SUITES",
    "AuditReport",
    "Balance",
    "Burn",
    "Code",
    "CreateAsset",
    "DeleteData",
    "Freeze",
    "HauptbuchError",
    "LedgerClient",
    "LedgerReader",
    "LightClient",
    "Mint",
    "Mode",
    "NewShard",
    "Node",
    "PoolVerifier",
    "Publication",
    "PublicationUnknown",
    "PutData",
    "ReceiptWatcher",
    "RotateKey",
    "Sender",
    "ShardingSystem",
    "StateProof",
    "StateRootSubscriber",
    "SuiteId",
    "TransactionFuture",
    "TransactionProducer",
    "Transfer",
    "Trust",
    "VerifiedRoot",
    "VerifiedValue",
    "address_of",
    "asset_id_of",
    "audit_log",
    "balance_key",
    "format_address",
    "load_key",
    "load_trust",
    "pack_transfers",
    "parse_address",
    "save_key",
    "save_trust",
    "verify_state_root",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value
