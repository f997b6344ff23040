"""Finds numbers that stand in an Avro `int` but need more than its 32 bits.

fastavro reads and writes an `int` like a `long`, so such a datum would survive re-encoding here and be refused by
readers that keep to the specification (Avro 1.11, "Primitive Types"): nodes would disagree about a record.
"""

from collections.abc import Callable
from typing import Any, Final

Check = Callable[[Any], bool]
_LEAST: Final = -(2**31)
_GREATEST: Final = 2**31 - 1


def int_check(schema: Any) -> Check | None:
    """A predicate over decoded values: every `int` fits. None where the schema has no `int`.

    Unions of records are expected as pairs of full name and value; named types are records, fixed or enums.
    """
    return _build(schema, {}, "")


def _fits(value: int) -> bool:
    return _LEAST <= value <= _GREATEST


def _build(schema: Any, named: dict[str, Check | None], namespace: str) -> Check | None:
    if isinstance(schema, list):
        return _union(schema, named, namespace)
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(schema, str) and schema in named:
        return named[schema]
    match kind:
        case "int":
            return _fits
        case "array":
            item = _build(schema["items"], named, namespace)
            return None if item is None else lambda values: all(map(item, values))
        case "record":
            namespace = schema.get("namespace", namespace)
            check = named[schema["name"]] = _record(schema, named, namespace)
            return check
        case _:
            return None


def _record(schema: dict[str, Any], named: dict[str, Check | None], namespace: str) -> Check | None:
    fields = [(field["name"], _build(field["type"], named, namespace)) for field in schema["fields"]]
    plain = [name for name, check in fields if check is _fits]
    nested = [(name, check) for name, check in fields if check is not None and check is not _fits]
    if not plain and not nested:
        return None

    def holds(value: dict[str, Any]) -> bool:
        for name in plain:
            if not _LEAST <= value[name] <= _GREATEST:
                return False
        return all(check(value[name]) for name, check in nested)

    return holds


def _union(members: list[Any], named: dict[str, Check | None], namespace: str) -> Check | None:
    """Shipped unions are either records, told apart by their full name, or null and a type without an `int`."""
    checks = {
        f"{namespace}.{member['name']}": check
        for member in members
        if isinstance(member, dict) and (check := _build(member, named, namespace)) is not None
    }
    assert "int" not in members, "an int beside null is not told apart"
    if not checks:
        return None

    def holds(value: tuple[str, Any]) -> bool:
        check = checks.get(value[0])
        return check is None or check(value[1])

    return holds
