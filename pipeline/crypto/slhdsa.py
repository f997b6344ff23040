"""SLH-DSA-SHA2-128s (FIPS 205, pure, with context) on the `pqcrypto` package.

Signing is hedged, takes about a quarter of a second and holds the GIL all the while, so a node signs in a
process of its own: `pipeline.crypto.signing_process`. Verifying takes about 0.3 ms.
"""

from dataclasses import dataclass, field
from typing import Final

from pqcrypto.sign import slh_dsa_sha2_128s

from pipeline.crypto.port import SuiteId, checked_context
from pipeline.errors import ConfigError

_PUBLIC_KEY_BYTES: Final = 32
_SECRET_BYTES: Final = 64
_SIGNATURE_BYTES: Final = 7856


@dataclass(frozen=True, slots=True)
class SlhDsaPrivateKey:
    """An SLH-DSA key pair; `secret` is SK.seed ‖ SK.prf ‖ PK.seed ‖ PK.root (FIPS 205 figure 15)."""

    public_key: bytes = field(repr=False)
    secret: bytes = field(repr=False)
    suite_id: int = SuiteId.SLH_DSA_SHA2_128S

    def sign(self, message: bytes, context: bytes) -> bytes:
        """Sign, hedged, about 250 ms under the GIL. Raises `ConfigError` for a context over 255 bytes."""
        return bytes(slh_dsa_sha2_128s.sign(self.secret, message, checked_context(context)))


class SlhDsaSuite:
    """SLH-DSA-SHA2-128s, safe to share between threads."""

    suite_id: Final[int] = SuiteId.SLH_DSA_SHA2_128S
    name: Final[str] = "SLH-DSA-SHA2-128s"
    public_key_bytes: Final[int] = _PUBLIC_KEY_BYTES
    signature_bytes: Final[int] = _SIGNATURE_BYTES

    __slots__ = ()

    def __repr__(self) -> str:
        """Its name."""
        return f"SlhDsaSuite({self.name})"

    def generate(self, seed: bytes | None) -> SlhDsaPrivateKey:
        """A random key. Raises `ConfigError` for a seed: the library underneath takes none."""
        if seed is not None:
            raise ConfigError(f"{self.name} can't make a key from a seed; leave the seed out or choose ML-DSA")
        public_key, secret = slh_dsa_sha2_128s.keygen()
        return SlhDsaPrivateKey(bytes(public_key), bytes(secret))

    def load(self, secret: bytes) -> SlhDsaPrivateKey:
        """The key of a raw secret key, whose last 32 bytes are the public key. Raises `ConfigError`."""
        if len(secret) != _SECRET_BYTES:
            raise ConfigError(f"a secret key of {len(secret)} bytes for {self.name}; give {_SECRET_BYTES} bytes")
        return SlhDsaPrivateKey(secret[-_PUBLIC_KEY_BYTES:], secret)

    def verify(self, public_key: bytes, message: bytes, context: bytes, signature: bytes) -> bool:
        """FIPS 205 algorithm 24; False for anything malformed."""
        if len(public_key) != _PUBLIC_KEY_BYTES or len(signature) != _SIGNATURE_BYTES:
            return False
        try:
            slh_dsa_sha2_128s.verify(public_key, message, signature, context)
        except ValueError:
            return False
        return True
