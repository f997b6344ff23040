"""The format stamp of a store: what it holds and in which version of the bytes.

Kept under one key that sorts behind all data, as `kind` ‖ "/" ‖ version in decimal digits.
"""

from typing import Final

from pipeline.errors import ConfigError
from pipeline.kv.port import KeyValue

FORMAT_KEY: Final = b"\xff/format"


def check_format(kv: KeyValue, kind: bytes, version: int) -> None:
    """Stamp an empty store (one synced write), or check that the stamp is (`kind`, `version`).

    Raises `ConfigError` naming found and expected format, also for a store that has data but no stamp.
    """
    expected = b"%s/%d" % (kind, version)
    found = kv.get(FORMAT_KEY)
    if found == expected:
        return
    if found is None:
        if kv.scan(b"", FORMAT_KEY, 1):
            raise ConfigError(f"the store has data but no stamp of {_shown(expected)}: give an empty directory")
        kv.write({FORMAT_KEY: expected}, sync=True)
        return
    raise ConfigError(
        f"the store has format {_shown(found)}, this program needs {_shown(expected)}: "
        "open it with the release that wrote it, or give another directory"
    )


def _shown(stamp: bytes) -> str:
    return ascii(stamp[:64].decode("latin-1"))
