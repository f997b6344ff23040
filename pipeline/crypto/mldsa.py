"""ML-DSA (FIPS 204, pure, with context) on the `cryptography` package.

Signing is hedged: two signatures of one message differ. Verifying and signing release the GIL; parsing a
public key does not and costs 8 to 12 µs, so parsed keys are kept.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import mldsa

from pipeline.crypto.port import SuiteId, checked_context
from pipeline.errors import ConfigError

SEED_BYTES: Final = 32

_Private = mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
_Public = mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
_PrivateType = type[mldsa.MLDSA44PrivateKey] | type[mldsa.MLDSA65PrivateKey] | type[mldsa.MLDSA87PrivateKey]
_PublicType = type[mldsa.MLDSA44PublicKey] | type[mldsa.MLDSA65PublicKey] | type[mldsa.MLDSA87PublicKey]


class _Parameters(NamedTuple):
    """A parameter set: FIPS 204 table 2."""

    name: str
    public_key_bytes: int
    signature_bytes: int
    private_type: _PrivateType
    public_type: _PublicType


_PARAMETERS: Final[dict[int, _Parameters]] = {
    SuiteId.ML_DSA_44: _Parameters("ML-DSA-44", 1312, 2420, mldsa.MLDSA44PrivateKey, mldsa.MLDSA44PublicKey),
    SuiteId.ML_DSA_65: _Parameters("ML-DSA-65", 1952, 3309, mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey),
    SuiteId.ML_DSA_87: _Parameters("ML-DSA-87", 2592, 4627, mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey),
}

_UNSUPPORTED: Final = "this build of the package `cryptography` has no ML-DSA; install a wheel of version 48 or later"


@dataclass(frozen=True, slots=True)
class MlDsaPrivateKey:
    """An ML-DSA key pair; `secret` is the seed ξ of FIPS 204 algorithm 1."""

    suite_id: int
    public_key: bytes = field(repr=False)
    secret: bytes = field(repr=False)
    _key: _Private = field(repr=False, compare=False)

    def sign(self, message: bytes, context: bytes) -> bytes:
        """Sign, hedged, about 1 ms. Raises `ConfigError` for a context over 255 bytes."""
        return self._key.sign(message, checked_context(context))


class MlDsaSuite:
    """One ML-DSA parameter set, safe to share between threads."""

    __slots__ = ("_parse", "_private_type", "name", "public_key_bytes", "signature_bytes", "suite_id")

    def __init__(self, suite_id: int, parsed_keys: int = 4096) -> None:
        """`parsed_keys` bounds the public keys kept parsed (6 to 11 KB each); the least recently used go first."""
        parameters = _PARAMETERS[suite_id]
        self.suite_id: Final = int(suite_id)
        self.name: Final = parameters.name
        self.public_key_bytes: Final = parameters.public_key_bytes
        self.signature_bytes: Final = parameters.signature_bytes
        self._private_type: Final = parameters.private_type
        public_type = parameters.public_type

        @lru_cache(maxsize=parsed_keys)
        def parse(public_key: bytes) -> _Public:
            return public_type.from_public_bytes(public_key)

        self._parse: Final = parse

    def __repr__(self) -> str:
        """Its name."""
        return f"MlDsaSuite({self.name})"

    def generate(self, seed: bytes | None) -> MlDsaPrivateKey:
        """A key from a 32-byte seed, or a random one. Raises `ConfigError`."""
        if seed is not None and len(seed) != SEED_BYTES:
            raise ConfigError(f"a seed of {len(seed)} bytes for {self.name}; give {SEED_BYTES} bytes")
        try:
            key = self._private_type.generate() if seed is None else self._private_type.from_seed_bytes(seed)
        except UnsupportedAlgorithm as error:
            raise ConfigError(_UNSUPPORTED) from error
        return MlDsaPrivateKey(self.suite_id, key.public_key().public_bytes_raw(), key.private_bytes_raw(), key)

    def load(self, secret: bytes) -> MlDsaPrivateKey:
        """The key of a seed. Raises `ConfigError`."""
        return self.generate(secret)

    def verify(self, public_key: bytes, message: bytes, context: bytes, signature: bytes) -> bool:
        """FIPS 204 algorithm 3; False for anything malformed.

        Raises `ConfigError` if there is no ML-DSA here.
        """
        if len(public_key) != self.public_key_bytes or len(signature) != self.signature_bytes:
            return False
        try:
            self._parse(public_key).verify(signature, message, context)
        except (InvalidSignature, ValueError):
            return False
        except UnsupportedAlgorithm as error:
            raise ConfigError(_UNSUPPORTED) from error
        return True
