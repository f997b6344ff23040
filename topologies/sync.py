"""The synchronizer: checks blocks, proposes rounds, publishes signed state roots."""

from collections.abc import Callable
from pathlib import Path

from pipeline.config import Config
from pipeline.crypto.port import PrivateKey
from pipeline.ledger.chain import Chain
from pipeline.node.places import chain_log
from pipeline.node.signing import SigningNode


def run_synchronizer(
    chain: Chain, config: Config, data: Path, key: PrivateKey | None, is_done: Callable[[], bool]
) -> None:
    """Be the synchronizer until `is_done`; with `key` the signer too, where one suffices. Raises as `SigningNode`."""
    with chain_log(chain, config) as log:
        node = SigningNode(chain, config, data, log, key, proposes=True)
        try:
            node.run(is_done)
        finally:
            node.close()
