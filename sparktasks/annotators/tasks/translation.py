"""Translator: texts from one language into another."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from pyspark.sql.types import StringType

from sparktasks.errors import ColumnError, DataError, ParamError, listed
from sparktasks.ops.sentences import sentence_spans
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.generation.generator import Generator, Prompt, Reading
from sparktasks.runtime.generation.languages import NONE, TASK, TEXT, TOKENS, Languages, detect_language, read_languages
from sparktasks.runtime.generation.scheduler import Result
from sparktasks.runtime.generation.settings import Settings
from sparktasks.spark.annotations import DOCUMENT, Annotation, Annotations
from sparktasks.spark.annotator import annotate_each, failed, fault, inherited
from sparktasks.spark.fusion import Chain, Visible
from sparktasks.spark.generation_annotator import GenerationAnnotator, GenerationRunner, described, joined, seq2seq_only
from sparktasks.spark.params import P, one_of, param

AUTO = "auto"


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
        fixed = languages.way == TASK and source not in (None, AUTO) and target is not None
        try:
            task = languages.task(str(source), str(target)) if fixed else None
        except ParamError as error:
            raise ParamError(f"{self.uid}: {error}") from None
        return TranslateTexts(
            runner=self.runner(self.settings(task)),
            languages=languages,
            prefixes=_prefixes(self.getBundle()) if languages.way == TASK else {},
            source=source,
            target=target,
            columns=(self.getOrDefault("srcLangCol") is not None, self.getOrDefault("tgtLangCol") is not None),
            split=self.getOrDefault("splitText"),
            fails=self.fails(),
        )

    def _codes(self, languages: Languages) -> tuple[str | None, str | None]:
        """Check the languages that are given for all rows; returns the model's codes of them."""
        source, target = self.getOrDefault("srcLang"), self.getOrDefault("tgtLang")
        if languages.way == NONE:
            if source or target:
                warnings.warn(
                    f"{self.uid}: the model translates one pair of languages; srcLang and tgtLang are not used",
                    stacklevel=4,
                )
            return None, None
        try:
            known = source if source in (None, AUTO) or languages.way == TEXT else languages.source(source)
            wanted = None if target is None else languages.target(target)
        except ParamError as error:
            raise ParamError(f"{self.uid}: {error}") from None
        for name, value, needed in (
            ("srcLang", source, languages.way != TEXT),
            ("tgtLang", target, languages.way in (TOKENS, TASK)),
        ):
            if needed and value is None and self.getOrDefault(f"{name}Col") is None:
                raise ParamError(
                    f"{self.uid}: the model translates between several languages: set {name} or {name}Col. It "
                    f"knows: {listed(languages.targets)}"
                )
        return known, wanted

    def _reading(self, settings: Settings) -> Reading:
        reading = super()._reading(settings)
        if read_languages(self.getBundle()).way == TOKENS and reading.max_length is not None:
            return replace(reading, max_length=max(1, reading.max_length - 2))  # the language's token and the end token
        return reading

    def _arranged(self, chain: Chain) -> list[Visible]:
        names = [self.getOrDefault(name) for name in ("srcLangCol", "tgtLangCol")]
        columns = [chain.find(name, self.uid) for name in names if name is not None]
        for column in columns:
            if column.dataType is not None and not isinstance(column.dataType, StringType):
                raise ColumnError(
                    f"{self.uid}: the column {column.name!r} is {column.dataType.simpleString()}, but string "
                    "is expected: a language's code"
                )
        return super()._arranged(chain) + columns


def _prefixes(bundle: Bundle) -> dict[str, str]:
    return {
        task: str(params.get("prefix", "")) for task, params in bundle.tasks.items() if task.startswith("translation_")
    }


@dataclass(frozen=True)
class _Text:
    """A text to translate, in the model's codes."""

    text: str
    source: str | None
    target: str | None
    detected: bool = False


