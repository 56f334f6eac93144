"""JSON schemas as Spark types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.sql.types import ArrayType, BooleanType, DataType, DoubleType, LongType, MapType, StringType, StructField, StructType

_SIMPLE: dict[str, DataType] = {"string": StringType(), "integer": LongType(), "number": DoubleType(), "boolean": BooleanType()}


def spark_type(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> DataType:
    """Return the Spark type of the values that a JSON schema describes, as ``from_json`` takes it.

    Objects with properties are structs, other objects maps, arrays arrays; what may be of several types is a string.

    >>> spark_type({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": ["integer", "null"]}}}).simpleString()
    'struct<name:string,age:bigint>'
    """
    root = schema if root is None else root
    if "$ref" in schema:
        return spark_type(_resolved(str(schema["$ref"]), root), root)
    options = [each for each in schema.get("anyOf") or schema.get("oneOf") or [] if each.get("type") != "null"]
    if len(options) == 1:
        return spark_type(options[0], root)
    kinds = schema.get("type", [])
    known = [kind for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind != "null"]
    if known == ["array"]:
        return ArrayType(spark_type(schema.get("items") or {}, root))
    if known == ["object"] and schema.get("properties"):
        return StructType([StructField(name, spark_type(each, root)) for name, each in schema["properties"].items()])
    if known == ["object"]:
        values = schema.get("additionalProperties")
        return MapType(StringType(), spark_type(values if isinstance(values, Mapping) else {}, root))
    return _SIMPLE[known[0]] if len(known) == 1 and known[0] in _SIMPLE else StringType()


def _resolved(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)
