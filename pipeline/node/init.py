"""Making a node's directory: whole or not at all.

Everything is made in a directory beside the wanted one, which is then renamed into place.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.codec.types import ShardId
from pipeline.crypto.keystore import save_key
from pipeline.crypto.suites import SuiteSet
from pipeline.errors import ConfigError
from pipeline.kv.rocks import open_rocks
from pipeline.ledger.chain import Chain
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import EventLog
from pipeline.node.bootstrap import NewChain, create_topics
from pipeline.node.layout import NodeLayout
from pipeline.state.store import StateStore

DEFAULT_CONFIG: Final = """\
# Settings of this node. What is commented out is the default. The environment overrides the file, for instance
# HAUPTBUCH_SHARD__LINGER_MS=10. What genesis fixes (shards, limits, gas) is no setting.

[shard]
# linger_ms = 5             # a block closes this long after its first input

[store]
# cache_bytes = 268435456   # memory for slot trees and values, all shards together
# durability = "sync"       # "process": a commit survives the end of the process, not a power cut

[sync]
# round_linger_ms = 5       # a round closes this long after its first unsigned block
# assurance = "headers"     # "execution": execute every block again before signing
# max_clock_ahead_ms = 10000
"""

_ON_KAFKA: Final = """
[kafka]
bootstrap = "{}"

# Who this directory's commands are for the brokers; give this file mode 0600 if it holds a password.
# [kafka.security]
# protocol = "SASL_SSL"
# mechanism = "SCRAM-SHA-512"
# username = ""
# password = ""             # or HAUPTBUCH_KAFKA__SECURITY__PASSWORD
# ca_location = ""          # PEM file of the authority that signed the brokers' certificates
"""


class Cluster(NamedTuple):
    """Where a chain's topics are to be made: brokers, and the log of a chain there."""

    bootstrap: str
    open_log: Callable[[Chain], EventLog]


def create_directory(
    root: Path,
    new: NewChain,
    passphrase: str,
    suites: SuiteSet,
    furnish: Callable[[NodeLayout, Chain], None],
    cluster: Cluster | None = None,
) -> None:
    """Make the directory of a new chain: settings, keys, genesis, log with topics, empty stores.

    With `cluster` the topics are made there, and the directory has neither log nor stores. `furnish` adds the files of
    higher layers before the directory appears. Raises `ConfigError` where `root` exists and is not an empty directory,
    or can't be made.
    """
    root = root.absolute()
    _require_free(root)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f".{root.name}.init-", dir=root.parent))
    except OSError as error:
        raise ConfigError(f"{root} can't be made: {error.strerror}; choose another place") from None
    try:
        layout = NodeLayout(making)
        _fill(layout, new, passphrase, suites, cluster)
        furnish(layout, new.chain)
        _sync_tree(making)
        making.chmod(0o755)
        making.rename(root)
        _sync(root.parent)
    except OSError as error:
        shutil.rmtree(making, ignore_errors=True)
        raise ConfigError(f"{root} can't be made: {error.strerror}; choose another place") from None
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def _require_free(root: Path) -> None:
    try:
        if root.is_symlink() or (root.exists() and not root.is_dir()):
            raise ConfigError(f"{root} exists and is not a directory; choose another place")
        if root.is_dir() and any(root.iterdir()):
            raise ConfigError(f"{root} exists and is not empty; choose another place, or move it away")
    except OSError as error:
        raise ConfigError(f"{root} can't be used: {error.strerror}; choose another place") from None


def _fill(layout: NodeLayout, new: NewChain, passphrase: str, suites: SuiteSet, cluster: Cluster | None) -> None:
    chain = new.chain
    layout.key("any").parent.mkdir(mode=0o700)
    for role, key in new.keys.items():
        save_key(layout.key(role), key, passphrase, suites)
    layout.genesis.write_bytes(chain.genesis.to_record())
    if cluster is not None:
        layout.config.write_text(DEFAULT_CONFIG + _ON_KAFKA.format(cluster.bootstrap), encoding="utf-8")
        _make_topics(cluster.open_log(chain), chain)
        return
    layout.config.write_text(DEFAULT_CONFIG, encoding="utf-8")
    layout.log.mkdir()
    _make_topics(EmbeddedLog(open_rocks(layout.log), max_message_bytes=chain.genesis.limits.message_bytes), chain)
    _make_stores(layout, chain)


def _make_topics(log: EventLog, chain: Chain) -> None:
    try:
        create_topics(log, chain)
    finally:
        log.close()


def _make_stores(layout: NodeLayout, chain: Chain) -> None:
    for number in range(chain.genesis.shards):
        shard = ShardId(number)
        layout.shard(number).mkdir(parents=True)
        kv = open_rocks(layout.shard(number))
        try:
            StateStore(kv, shard, chain.shard_map.slots_of(shard))  # stamps the format, so that readers can open it
        finally:
            kv.close()
    layout.sync.mkdir()


def _sync_tree(top: Path) -> None:
    """Everything durable before the name appears: a rename may outlive a power cut that its content does not."""
    for folder, _, files in os.walk(top):
        for name in files:
            _sync(Path(folder) / name)
        _sync(Path(folder))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
