"""Genesis: record 0 of the control topic, and everything that never changes about a chain."""

from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.codec.avro import codec
from pipeline.codec.types import (
    MAX_AMOUNT,
    MAX_SHARDS,
    SLOTS,
    Address,
    AssetId,
    ChainId,
    Hash32,
    tagged_hash,
)
from pipeline.crypto.addresses import key_id
from pipeline.errors import ConfigError

PROTOCOL: Final = 1
CHUNK_BYTES: Final = 524_288
"""Greatest encoding of one relay bundle or receipt chunk."""
MAX_PROOF_BYTES: Final = 1_048_576
"""Greatest proof file that readers accept; genesis keeps every leaf's proof below it."""
_PROOF_PATH_BYTES: Final = 16_384  # a full page, the most siblings, the key's fixed parts, state root and checkpoint
_OVERHEAD_BYTES: Final = 1_024
_SIGNATURE_BYTES: Final = 8_192  # room for one of the largest suite, with its signer
_KEY_BYTES: Final = 2_700  # room for a public key of the largest suite
_MAX_SIGNERS: Final = 256  # what a light client reads of one state root
_MAX_NAME_BYTES: Final = 4_096  # an entry fits a relay chunk with its reference, a leaf key its 65,535 bytes
_GENESIS: Final = "Genesis"


@dataclass(frozen=True, slots=True)
class SignerKey:
    """A listed public key of an attestor or operator."""

    suite: int
    public_key: bytes

    @property
    def key_id(self) -> Hash32:
        """SHA-256(suite byte ‖ public key)."""
        return key_id(self.suite, self.public_key)

    def to_dict(self) -> dict[str, Any]:
        """The Avro value."""
        return {"suite": self.suite, "public_key": self.public_key}


