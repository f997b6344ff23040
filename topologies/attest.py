"""An attestor: checks what the synchronizer proposes, and signs it."""

from collections.abc import Callable
from pathlib import Path

from pipeline.config import Config
from pipeline.crypto.port import PrivateKey
from pipeline.ledger.chain import Chain
from pipeline.node.places import chain_log
from pipeline.node.signing import SigningNode


def run_attestor(chain: Chain, config: Config, data: Path, key: PrivateKey, is_done: Callable[[], bool]) -> None:
    """Be an attestor until `is_done`. Raises as `SigningNode`."""
    with chain_log(chain, config) as log:
        node = SigningNode(chain, config, data, log, key, proposes=False)
        try:
            node.run(is_done)
        finally:
            node.close()
