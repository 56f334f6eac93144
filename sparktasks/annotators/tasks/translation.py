"""Translator: texts from one language into another."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from pyspark.ml.param import Param

from sparktasks.errors import ParamError, listed
from sparktasks.kernels.columns import DOCUMENT
from sparktasks.kernels.translation import AUTO, TranslateTexts
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.generation.generator import Reading
from sparktasks.runtime.generation.languages import NONE, TASK, TEXT, TOKENS, Languages, read_languages
from sparktasks.runtime.generation.settings import Settings
from sparktasks.spark.fusion import Chain
from sparktasks.spark.generation_annotator import GenerationAnnotator, seq2seq_only
from sparktasks.spark.inputs import STRING, Visible
from sparktasks.spark.params import P, one_of, param


class Translator(GenerationAnnotator):
    """Translates each document, as transformers' ``translation`` pipeline does: Marian, M2M100, NLLB, mBART, T5.

    Languages are named as the model names them (``getLanguages``): ``fr`` for M2M100, ``fra_Latn`` for NLLB, ``fr_XX``
    for mBART, ``fra`` or ``fr`` for a Marian model with several targets; models for one pair need none. A code whose
    country or script goes without saying may be given without it.

    Texts that are too long for the model are translated sentence by sentence, and keep their paragraphs.

    Writes document annotations: ``result`` is the translation, ``score`` the mean log-probability of its tokens.
    Metadata: ``sentence``, ``finish_reason`` (eos, stop or length), ``prompt_tokens``, ``new_tokens``;
    ``source_language`` where it was detected; ``truncated`` = "true" where a part of the text was cut off.
    """

    reads = (DOCUMENT,)
    writes = DOCUMENT
    starter = None
    cut = "right"

    outputCol: P[str] = param("name of the column to write", default="translation")
    srcLang: P[str | None] = param("language of the texts; auto detects it text by text", default=None)
    tgtLang: P[str | None] = param("language to translate into", default=None)
    srcLangCol: P[str | None] = param("column with each row's language, instead of srcLang", default=None)
    tgtLangCol: P[str | None] = param(
        "column with the language to translate each row into, instead of tgtLang", default=None
    )
    splitText: P[str] = param(
        (
            "which texts are translated sentence by sentence: never (long ones are cut and flagged), long (those "
            "the model has no room for), always"
        ),
        default="long",
        check=one_of("never", "long", "always"),
    )

    def check_bundle(self, bundle: Bundle) -> None:
        """Require an encoder and a decoder."""
        super().check_bundle(bundle)
        seq2seq_only(bundle, self.uid)

    def getLanguages(self) -> dict[str, tuple[str, ...]]:
        """Return the codes of the languages that the model translates from and into; empty where there is but one
        pair."""
        languages = read_languages(self.getBundle())
        return {"source": languages.sources, "target": languages.targets}

    def kernel(self) -> TranslateTexts:
        """Return the executor half."""
        languages = read_languages(self.getBundle())
        source, target = self._codes(languages)
        return TranslateTexts(
            generator=self.generator_ref(self.settings(self._task(languages, source, target))),
            languages=languages,
            # A prefix of a task names its languages; other models are told them by tokens.
            prefixes=_prefixes(self.getBundle()) if languages.way == TASK else {},
            source_language=source,
            target_language=target,
            language_columns=(
                self.getOrDefault(self.srcLangCol) is not None,
                self.getOrDefault(self.tgtLangCol) is not None,
            ),
            split=self.getOrDefault(self.splitText),
            fails=self.fails(),
        )

    def _codes(self, languages: Languages) -> tuple[str | None, str | None]:
        """Check the languages that are given for all rows; returns the model's codes of them."""
        source, target = self.getOrDefault(self.srcLang), self.getOrDefault(self.tgtLang)
        if languages.way == NONE:
            if source or target:
                warnings.warn(
                    f"{self.uid}: the model translates one pair of languages; srcLang and tgtLang are not used",
                    stacklevel=4,
                )
            return None, None
        # A model that is told the target in the text (Marian) finds the source out by itself.
        if languages.way != TEXT:
            self._require(self.srcLang, self.srcLangCol, languages)
        if languages.way in (TOKENS, TASK):
            self._require(self.tgtLang, self.tgtLangCol, languages)
        try:
            if languages.way != TEXT and source not in (None, AUTO):
                source = languages.source(source)
            if target is not None:
                target = languages.target(target)
        except ParamError as error:
            raise ParamError(f"{self.uid}: {error}") from None
        return source, target

    def _require(self, language: Param[Any], column: Param[Any], languages: Languages) -> None:
        """Raise `ParamError` where a language is set neither for all rows nor row by row."""
        if self.getOrDefault(language) is None and self.getOrDefault(column) is None:
            raise ParamError(
                f"{self.uid}: the model translates between several languages: set {language.name} or {column.name}. "
                f"It knows: {listed(languages.targets)}"
            )

    def _task(self, languages: Languages, source: str | None, target: str | None) -> str | None:
        """Return the task of config.json whose settings are used; none where rows differ in their languages."""
        if languages.way != TASK or source in (None, AUTO) or target is None:
            return None
        try:
            return languages.task(str(source), target)
        except ParamError as error:
            raise ParamError(f"{self.uid}: {error}") from None

    def _reading(self, settings: Settings) -> Reading:
        reading = super()._reading(settings)
        if read_languages(self.getBundle()).way == TOKENS and reading.max_length is not None:
            # The kernel adds the language's token and the end token itself.
            return replace(reading, max_length=max(1, reading.max_length - 2))
        return reading

    def columns(self, chain: Chain) -> list[Visible]:
        columns = super().columns(chain)
        # The kernel knows by language_columns which of the two come behind the documents.
        for name in (self.getOrDefault(self.srcLangCol), self.getOrDefault(self.tgtLangCol)):
            if name is not None:
                columns.append(chain.find(name, self.uid, STRING))
        return columns


def _prefixes(bundle: Bundle) -> dict[str, str]:
    """Return what config.json puts before the texts of each translation task."""
    prefixes = {}
    for task, params in bundle.tasks.items():
        if task.startswith("translation_"):
            prefixes[task] = str(params.get("prefix", ""))
    return prefixes
