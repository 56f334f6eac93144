"""JSON schemas as Spark types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DoubleType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
)

from sparktasks.errors import ParamError

_SIMPLE: dict[str, DataType] = {
    "string": StringType(),
    "integer": LongType(),
    "number": DoubleType(),
    "boolean": BooleanType(),
}


def json_type(schema: Any, root: Mapping[str, Any] | None = None, within: tuple[str, ...] = ()) -> DataType:
    """Return the Spark type of the values that a JSON schema describes, as ``from_json`` takes it.

    Objects with properties are structs, other objects maps, arrays arrays; what may be of several types is a string.
    ``root`` is the whole schema and ``within`` the references that lead here.

    >>> properties = {"name": {"type": "string"}, "age": {"type": ["integer", "null"]}}
    >>> json_type({"type": "object", "properties": properties}).simpleString()
    'struct<name:string,age:bigint>'
    """
    if not isinstance(schema, Mapping):  # true and false are schemas, too
        return StringType()
    root = schema if root is None else root
    if "$ref" in schema:
        reference = str(schema["$ref"])
        if reference in within:
            raise ParamError(
                f"the JSON schema at {reference!r} contains itself, so that its values have no Spark type; use "
                "the texts as they are"
            )
        return json_type(_resolved(reference, root), root, (*within, reference))
    options = [option for option in schema.get("anyOf") or schema.get("oneOf") or [] if not _is_null(option)]
    if len(options) == 1:
        return json_type(options[0], root, within)
    kind = _only_kind(schema)
    if kind == "array":
        return ArrayType(json_type(schema.get("items"), root, within))
    if kind == "object":
        return _object_type(schema, root, within)
    return _SIMPLE.get(kind, StringType())


def _object_type(schema: Mapping[str, Any], root: Mapping[str, Any], within: tuple[str, ...]) -> DataType:
    if not schema.get("properties"):
        return MapType(StringType(), json_type(schema.get("additionalProperties"), root, within))
    fields = []
    for name, value in schema["properties"].items():
        fields.append(StructField(name, json_type(value, root, within)))
    return StructType(fields)


def _is_null(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "null"


def _only_kind(schema: Mapping[str, Any]) -> str:
    """Return the one type that a schema allows beside null; "" where it allows several, or any."""
    named = schema.get("type", [])
    kinds = [kind for kind in ([named] if isinstance(named, str) else named) if kind != "null"]
    return str(kinds[0]) if len(kinds) == 1 else ""


def _resolved(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for part in filter(None, reference.removeprefix("#").split("/")):
        name = part.replace("~1", "/").replace("~0", "~")  # a JSON pointer's (RFC 6901)
        if not isinstance(found, Mapping) or name not in found:
            raise ParamError(f"the JSON schema has no {reference!r}, to which a $ref leads")
        found = found[name]
    return dict(found)
