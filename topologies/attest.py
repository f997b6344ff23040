"""An attestor: checks what the synchronizer proposes, and signs it."""

from collections.abc import Callable
from pathlib import Path

from pipeline.config import Config
from pipeline.crypto.port import PrivateKey
from pipeline.ledger.chain import Chain
from pipeline.node.places import chain_log
from pipeline.node.signing import SigningNode
from pipeline.watch.rounds import RoundWatch


def run_attestor(
    chain: Chain, config: Config, data: Path, key: PrivateKey, watch: RoundWatch, is_done: Callable[[], bool]
) -> None:
    """Be an attestor until `is_done`. Raises as `SigningNode`."""
    with chain_log(chain, config) as log:
        node = SigningNode(chain, config, data, log, key, proposes=False, observer=watch)
        watch.task, watch.verified = node.task, node.signatures_verified
        try:
            node.run(watch.watching(is_done))
        finally:
            node.close()
