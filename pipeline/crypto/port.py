"""The signature port: suite ids, and what a suite and a private key can do.

A suite verifies bytes that anyone may have sent, so `verify` answers False for whatever is malformed and
never raises for it. An unusable installation is another matter: answering False there would make one node
reject what the others accept, so that raises `ConfigError`.
"""

from enum import IntEnum
from typing import Protocol, runtime_checkable

from pipeline.crypto.contexts import MAX_CONTEXT_BYTES
from pipeline.errors import ConfigError


class SuiteId(IntEnum):
    """The suite byte of addresses, keys and signatures.

    0xFF is the deterministic suite of tests, never listed.
    """

    ML_DSA_44 = 0x01
    ML_DSA_65 = 0x02
    ML_DSA_87 = 0x03
    SLH_DSA_SHA2_128S = 0x11


@runtime_checkable
class PrivateKey(Protocol):
    """A key pair that can sign. Its repr never shows the secret."""

    @property
    def suite_id(self) -> int:
        """Id of the suite that made it."""

    @property
    def public_key(self) -> bytes:
        """Raw public key, `Suite.public_key_bytes` long."""

    @property
    def secret(self) -> bytes:
        """What `Suite.load` takes: the 32-byte seed (ML-DSA), the 64-byte secret key (SLH-DSA)."""

    def sign(self, message: bytes, context: bytes) -> bytes:
        """Sign; raises `ConfigError` for a context over 255 bytes."""


@runtime_checkable
class Suite(Protocol):
    """One signature algorithm with fixed sizes."""

    @property
    def suite_id(self) -> int:
        """0 to 255."""

    @property
    def name(self) -> str:
        """As the standard spells it, e.g. `ML-DSA-65`."""

    @property
    def public_key_bytes(self) -> int:
        """Length of a public key."""

    @property
    def signature_bytes(self) -> int:
        """Length of a signature."""

    def generate(self, seed: bytes | None) -> PrivateKey:
        """A new key: random for None, else a function of the 32-byte seed.

        Raises `ConfigError` for a seed of another length, or where the suite has no seeds (SLH-DSA).
        """

    def load(self, secret: bytes) -> PrivateKey:
        """The key that `PrivateKey.secret` came from. Raises `ConfigError` if it can't be one."""

    def verify(self, public_key: bytes, message: bytes, context: bytes, signature: bytes) -> bool:
        """Whether the signature holds; False for anything malformed."""


def checked_context(context: bytes) -> bytes:
    """The context itself. Raises `ConfigError` if it is longer than FIPS 204 and 205 allow."""
    if len(context) > MAX_CONTEXT_BYTES:
        raise ConfigError(f"a signature context of {len(context)} bytes; use at most {MAX_CONTEXT_BYTES}")
    return context
