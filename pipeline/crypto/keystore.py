"""Encrypted key files: one JSON object with a readable header and the sealed secret.

    {"format": "hauptbuch-key", "version": 1, "suite", "public_key", "address",
     "kdf": {"name": "scrypt", "salt", "n", "r", "p"}, "nonce", "ciphertext"}

Bytes are lower-case hexadecimal. The key of AES-256-GCM is scrypt (RFC 7914) of the passphrase; the
additional data is the header (all but nonce and ciphertext) as JSON with sorted names, so that no field can
be exchanged.
"""

import json
import secrets
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from pipeline.crypto.addresses import address_of, format_address
from pipeline.crypto.private_file import read_private, write_new
from pipeline.crypto.suites import PrivateKey, SuiteSet
from pipeline.errors import ConfigError

FORMAT: Final = "hauptbuch-key"
VERSION: Final = 1

_MAX_FILE_BYTES: Final = 65_536
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_MAX_KDF_MEMORY: Final = 256 * 2**20
_MAX_KDF_BLOCKS: Final = 2**22  # n * r * p, four times the standard cost
_HEADER: Final = ("format", "version", "suite", "public_key", "address", "kdf")


class KdfCost(NamedTuple):
    """scrypt parameters: `n` a power of two; memory is 128 * n * r bytes, time grows with n * r * p."""

    n: int
    r: int
    p: int

    def problem(self) -> str | None:
        """Why these parameters can't be used, or None.

        The upper bounds keep a hostile file from taking all memory.
        """
        if self.n < 2 or self.n & (self.n - 1) or self.r < 1 or self.p < 1:
            return f"scrypt parameters {tuple(self)} are not valid"
        if 128 * self.n * self.r > _MAX_KDF_MEMORY or self.n * self.r * self.p > _MAX_KDF_BLOCKS:
            return f"scrypt parameters {tuple(self)} ask for too much memory or time"
        if self.r == 1 and self.n >= 2**16:  # RFC 7914 section 6: n < 2^(16 r)
            return f"scrypt parameters {tuple(self)} are not valid"
        return None


STANDARD_COST: Final = KdfCost(2**17, 8, 1)  # 128 MiB, about 0.3 s
MINIMAL_COST: Final = KdfCost(2, 8, 1)  # for the empty passphrase, which no stretching makes harder to guess


def save_key(path: Path, key: PrivateKey, passphrase: str, suites: SuiteSet, cost: KdfCost | None = None) -> None:
    """Write a new key file, mode 0600, whole or not at all.

    "" is a passphrase too: then only the file mode protects the key. Raises `ConfigError` if the file exists
    (a key is never overwritten) or can't be written.
    """
    suites.require(key.suite_id)
    cost = cost or (STANDARD_COST if passphrase else MINIMAL_COST)
    problem = cost.problem()
    if problem:
        raise ConfigError(f"{problem}; the standard cost is {tuple(STANDARD_COST)}")
    salt = secrets.token_bytes(_SALT_BYTES)
    document: dict[str, object] = {
        "format": FORMAT,
        "version": VERSION,
        "suite": int(key.suite_id),
        "public_key": key.public_key.hex(),
        "address": format_address(address_of(key.suite_id, key.public_key)),
        "kdf": {"name": "scrypt", "salt": salt.hex(), **cost._asdict()},
    }
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = AESGCM(_derive(passphrase, salt, cost)).encrypt(nonce, key.secret, _associated_data(document))
    document |= {"nonce": nonce.hex(), "ciphertext": sealed.hex()}
    write_new(path, json.dumps(document, indent=1).encode() + b"\n")


