"""Texts by a grammar: what the schema or the expression allows, whatever the search."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from sparktasks import DocumentAssembler, LocalPipeline, TextGenerator
from sparktasks.errors import ParamError
from sparktasks.spark.json_types import json_type

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
TEXTS = ["the king", "my lord", "what say you", "so", "the king", "a", "b and c", "who goes there in the night"]
Make = Callable[..., TextGenerator]


@pytest.fixture
def make(bundle: Callable[[str], str]) -> Make:
    return lambda **params: TextGenerator.pretrained(bundle("gpt2-text-generation"), **{"maxNewTokens": 80, **params})


def written(stage: TextGenerator) -> list[list[Any]]:
    return [row["generation"] for row in LocalPipeline([DocumentAssembler(), stage]).fullAnnotate(TEXTS)]


@pytest.mark.parametrize(
    "params", [{}, {"numBeams": 3, "numReturnSequences": 2}, {"doSample": True, "topK": 0, "numReturnSequences": 3}]
)
def test_every_text_follows_the_schema(params: dict[str, Any], make: Make) -> None:
    items = [item for row in written(make(jsonSchema=SCHEMA, **params)) for item in row]
    for item in items:
        assert item.metadata["finish_reason"] == "eos"
        record = json.loads(item.result)
        assert list(record) == ["name", "age", "tags"]
        assert len(record["name"]) <= 12
        assert 0 <= record["age"] <= 150
        assert set(record["tags"]) <= {"a", "b", "c"}
    assert len({item.result for item in items}) > len(TEXTS) // 2


def test_every_text_matches_the_expression(make: Make) -> None:
    pattern = r"(yes|no), because [a-z ]{5,20}\."
    for (item,) in written(make(regex=pattern)):
        assert re.fullmatch(pattern, item.result), item.result


def test_a_text_that_reaches_its_limit_says_so(make: Make) -> None:
    assert {row[0].metadata["finish_reason"] for row in written(make(jsonSchema=SCHEMA, maxNewTokens=5))} == {"length"}


class Person:
    """Stands for a pydantic model: a class that gives its schema."""

    @staticmethod
    def model_json_schema() -> dict[str, Any]:
        return SCHEMA


def test_a_pydantic_model_is_its_schema(make: Make) -> None:
    assert make(jsonSchema=Person).getJsonSchema() == make().setJsonSchema(Person).getJsonSchema() == SCHEMA


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"regex": "("}, r"regex='\(' is not allowed"),
        ({"jsonSchema": {"type": "nothing"}}, "jsonSchema=.*nothing.* is not allowed"),
        ({"jsonSchema": {}, "regex": "a"}, "cannot be combined"),
    ],
)
def test_grammars_that_are_none_are_refused_before_a_job(params: dict[str, Any], message: str, make: Make) -> None:
    with pytest.raises(ParamError, match=message):
        make(**params).kernel()


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        (SCHEMA, "struct<name:string,age:bigint,tags:array<string>>"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "map<string,double>"),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "boolean"),
        ({"type": ["string", "integer"]}, "string"),
        (
            {
                "$defs": {"p": {"type": "object", "properties": {"x": {"type": "number"}}}},
                "type": "array",
                "items": {"$ref": "#/$defs/p"},
            },
            "array<struct<x:double>>",
        ),
    ],
)
def test_schemas_are_spark_types(schema: dict[str, Any], wanted: str) -> None:
    assert json_type(schema).simpleString() == wanted
