"""TextGenerator: what it reads, what it writes, what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession

from sparktasks import DocumentAssembler, LocalPipeline, TextGenerator
from sparktasks.errors import BundleError, ColumnError, DataError, ParamError
from sparktasks.kernels.text_generation import template_fields

CHATML = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt "
    "%}[assistant] {% endif %}"
)
Make = Callable[..., TextGenerator]


@pytest.fixture
def make(bundle: Callable[[str], str], tmp_path: Path) -> Make:
    """Make generators of a few greedy tokens; ``edit`` changes files of a copy of the bundle."""

    def made(
        name: str = "gpt2-text-generation", edit: Callable[[Path], object] | None = None, **params: Any
    ) -> TextGenerator:
        folder = Path(bundle(name))
        if edit:
            folder = Path(shutil.copytree(folder, tmp_path / "model"))
            edit(folder)
        return TextGenerator.pretrained(folder, **{"maxNewTokens": 8, **params})

    return made


def merged(name: str, **values: Any) -> Callable[[Path], object]:
    """Change entries of a JSON file; None takes one away."""

    def edit(folder: Path) -> object:
        content = json.loads((folder / name).read_text()) | values
        return (folder / name).write_text(
            json.dumps({key: value for key, value in content.items() if value is not None})
        )

    return edit


def chats(folder: Path) -> object:
    return (folder / "chat_template.jinja").write_text(CHATML)


def one(stage: TextGenerator, row: Any = "my lord, the king") -> Any:
    stages = [DocumentAssembler(), stage] if isinstance(row, str) else [stage]
    return LocalPipeline(stages).fullAnnotate(row)["generation"]


def test_texts_say_how_they_came_about(make: Make) -> None:
    (found,) = one(make())
    assert found.metadata == {
        "sentence": "0",
        "finish_reason": "length",
        "prompt_tokens": found.metadata["prompt_tokens"],
        "new_tokens": "8",
    }
    assert found.result[found.begin : found.end + 1] == found.result != ""
    assert found.score < 0


def test_the_prompt_comes_along_when_asked_for(make: Make) -> None:
    assert one(make(returnFullText=True))[0].result == "my lord, the king" + one(make())[0].result


def test_a_template_makes_a_prompt_of_columns(make: Make) -> None:
    stage = make(promptTemplate="{n} {{times}}: {what}, {what}", returnFullText=True)
    found = LocalPipeline([stage]).fullAnnotate(
        [{"n": 3, "what": "the king"}, {"n": None, "what": "x"}, {"n": 1, "what": ""}]
    )
    assert found[0]["generation"][0].result.startswith("3 {times}: the king, the king")
    assert found[1]["generation"] == []
    assert found[2]["generation"][0].result.startswith("1 {times}: , ")
    documents = LocalPipeline(
        [DocumentAssembler(), make(promptTemplate="So: {document}", returnFullText=True)]
    ).fullAnnotate("the king")
    assert documents["generation"][0].result.startswith("So: the king")


@pytest.mark.parametrize("template", ["no column", "{", "{}", "{a!r}", "{a:>3}"])
def test_templates_that_are_no_templates_are_refused(template: str) -> None:
    with pytest.raises(ParamError, match="promptTemplate"):
        template_fields(template)


def test_an_empty_prompt_begins_with_the_models_first_token(make: Make) -> None:
    (found,) = one(make(promptTemplate="{a}"), {"a": ""})
    assert (found.metadata["prompt_tokens"], found.metadata["new_tokens"]) == ("1", "8")


def test_an_empty_prompt_without_such_a_token_is_an_error_of_its_row(make: Make) -> None:
    stage = make(promptTemplate="{a}", edit=merged("generation_config.json", bos_token_id=None))
    found = LocalPipeline([stage]).fullAnnotate([{"a": ""}, {"a": "the king"}])
    assert found[0]["generation"][0].error.startswith("DataError: the prompt is empty")
    assert found[1]["generation"][0].result
    with pytest.raises(DataError, match="the prompt is empty"):
        one(stage.copy().setParams(onError="fail"), {"a": ""})


def test_chats_are_written_as_the_bundle_wants_them(make: Make) -> None:
    stage = make(edit=chats, systemPrompt="Be kind.")
    plain = make(returnFullText=False)
    wanted = one(plain, "[system] Be kind.\n[user] the king\n[assistant] ")[0]
    assert one(stage, "the king")[0].result == wanted.result
    messages = [{"role": "user", "content": "the king"}]
    assert one(stage.copy().setParams(messagesCol="m"), {"m": messages})[0].result == wanted.result
    prefilled = one(
        stage.copy().setParams(messagesCol="m"), {"m": [*messages, {"role": "assistant", "content": "He"}]}
    )[0]
    assert prefilled.result == one(plain, "[system] Be kind.\n[user] the king\n[assistant] He")[0].result


def test_chats_that_lack_something_are_errors_of_their_rows(make: Make) -> None:
    stage = make(edit=chats, messagesCol="m")
    rows: list[Any] = [[{"role": "user", "content": None}], [], None, [{"role": "user", "content": "the king"}]]
    found = [row["generation"] for row in LocalPipeline([stage]).fullAnnotate([{"m": row} for row in rows])]
    assert [[item.error and item.error[:30] for item in row] for row in found] == [
        ["DataError: a chat needs messages"[:30]]
    ] * 2 + [[], [None]]


def test_chats_on_spark_equal_those_without(make: Make, spark: SparkSession) -> None:
    stage = make(edit=chats, messagesCol="m")
    rows = [([{"role": "user", "content": text}],) for text in ("the king", "my lord")]
    frame = spark.createDataFrame(rows, "m array<struct<role:string,content:string>>")
    found = [row[0][0].result for row in stage.transform(frame).select("generation").collect()]
    assert found == [one(stage, {"m": row[0]})[0].result for row in rows]


def test_several_texts_for_a_prompt(make: Make) -> None:
    beams = one(make(numBeams=3, numReturnSequences=3))
    assert len({item.result for item in beams}) == 3
    drawn = one(make(doSample=True, numReturnSequences=4, topK=0))
    assert len({item.result for item in drawn}) == 4
    assert [item.result for item in drawn] == [
        item.result for item in one(make(doSample=True, numReturnSequences=4, topK=0))
    ]
    assert [item.result for item in drawn] != [
        item.result for item in one(make(doSample=True, numReturnSequences=4, topK=0, seed=7))
    ]


def test_a_stop_string_ends_a_text(make: Make) -> None:
    whole = one(make(maxNewTokens=20))[0].result
    stop = whole.split()[1][:3]
    (found,) = one(make(maxNewTokens=20, stopStrings=[stop]))
    assert found.metadata["finish_reason"] == "stop"
    assert whole.startswith(found.result)
    assert stop in found.result


def test_a_prompt_that_is_too_long_loses_its_beginning_and_says_so(make: Make) -> None:
    (found,) = one(make(), "the king " * 300)
    assert (found.metadata["truncated"], found.metadata["prompt_tokens"]) == ("true", "248")
    assert one(make(maxLength=5), "the king of a b c d")[0].metadata["prompt_tokens"] == "5"


def test_the_bundles_own_settings_are_used_and_params_go_first(make: Make) -> None:
    edit = merged("generation_config.json", max_new_tokens=3, num_beams=2)
    stage = make(edit=edit, maxNewTokens=None)
    assert (stage.settings().max_new_tokens, stage.settings().num_beams) == (3, 2)
    assert stage.copy().setParams(numBeams=1, maxNewTokens=5).settings().max_new_tokens == 5
    assert make().copy().setParams(maxNewTokens=None).settings().max_new_tokens == 128, (
        "half of the model's 256 positions"
    )


def test_settings_the_engine_lacks_are_named(make: Make) -> None:
    with pytest.warns(UserWarning, match=r"guidance_scale=2\.0, which this engine does not do"):
        make(edit=merged("generation_config.json", guidance_scale=2.0))


def test_text_to_text_models_begin_with_their_pipelines_settings_and_their_tasks_prefix(make: Make) -> None:
    params = {"translation_en_to_fr": {"prefix": "translate: ", "max_length": 30, "num_beams": 2}}
    stage = make("t5-text2text-generation", edit=merged("config.json", task_specific_params=params), maxNewTokens=None)
    assert (stage.settings().num_beams, stage.settings().max_new_tokens) == (4, 256)
    stage.setTask("translation_en_to_fr")
    assert stage.settings("translation_en_to_fr").num_beams == 2
    stage.setMaxNewTokens(8)
    plain = stage.copy().setParams(task=None, numBeams=2)
    assert one(stage, "the king")[0].result == one(plain, "translate: the king")[0].result
    with pytest.raises(ParamError, match=r"task='x' is not in .*task_specific_params have: 'translation_en_to_fr'"):
        one(stage.copy().setParams(task="x"))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"numBeams": 2, "numReturnSequences": 3}, "numReturnSequences=3 is more than numBeams=2"),
        ({"numReturnSequences": 3}, "would be the same: set numBeams, or doSample=True"),
        ({"maxNewTokens": 256}, "maxNewTokens=256 leaves no room for a prompt: .* 256 positions"),
        ({"maxLength": 300}, "maxLength=300 is more than the 256 positions"),
        ({"temperature": 0.0}, "temperature takes .*more than 0"),
        ({"earlyStopping": "soon"}, "earlyStopping takes"),
        ({"promptTemplate": "{a}", "messagesCol": "m"}, "cannot be combined"),
    ],
)
def test_params_that_cannot_be_are_refused(params: dict[str, Any], message: str, make: Make) -> None:
    with pytest.raises(ParamError, match=message):
        one(make(**params))


def test_chats_without_a_template_and_columns_that_are_no_chats_are_refused(make: Make, spark: SparkSession) -> None:
    with pytest.raises(BundleError, match="has no chat template"):
        one(make(chat=True))
    frame = spark.createDataFrame(
        [("a", [{"role": "u", "content": "c"}])], "text string, m array<struct<role:string,content:string>>"
    )
    with pytest.raises(
        ColumnError, match=r"'text' is string, but array<struct<role:string,content:string>> is expected.*fit: 'm'"
    ):
        make(edit=chats, messagesCol="text").transform(frame)


def test_a_bundle_that_cannot_generate_is_refused(bundle: Callable[[str], str]) -> None:
    with pytest.raises(BundleError, match="so it cannot generate text"):
        TextGenerator.pretrained(bundle("distilbert-text-classification"))


def test_a_saved_pipeline_generates_the_same(make: Make, spark: SparkSession, tmp_path: Path) -> None:
    stage = make("t5-text2text-generation", earlyStopping="never", logitsBias={"king": 1.5})
    PipelineModel([DocumentAssembler(), stage]).save(str(tmp_path / "saved"))
    loaded = LocalPipeline.load(str(tmp_path / "saved"))
    assert loaded.fullAnnotate("my lord")["generation"] == one(stage, "my lord")


FRIEND = {
    "type": "object",
    "properties": {"who": {"enum": ["Nurse"], "type": "string"}},
    "required": ["who"],
    "additionalProperties": False,
}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"enum": ["Romeo", "Juliet"], "type": "string"},
        "age": {"type": "integer", "minimum": 1, "maximum": 9},
        "friends": {
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "items": {
                "type": "object",
                "properties": {"who": {"enum": ["Nurse"], "type": "string"}},
                "required": ["who"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["name", "age", "friends"],
    "additionalProperties": False,
}


def test_json_texts_become_a_typed_column(make: Make, spark: SparkSession, adapter: str) -> None:
    stage = make(jsonSchema=PERSON, maxNewTokens=96, parsedCol="person", promptTemplate="{a}")
    frame = spark.createDataFrame([("my lord",), (None,), ("Enter the king.",)], "a string")
    found = stage.transform(frame)
    assert (
        found.schema["person"].dataType.simpleString()
        == "struct<name:string,age:bigint,friends:array<struct<who:string>>>"
    )
    rows = found.select("a", "generation.result", "person").collect()
    assert rows[1].person is None
    for row in (rows[0], rows[2]):
        assert row.person.asDict(recursive=True) == json.loads(row.result[0])
    assert found.select("person.name").first()[0] in ("Romeo", "Juliet")
    assert LocalPipeline([stage]).annotate({"a": "my lord"})["person"] == json.loads(rows[0].result[0])


def test_json_that_is_cut_off_is_null(make: Make) -> None:
    found = LocalPipeline([make(jsonSchema=PERSON, maxNewTokens=3, parsedCol="person", promptTemplate="{a}")]).annotate(
        {"a": "my lord"}
    )
    assert found["person"] is None
    assert found["generation"][0].startswith("{")


def test_a_typed_column_needs_a_schema_and_a_name_of_its_own(make: Make) -> None:
    with pytest.raises(ParamError, match="jsonSchema is not set"):
        LocalPipeline([make(parsedCol="person", promptTemplate="{a}")])
    with pytest.raises(ParamError, match="columns of the same name"):
        LocalPipeline([TextGenerator(jsonSchema=PERSON, parsedCol="generation", promptTemplate="{a}")])


def test_a_template_refuses_structs(make: Make, spark: SparkSession) -> None:
    frame = spark.sql("SELECT named_struct('x', 1) AS a")
    with pytest.raises(ColumnError, match=r"struct<x:int>.*to_json"):
        make(promptTemplate="{a}").transform(frame)


LETTERS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}},
        "required": ["n"],
    },
}


def test_arrays_of_objects_are_values_or_null(make: Make, spark: SparkSession, adapter: str) -> None:
    schema = LETTERS | {"minItems": 1, "maxItems": 2, "items": LETTERS["items"] | {"additionalProperties": False}}
    frame = spark.createDataFrame([("my lord",), (None,)], "a string")
    whole, cut = (
        make(jsonSchema=schema, maxNewTokens=count, parsedCol="p", promptTemplate="{a}")
        .transform(frame)
        .select("generation.result", "p")
        .collect()
        for count in (64, 3)
    )
    assert [each.asDict() for each in whole[0].p] == json.loads(whole[0].result[0])
    assert [row.p for row in (whole[1], *cut)] == [None, None, None]


def test_rules_that_leave_nothing_are_errors_of_their_rows(make: Make) -> None:
    for params in ({"noRepeatNgramSize": 1}, {"badWords": ['"', "{"]}, {"noRepeatNgramSize": 1, "numBeams": 2}):
        (found,) = one(make(jsonSchema=PERSON, maxNewTokens=96, **params))
        assert found.result is None, params
        assert found.metadata["error"].startswith("NothingAllowed: no token is left")


def test_a_grammar_that_is_done_ends_a_text_however_short(make: Make) -> None:
    for beams in (1, 2):
        (found,) = one(make(regex="yes|no", minNewTokens=10, maxNewTokens=20, numBeams=beams))
        assert found.result in ("yes", "no")
        assert found.metadata["finish_reason"] == "eos"


def test_beams_return_no_text_twice(make: Make) -> None:
    assert [
        each.result
        for each in one(make(jsonSchema={"enum": ["merry"]}, maxNewTokens=20, numBeams=4, numReturnSequences=4))
    ] == ['"merry"']
    found = one(make(regex="yes|no", maxNewTokens=20, numBeams=4, numReturnSequences=4))
    assert sorted(each.result for each in found) == ["no", "yes"]
    assert found[0].score >= found[1].score


def test_a_bundles_rule_against_repetition_does_not_break_json(make: Make) -> None:
    edit = merged("generation_config.json", no_repeat_ngram_size=1)
    (found,) = one(make(edit=edit, jsonSchema=PERSON, maxNewTokens=96))
    assert json.loads(found.result)["name"] in ("Romeo", "Juliet")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"suppressTokens": [99999]}, r"suppressTokens=\[99999\]: the model has no token 99999"),
        ({"eosTokenId": [-1]}, "the model has no token -1"),
        ({"stopStrings": [""]}, "must not hold an empty string"),
        ({"logitsBias": {"": 1.0}}, "none may be empty"),
        ({"logitsBias": {"lord": "x"}}, "takes words and numbers|logitsBias"),
    ],
)
def test_params_that_fit_no_model_are_refused_before_a_job(params: dict[str, Any], message: str, make: Make) -> None:
    with pytest.raises((ParamError, TypeError), match=message):
        make(**params).kernel()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_added_to_scores_is_a_number(value: float, make: Make) -> None:
    with pytest.raises(ParamError, match="finite numbers"):
        make(logitsBias={"lord": value}).kernel()


# -- spaces before punctuation


def spaced(folder: Path) -> object:
    """Let a bundle ask for tidy texts."""
    return merged("tokenizer_config.json", clean_up_tokenization_spaces=True)(folder)


@pytest.mark.parametrize(
    ("name", "edit", "asked", "wanted"),
    [
        ("gpt2-text-generation", None, None, False),
        ("gpt2-text-generation", spaced, None, True),
        ("gpt2-text-generation", spaced, False, False),
        ("gpt2-text-generation", None, True, True),
        ("t5-text2text-generation", spaced, None, False),
        ("t5-text2text-generation", None, True, True),
    ],
)
def test_spaces_are_removed_where_the_param_or_the_bundle_says_so(
    name: str, edit: Callable[[Path], object] | None, asked: bool | None, wanted: bool, make: Make
) -> None:
    assert make(name, edit, cleanUpTokenizationSpaces=asked).kernel().generator.options.reading.tidy == wanted


@pytest.mark.parametrize("pattern", [r"yes \.", "a != b", "Oui !", "he 's"])
def test_texts_that_match_an_expression_keep_their_spaces(pattern: str, make: Make) -> None:
    (found,) = one(make(edit=spaced, regex=pattern, maxNewTokens=20))
    assert re.fullmatch(pattern, found.result)


def test_parsed_texts_keep_their_spaces(make: Make) -> None:
    schema = {"enum": ["a != b , c"]}
    stage = make(edit=spaced, jsonSchema=schema, parsedCol="p", promptTemplate="{a}", maxNewTokens=40)
    assert LocalPipeline([stage]).annotate({"a": "my lord"})["p"] == "a != b , c"


def test_constraints_and_tidy_spaces_cannot_be_combined(make: Make) -> None:
    for constraint in ({"regex": "a"}, {"jsonSchema": {"enum": ["a"]}}):
        with pytest.raises(
            ParamError, match=r"cleanUpTokenizationSpaces=True cannot be combined with jsonSchema or regex"
        ):
            make(cleanUpTokenizationSpaces=True, **constraint).kernel()


# -- errors of rows


@pytest.mark.parametrize(
    ("params", "rows", "reason"),
    [
        ({"promptTemplate": "{a}"}, [{"a": ""}], "the prompt is empty"),
        ({"messagesCol": "m"}, [{"m": [{"role": "user", "content": None}]}], "a chat needs messages"),
        ({"messagesCol": "m"}, [{"m": [{"role": "user"}]}], "a chat needs messages"),
        ({"messagesCol": "m"}, [{"m": [{"role": "king", "content": "x"}]}], "refuses these messages"),
        ({"promptTemplate": "{a}", "cacheTokens": 5}, [{"a": "the king"}], "cacheTokens"),
        ({"promptTemplate": "{a}", "regex": r"\{a+\}", "badWords": ["{"]}, [{"a": "the king"}], "no token is left"),
    ],
)
def test_every_error_of_a_row_fails_the_job_where_that_is_asked_for(
    params: dict[str, Any], rows: list[dict[str, Any]], reason: str, make: Make
) -> None:
    def edit(folder: Path) -> None:
        merged("generation_config.json", bos_token_id=None)(folder)
        (folder / "chat_template.jinja").write_text(
            CHATML + "{% if messages[0].role == 'king' %}{{ raise_exception('no kings') }}{% endif %}"
        )

    stage = make(edit=edit, **params)
    (found,) = LocalPipeline([stage]).fullAnnotate(rows)[0]["generation"]
    assert found.result is None
    assert reason in found.error
    with pytest.raises(DataError, match=reason):
        LocalPipeline([stage.copy().setParams(onError="fail")]).fullAnnotate(rows)


def test_an_encoder_decoder_must_say_how_a_text_begins(make: Make) -> None:
    def edit(folder: Path) -> None:
        for name in ("config.json", "generation_config.json"):
            merged(name, decoder_start_token_id=None, bos_token_id=None)(folder)

    with pytest.raises(BundleError, match="names no decoder_start_token_id"):
        make("t5-text2text-generation", edit=edit).kernel()


def test_only_prompts_that_are_continued_can_be_part_of_the_result(make: Make) -> None:
    with pytest.raises(ParamError, match="models that continue prompts"):
        make("t5-text2text-generation", returnFullText=True).kernel()


def test_numbers_in_templates_read_alike_on_both_adapters(make: Make, spark: SparkSession, adapter: str) -> None:
    frame = spark.sql(
        "SELECT float(0.1) AS f, double('NaN') AS n, date'2020-01-02' AS d, array('x', 'y') AS l, true AS b, "
        "1.50BD AS m"
    )
    stage = make(promptTemplate="{f} {d} {l} {b} {m}", returnFullText=True, maxNewTokens=1)
    assert (
        stage.transform(frame)
        .select("generation.result")
        .first()[0][0]
        .startswith("0.1 2020-01-02 ['x', 'y'] True 1.50")
    )
    assert make(promptTemplate="{n}").transform(frame).select("generation.result").first()[0] == []
    with pytest.raises(ColumnError, match="timestamp"):
        make(promptTemplate="{t}").transform(spark.sql("SELECT timestamp'2020-01-02 03:04:05' AS t"))