def load_key(path: Path, passphrase: str, suites: SuiteSet) -> PrivateKey:
    """The key of a file. Raises `ConfigError`: mode, passphrase, damage, version, suite."""
    document = _parse(path, read_private(path, _MAX_FILE_BYTES))
    _require_version(path, document)
    suite = suites.get(_number(path, document, "suite"))
    if suite is None:
        raise ConfigError(f"{path}: its signature suite is not in use here; make a key of one of {suites!r}")
    public_key = _bytes(path, document, "public_key", suite.public_key_bytes)
    if document["address"] != format_address(address_of(suite.suite_id, public_key)):
        raise _damaged(path, "address and public key contradict each other")
    salt, cost = _kdf(path, document)
    nonce = _bytes(path, document, "nonce", _NONCE_BYTES)
    sealed = _bytes(path, document, "ciphertext", None)
    try:
        secret = AESGCM(_derive(passphrase, salt, cost)).decrypt(nonce, sealed, _associated_data(document))
    except InvalidTag:
        raise ConfigError(f"{path}: wrong passphrase, or the file was altered: {_hint(passphrase, cost)}") from None
    key = suite.load(secret)
    if key.public_key != public_key:
        raise _damaged(path, "secret and public key do not belong together")
    return key


def _hint(passphrase: str, cost: KdfCost) -> str:
    if not passphrase:
        return "none is set; set HAUPTBUCH_PASSPHRASE to the one that the key was made under, or restore a backup"
    if cost == MINIMAL_COST:
        return "it says that it was made without one; unset HAUPTBUCH_PASSPHRASE, or restore a backup"
    return "set HAUPTBUCH_PASSPHRASE to the one that the key was made under, or restore a backup"


def _derive(passphrase: str, salt: bytes, cost: KdfCost) -> bytes:
    """The 32-byte AES key. NFC, since keyboards differ in how they compose accents."""
    text = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass")
    return Scrypt(salt=salt, length=32, n=cost.n, r=cost.r, p=cost.p).derive(text)


def _associated_data(document: Mapping[str, object]) -> bytes:
    """The header in one canonical form, so that layout of the file does not matter but content does."""
    header = {name: document[name] for name in _HEADER}
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def _damaged(path: Path, why: str) -> ConfigError:
    return ConfigError(f"{path}: not an intact key file: {why}; restore a backup")


def _parse(path: Path, raw: bytes) -> dict[str, object]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise _damaged(path, "it is not JSON, or is cut short") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ConfigError(f"{path}: not a key file; make one with `hauptbuch keygen`")
    return document


def _require_version(path: Path, document: Mapping[str, object]) -> None:
    version = _number(path, document, "version")
    if version != VERSION:
        raise ConfigError(f"{path}: version {version} of the key file format; upgrade hauptbuch to read it")
    if set(document) != {*_HEADER, "nonce", "ciphertext"}:
        raise _damaged(path, "fields are missing or unknown")


def _number(path: Path, document: Mapping[str, object], name: str) -> int:
    value = document.get(name)
    if type(value) is not int or not 0 <= value < 2**32:
        raise _damaged(path, f"`{name}` is not a number in range")
    return value


def _bytes(path: Path, document: Mapping[str, object], name: str, size: int | None) -> bytes:
    value = document.get(name)
    try:
        data = bytes.fromhex(value) if isinstance(value, str) else None
    except ValueError:
        data = None
    if data is None or (size is not None and len(data) != size):
        raise _damaged(path, f"`{name}` is not {size or 'some'} bytes in hexadecimal")
    return data


def _kdf(path: Path, document: Mapping[str, object]) -> tuple[bytes, KdfCost]:
    kdf = document["kdf"]
    if not isinstance(kdf, dict) or set(kdf) != {"name", "salt", *KdfCost._fields} or kdf["name"] != "scrypt":
        raise _damaged(path, "`kdf` is not scrypt with salt, n, r and p")
    cost = KdfCost(*(_number(path, kdf, name) for name in KdfCost._fields))
    problem = cost.problem()
    if problem:
        raise _damaged(path, problem)
    return _bytes(path, kdf, "salt", _SALT_BYTES), cost
