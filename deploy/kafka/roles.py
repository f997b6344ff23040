"""What each role of a chain may do on a cluster: a table, and nothing that asks a cluster.

Whoever may write a topic may describe it, and so may who reads it. Nobody may create, delete or alter topics but the
cluster's administrator, who runs `hauptbuch init`. A producer writes without transactions, so that it can't leave one
open, which would hide what others write behind it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pipeline.codec.topics import Topic
from pipeline.codec.types import Hash32
from pipeline.errors import ConfigError
from pipeline.ledger.chain import Chain
from pipeline.ledger.writers import proposer_writer, shard_writer, signer_writer
from pipeline.node.places import topic_prefix


class Role(StrEnum):
    """Who works on a chain."""

    PRODUCER = "producer"
    """`load`, `send`, and reading commands on a directory, which follow the chain."""
    WORKER = "worker"
    SYNCHRONIZER = "synchronizer"
    ATTESTOR = "attestor"
    SUBSCRIBER = "subscriber"
    """`roots`: reads signed roots and nothing else."""
    AUDITOR = "auditor"
    OPERATOR = "operator"
    """Publishes control records; reads all."""


class Resource(StrEnum):
    """Kafka's kinds of resources, as far as roles need them."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactional id"


class Operation(StrEnum):
    """Kafka's operations, as far as roles need them."""

    READ = "read"
    WRITE = "write"
    DESCRIBE = "describe"


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One operation on one resource, by its literal name."""

    resource: Resource
    name: str
    operation: Operation

    def __str__(self) -> str:
        """For operators."""
        return f"may {self.operation} {self.resource} {self.name}"


_EXECUTING: Final = (Topic.CONTROL, Topic.RELAY, Topic.TRANSACTIONS, Topic.BLOCKS)
"""What it takes to execute blocks again."""
_SIGNING: Final = (*_EXECUTING, Topic.CHECKPOINTS, Topic.STATE_ROOTS)

READS: Final[Mapping[Role, tuple[Topic, ...]]] = MappingProxyType(
    {
        Role.PRODUCER: (*_EXECUTING, Topic.RECEIPTS, Topic.STATE_ROOTS),
        Role.WORKER: (*_EXECUTING, Topic.STATE_ROOTS),
        Role.SYNCHRONIZER: _SIGNING,
        Role.ATTESTOR: _SIGNING,
        Role.SUBSCRIBER: (Topic.STATE_ROOTS,),
        Role.AUDITOR: tuple(Topic),
        Role.OPERATOR: tuple(Topic),
    }
)
WRITES: Final[Mapping[Role, tuple[Topic, ...]]] = MappingProxyType(
    {
        Role.PRODUCER: (Topic.TRANSACTIONS,),
        Role.WORKER: (Topic.BLOCKS, Topic.RELAY, Topic.RECEIPTS, Topic.DEAD_LETTERS),
        Role.SYNCHRONIZER: (Topic.CHECKPOINTS, Topic.STATE_ROOTS),
        Role.ATTESTOR: (Topic.CHECKPOINTS,),
        Role.SUBSCRIBER: (),
        Role.AUDITOR: (),
        Role.OPERATOR: (Topic.CONTROL,),
    }
)


def grants_of(chain: Chain, role: Role, signer: str = "") -> tuple[Grant, ...]:
    """All that `role` needs, ascending.

    `signer`, of synchronizers and attestors only: an attestor's number in genesis from 1, or the id of a key in
    hexadecimal. An attestor needs one, unless the chain has only one. Raises `ConfigError`.
    """
    prefix = topic_prefix(chain)
    grants = [Grant(Resource.TOPIC, f"{prefix}.{topic.topic_name}", Operation.READ) for topic in READS[role]]
    grants += [Grant(Resource.TOPIC, f"{prefix}.{topic.topic_name}", Operation.WRITE) for topic in WRITES[role]]
    # Readers join no group; their client asks for the coordinator of one all the same.
    grants.append(Grant(Resource.GROUP, f"{prefix}-reader", Operation.DESCRIBE))
    if role is Role.WORKER:
        grants.append(Grant(Resource.GROUP, f"{prefix}-workers", Operation.READ))
    writers = _writers(chain, role, signer)
    return tuple(sorted([*grants, *(Grant(Resource.TRANSACTIONAL_ID, name, Operation.WRITE) for name in writers)]))


def _writers(chain: Chain, role: Role, signer: str) -> list[str]:
    if signer and role not in (Role.SYNCHRONIZER, Role.ATTESTOR):
        raise ConfigError(f"a {role} signs no rounds: leave --signer out")
    match role:
        case Role.WORKER:
            return [shard_writer(chain.chain_id, shard) for shard in range(chain.genesis.partitions)]
        case Role.SYNCHRONIZER:
            signing = [signer_writer(chain.chain_id, _key_id(chain, signer))] if signer else []
            return [proposer_writer(chain.chain_id), *signing]
        case Role.ATTESTOR:
            return [signer_writer(chain.chain_id, _key_id(chain, signer))]
        case Role.PRODUCER | Role.SUBSCRIBER | Role.AUDITOR | Role.OPERATOR:
            return []


def _key_id(chain: Chain, signer: str) -> Hash32:
    attestors = chain.genesis.attestors
    if not signer and len(attestors) == 1:
        return attestors[0].key_id
    if signer.isascii() and signer.isdigit() and 0 < int(signer[:5]) <= len(attestors):
        return attestors[int(signer) - 1].key_id
    try:
        raw = bytes.fromhex(signer)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise ConfigError(
            f"--signer must be an attestor's number in genesis, 1 to {len(attestors)}, or the 64 digits of a key's id"
        )
    return Hash32(raw)
