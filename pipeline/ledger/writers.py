"""Ids of a chain's log writers. Each is the fence of what it writes, and what access rules name."""

from pipeline.codec.types import ChainId, Hash32


def shard_writer(chain_id: ChainId, shard: int) -> str:
    """Of a shard's leader."""
    return f"{_chain(chain_id)}-shard-{shard}"


def proposer_writer(chain_id: ChainId) -> str:
    """Of the synchronizer."""
    return f"{_chain(chain_id)}-proposer"


def signer_writer(chain_id: ChainId, key_id: Hash32) -> str:
    """Of whoever signs rounds with a key, as attestor or as a sole synchronizer."""
    return f"{_chain(chain_id)}-signer-{key_id.hex()}"


def _chain(chain_id: ChainId) -> str:
    return chain_id.hex()[:16]
