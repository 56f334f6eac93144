"""JSON schemas as Spark types, and JSON texts as values of these types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_type
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
from sparktasks.spark.annotations import Annotations

_SIMPLE: dict[str, DataType] = {
    "string": StringType(),
    "integer": LongType(),
    "number": DoubleType(),
    "boolean": BooleanType(),
}


def spark_type(schema: Any, root: Mapping[str, Any] | None = None, within: tuple[str, ...] = ()) -> DataType:
    """Return the Spark type of the values that a JSON schema describes, as ``from_json`` takes it.

    Objects with properties are structs, other objects maps, arrays arrays; what may be of several types is a string.

    >>> properties = {"name": {"type": "string"}, "age": {"type": ["integer", "null"]}}
    >>> spark_type({"type": "object", "properties": properties}).simpleString()
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
        return spark_type(_resolved(reference, root), root, (*within, reference))
    options = [
        each
        for each in schema.get("anyOf") or schema.get("oneOf") or []
        if not (isinstance(each, Mapping) and each.get("type") == "null")
    ]
    if len(options) == 1:
        return spark_type(options[0], root, within)
    kinds = schema.get("type", [])
    known = [kind for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind != "null"]
    if known == ["array"]:
        return ArrayType(spark_type(schema.get("items"), root, within))
    if known == ["object"] and schema.get("properties"):
        return StructType(
            [StructField(name, spark_type(each, root, within)) for name, each in schema["properties"].items()]
        )
    if known == ["object"]:
        return MapType(StringType(), spark_type(schema.get("additionalProperties"), root, within))
    return _SIMPLE[known[0]] if len(known) == 1 and known[0] in _SIMPLE else StringType()


def _resolved(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for part in filter(None, reference.removeprefix("#").split("/")):
        name = part.replace("~1", "/").replace("~0", "~")  # a JSON pointer's (RFC 6901)
        if not isinstance(found, Mapping) or name not in found:
            raise ParamError(f"the JSON schema has no {reference!r}, to which a $ref leads")
        found = found[name]
    return dict(found)


@dataclass(frozen=True)
class ReadJson:
    """annotations whose results are JSON -> the value of each row's first one; null where there is none, or where it is
    no JSON."""

    dtype: DataType

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])
        starts = np.cumsum(source.lengths) - source.lengths
        texts = [source.result[start] if length else None for start, length in zip(starts, source.lengths, strict=True)]
        return pa.array([_value(text, self.dtype) for text in texts], to_arrow_type(self.dtype))


def _value(text: str | None, dtype: DataType) -> Any:
    try:
        return fitted(json.loads(text), dtype) if text is not None else None
    except (ValueError, RecursionError):
        return None


def fitted(value: Any, dtype: DataType) -> Any:
    """Fit a JSON value to a type that `spark_type` gives, as ``from_json`` does; what does not fit is None.

    >>> fitted({"name": "Ann", "age": "?"}, StructType().add("name", StringType()).add("age", LongType()))
    {'name': 'Ann', 'age': None}
    """
    if isinstance(dtype, StructType):
        return (
            {field.name: fitted(value.get(field.name), field.dataType) for field in dtype}
            if isinstance(value, dict)
            else None
        )
    if isinstance(dtype, MapType):
        return (
            [(key, fitted(each, dtype.valueType)) for key, each in value.items()] if isinstance(value, dict) else None
        )
    if isinstance(dtype, ArrayType):
        return [fitted(each, dtype.elementType) for each in value] if isinstance(value, list) else None
    if isinstance(dtype, StringType):
        text = (
            value
            if value is None or isinstance(value, str)
            else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        )
        return (
            None if text is None else text.encode("utf-8", "replace").decode("utf-8")
        )  # JSON can spell halves of characters
    return _scalar(value, dtype)


_LARGEST = float(np.finfo(np.float64).max)


def _scalar(value: Any, dtype: DataType) -> Any:
    if isinstance(dtype, BooleanType) or isinstance(value, bool):
        return value if isinstance(dtype, BooleanType) and isinstance(value, bool) else None
    if not isinstance(value, (int, float)):
        return None
    if isinstance(dtype, DoubleType):
        return float(value) if abs(value) <= _LARGEST else None
    return int(value) if -(2**63) <= value < 2**63 and float(value).is_integer() else None


def as_python(value: Any, dtype: DataType) -> Any:
    """Return a value that Arrow gave: of maps, which it gives as pairs, dicts.

    >>> as_python([("a", 1)], MapType(StringType(), LongType()))
    {'a': 1}
    """
    if value is None or not _holds_maps(dtype):
        return value
    if isinstance(dtype, StructType):
        return {field.name: as_python(value[field.name], field.dataType) for field in dtype}
    if isinstance(dtype, MapType):
        return {key: as_python(each, dtype.valueType) for key, each in value}
    return [as_python(each, dtype.elementType) for each in value] if isinstance(dtype, ArrayType) else value


def _holds_maps(dtype: DataType) -> bool:
    if isinstance(dtype, StructType):
        return any(_holds_maps(field.dataType) for field in dtype)
    return isinstance(dtype, MapType) or (isinstance(dtype, ArrayType) and _holds_maps(dtype.elementType))
