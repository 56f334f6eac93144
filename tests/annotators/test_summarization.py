"""Summarizer: with a model, with windows, without a model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from sparktasks import DocumentAssembler, LocalPipeline, Summarizer
from sparktasks.errors import BundleError, DataError, ParamError
from sparktasks.ops.sentences import sentence_spans
from sparktasks.runtime.generation.generator import Generator, Prompt
from sparktasks.runtime.generation.search import Result

# From "Natural history of the farm" style notes, written for this test.
STORY = (
    "The bridge over the river was closed on Monday. Engineers found cracks in two of the bridge's pillars. "
    "The town's bakery sold out of bread that morning. The cracks in the pillars are as long as a hand, the "
    "engineers said. "
    "Traffic over the river is led to the old bridge until the pillars are repaired. A dog show takes place on Sunday. "
    "The repair of the bridge will cost two million and take until spring."
)


def summary(stage: Summarizer, text: str = STORY) -> Any:
    return LocalPipeline([DocumentAssembler(), stage]).fullAnnotate(text)["summary"]


def test_central_sentences_are_kept_in_their_order() -> None:
    (found,) = summary(Summarizer(method="extractive", sentences=3, language="english"))
    spans = [STORY[begin:end] for begin, end in sentence_spans(STORY)]
    kept = [int(place) for place in found.metadata["sentences"].split(",")]
    assert found.result == " ".join(spans[place] for place in kept)
    assert kept == sorted(kept)
    assert len(kept) == 3
    assert not set(kept) & {2, 5}, "bread and dogs are not what the text is about"
    assert found.score is None


def test_short_texts_are_their_own_summary() -> None:
    assert summary(Summarizer(method="extractive", sentences=3), "One. Two!")[0].result == "One. Two!"


def test_no_model_is_needed_on_spark_and_in_saved_pipelines(spark: SparkSession, tmp_path: Path) -> None:
    stage = Summarizer.pretrained(method="extractive", sentences=1)
    frame = DocumentAssembler().transform(spark.createDataFrame([(STORY,), (None,)], "text string"))
    found = [row[0] for row in stage.transform(frame).select("summary.result").collect()]
    assert [len(each) for each in found] == [1, 0]
    stage.save(str(tmp_path / "stage"))
    assert Summarizer.load(str(tmp_path / "stage")).transform(frame).select("summary.result").first()[0] == found[0]


def test_a_model_is_asked_for_where_one_is_needed(bundle: Callable[[str], str], spark: SparkSession) -> None:
    with pytest.raises(BundleError, match="Summarizer has no starter bundle"):
        Summarizer.pretrained()
    with pytest.raises(ParamError, match="it has no model"):
        summary(Summarizer())
    with pytest.raises(BundleError, match="no encoder-decoder model"):
        Summarizer.pretrained(bundle("gpt2-text-generation"))


def test_the_tasks_own_settings_and_prefix_are_used(bundle: Callable[[str], str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle("t5-text2text-generation"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    tasks = {"summarization": {"prefix": "summarize: ", "num_beams": 2, "min_length": 6, "no_repeat_ngram_size": 3}}
    (folder / "config.json").write_text(json.dumps(config | {"task_specific_params": tasks}))
    stage = Summarizer.pretrained(folder, maxNewTokens=12)
    settings = stage.settings("summarization")
    assert (settings.num_beams, settings.min_length, settings.no_repeat_ngram_size, settings.max_new_tokens) == (
        2,
        6,
        3,
        12,
    )
    plain = Summarizer.pretrained(
        bundle("t5-text2text-generation"), maxNewTokens=12, numBeams=2, minNewTokens=5, noRepeatNgramSize=3
    )
    assert summary(stage)[0].result == summary(plain, f"summarize: {STORY}")[0].result


def test_long_documents_are_cut_or_summarized_by_windows(bundle: Callable[[str], str]) -> None:
    stage = Summarizer.pretrained(bundle("t5-text2text-generation"), maxLength=60, maxNewTokens=12, numBeams=1)
    (cut,) = summary(stage)
    assert (cut.metadata["truncated"], cut.metadata["prompt_tokens"]) == ("true", "60")
    (found,) = summary(stage.copy().setParams(longDocument="hierarchical"))
    assert "truncated" not in found.metadata
    windows = int(found.metadata["windows"])
    assert windows > 1
    assert found.result != cut.result
    short = "The bridge is closed."
    assert summary(stage.copy().setParams(longDocument="hierarchical"), short) == summary(stage, short)


def test_a_text_without_sentences_is_cut_between_words(bundle: Callable[[str], str]) -> None:
    spoken = " ".join(["the bridge over the river was closed and nobody knows when it opens"] * 12)
    stage = Summarizer.pretrained(
        bundle("t5-text2text-generation"), maxLength=60, maxNewTokens=12, numBeams=1, longDocument="hierarchical"
    )
    (found,) = summary(stage, spoken)
    assert "truncated" not in found.metadata
    assert int(found.metadata["windows"]) > 3


def test_a_prefix_that_leaves_no_room_is_flagged(bundle: Callable[[str], str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle("t5-text2text-generation"), tmp_path / "model"))
    params = {"summarization": {"prefix": "Summarize the following report of the council: "}}
    config = json.loads((folder / "config.json").read_text()) | {"task_specific_params": params}
    (folder / "config.json").write_text(json.dumps(config))
    stage = Summarizer.pretrained(folder, maxLength=5, maxNewTokens=4, numBeams=1, longDocument="hierarchical")
    (found,) = summary(stage, "The bridge is closed. Nobody knows why.")
    assert found.metadata["truncated"] == "true"


def test_summaries_that_are_longer_than_their_windows_come_to_an_end(bundle: Callable[[str], str]) -> None:
    limits = {"maxLength": 8, "maxNewTokens": 20, "minNewTokens": 20, "numBeams": 1}
    stage = Summarizer.pretrained(bundle("t5-text2text-generation"), longDocument="hierarchical", **limits)
    (found,) = summary(stage, "The bridge is closed. Nobody knows why. " * 5)
    assert found.metadata["truncated"] == "true"
    assert int(found.metadata["windows"]) > 5


def test_no_window_loses_a_word(bundle: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[bool] = []
    run = Generator.run

    def watched(self: Generator, prompts: Sequence[Prompt]) -> list[Result]:
        cut.extend(prompt.truncated for prompt in prompts)
        return run(self, prompts)

    monkeypatch.setattr(Generator, "run", watched)
    stage = Summarizer.pretrained(
        bundle("t5-text2text-generation"), maxLength=24, maxNewTokens=6, numBeams=1, longDocument="hierarchical"
    )
    for gap in (" ", "\n", "\n\n\n", " " * 20):
        (found,) = summary(stage, gap.join(["The cat sat on the mat."] * 40))
        assert "truncated" not in found.metadata
    assert len(cut) > 40
    assert not any(cut)


def test_texts_that_cannot_be_summarized_are_errors_of_their_rows(
    bundle: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise ZeroDivisionError("no words")

    monkeypatch.setattr("sparktasks.kernels.extractive_summarization.sentence_ranker", lambda language: refuse)
    model = Summarizer.pretrained(bundle("t5-text2text-generation"), maxNewTokens=4, numBeams=1, cacheTokens=8)
    for stage, reason in ((Summarizer(method="extractive"), "sumy cannot rank .* no words"), (model, "cacheTokens")):
        (found,) = summary(stage)
        assert found.result is None
        assert re.search(f"^DataError: .*{reason}", found.error)
        with pytest.raises(DataError, match=reason):
            summary(stage.copy().setParams(onError="fail"))


def test_languages_without_stop_words_are_refused() -> None:
    with pytest.raises(ParamError, match="language='klingon'"):
        Summarizer(method="extractive", language="klingon").kernel()
