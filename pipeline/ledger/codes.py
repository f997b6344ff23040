"""What can become of a transaction, an entry, a control record or an undecodable record.

The numbers are hashed into receipts, so they never change meaning; new ones are appended.
"""

from enum import IntEnum


class Code(IntEnum):
    """Result of a transaction or of one of its entries.

    1 to 9 of a receipt without failures: no state change, no fee. As an entry's code, BAD_KEY and BAD_SIGNATURE are
    a RotateKey's; whether the nonce was consumed is said by `nonce_consumed` alone.
    """

    OK = 0
    WRONG_CHAIN = 1
    WRONG_SHARD = 2
    LIMIT_EXCEEDED = 3
    UNKNOWN_SENDER = 4
    KEY_REQUIRED = 5
    BAD_KEY = 6
    DUPLICATE_NONCE = 7
    NONCE_GAP = 8
    BAD_SIGNATURE = 9
    # From here on the signature held: the nonce advanced and the fee was taken.
    EXPIRED = 20
    GAS_LIMIT = 21
    FEE_NOT_COVERED = 22
    PARTIAL = 23
    """INDEPENDENT mode: some entries failed, each is listed."""
    INSUFFICIENT_FUNDS = 40
    FROZEN = 41
    NOT_ISSUER = 42
    UNKNOWN_ASSET = 43
    ASSET_EXISTS = 44
    SUPPLY_EXCEEDED = 45
    """LIMIT_EXCEEDED as an operation's code: more than 2^128 - 1 would have been issued over the asset's life."""
    NOT_FOUND = 46
    SLOT_NOT_OWNED = 47
    # Control records.
    NO_IDLE_PARTITION = 60
    REFUSED_IN_PROTOCOL = 61
    NOT_APPLICABLE = 62


class DeadLetterReason(IntEnum):
    """Why a record became a dead letter."""

    TOO_LARGE = 1
    UNDECODABLE = 2
    FOREIGN = 3
    """Another chain's, or another destination's, relay bundle."""
    NOT_AUTHORIZED = 4
    """A control record that is out of sequence or not signed by k of n operators."""
    QUARANTINED = 5