@dataclass(frozen=True)
class TranslateTexts:
    """documents (and languages) -> documents."""

    runner: GenerationRunner
    languages: Languages
    prefixes: dict[str, str]
    source: str | None
    target: str | None
    columns: tuple[bool, bool]
    split: str
    fails: bool

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])
        others = iter(columns[1:])
        given = [next(others).to_pylist() if there else None for there in self.columns]

        def compute(usable: list[int]) -> list[list[Annotation]]:
            made: dict[int, list[Annotation]] = {}
            texts: dict[int, _Text] = {}
            for index in usable:
                codes = [
                    self._code(each, source.rows[index], code)
                    for each, code in zip(given, (self.source, self.target), strict=True)
                ]
                try:
                    texts[index] = self._told(str(source.result[index]), *codes)
                except (DataError, ParamError) as error:
                    made[index] = [fault(DOCUMENT, source, index, f"DataError: {error}")]
            made |= self._translated(source, texts) if texts else {}
            return [made[index] for index in usable]

        return annotate_each(DOCUMENT, source, compute, self.fails)

    @staticmethod
    def _code(column: list[Any] | None, row: int, code: str | None) -> str | None:
        return code if column is None else column[row] or ""

    def _told(self, text: str, source: str | None, target: str | None) -> _Text:
        """Check a row's languages; `ParamError` or `DataError` where the model does not know one."""
        languages = self.languages
        if languages.way == NONE:
            return _Text(text, None, None)
        if languages.way == TEXT:
            return _Text(text, None, None if target is None else languages.target(target))
        wanted, detected = languages.target(target or ""), source == AUTO
        if detected:
            source = detect_language(text, languages.sources_of(wanted))
            if source is None:
                raise DataError(
                    f"the language of the text was not recognised as one that the model translates to {wanted!r}"
                )
        told = _Text(text, languages.source(source or ""), wanted, detected)
        if languages.way == TASK:
            languages.task(str(told.source), wanted)
        return told

    # -- prompts

    def _translated(self, source: Annotations, texts: dict[int, _Text]) -> dict[int, list[Annotation]]:
        generator = self.runner.open()
        parts = {
            index: self._parts(text.text) if self.split == "always" else [("", text.text)]
            for index, text in texts.items()
        }
        prompts = self._prompts(generator, texts, parts)
        if self.split == "long":
            long = [index for index, found in prompts.items() if found[0].truncated]
            parts |= {index: self._parts(texts[index].text) for index in long}
            prompts |= self._prompts(generator, {index: texts[index] for index in long}, parts)
        results = iter(generator.run([prompt for found in prompts.values() for prompt in found]))
        made = {}
        for index, found in prompts.items():
            each = [next(results) for _ in found]
            made[index] = self._annotations(
                generator, source, index, texts[index], [before for before, _ in parts[index]], found, each
            )
        return made

    @staticmethod
    def _parts(text: str) -> list[tuple[str, str]]:
        """Cut a text into sentences, each with the white space before it."""
        parts, end = [], 0
        for begin, stop in sentence_spans(text):
            parts.append((text[end:begin], text[begin:stop]))
            end = stop
        return parts or [("", text)]

    def _prompts(
        self, generator: Generator, texts: dict[int, _Text], parts: dict[int, list[tuple[str, str]]]
    ) -> dict[int, list[Prompt]]:
        flat = [(index, self._worded(texts[index], part)) for index in texts for _, part in parts[index]]
        found = generator.prompts([text for _, text in flat], special=self.languages.way != TOKENS)
        prompts: dict[int, list[Prompt]] = {index: [] for index in texts}
        for (index, _), prompt in zip(flat, found, strict=True):
            prompts[index].append(self._framed(generator, texts[index], prompt))
        return prompts

    def _worded(self, text: _Text, part: str) -> str:
        """Put what tells the model the language before a text, where text tells it."""
        if self.languages.way == TEXT and text.target is not None:
            return f"{self.languages.token(text.target)} {part}"
        if self.languages.way == TASK:
            return self.prefixes[self.languages.task(str(text.source), str(text.target))] + part
        return part

    def _framed(self, generator: Generator, text: _Text, prompt: Prompt) -> Prompt:
        """Put the source language's token beside a text's tokens, and force the target's, where tokens tell them."""
        if self.languages.way != TOKENS:
            return prompt
        source, target = (
            generator.tokenizer.token_id(self.languages.token(str(code))) for code in (text.source, text.target)
        )
        end = () if generator.end_id is None else (generator.end_id,)
        ids = (*prompt.ids, *end, source or 0) if self.languages.behind else (source or 0, *prompt.ids, *end)
        return replace(prompt, ids=ids, first=target)

    # -- translations

    def _annotations(
        self,
        generator: Generator,
        source: Annotations,
        index: int,
        text: _Text,
        gaps: Sequence[str],
        prompts: Sequence[Prompt],
        results: Sequence[Result],
    ) -> list[Annotation]:
        broken = next((result for result in results if isinstance(result, Exception)), None)
        if broken is not None:
            return [failed(DOCUMENT, source, index, broken)]
        metadata = inherited(source, index) | (
            {"source_language": text.source} if text.detected and text.source else {}
        )
        whole = joined(prompts)
        ranked = zip(*(result for result in results if not isinstance(result, Exception)), strict=True)
        return [
            described(
                "".join(gap + generator.decode(each.ids) for gap, each in zip(gaps, made, strict=True)),
                whole,
                made,
                metadata,
            )
            for made in ranked
        ]
