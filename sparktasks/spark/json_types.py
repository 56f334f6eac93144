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
    only = _only_option(schema)
    if only is not None:
        return json_type(only, root, within)
    kind = _only_kind(schema)
    if kind == "array":
        return ArrayType(json_type(schema.get("items"), root, within))
    if kind == "object":
        return _object_type(schema, root, within)
    return _SIMPLE.get(kind, StringType())


def _object_type(schema: Mapping[str, Any], root: Mapping[str, Any], within: tuple[str, ...]) -> DataType:
    if not schema.get("properties"):
        return MapType(StringType(), json_type(schema.get("additionalProperties"), root, within))
    # Every column of Spark may be null, so that it does not matter which properties are required.
    fields = []
    for name, value in schema["properties"].items():
        fields.append(StructField(name, json_type(value, root, within)))
    return StructType(fields)


def _only_option(schema: Mapping[str, Any]) -> Any:
    """Return the one alternative that a schema allows beside null, as pydantic writes optional fields; else None."""
    options = []
    for option in schema.get("anyOf") or schema.get("oneOf") or []:
        is_null = isinstance(option, Mapping) and option.get("type") == "null"
        if not is_null:
            options.append(option)
    return options[0] if len(options) == 1 else None


def _only_kind(schema: Mapping[str, Any]) -> str:
    """Return the one type that a schema allows beside null; "" where it allows several, or any."""
    named = schema.get("type", [])
    if isinstance(named, str):
        named = [named]
    kinds = [kind for kind in named if kind != "null"]
    return str(kinds[0]) if len(kinds) == 1 else ""


def _resolved(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference, a JSON pointer (RFC 6901); `ParamError` where it leads nowhere."""
    target: Any = root
    for part in filter(None, reference.removeprefix("#").split("/")):
        # In this order: "~01" stands for "~1".
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, Mapping) or name not in target:
            raise ParamError(f"the JSON schema has no {reference!r}, to which a $ref leads")
        target = target[name]
    return dict(target)
