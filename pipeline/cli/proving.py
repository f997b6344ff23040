"""Making proofs from a directory, beside the process that runs it, and saying what a verified proof shows."""

from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from pipeline.client.light import VerifiedValue
from pipeline.client.proof_file import MAX_PROOF_BYTES, StateProof, prove
from pipeline.codec.types import Address, AssetId, StateKey
from pipeline.crypto.addresses import format_address
from pipeline.errors import ConfigError, Fatal, VerificationFailed
from pipeline.ledger.checkpoints import SignedStateRoot
from pipeline.ledger.leaves import Account, Balance, account_key, balance_key
from pipeline.node.reader import LedgerView
from pipeline.tree.keys import slot_of_key

PATIENCE_S: Final = 10.0
_STORE_PATIENCE_S: Final = 0.2
_POLL_S: Final = 0.01
_TAIL: Final = 64
_BALANCE: Final = b"balance/"
_ACCOUNT: Final = b"account/"
_EXPECTED: Final = "give a file that `hauptbuch prove` wrote, whole"


def key_to_prove(reader: LedgerView, address: Address, asset: AssetId) -> StateKey:
    """The balance; where there is no account at all, the account, whose absence says more."""
    exists = reader.account(address) is not None
    return balance_key(address, asset) if exists else account_key(address)


def prove_signed(reader: LedgerView, key: StateKey, patience_s: float = PATIENCE_S) -> StateProof:
    """The proof of a key under the newest signed root; waits until the store stands at one.

    Raises `ConfigError` where that takes longer than `patience_s`, naming the number of unsigned blocks.
    """
    shard = reader.chain.shard_map.owners[slot_of_key(key)]
    if reader.cursor(shard).height < 0:
        raise ConfigError(f"shard {shard} has no block yet: run the node (load, send) first")
    deadline = monotonic() + patience_s
    while True:
        root = _root_of_store(reader, shard, min(deadline, monotonic() + _STORE_PATIENCE_S))
        if root is not None:
            return prove(reader.stores[shard], key, root)
        if monotonic() >= deadline:
            raise _unsigned(reader, shard, patience_s)
        reader.refresh()


def _root_of_store(reader: LedgerView, shard: int, deadline: float) -> SignedStateRoot | None:
    """The root that signs the block on which the store stands; None where it is passed over, or not there in time."""
    height = reader.cursor(shard).height
    while True:
        head = reader.signed_head(shard)
        newest = -1 if head is None else head.root.height
        # Beside a running node the store may be some blocks behind what is signed by now.
        heads = [head] if head is not None and newest <= height else reader.signed_heads(shard, _TAIL)
        for root, _, signed in heads:
            if root.height == height >= 0:
                return signed
        if newest > height or monotonic() >= deadline:
            return None
        sleep(_POLL_S)
        reader.refresh_log()


def _unsigned(reader: LedgerView, shard: int, patience_s: float) -> ConfigError:
    head = reader.signed_head(shard)
    count = reader.cursor(shard).height - (-1 if head is None else head.root.height)
    return ConfigError(
        f"shard {shard} has {count} block{'s' if count != 1 else ''} that no root signs after {patience_s:g} s; "
        "run the node (load, send) until they are signed, then try again"
    )


def write_proof(path: Path, proof: StateProof) -> int:
    """Write a proof file; its size. Raises `ConfigError`."""
    raw = proof.to_bytes()
    try:
        path.write_bytes(raw)
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}; give another place") from None
    return len(raw)


def read_proof(path: Path) -> StateProof:
    """Read a proof file; nothing about it is checked yet. Raises `ConfigError` where it can't be read or is none."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_PROOF_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"proof file {path} can't be read: {error.strerror}; {_EXPECTED}") from None
    try:
        return StateProof.from_bytes(raw)
    except VerificationFailed as error:  # nothing was checked, so nothing was found false
        raise ConfigError(f"{path} can't be checked: {error}; {_EXPECTED}") from None


def shown_value(verified: VerifiedValue) -> dict[str, Any]:
    """What a verified proof says, for JSON; amounts in minor units, as strings.

    Raises `VerificationFailed` for a value that no ledger of this protocol holds.
    """
    key, value = verified.key, verified.value
    shown: dict[str, Any] = {"present": value is not None}
    try:
        if key.startswith(_BALANCE):
            balance = Balance.from_bytes(value)
            address, asset = key[len(_BALANCE) : len(_BALANCE) + 32], key[-32:]
            shown |= {"address": format_address(Address(address)), "asset": asset.hex()}
            return shown | {"balance": str(balance.amount), "frozen": balance.frozen}
        if key.startswith(_ACCOUNT):
            shown |= {"address": format_address(Address(key[len(_ACCOUNT) :]))}
            return shown | {"nonce": None if value is None else Account.from_bytes(value).nonce}
    except Fatal:
        raise VerificationFailed("the proved value is no balance or account of this protocol") from None
    return shown | {"key": key.hex(), "value": None if value is None else value.hex()}


def check_expected(shown: dict[str, Any], address: Address | None, asset: AssetId | None) -> None:
    """Whether a proof is about this account and asset; None: about any. Raises `VerificationFailed`.

    That an account is absent says the same of each of its balances.
    """
    about = shown.get("address")
    if address is not None and about != format_address(address):
        what = f"account {about}" if about else "no account"
        raise VerificationFailed(f"the proof is about {what}, not {format_address(address)}: ask for another one")
    found = shown.get("asset")
    is_no_account = about is not None and found is None and not shown["present"]
    if asset is not None and found != asset.hex() and not is_no_account:
        what = f"asset {found}" if found else "no asset"
        raise VerificationFailed(f"the proof is about {what}, not {asset.hex()}: ask for another one")


def shown_line(shown: dict[str, Any]) -> str:
    """The same in words."""
    if "balance" in shown:
        frozen = ", frozen" if shown["frozen"] else ""
        what = f"{shown['balance']} minor units{frozen}" if shown["present"] else "absent: it is 0"
        return f"balance of {shown['address']} in asset {shown['asset']}: {what}"
    if "address" in shown:
        state = f"exists, {shown['nonce']} transactions sent" if shown["present"] else "absent: never credited"
        return f"account {shown['address']}: {state}"
    return f"state key {shown['key']}: {shown['value'] if shown['present'] else 'absent'}"
