"""State keys and the packed values of their leaves. A leaf per thing, so that nobody can make another's leaf grow."""

from typing import Final, NamedTuple

from pipeline.codec.types import ZERO32, Address, AssetId, Hash32, Slot, StateKey
from pipeline.errors import Fatal

BALANCE_BYTES: Final = 17
_THAWED: Final = b"\x00"
_FROZEN: Final = b"\x01"
_new: Final = tuple.__new__  # what a NamedTuple's call ends in, without its Python frame


class Account(NamedTuple):
    """Value of `account/`A: nonce 8 ‖ suite 1 ‖ key_hash 32. `nonce` is the next one; suite 0 means no key yet."""

    nonce: int = 0
    suite: int = 0
    key_hash: Hash32 = ZERO32

    def to_bytes(self) -> bytes:
        """41 bytes, big-endian."""
        return self.nonce.to_bytes(8, "big") + bytes([self.suite]) + self.key_hash

    @classmethod
    def from_bytes(cls, value: bytes) -> "Account":
        """The account of a leaf value. Raises `Fatal` for bytes that no engine wrote."""
        if len(value) != 41:
            raise Fatal("an account leaf does not have 41 bytes: restore the state store from the log")
        return _new(cls, (int.from_bytes(value[:8], "big"), value[8], value[9:]))


class Balance(NamedTuple):
    """Value of `balance/`A`/`S: amount 16 ‖ frozen 1."""

    amount: int = 0
    frozen: bool = False

    def to_bytes(self) -> bytes | None:
        """17 bytes, or None (no leaf) where zero and not frozen."""
        if not self.amount and not self.frozen:
            return None
        return self.amount.to_bytes(16, "big") + (_FROZEN if self.frozen else _THAWED)

    @classmethod
    def from_bytes(cls, value: bytes | None) -> "Balance":
        """The balance of a leaf value; no leaf is zero. Raises `Fatal` for bytes that no engine wrote."""
        if value is None:
            return cls()
        if len(value) != BALANCE_BYTES or value[16] > 1:
            raise Fatal("a balance leaf is not 16 bytes and a flag: restore the state store from the log")
        return _new(cls, (int.from_bytes(value[:16], "big"), value[16] == 1))


class Asset(NamedTuple):
    """Value of `asset/`S: issuer 32 ‖ decimals 1 ‖ issued 16 ‖ burned 16 ‖ symbol."""

    issuer: Address
    symbol: bytes
    decimals: int
    issued: int = 0
    burned: int = 0

    def to_bytes(self) -> bytes:
        """65 bytes and the symbol."""
        head = self.issuer + bytes([self.decimals])
        return head + self.issued.to_bytes(16, "big") + self.burned.to_bytes(16, "big") + self.symbol

    @classmethod
    def from_bytes(cls, value: bytes) -> "Asset":
        """The asset of a leaf value. Raises `Fatal` for bytes that no engine wrote."""
        if len(value) <= 65:
            raise Fatal("an asset leaf is too short: restore the state store from the log")
        issued, burned = int.from_bytes(value[33:49], "big"), int.from_bytes(value[49:65], "big")
        return cls(Address(value[:32]), value[65:], value[32], issued, burned)


def account_key(address: Address) -> StateKey:
    """`account/`A."""
    return b"account/" + address  # type: ignore[return-value]  # no call of NewType several times a transaction


def public_key_key(address: Address) -> StateKey:
    """`key/`A: the recorded public key."""
    return b"key/" + address  # type: ignore[return-value]


def balance_key(address: bytes, asset: AssetId) -> StateKey:
    """`balance/`A`/`S."""
    return b"balance/" + address + b"/" + asset  # type: ignore[return-value]


def asset_key(asset: AssetId) -> StateKey:
    """`asset/`S."""
    return StateKey(b"asset/" + asset)


def data_key(address: Address, name: bytes) -> StateKey:
    """`data/`A`/`name."""
    return StateKey(b"data/" + address + b"/" + name)


def fees_key(slot: Slot) -> StateKey:
    """`fees/`slot (2 bytes, big-endian): fees gathered in the senders' slot, value amount 16."""
    return StateKey(b"fees/" + slot.to_bytes(2, "big"))
