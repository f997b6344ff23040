"""Single-object encoding, canonical forms and fingerprints against the vectors of the Avro project."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form

from pipeline.codec.avro import MAGIC, RecordCodec, codec, schema_directory
from pipeline.errors import PoisonRecord

VECTORS = Path(__file__).parent.parent / "vectors" / "avro"
_EMPTY = 0xC15D213AA4D7A795


class SchemaCase(NamedTuple):
    number: str
    schema: str
    canonical: str
    fingerprint: int | None


def _schema_cases() -> list[SchemaCase]:
    text = (VECTORS / "schema-tests.txt").read_text(encoding="utf-8")
    cases = []
    for number, body in re.findall(r"^// (\d{3})\n(.*?)(?=^// \d{3}\n|\Z)", text, re.DOTALL | re.MULTILINE):
        block = re.search(r"^<<INPUT\n(.*?)^INPUT$", body, re.DOTALL | re.MULTILINE)
        line = re.search(r"^<<INPUT (.+)$", body, re.MULTILINE)
        canonical = re.search(r"^<<canonical (.+)$", body, re.MULTILINE)
        crc = re.search(r"^<<fingerprint (-?\d+)$", body, re.MULTILINE)
        assert canonical, f"case {number} can't be read"
        schema = block[1] if block else line[1] if line else "unreadable"
        cases.append(SchemaCase(number, schema, canonical[1], int(crc[1]) if crc else None))
    return cases


def crc64_avro(data: bytes) -> int:
    """The Rabin fingerprint bit by bit, as the specification defines it."""
    crc = _EMPTY
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_EMPTY if crc & 1 else 0)
    return crc


def test_all_34_schema_cases_are_read() -> None:
    assert [case.number for case in _schema_cases()] == [f"{n:03d}" for n in range(34)]


@pytest.mark.parametrize("case", _schema_cases(), ids=lambda case: case.number)
def test_canonical_form_and_fingerprint(case: SchemaCase) -> None:
    canonical = to_parsing_canonical_form(json.loads(case.schema))
    assert canonical == case.canonical
    if case.fingerprint is not None:
        expected = case.fingerprint % 2**64
        assert crc64_avro(canonical.encode()) == expected
        assert bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO")) == expected.to_bytes(8, "little")


def test_message_of_the_java_implementation() -> None:
    message = (VECTORS / "messageV1" / "test_message.bin").read_bytes()
    reader = RecordCodec("TestMessage", json.loads((VECTORS / "messageV1" / "test_schema.avsc").read_text()))
    datum = reader.unframe(message)
    value = reader.decode(datum)
    assert value == {"id": 42, "name": "Bill", "tags": ["dog_lover", "cat_hater"]}
    assert reader.frame(reader.encode(value)) == message


@pytest.mark.parametrize("name", sorted(path.stem for path in schema_directory().glob("*.avsc")))
def test_framing_of_every_shipped_schema(name: str) -> None:
    schema = json.loads((schema_directory() / f"{name}.avsc").read_text(encoding="utf-8"))
    canonical = to_parsing_canonical_form(schema).encode()
    c = codec(name)
    assert c.framing == MAGIC + crc64_avro(canonical).to_bytes(8, "little")
    assert c.unframe(c.frame(b"datum")) == b"datum"
    for other in (b"", b"\xc3", c.framing[:9], b"\xc3\x02" + c.framing[2:] + b"datum", c.framing[:9] + b"\x00datum"):
        with pytest.raises(PoisonRecord):
            c.unframe(other)
    with pytest.raises(PoisonRecord, match="null instead of"):
        c.unframe(None)


def test_no_two_schemas_share_a_fingerprint() -> None:
    names = [path.stem for path in schema_directory().glob("*.avsc")]
    assert len({codec(name).framing for name in names}) == len(names)
