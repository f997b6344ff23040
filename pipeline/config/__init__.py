"""Configuration: frozen groups, read from a TOML file, the environment and flags; the later of these wins.

A setting has one dotted key, such as `shard.linger_ms`. In the file it is a key of a table (`[shard]`), in the
environment `HAUPTBUCH_SHARD__LINGER_MS` (two underscores where the key has a dot), as a flag what the command line
offers for it. Settings of librdkafka stand in `[kafka.librdkafka]` under their own names; in the environment
`HAUPTBUCH_KAFKA__LIBRDKAFKA__LINGER_MS` is `linger.ms`. What the chain's genesis fixes is no configuration.

Nothing here changes what a block's execution yields. Values of secret settings appear in no message and no `repr`.
"""

from pipeline.config.groups import (
    AssuranceName,
    Config,
    Durability,
    KafkaConfig,
    KafkaSecurity,
    SecurityProtocol,
    ShardConfig,
    ShardingSystemConfig,
    StoreConfig,
    SyncConfig,
)
from pipeline.config.sources import load_config

__all__ = [
    "AssuranceName",
    "Config",
    "Durability",
    "KafkaConfig",
    "KafkaSecurity",
    "SecurityProtocol",
    "ShardConfig",
    "ShardingSystemConfig",
    "StoreConfig",
    "SyncConfig",
    "load_config",
]
