"""Context strings of every signature (the `ctx` of FIPS 204 section 5.2 and FIPS 205 section 10.2).

They separate purposes: bytes signed as a transaction never pass as a checkpoint, even under the same key.
"""

from typing import Final

TRANSACTION: Final = b"hauptbuch/transaction/v1"
CHECKPOINT: Final = b"hauptbuch/checkpoint/v1"
CONTROL: Final = b"hauptbuch/control/v1"
ROTATION: Final = b"hauptbuch/rotation/v1"

MAX_CONTEXT_BYTES: Final = 255
