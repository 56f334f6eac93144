"""JSON as typed values: by the rules of Spark's own ``from_json``."""

from __future__ import annotations

import json

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from sparktasks.errors import ParamError
from sparktasks.kernels.columns import Annotation, build
from sparktasks.kernels.json_values import ReadJson, as_python
from sparktasks.spark.json_types import json_type
from sparktasks.spark.types import arrow_type

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "height": {"type": "number"},
        "here": {"type": "boolean"},
        "lines": {
            "type": "array",
            "items": {"type": "object", "properties": {"item": {"type": "string"}, "count": {"type": "integer"}}},
        },
        "notes": {"type": "object", "additionalProperties": {"type": "string"}},
        "either": {"type": ["string", "integer"]},
    },
}
TEXTS = [
    (
        '{"name": "Ann", "age": 7, "height": 1.5, "here": true, "lines": [{"item": "é", "count": 2}, {"item": '
        '"b"}], "notes": {"k": "v"}, "either": 5}'
    ),
    '{"name": null, "age": -9223372036854775808, "height": 3, "here": false, "lines": [], "notes": {}, "either": "x"}',
    '{"name": "\\u00e9\\n\\"", "height": 1e300, "more": 1}',
    "{}",
]


def values(texts: list[str | None]) -> list[object]:
    rows = [
        [] if text is None else [Annotation("document", 0, 0, text, {}), Annotation("document", 0, 0, "{}", {})]
        for text in texts
    ]
    dtype = arrow_type(json_type(SCHEMA))
    return [as_python(value, dtype) for value in ReadJson(dtype)(build(rows)).to_pylist()]


def test_values_equal_those_of_from_json(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(text,) for text in TEXTS], "text string")
    wanted = [
        row.value.asDict(recursive=True)
        for row in frame.select(F.from_json("text", json_type(SCHEMA)).alias("value")).collect()
    ]
    assert values([*TEXTS]) == wanted


@pytest.mark.parametrize("text", [None, "", "{", '{"name": "cut o', "[" * 100_000, "nothing"])
def test_what_is_no_json_is_null(text: str | None) -> None:
    assert values([text]) == [None]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("age", 1e300),
        ("age", 2**63),
        ("age", True),
        ("age", "7"),
        ("height", "high"),
        ("here", 1),
        ("lines", {}),
        ("notes", []),
    ],
)
def test_a_value_of_another_type_is_null(key: str, value: object) -> None:
    (found,) = values([json.dumps({"name": "Ann", key: value})])
    assert isinstance(found, dict)
    assert (found["name"], found[key]) == ("Ann", None)


@pytest.mark.parametrize("text", ['{"age": NaN}', '{"age": Infinity}', '{"age": 1e999}', '{"height": -1e999}'])
def test_numbers_that_no_column_holds_are_null(text: str) -> None:
    (found,) = values([text])
    assert isinstance(found, dict)
    assert found["age"] is None
    assert found["height"] is None


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({"type": "array", "items": True}, "array<string>"),
        ({"type": "object", "properties": {"a": True}}, "struct<a:string>"),
        ({"anyOf": [True, {"type": "integer"}]}, "string"),
        (
            {"properties": {"a": {"$ref": "#/$defs/x~1y"}}, "type": "object", "$defs": {"x/y": {"type": "boolean"}}},
            "struct<a:boolean>",
        ),
        ({"type": "object"}, "map<string,string>"),
    ],
)
def test_schemas_as_types(schema: dict[str, object], wanted: str) -> None:
    assert json_type(schema).simpleString() == wanted


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            {"$ref": "#/$defs/N", "$defs": {"N": {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}}}},
            "contains itself",
        ),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "$defs": {}}, "contains itself"),
        ({"$ref": "#/$defs/none"}, "to which a \\$ref leads"),
    ],
)
def test_schemas_without_a_type_are_refused(schema: dict[str, object], message: str) -> None:
    with pytest.raises(ParamError, match=message):
        json_type(schema)


def test_halves_of_characters_are_replaced() -> None:
    (found,) = values(['{"name": "a\\ud800"}'])
    assert isinstance(found, dict)
    assert found["name"] == "a?"
