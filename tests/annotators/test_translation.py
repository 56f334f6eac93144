"""Translator: languages, long texts, several targets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from sparktasks import DocumentAssembler, LocalPipeline, Translator
from sparktasks.errors import BundleError, ColumnError, ParamError
from sparktasks.runtime.generation.languages import Languages, detect_language, read_languages

Make = Callable[..., Translator]
LOCALES = ["en_XX", "fr_XX", "de_DE", "zh_CN", "zh_TW"]


@pytest.fixture
def make(bundle: Callable[[str], str], tmp_path: Path) -> Make:
    """Make translators; ``added`` gives the tokenizer more special tokens, ``config`` and ``tokenizer`` change JSON
    files."""

    def made(
        added: list[str] | None = None,
        config: dict[str, Any] | None = None,
        tokenizer: dict[str, Any] | None = None,
        **params: Any,
    ) -> Translator:
        folder = Path(bundle("t5-text2text-generation"))
        if added or config or tokenizer:
            folder = Path(shutil.copytree(folder, tmp_path / "model"))
            _merge(folder / "config.json", config or {})
            _merge(folder / "tokenizer_config.json", tokenizer or {})
            _spell(folder / "tokenizer.json", added or [])
        return Translator.pretrained(folder, **{"maxNewTokens": 12, "numBeams": 1, **params})

    return made


def _merge(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _spell(path: Path, names: list[str]) -> None:
    """Let tokens that nobody needs mean languages: the vocabulary keeps its size."""
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    for place, name in enumerate(names):
        vocabulary[-2 - place][0] = name
        content["added_tokens"].append(
            {
                "id": len(vocabulary) - 2 - place,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        )
    path.write_text(json.dumps(content))


def one(stage: Translator, row: Any = "the king and my lord") -> Any:
    return LocalPipeline([DocumentAssembler(), stage]).fullAnnotate(row)["translation"]


def test_one_pair_of_languages_needs_none_to_be_named(make: Make) -> None:
    (found,) = one(make())
    assert found.result
    assert found.metadata["finish_reason"] in ("eos", "length")
    with pytest.warns(UserWarning, match="one pair of languages"):
        assert one(make(srcLang="en", tgtLang="fr")) == [found]


def test_languages_are_told_by_tokens_where_the_model_has_them(make: Make) -> None:
    stage = make(LOCALES, srcLang="en", tgtLang="fr_XX")
    assert stage.getLanguages() == {"source": tuple(LOCALES), "target": tuple(LOCALES)}
    french, german = one(stage)[0], one(stage.copy().setParams(tgtLang="de_DE"))[0]
    assert french.result != german.result
    assert one(stage.copy().setParams(srcLang="de_DE"))[0].result != french.result
    rows = [
        {"text": "the king", "to": "fr_XX"},
        {"text": "the king", "to": "de"},
        {"text": "the king", "to": "xx"},
        {"text": "the king", "to": None},
    ]
    columns = stage.copy().setParams(tgtLang=None, tgtLangCol="to")
    found = [row["translation"][0] for row in LocalPipeline([DocumentAssembler(), columns]).fullAnnotate(rows)]
    assert [item.result for item in found[:2]] == [
        one(stage, "the king")[0].result,
        one(stage.copy().setParams(tgtLang="de"), "the king")[0].result,
    ]
    assert "the target language 'xx' is not one that the model knows" in found[2].error
    assert "the target language '' is not one" in found[3].error


@pytest.mark.parametrize("piece", ["_______", "__", "__fr__", ">>fra<<", "fr_XX"])
def test_pieces_of_the_vocabulary_are_no_languages(piece: str, make: Make, tmp_path: Path) -> None:
    tasks = {"translation_en_to_fr": {"prefix": "translate English to French: "}}
    plain = make(config={"task_specific_params": tasks}, srcLang="en", tgtLang="fr")
    wanted = one(plain)
    folder = Path(shutil.copytree(plain.getBundle().folder, tmp_path / "spelled"))
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"][-2][0] = piece
    (folder / "tokenizer.json").write_text(json.dumps(content))
    stage = Translator.pretrained(folder, maxNewTokens=12, numBeams=1, srcLang="en", tgtLang="fr")
    assert stage.getLanguages() == {"source": ("en",), "target": ("fr",)}
    assert one(stage) == wanted


@pytest.mark.parametrize("config", [{"model_type": "marian"}, {}])
def test_marian_vocabularies_have_their_languages_among_their_pieces(config: dict[str, str], make: Make) -> None:
    tokenizer = {} if config else {"tokenizer_class": "MarianTokenizer"}
    bundle = make(config=config, tokenizer=tokenizer).getBundle()
    content = json.loads(bundle.tokenizer_path.read_text())
    for place, piece in enumerate((">>fra<<", ">>es_419<<", ">><<", ">>zho_Hans<<")):
        content["model"]["vocab"][300 + place][0] = piece
    bundle.tokenizer_path.write_text(json.dumps(content))
    assert read_languages(bundle) == Languages("text", (), ("fra", "es_419", "zho_Hans"), ">>{}<<")


@pytest.mark.parametrize(
    "declared",
    [
        {"additional_special_tokens": ["__en__", "__zh_CN__", "____", "__end of text__"]},
        {"tokenizer_class": "M2M100Tokenizer"},
    ],
)
def test_declared_tokens_are_languages_where_they_look_like_it(declared: dict[str, Any], make: Make) -> None:
    languages = read_languages(make(tokenizer=declared | {"eos_token": "__eos__", "unk_token": "__unk__"}).getBundle())
    assert languages.form == "__{}__"
    assert (
        languages.targets == ("en", "zh_CN")
        if "additional_special_tokens" in declared
        else len(languages.targets) == 100
    )


def test_what_ends_a_translation_does_not_end_what_is_read(make: Make) -> None:
    stage = make(LOCALES, srcLang="en", tgtLang="fr_XX", maxNewTokens=6)
    plain, other = one(stage)[0], one(stage.copy().setParams(eosTokenId=[77]))[0]
    assert plain.metadata["finish_reason"] == "length", "the end token has no part in it"
    assert (other.result, other.score) == (plain.result, plain.score)


def test_marian_models_are_told_the_target_in_the_text(make: Make) -> None:
    stage = make([">>fra<<", ">>deu<<"], tgtLang="fra", splitText="never")
    told, plain = one(stage, "the king"), one(stage.copy().setParams(tgtLang=None), ">>fra<< the king")
    assert told[0].result == plain[0].result != one(stage.copy().setParams(tgtLang="deu"), "the king")[0].result


def test_t5_is_told_both_languages_by_its_prefix(make: Make) -> None:
    tasks = {"translation_en_to_fr": {"prefix": "in French: "}, "translation_en_to_de": {"prefix": "in German: "}}
    stage = make(config={"task_specific_params": tasks}, srcLang="en", tgtLang="de")
    assert (
        one(stage, "the king")[0].result
        == one(
            Translator.pretrained(stage.getBundle().folder, maxNewTokens=12, numBeams=1, srcLang="en", tgtLang="de"),
            "the king",
        )[0].result
    )
    plain = make(maxNewTokens=12)
    assert one(stage, "the king")[0].result == one(plain, "in German: the king")[0].result
    assert stage.getLanguages() == {"source": ("en",), "target": ("fr", "de")}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"srcLang": "en_XX"}, "set tgtLang or tgtLangCol. It knows: 'en_XX', 'fr_XX'"),
        ({"tgtLang": "en_XX"}, "set srcLang or srcLangCol"),
        (
            {"srcLang": "en_XX", "tgtLang": "fr_FR"},
            "target language 'fr_FR' is not one that the model knows. Did you mean 'fr_XX'",
        ),
        ({"srcLang": "zh", "tgtLang": "fr"}, "Did you mean one of 'zh_CN', 'zh_TW'"),
    ],
)
def test_languages_that_are_missing_or_unknown_are_refused(params: dict[str, str], message: str, make: Make) -> None:
    stage = make(LOCALES, **params)
    with pytest.raises(ParamError, match=message) as caught:
        one(stage)
    assert stage.uid in str(caught.value)


def test_the_language_is_detected_where_that_is_asked_for(make: Make) -> None:
    stage = make(LOCALES, srcLang="auto", tgtLang="en")
    rows = [
        {"text": text}
        for text in (
            "Où est la bibliothèque de la ville ?",
            "Wo ist der Bahnhof in dieser Stadt?",
            "今日はいい天気ですね。明日も晴れるでしょう。",
        )
    ]
    found = [row["translation"][0] for row in LocalPipeline([DocumentAssembler(), stage]).fullAnnotate(rows)]
    assert [item.metadata.get("source_language") for item in found] == ["fr_XX", "de_DE", None]
    assert "was not recognised as one that the model translates" in found[2].error


@pytest.mark.parametrize(
    ("text", "known", "wanted"),
    [
        ("Le chat dort sur le canapé de la maison.", ("eng_Latn", "fra_Latn"), "fra_Latn"),
        ("今天天气很好,我们去公园散步吧。", ("zho_Hant", "zho_Hans"), "zho_Hans"),
        ("هذا كتاب جديد عن تاريخ المدينة القديمة", ("arb_Arab", "pes_Arab"), "arb_Arab"),
        ("The weather is nice today and we go out.", ("de", "en"), "en"),
        ("The weather is nice today and we go out.", ("fr",), None),
    ],
)
def test_detected_languages_are_the_models_codes(text: str, known: tuple[str, ...], wanted: str | None) -> None:
    assert detect_language(text, known) == wanted


def test_long_texts_are_translated_by_sentences_and_keep_their_paragraphs(make: Make) -> None:
    stage = make(maxLength=12)
    text = "The king is here. My lord is not.\n\nWhat say you? " + "And so it goes, my lord. " * 3
    (found,) = one(stage, text)
    sentences = ["The king is here.", "My lord is not.", "What say you?", *["And so it goes, my lord."] * 3]
    each = [one(stage, sentence)[0] for sentence in sentences]
    gaps = ["", " ", "\n\n", " ", " ", " "]
    assert found.result == "".join(gap + item.result for gap, item in zip(gaps, each, strict=True))
    assert found.metadata["new_tokens"] == str(sum(int(item.metadata["new_tokens"]) for item in each))
    assert "truncated" not in found.metadata
    (cut,) = one(stage.copy().setParams(splitText="never"), text)
    assert (cut.metadata["truncated"], cut.metadata["prompt_tokens"]) == ("true", "12")
    short = "The king. My lord."
    assert one(stage, short)[0].result != one(stage.copy().setParams(splitText="always"), short)[0].result


def test_a_model_without_encoder_and_columns_that_are_no_strings_are_refused(
    make: Make, bundle: Callable[[str], str], spark: SparkSession
) -> None:
    with pytest.raises(BundleError, match=r"no encoder-decoder model .*TextGenerator with a promptTemplate"):
        Translator.pretrained(bundle("gpt2-text-generation"))
    frame = DocumentAssembler().transform(spark.createDataFrame([("a", 1)], "text string, to int"))
    with pytest.raises(ColumnError, match="'to' is int, but string is expected"):
        make(LOCALES, srcLang="en", tgtLangCol="to").transform(frame)


def test_the_frame_of_tokens_follows_the_tokenizers_class(make: Make) -> None:
    languages = [
        read_languages(make(LOCALES, tokenizer={"tokenizer_class": kind}).getBundle()) for kind in ("MBartTokenizer",)
    ]
    assert languages == [Languages("tokens", tuple(LOCALES), tuple(LOCALES), "{}", behind=True)]


PAIRS = {
    "translation_en_to_fr": {"prefix": "in French: "},
    "translation_en_to_de": {"prefix": "in German: "},
    "translation_fr_to_en": {"prefix": "in English: "},
}


def test_pairs_that_a_model_lacks_are_refused_or_errors_of_their_rows(make: Make, spark: SparkSession) -> None:
    stage = make(config={"task_specific_params": PAIRS}, srcLang="fr", tgtLang="de")
    with pytest.raises(
        ParamError, match=r"does not translate 'fr' to 'de'\. It translates: 'en to fr', 'en to de', 'fr to en'"
    ):
        one(stage)
    stage = stage.copy().setParams(srcLang=None, tgtLang=None, srcLangCol="from", tgtLangCol="to")
    rows = [("the king", "en", "de"), ("the king", "fr", "de"), ("the king", None, "de")]
    frame = DocumentAssembler().transform(spark.createDataFrame(rows, "text string, from string, to string"))
    found = [row.translation[0] for row in stage.transform(frame).select("translation").collect()]
    assert found[0].result
    assert [each.result for each in found[1:]] == [None, None]
    assert "does not translate 'fr' to 'de'" in found[1].metadata["error"]


def test_t5_detects_the_language_too(make: Make) -> None:
    text = "The committee will decide on the new proposal next week."
    stage = make(config={"task_specific_params": PAIRS}, srcLang="auto", tgtLang="de")
    (found,) = one(stage, text)
    assert found.metadata["source_language"] == "en"
    assert found.result == one(stage.copy().setParams(srcLang="en"), text)[0].result


def test_a_row_can_ask_for_detection(make: Make) -> None:
    stage = make(config={"task_specific_params": PAIRS}, srcLangCol="from", tgtLang="de")
    text = "The committee will decide on the new proposal next week."
    found = LocalPipeline([DocumentAssembler(), stage]).fullAnnotate(
        [{"text": text, "from": "auto"}, {"text": text, "from": "en"}]
    )
    assert [row["translation"][0].metadata.get("source_language") for row in found] == ["en", None]
    assert found[0]["translation"][0].result == found[1]["translation"][0].result
