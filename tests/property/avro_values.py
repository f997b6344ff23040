"""Random values, datums and mutations of any Avro schema of the protocol, for property tests."""

import json
from functools import cache
from typing import Any

from hypothesis import strategies as st

from pipeline.codec.avro import NAMESPACE, codec, schema_directory

INT = (-(2**31), 2**31 - 1)
LONG = (-(2**63), 2**63 - 1)
SCHEMAS = sorted(path.stem for path in schema_directory().glob("*.avsc"))


@cache
def values(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Values of a shipped schema, as `RecordCodec.encode` takes them."""
    schema = json.loads((schema_directory() / f"{name}.avsc").read_text(encoding="utf-8"))
    return _values(schema, {})


def _values(schema: Any, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    if isinstance(schema, list):
        return st.one_of([_member(item, named) for item in schema])
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind in named:
        return _values(named[kind], named)
    if isinstance(schema, dict) and "name" in schema:
        named[schema["name"]] = schema
    match kind:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "int":
            return st.one_of(st.integers(-2, 70), st.integers(*INT))
        case "long":
            return st.one_of(st.integers(-2, 70), st.integers(*LONG))
        case "bytes":
            return st.binary(max_size=70)
        case "fixed":
            return st.binary(min_size=schema["size"], max_size=schema["size"])
        case "array":
            return st.lists(_values(schema["items"], named), max_size=3)
        case "record":
            return st.fixed_dictionaries({f["name"]: _values(f["type"], named) for f in schema["fields"]})
        case _:
            raise AssertionError(f"a schema of the protocol has the type {kind}")


def _member(schema: Any, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    """A member of a union: records are pairs of full name and value."""
    strategy = _values(schema, named)
    if isinstance(schema, dict) and schema["type"] == "record":
        full_name = NAMESPACE + schema["name"]
        return strategy.map(lambda value: (full_name, value))
    return strategy


@cache
def datums(name: str) -> st.SearchStrategy[bytes]:
    """Canonical datums of a shipped schema."""
    return values(name).map(codec(name).encode)


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    """A datum with one to three hurts: bytes cut, added, replaced, flipped, or a varint spelled longer."""
    datum = bytearray(draw(datums(name)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(datum)))
        hurt = draw(st.sampled_from(["cut", "tail", "flip", "set", "insert", "overlong", "remove"]))
        if hurt == "cut":
            del datum[at:]
        elif hurt == "tail":
            datum += draw(st.binary(min_size=1, max_size=4))
        elif hurt == "insert":
            datum[at:at] = draw(st.binary(min_size=1, max_size=10))
        elif at < len(datum):
            if hurt == "flip":
                datum[at] ^= 1 << draw(st.integers(0, 7))
            elif hurt == "set":
                datum[at] = draw(st.sampled_from([0, 1, 2, 3, 0x7F, 0x80, 0xFE, 0xFF]))
            elif hurt == "remove":
                del datum[at]
            else:
                datum[at : at + 1] = bytes([datum[at] | 0x80, *[0x80] * draw(st.integers(0, 9)), 0x00])
    return bytes(datum)
