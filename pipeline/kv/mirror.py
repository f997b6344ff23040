"""Reading a store in a directory that can't be written: links to its files in a directory of one's own.

rocksdict writes a file of its own into every directory that it opens, secondaries too; a read-only disk, or the
rights of someone who may only read, would keep them out.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_NOT_LINKED: Final = ("LOCK", "LOG", "rocksdict-config.json")


def mirror(source: Path, target: Path) -> None:
    """Link what has appeared in `source` since the last call. Raises `OSError` where it can't be listed."""
    known = {entry.name for entry in os.scandir(target)}
    for entry in os.scandir(source):
        if entry.name not in known and not entry.name.startswith(_NOT_LINKED):
            with suppress(FileExistsError):
                (target / entry.name).symlink_to(entry.path)
