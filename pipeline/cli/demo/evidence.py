"""Proofs of the demo: through files and the light client alone, compared with plain arithmetic over the payments."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from pipeline.cli.csv_source import Payment
from pipeline.cli.proving import key_to_prove, prove_signed, read_proof, shown_value, write_proof
from pipeline.client.light import LightClient
from pipeline.client.trust import load_trust, save_trust
from pipeline.codec.types import Address, AssetId
from pipeline.crypto.addresses import format_address
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import VerificationFailed
from pipeline.node.node import wall_clock_ms
from pipeline.node.reader import LedgerView

STRANGER: Final = Address(sha256(b"nobody was ever paid at this address").digest())


@dataclass(frozen=True, slots=True)
class ProofCheck:
    """A proof file that was verified offline. `balance` in minor units, None where absence was proved."""

    address: str
    balance: int | None
    file_bytes: int
    round: int
    height: int
    shard: int
    forgery_refused: bool
    holds: bool


def final_balances(payments: Sequence[Payment]) -> dict[str, int]:
    """Minor units that each name holds at the end, by plain arithmetic: payers start with just what they spend."""
    balances: Counter[str] = Counter()
    for payment in payments:
        balances[payment.payer] += 0
        balances[payment.payee] += payment.amount
    return dict(balances)


def balances_differ(reader: LedgerView, asset: AssetId, expected: Mapping[Address, int]) -> int:
    """How many accounts of the ledger hold something else than expected; accounts without either count as equal."""
    found = {
        account.address: sum(balance.amount for held, balance in account.balances if held == asset)
        for account in reader.accounts()
    }
    return sum(found.get(address, 0) != expected.get(address, 0) for address in found.keys() | expected.keys())


def check_proof(reader: LedgerView, folder: Path, address: Address, asset: AssetId, expected: int | None) -> ProofCheck:
    """Write the proof of a balance (`expected`; None: that there is no account), read it back, verify it offline.

    A copy that shows one minor unit more, or an account that isn't there, must be refused. Raises as `prove_signed`.
    """
    path = folder / f"{format_address(address)}.proof"
    size = write_proof(path, prove_signed(reader, key_to_prove(reader, address, asset)))
    trust = load_trust(reader.layout.trust)
    client = LightClient(trust, InlineVerifier(STANDARD_SUITES))
    proof = read_proof(path)
    verified = client.verify(proof, wall_clock_ms())
    save_trust(reader.layout.trust, client.trust)
    shown = shown_value(verified)
    balance = int(shown["balance"]) if "balance" in shown else None
    root = verified.root
    return ProofCheck(
        address=format_address(address),
        balance=balance,
        file_bytes=size,
        round=root.checkpoint.round,
        height=root.state_root.height,
        shard=root.state_root.shard,
        forgery_refused=_is_forgery_refused(path, client),
        holds=balance == expected and shown["present"] == (expected is not None),
    )


def _is_forgery_refused(path: Path, client: LightClient) -> bool:
    proof = read_proof(path)
    value = proof.proof.value
    forged = bytes(41) if value is None else (int.from_bytes(value[:16]) + 1).to_bytes(16) + value[16:]
    try:
        client.verify(replace(proof, proof=replace(proof.proof, value=forged)), wall_clock_ms())
    except VerificationFailed:
        return True
    return False
