"""Making a chain: keys, genesis, topics."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import MAX_SHARDS, Hash32
from pipeline.crypto.addresses import address_of
from pipeline.crypto.port import PrivateKey, SuiteId
from pipeline.crypto.suites import SuiteSet
from pipeline.errors import ConfigError, TaskDiverged
from pipeline.ledger.chain import Chain
from pipeline.ledger.genesis import Genesis, SignerKey
from pipeline.ledger.transactions import asset_id_of
from pipeline.log.port import Append, EventLog

FEE_SYMBOL: Final = b"FEE"
_PARTITIONS_PER_SHARD: Final = 4
_SINGLE: Final = (Topic.CONTROL, Topic.CHECKPOINTS)


@dataclass(frozen=True, slots=True)
class NewChain:
    """A chain that nobody runs yet, and the keys of its roles."""

    chain: Chain
    keys: Mapping[str, PrivateKey]


def new_chain(
    suites: SuiteSet,
    name: str,
    shards: int,
    created_ms: int,
    *,
    suite_id: int = SuiteId.ML_DSA_65,
    partitions: int | None = None,
    attestors: int = 1,
    attestor_threshold: int = 1,
    seed: bytes | None = None,
) -> NewChain:
    """One key a role and a genesis; from `seed` if given (demonstrations and tests), else random.

    Several attestors are the roles attestor, attestor-2, attestor-3 and so on. Raises `ConfigError` where genesis would
    be refused.
    """
    suite = suites.require(suite_id)
    signers = ["attestor", *[f"attestor-{number}" for number in range(2, attestors + 1)]]
    keys = {
        role: suite.generate(derive_seed(seed, role) if seed else None) for role in ("treasury", "operator", *signers)
    }
    treasury = address_of(suite_id, keys["treasury"].public_key)
    genesis = Genesis(
        salt=Hash32(derive_seed(seed, "salt") if seed else secrets.token_bytes(32)),
        name=name,
        created_ms=created_ms,
        shards=shards,
        partitions=partitions or min(MAX_SHARDS, _PARTITIONS_PER_SHARD * shards),
        attestors=tuple(SignerKey(suite_id, keys[role].public_key) for role in signers),
        attestor_threshold=attestor_threshold,
        operators=(SignerKey(suite_id, keys["operator"].public_key),),
        operator_threshold=1,
        fee_asset=asset_id_of(treasury, FEE_SYMBOL),
        treasury=treasury,
    )
    chain = Chain.of(genesis)
    check_suites(chain, suites)
    return NewChain(chain, keys)


def derive_seed(seed: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose."""
    return sha256(b"hauptbuch seed\x00" + seed + b"\x00" + purpose.encode()).digest()


def check_suites(chain: Chain, suites: SuiteSet) -> None:
    """Every listed key must be of a suite that this node knows. Raises `ConfigError`: test suites end here."""
    for key in (*chain.genesis.attestors, *chain.genesis.operators):
        if not suites.accepts_key(key.suite, key.public_key):
            raise ConfigError(f"genesis refused: it lists a key of suite 0x{key.suite:02x} that this node can't verify")


def create_topics(log: EventLog, chain: Chain) -> None:
    """Create the topics and put genesis at control offset 0; checks where they exist.

    Raises `ConfigError` for other partition counts, `TaskDiverged` for another genesis.
    """
    for topic in Topic:
        log.create_topic(topic, 1 if topic in _SINGLE else chain.genesis.partitions)
    control = TopicPartition(Topic.CONTROL, 0)
    if log.end_offset(control) == 0:
        log.append([Append(control, None, chain.genesis.to_record())])
    first = log.read(control, 0, 1, chain.genesis.limits.message_bytes)
    if not first or first[0].offset != 0 or first[0].value != chain.genesis.to_record():
        raise TaskDiverged("the control topic begins with another genesis than this directory's; check both")


def require_topics(log: EventLog, topic: Topic = Topic.CONTROL) -> None:
    """Raise `ConfigError` where the cluster has nothing of the chain; judged by one topic that may be read."""
    if not log.partitions(topic):
        raise ConfigError("the cluster has no topics of this chain: `hauptbuch init --kafka` makes them")
