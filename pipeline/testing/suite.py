"""A fast, deterministic signature suite for simulations. NOT SECURE: anyone can sign for any public key.

The signature is a hash of public key, context and message, so equal inputs give equal bytes on every run,
which the hedged suites of `pipeline.crypto` can't. Its id 0xFF is in no standard set: it is only ever passed
to a constructor, and no real genesis accepts it.
"""

import hmac
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from pipeline.codec.types import tag_prefix, tagged_hash
from pipeline.crypto.port import checked_context
from pipeline.crypto.suites import STANDARD_SUITES, SuiteSet
from pipeline.errors import ConfigError

DETERMINISTIC_SUITE_ID: Final = 0xFF

_BYTES: Final = 32
_SIGNATURE_PREFIX: Final = tag_prefix("test-signature")


def _signature(public_key: bytes, message: bytes, context: bytes) -> bytes:
    """H(`test-signature`, public key ‖ length of context ‖ context ‖ message)."""
    return sha256(b"".join((_SIGNATURE_PREFIX, public_key, bytes((len(context),)), context, message))).digest()


@dataclass(frozen=True, slots=True)
class DeterministicKey:
    """A pretended key pair; the public key is a hash of the seed."""

    public_key: bytes
    secret: bytes = field(repr=False)
    suite_id: int = DETERMINISTIC_SUITE_ID

    def sign(self, message: bytes, context: bytes) -> bytes:
        """32 bytes, always the same for the same input. Raises `ConfigError` for a context over 255 bytes."""
        return _signature(self.public_key, message, checked_context(context))


class DeterministicSuite:
    """Id 0xFF: keys and signatures of 32 bytes, about 1 µs each. Offers no security whatever."""

    suite_id: Final[int] = DETERMINISTIC_SUITE_ID
    name: Final[str] = "deterministic-test"
    public_key_bytes: Final[int] = _BYTES
    signature_bytes: Final[int] = _BYTES

    __slots__ = ()

    def generate(self, seed: bytes | None) -> DeterministicKey:
        """The key of a 32-byte seed.

        Raises `ConfigError` without one: a random key would not be deterministic.
        """
        if seed is None or len(seed) != _BYTES:
            raise ConfigError(f"the suite {self.name} needs a seed of {_BYTES} bytes")
        return DeterministicKey(tagged_hash("test-public-key", seed), seed)

    def load(self, secret: bytes) -> DeterministicKey:
        """The key of a seed. Raises `ConfigError`."""
        return self.generate(secret)

    def verify(self, public_key: bytes, message: bytes, context: bytes, signature: bytes) -> bool:
        """Whether the hash fits; False for anything malformed."""
        if len(public_key) != _BYTES or len(signature) != _BYTES or len(context) > 255:
            return False
        return hmac.compare_digest(signature, _signature(public_key, message, context))


TEST_SUITES: Final[SuiteSet] = STANDARD_SUITES.with_suite(DeterministicSuite())
