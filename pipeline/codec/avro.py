"""Avro datums in single-object encoding, decoded only if canonical.

Two rules hold for every byte that comes from outside:

- framing is `C3 01`, the CRC-64-AVRO fingerprint of the schema (8 bytes, little-endian), then the bare datum
  (Avro 1.11 specification, "Single-object encoding"); only fingerprints of the shipped schemas are known;
- a datum is decodable iff re-encoding the decoded value gives the same bytes. Avro readers accept trailing bytes,
  overlong varints, false block sizes and other second spellings; two nodes must never disagree about a record.

Hashes cover the bare datum, never the framing.
"""

import json
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

from pipeline.codec.int_range import int_check
from pipeline.errors import ConfigError, Fatal, PoisonRecord

MAGIC: Final = b"\xc3\x01"
NAMESPACE: Final = "hauptbuch.v1."
_HEADER_BYTES: Final = 10


def schema_directory() -> Path:
    """Folder of the `.avsc` files: inside an installed wheel, else beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_schemas"
    return installed if installed.is_dir() else package.parent / "schemas"


class RecordCodec:
    """Encodes and decodes one schema.

    Values are dicts as fastavro has them; a member of a union of records is a pair of its full name and a dict.
    """

    __slots__ = ("_ints_fit", "_schema", "framing", "name")

    def __init__(self, name: str, schema: dict[str, Any]) -> None:
        """`schema`: a parsed `.avsc` file."""
        self.name = name
        self._schema = parse_schema(schema)
        self._ints_fit = int_check(schema)
        crc = fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO")
        # fastavro prints the fingerprint as the little-endian bytes of the specification's framing.
        self.framing = MAGIC + bytes.fromhex(crc)

    def encode(self, value: dict[str, Any]) -> bytes:
        """The bare datum. Raises `ValueError` for a value that does not fit the schema."""
        out = BytesIO()
        try:
            schemaless_writer(out, self._schema, value)
        except (TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a {self.name}: {error}") from None
        return out.getvalue()

    def decode(self, datum: bytes) -> dict[str, Any]:
        """The value of a canonical bare datum. Raises `PoisonRecord`."""
        try:
            value = schemaless_reader(BytesIO(datum), self._schema, None, return_record_name=True)
            out = BytesIO()
            schemaless_writer(out, self._schema, value)
        except MemoryError:
            # A record must not become a dead letter on the one machine that is short of memory.
            raise Fatal(f"no memory to decode a {self.name} of {len(datum)} bytes: give this process more") from None
        except Exception as error:  # noqa: BLE001 - hostile bytes make the reader raise anything
            raise PoisonRecord(f"undecodable {self.name}: {type(error).__name__}") from None
        if out.getvalue() != datum or not isinstance(value, dict):
            raise PoisonRecord(f"{self.name} is not canonical: re-encoding gives other bytes")
        if self._ints_fit is not None and not self._ints_fit(value):
            raise PoisonRecord(f"{self.name} is not canonical: an int of more than 32 bits")
        return value

    def frame(self, datum: bytes) -> bytes:
        """Single-object encoding of a bare datum."""
        return self.framing + datum

    def unframe(self, record: bytes | None) -> bytes:
        """The bare datum of a framed record. Raises `PoisonRecord` where it is not this schema."""
        if record is None:
            raise PoisonRecord(f"null instead of a {self.name}")
        if not record.startswith(self.framing) or len(record) < _HEADER_BYTES:
            raise PoisonRecord(f"not framed as a {self.name}: single-object encoding with its fingerprint is needed")
        return record[_HEADER_BYTES:]


@cache
def codec(name: str) -> RecordCodec:
    """The codec of a shipped schema. Raises `ConfigError` where its file is missing or broken."""
    path = schema_directory() / f"{name}.avsc"
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        return RecordCodec(name, schema)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"schema {name}.avsc can't be used: {error}; reinstall hauptbuch") from None
