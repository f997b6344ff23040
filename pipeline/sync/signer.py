"""A signer: an attestor's key at work, perhaps in a process of its own. What it may sign, `signer_guard` says."""

from typing import Final

from pipeline.crypto import contexts
from pipeline.crypto.addresses import key_id
from pipeline.crypto.signing_process import SigningProcess
from pipeline.crypto.suites import PrivateKey
from pipeline.errors import Retryable


class Signer:
    """A key that signs checkpoints, one at a time. A `SigningProcess` signs while its caller goes on."""

    def __init__(self, key: PrivateKey) -> None:
        """`key` is an attestor's."""
        self._key = key
        self._signature: bytes | None = None
        self._pending = False
        self.suite: Final = key.suite_id
        self.public_key: Final = key.public_key
        self.key_id: Final = key_id(key.suite_id, key.public_key)

    def begin(self, checkpoint: bytes) -> None:
        """Start to sign a checkpoint's datum. Only `SignerGuard` calls this. Raises `Retryable` while still busy."""
        if not isinstance(self._key, SigningProcess):
            self._signature = self._key.sign(checkpoint, contexts.CHECKPOINT)
            return
        if self._pending and self.poll() is None:
            raise Retryable("the signer is busy with a checkpoint that was given up")
        self._key.begin(checkpoint, contexts.CHECKPOINT)
        self._pending = True

    def poll(self) -> bytes | None:
        """The signature, once; None while it is being made. Raises `Retryable` where it must be begun again."""
        if isinstance(self._key, SigningProcess):
            self._pending, pending = False, self._pending
            assert pending, "nothing was begun"
            self._signature = self._key.poll()
            self._pending = self._signature is None
        signature, self._signature = self._signature, None
        return signature
