"""Translation on the executor: find each text's languages, make prompts that tell them, generate, join the parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import pyarrow as pa

from sparktasks.errors import DataError, ParamError
from sparktasks.kernels.columns import DOCUMENT, Annotation, Annotations
from sparktasks.kernels.generation import GeneratorRef, generated_document, join_prompts
from sparktasks.kernels.row_kernel import RowKernel, inherited
from sparktasks.ops.sentences import sentence_spans
from sparktasks.runtime.generation.generator import Generator, Prompt
from sparktasks.runtime.generation.languages import NONE, TASK, TEXT, TOKENS, Languages, detect_language
from sparktasks.runtime.generation.search import Generated, Result

AUTO = "auto"


@dataclass(frozen=True)
class SourceText:
    """A text to translate; languages are the model's codes, None where the model has but one pair."""

    text: str
    source: str | None
    target: str | None
    detected: bool = False


@dataclass(frozen=True)
class Part:
    """A piece of a text that is translated by itself: the white space before it, and its prompt."""

    gap: str
    prompt: Prompt


@dataclass(frozen=True)
class Translation:
    """One translation of a text: the joined parts, and what the generator tells of each."""

    text: str
    prompt: Prompt
    generated: Sequence[Generated]


@dataclass(frozen=True, kw_only=True)
class TranslateTexts(RowKernel):
    """documents (and columns of languages) -> documents."""

    generator: GeneratorRef
    languages: Languages
    prefixes: Mapping[str, str]
    source_language: str | None
    target_language: str | None
    language_columns: tuple[bool, bool]
    split: str

    kind = DOCUMENT

    # -- each text's languages

    def items(
        self, source: Annotations, others: Sequence[pa.Array], usable: Sequence[int]
    ) -> list[SourceText | DataError]:
        """Return each text with its languages, or why the model cannot translate it."""
        columns = iter(others)
        has_source, has_target = self.language_columns
        count = len(source.lengths)
        sources = _languages(next(columns)) if has_source else [self.source_language] * count
        targets = _languages(next(columns)) if has_target else [self.target_language] * count
        texts: list[SourceText | DataError] = []
        for index in usable:
            row = source.rows[index]
            text = str(source.result[index])
            try:
                texts.append(self._with_languages(text, sources[row], targets[row]))
            except (DataError, ParamError) as error:
                # A language in a column is data: it is the row that is wrong, not the stage.
                texts.append(DataError(str(error)))
        return texts

    def _with_languages(self, text: str, source: str | None, target: str | None) -> SourceText:
        """Check a row's languages; `ParamError` or `DataError` where the model does not know one."""
        languages = self.languages
        if languages.way == NONE:
            return SourceText(text, None, None)
        if languages.way == TEXT:
            # Such a model may have one target, and no word for it.
            known_target = None if target is None else languages.target(target)
            return SourceText(text, None, known_target)
        known_target = languages.target(target or "")
        detected = source == AUTO
        if detected:
            source = self._detected(text, known_target)
        known_source = languages.source(source or "")
        if languages.way == TASK:
            # Raises where the model knows both languages, and does not translate between them.
            languages.task(known_source, known_target)
        return SourceText(text, known_source, known_target, detected)

    def _detected(self, text: str, target: str) -> str:
        """Detect a text's language among those that the model translates from."""
        language = detect_language(text, self.languages.sources_of(target))
        if language is None:
            raise DataError(
                f"the language of the text was not recognised as one that the model translates to {target!r}"
            )
        return language

    # -- translations

    def answers(self, items: Sequence[SourceText]) -> list[list[Translation] | Exception]:
        """Return each text's translations, best first; an exception is what is wrong with the text."""
        generator = self.generator.open()
        parts = self._parts(generator, items, split=self.split == "always")
        if self.split == "long":
            self._split_long(generator, items, parts)
        prompts: list[Prompt] = []
        for text_parts in parts:
            prompts.extend([part.prompt for part in text_parts])
        # The parts of all texts run together: the generator batches them.
        results = iter(generator.run(prompts))
        answers = []
        for text_parts in parts:
            part_results = list(islice(results, len(text_parts)))
            answers.append(_translations(generator, text_parts, part_results))
        return answers

    def _split_long(self, generator: Generator, texts: Sequence[SourceText], parts: list[list[Part]]) -> None:
        """Put sentences in the place of each text whose prompt is too long for the model."""
        long = []
        for place, text_parts in enumerate(parts):
            if text_parts[0].prompt.truncated:
                long.append(place)
        sentences = self._parts(generator, [texts[place] for place in long], split=True)
        for place, text_parts in zip(long, sentences, strict=True):
            parts[place] = text_parts

    def _parts(self, generator: Generator, texts: Sequence[SourceText], split: bool) -> list[list[Part]]:
        """Make the prompt of each text, or with ``split`` of each of its sentences."""
        pieces = []
        worded = []
        for text in texts:
            text_pieces = _sentences(text.text) if split else [("", text.text)]
            pieces.append(text_pieces)
            worded.extend([self._worded(text, piece) for _, piece in text_pieces])
        prompts = iter(generator.prompts(worded, special=self.languages.way != TOKENS))
        parts = []
        for text, text_pieces in zip(texts, pieces, strict=True):
            parts.append([Part(gap, self._framed(generator, text, next(prompts))) for gap, _ in text_pieces])
        return parts

    def _worded(self, text: SourceText, piece: str) -> str:
        """Put what tells the model the language before a piece of a text, where words tell it."""
        if self.languages.way == TEXT and text.target is not None:
            return f"{self.languages.token(text.target)} {piece}"
        if self.languages.way == TASK:
            return self.prefixes[self.languages.task(str(text.source), str(text.target))] + piece
        return piece

    def _framed(self, generator: Generator, text: SourceText, prompt: Prompt) -> Prompt:
        """Put the source language's token beside a text's tokens, and force the target's, where tokens tell them."""
        if self.languages.way != TOKENS:
            return prompt
        source = generator.tokenizer.token_id(self.languages.token(str(text.source))) or 0
        target = generator.tokenizer.token_id(self.languages.token(str(text.target)))
        end = () if generator.end_id is None else (generator.end_id,)
        # mBART has it behind the text, as has NLLB with the "legacy behaviour" of its first tokenizer.
        if self.languages.behind:
            return replace(prompt, ids=(*prompt.ids, *end, source), forced_first=target)
        return replace(prompt, ids=(source, *prompt.ids, *end), forced_first=target)

    def annotations(
        self, source: Annotations, index: int, item: SourceText, answer: Sequence[Translation]
    ) -> list[Annotation]:
        """Return one document for each translation."""
        metadata = inherited(source, index)
        if item.detected and item.source:
            metadata["source_language"] = item.source
        documents = []
        for translation in answer:
            documents.append(
                generated_document(translation.text, translation.prompt, translation.generated, metadata),
            )
        return documents


def _languages(column: pa.Array) -> list[str | None]:
    """Return each row's language; null is a language that no model knows, not one that the stage chooses."""
    return [language or "" for language in column.to_pylist()]


def _sentences(text: str) -> list[tuple[str, str]]:
    """Cut a text into sentences, each with the white space before it."""
    sentences = []
    end = 0
    for begin, stop in sentence_spans(text):
        sentences.append((text[end:begin], text[begin:stop]))
        end = stop
    return sentences or [("", text)]


def _translations(
    generator: Generator, parts: Sequence[Part], results: Sequence[Result]
) -> list[Translation] | Exception:
    """Join the results of a text's parts: the best of each, then the second best, and so on."""
    complete = []
    for result in results:
        if isinstance(result, Exception):
            return result
        complete.append(result)
    prompt = join_prompts([part.prompt for part in parts])
    translations = []
    for ranked in zip(*complete, strict=True):
        text = ""
        for part, generated in zip(parts, ranked, strict=True):
            text += part.gap + generator.decode(generated.ids)
        translations.append(Translation(text, prompt, ranked))
    return translations