@dataclass(frozen=True, slots=True)
class GasSchedule:
    """What work costs, in gas; defaults from the original architecture's table."""

    local_entry: int = 500_000
    remote_entry: int = 1_500_000
    further_divisor: int = 10
    leaf: int = 10_000
    shard_creation: int = 1_000_000
    round: int = 2_000_000
    min_price: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Static limits of records, transactions and blocks."""

    record_bytes: int = 600_000
    operations: int = 100
    entries: int = 10_000
    reference_bytes: int = 64
    symbol_bytes: int = 32
    data_name_bytes: int = 64
    data_value_bytes: int = 4_096
    message_bytes: int = 1_048_576
    block_gas: int = 4_000_000_000
    block_records: int = 4_096
    block_bytes: int = 33_554_432


@dataclass(frozen=True, slots=True)
class Genesis:
    """The constitution of a chain.

    `fee_asset` is an asset like any other; `treasury` is the one account that exists without a credit and pays no
    fees. `predecessor` is the last checkpoint datum of the chain that this one succeeds.
    """

    salt: Hash32
    name: str
    created_ms: int
    shards: int
    partitions: int
    attestors: tuple[SignerKey, ...]
    attestor_threshold: int
    operators: tuple[SignerKey, ...]
    operator_threshold: int
    fee_asset: AssetId
    treasury: Address
    gas: GasSchedule = field(default_factory=GasSchedule)
    limits: Limits = field(default_factory=Limits)
    max_clock_step_ms: int = 604_800_000
    heartbeat_ms: int = 60_000
    predecessor: bytes | None = None
    protocol: int = PROTOCOL

    def to_bytes(self) -> bytes:
        """The bare datum."""
        gas = {name: getattr(self.gas, name) for name in GasSchedule.__slots__}
        gas["min_price"] = self.gas.min_price.to_bytes(16, "big")
        value = {name: getattr(self, name) for name in Genesis.__slots__}
        value |= {
            "name": self.name.encode(),
            "attestors": [key.to_dict() for key in self.attestors],
            "operators": [key.to_dict() for key in self.operators],
            "gas": gas,
            "limits": {name: getattr(self.limits, name) for name in Limits.__slots__},
        }
        return codec(_GENESIS).encode(value)

    @classmethod
    def from_bytes(cls, datum: bytes) -> "Genesis":
        """Decode and validate. Raises `PoisonRecord` for other bytes, `ConfigError` for an unusable genesis."""
        value = codec(_GENESIS).decode(datum)
        gas, limits = value["gas"], value["limits"]
        try:
            name = value["name"].decode()
        except UnicodeDecodeError:
            raise ConfigError("genesis refused: its name is not UTF-8") from None
        genesis = cls(
            **{
                **value,
                "name": name,
                "attestors": tuple(SignerKey(**key) for key in value["attestors"]),
                "operators": tuple(SignerKey(**key) for key in value["operators"]),
                "gas": GasSchedule(**{**gas, "min_price": int.from_bytes(gas["min_price"], "big")}),
                "limits": Limits(**limits),
            }
        )
        genesis.validate()
        return genesis

    def to_record(self) -> bytes:
        """The framed record value for offset 0 of `control`."""
        return codec(_GENESIS).frame(self.to_bytes())

    @classmethod
    def from_record(cls, record: bytes | None) -> "Genesis":
        """Decode a framed record. Raises as `from_bytes`."""
        return cls.from_bytes(codec(_GENESIS).unframe(record))

    @property
    def chain_id(self) -> ChainId:
        """H(`genesis`, bare datum)."""
        return ChainId(tagged_hash("genesis", self.to_bytes()))

    def validate(self) -> None:
        """Raises `ConfigError` where the chain could not run or could stop for ever."""
        for holds, complaint in self._rules():
            if not holds:
                raise ConfigError(f"genesis refused: {complaint}")

    def _rules(self) -> list[tuple[bool, str]]:
        limits, gas = self.limits, self.gas
        entry_gas = max(gas.local_entry, gas.remote_entry)
        further_gas = entry_gas // max(1, gas.further_divisor)
        dearest = entry_gas + further_gas * (limits.entries - 1) + gas.leaf * limits.entries
        inbound = gas.local_entry // max(1, gas.further_divisor) * (CHUNK_BYTES // 50 + 1)
        receipt = 3 * limits.entries + 10 * MAX_SHARDS * 2 + _OVERHEAD_BYTES
        channels = 2 * MAX_SHARDS + 2 * limits.block_bytes // CHUNK_BYTES
        header = 42 * min(SLOTS, 2 * limits.entries * limits.block_records) + 42 * channels + _OVERHEAD_BYTES
        governance = (self.attestor_threshold + self.operator_threshold) * _SIGNATURE_BYTES
        governance += len(self.attestors) * _KEY_BYTES
        leaf = max(limits.data_value_bytes + limits.data_name_bytes, limits.symbol_bytes)
        proof = leaf + self.attestor_threshold * _SIGNATURE_BYTES + _PROOF_PATH_BYTES
        return [
            (
                self.protocol == PROTOCOL,
                f"protocol {self.protocol} is not known to this version; upgrade hauptbuch",
            ),
            (
                1 <= self.shards <= self.partitions,
                f"{self.shards} shards do not fit {self.partitions} partitions",
            ),
            (self.partitions <= MAX_SHARDS, f"{self.partitions} partitions exceed {MAX_SHARDS}"),
            (len(self.name.encode()) <= 64, "its name exceeds 64 bytes"),
            *_quorum("attestor", self.attestors, self.attestor_threshold),
            *_quorum("operator", self.operators, self.operator_threshold),
            (
                len(self.fee_asset) == 32 and len(self.treasury) == 32 and len(self.salt) == 32,
                "an id is not 32 bytes",
            ),
            (min(getattr(limits, n) for n in Limits.__slots__) > 0, "a limit is not positive"),
            (
                min(gas.local_entry, gas.remote_entry, gas.leaf, gas.shard_creation, gas.round) >= 0,
                "a gas cost is negative",
            ),
            (gas.further_divisor >= 1, "further_divisor is not positive"),
            (0 <= gas.min_price <= MAX_AMOUNT, "min_price is not an amount"),
            (
                max(limits.reference_bytes, limits.symbol_bytes, limits.data_name_bytes) <= _MAX_NAME_BYTES,
                f"a reference, symbol or data name may have at most {_MAX_NAME_BYTES} bytes",
            ),
            (limits.entries <= 65_535, "more entries than an entry index can count"),
            (limits.operations <= limits.entries, "more operations than entries"),
            (
                2 * dearest <= limits.block_gas,
                f"the dearest transaction needs {dearest} gas, half a block has less",
            ),
            (2 * inbound <= limits.block_gas, f"one relay bundle needs {inbound} gas, half a block has less"),
            (limits.record_bytes <= limits.block_bytes, "a record does not fit a block"),
            (
                max(CHUNK_BYTES, limits.record_bytes, receipt, header, governance) + _OVERHEAD_BYTES
                <= limits.message_bytes,
                f"the largest output does not fit max.message.bytes {limits.message_bytes}",
            ),
            (
                proof <= MAX_PROOF_BYTES,
                f"the largest leaf's proof, with its attestors' signatures, may need {proof} bytes, more than the "
                f"{MAX_PROOF_BYTES} that readers accept; lower data_value_bytes or the attestor threshold",
            ),
            (self.max_clock_step_ms > 0 and self.heartbeat_ms > 0, "a clock setting is not positive"),
            (self.created_ms >= 0, "created_ms is negative"),
        ]


def _quorum(role: str, keys: tuple[SignerKey, ...], threshold: int) -> list[tuple[bool, str]]:
    return [
        (1 <= threshold <= len(keys), f"{role} threshold {threshold} does not fit {len(keys)} keys"),
        (len(keys) <= _MAX_SIGNERS, f"{len(keys)} {role}s are more than {_MAX_SIGNERS}"),
        (len(set(keys)) == len(keys), f"two {role}s have the same key"),
        (all(0 <= key.suite <= 255 for key in keys), f"an {role} key has no valid suite"),
    ]
