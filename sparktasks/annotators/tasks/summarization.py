"""Summarizer: long texts become short ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from sparktasks.errors import DataError, MissingDependency, ParamError
from sparktasks.ops.sentences import halves, sentence_spans
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.generation.generator import Generator, Prompt
from sparktasks.runtime.generation.scheduler import Result
from sparktasks.spark.annotations import DOCUMENT, Annotation, Annotations
from sparktasks.spark.annotator import ColumnAnnotator, annotate_each, failed, inherited
from sparktasks.spark.fusion import Chain
from sparktasks.spark.generation_annotator import (
    GenerationAnnotator,
    GenerationRunner,
    described,
    seq2seq_only,
    task_params,
)
from sparktasks.spark.params import P, at_least, one_of, param

_TASK = "summarization"


class Summarizer(GenerationAnnotator):
    """Summarizes each document, as transformers' ``summarization`` pipeline does: BART, T5, Pegasus.

    The settings and the prefix that config.json has for the task are used. ``longDocument`` says what happens to
    documents that the model has no room for.

    With ``method="extractive"`` no model is needed: the most central sentences are kept, in their order (TextRank,
    Mihalcea and Tarau 2004, by the sumy package).

    Writes document annotations: ``result`` is the summary, ``score`` the mean log-probability of its tokens (null
    without a model). Metadata: ``sentence``; of a model ``finish_reason`` (eos, stop or length), ``prompt_tokens``,
    ``new_tokens``, ``truncated`` = "true" where a part of the text was cut off, ``windows`` (how many the text was
    cut into); without one ``sentences``, the places of those that were kept.
    """

    reads = (DOCUMENT,)
    writes = DOCUMENT
    starter = None
    cut = "right"

    outputCol: P[str] = param("name of the column to write", default="summary")
    method: P[str] = param(
        "abstractive: a model writes the summary; extractive: sentences of the text, without a model",
        default="abstractive",
        check=one_of("abstractive", "extractive"),
    )
    longDocument: P[str] = param(
        (
            "texts the model has no room for: truncate (flagged), or hierarchical: summarize windows of whole "
            "sentences, then the summaries"
        ),
        default="truncate",
        check=one_of("truncate", "hierarchical"),
    )
    sentences: P[int] = param("sentences of an extractive summary", default=3, check=at_least(1))
    language: P[str | None] = param(
        "with extractive: language whose stop words do not count, in English, as in 'german'", default=None
    )

    def needs_model(self) -> bool:
        """Tell whether a model writes the summaries."""
        return bool(self.getOrDefault("method") == "abstractive")

    def check_bundle(self, bundle: Bundle) -> None:
        """Require an encoder and a decoder."""
        super().check_bundle(bundle)
        seq2seq_only(bundle, self.uid)

    def extend(self, chain: Chain) -> Chain:
        return super().extend(chain) if self.needs_model() else ColumnAnnotator.extend(self, chain)

    def kernel(self) -> AbstractTexts | ExtractSentences:
        """Return the executor half."""
        if not self.needs_model():
            if find_spec("sumy"):  # where it is not, executors may still have it
                _ranker(self.getOrDefault("language"))
            return ExtractSentences(self.getOrDefault(self.sentences), self.getOrDefault(self.language), self.fails())
        bundle = self.getBundle()
        task = _TASK if _TASK in bundle.tasks else None
        return AbstractTexts(
            runner=self.runner(self.settings(task)),
            prefix=str(task_params(bundle, task).get("prefix", "")),
            hierarchical=self.getOrDefault("longDocument") == "hierarchical",
            fails=self.fails(),
        )


@dataclass(frozen=True)
class AbstractTexts:
    """documents -> documents, written by a model."""

    runner: GenerationRunner
    prefix: str
    hierarchical: bool
    fails: bool

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])

        def compute(usable: list[int]) -> list[list[Annotation]]:
            return self._summarized(source, usable) if usable else []

        return annotate_each(DOCUMENT, source, compute, self.fails)

    def _summarized(self, source: Annotations, usable: Sequence[int]) -> list[list[Annotation]]:
        generator = self.runner.open()
        texts = [_Text(str(source.result[index])) for index in usable]
        prompts = list(generator.prompts([self.prefix + text.text for text in texts]))
        if self.hierarchical:
            self._shorten(generator, texts, prompts)
        results = generator.run(prompts)
        return [
            self._annotations(generator, source, *each) for each in zip(usable, texts, prompts, results, strict=True)
        ]

    def _shorten(self, generator: Generator, texts: Sequence[_Text], prompts: list[Prompt]) -> None:
        """Put the summaries of its windows in the place of each text that is too long, until it is not, or their number
        falls no more."""
        room = (generator.tokenizer.max_length or 0) - len(generator.prompts([self.prefix])[0].ids)
        changed = [place for place, prompt in enumerate(prompts) if prompt.truncated] if room > 0 else []
        while changed:
            long = {
                place: self._windows(generator, texts[place].text, room)
                for place in changed
                if prompts[place].truncated
            }
            long = {place: found for place, found in long.items() if texts[place].shortens(len(found))}
            results = iter(generator.run([prompt for found in long.values() for prompt in found]))
            for place, found in long.items():
                texts[place].shorten(generator, [(prompt, next(results)) for prompt in found])
            changed = list(long)
            for place, prompt in zip(
                changed, generator.prompts([self.prefix + texts[place].text for place in changed]), strict=True
            ):
                prompts[place] = prompt

    def _windows(self, generator: Generator, text: str, room: int) -> list[Prompt]:
        """Cut a text between sentences into prompts that the model has room for; only sentences that are too long alone
        are cut."""
        windows = [[span] for span in sentence_spans(text)]
        lengths = [
            len(prompt.ids)
            for prompt in generator.prompts([text[begin:end] for ((begin, end),) in windows], special=False)
        ]
        windows = _packed(windows, lengths, room)
        while True:  # a window may have more tokens than its sentences have, each for itself
            prompts = generator.prompts([self.prefix + text[window[0][0] : window[-1][1]] for window in windows])
            split = [
                _split(text, window) if prompt.truncated else [window]
                for window, prompt in zip(windows, prompts, strict=True)
            ]
            if all(len(parts) == 1 for parts in split):
                return prompts
            windows = [part for parts in split for part in parts]

    def _annotations(
        self, generator: Generator, source: Annotations, index: int, text: _Text, prompt: Prompt, result: Result
    ) -> list[Annotation]:
        found = text.fault or result
        if isinstance(found, Exception):
            return [failed(DOCUMENT, source, index, found)]
        metadata = inherited(source, index) | ({"windows": str(text.rounds[0])} if text.rounds else {})
        whole = replace(prompt, truncated=prompt.truncated or text.cut)
        return [described(generator.decode(each.ids), whole, [each], metadata) for each in found]


@dataclass
class _Text:
    """A text to summarize: what is left of it after some ``rounds`` of so many windows each, whether any window was
    ``cut``."""

    text: str
    rounds: list[int] = field(default_factory=list)
    cut: bool = False
    fault: Exception | None = None

    def shortens(self, windows: int) -> bool:
        """Tell whether so many windows are worth a round: several, and fewer than in the last one."""
        return windows > 1 and (not self.rounds or windows < self.rounds[-1])

    def shorten(self, generator: Generator, windows: Sequence[tuple[Prompt, Result]]) -> None:
        """Become the summaries of one's windows."""
        self.rounds.append(len(windows))
        self.cut = self.cut or any(prompt.truncated for prompt, _ in windows)
        summaries = []
        for _, result in windows:
            if isinstance(result, Exception):
                self.fault = self.fault or result
            else:
                summaries.append(generator.decode(result[0].ids))
        self.text = " ".join(summaries)


_Span = tuple[int, int]


def _packed(windows: Sequence[list[_Span]], lengths: Sequence[int], room: int) -> list[list[_Span]]:
    """Join windows, from the first on, as long as their tokens have room together."""
    packed: list[list[_Span]] = []
    used = 0
    for window, length in zip(windows, lengths, strict=True):
        if not packed or used + length > room:
            packed.append([])
            used = 0
        packed[-1] += window
        used += length
    return packed


def _split(text: str, window: list[_Span]) -> list[list[_Span]]:
    """Cut a window in two: between sentences, or a sentence between words."""
    if len(window) > 1:
        return [window[: len(window) // 2], window[len(window) // 2 :]]
    begin, end = window[0]
    return [[part] for part in halves(text, begin, end)] if end - begin > 1 else [window]


@dataclass(frozen=True)
class ExtractSentences:
    """documents -> documents, made of their most central sentences."""

    sentences: int
    language: str | None
    fails: bool

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])

        def compute(usable: list[int]) -> list[list[Annotation]]:
            rank = _ranker(self.language) if usable else None
            return [[self._summary(source, index, rank)] for index in usable]

        return annotate_each(DOCUMENT, source, compute, self.fails)

    def _summary(self, source: Annotations, index: int, rank: Any) -> Annotation:
        text = str(source.result[index])
        sentences = [text[begin:end] for begin, end in sentence_spans(text)]
        try:
            kept = sorted(rank(sentences, self.sentences))
        except Exception as error:  # of the package, on a text that it did not foresee
            return failed(DOCUMENT, source, index, DataError(f"sumy cannot rank the sentences of this text: {error}"))
        summary = " ".join(sentences[place] for place in kept)
        return Annotation(
            DOCUMENT, 0, len(summary) - 1, summary, inherited(source, index) | {"sentences": ",".join(map(str, kept))}
        )


_WORD = re.compile(r"\w+(?:['’]\w+)?")


class _Words:
    """How sumy gets the words of a sentence."""

    @staticmethod
    def to_words(sentence: str) -> tuple[str, ...]:
        return tuple(_WORD.findall(sentence.lower()))


def _ranker(language: str | None) -> Any:
    """Return what picks the places of the most central sentences."""
    try:
        from sumy.models.dom import ObjectDocumentModel, Paragraph, Sentence
        from sumy.summarizers.text_rank import TextRankSummarizer
        from sumy.utils import get_stop_words
    except ImportError as error:
        raise MissingDependency("sumy", "method='extractive'", "summarize") from error
    summarizer = TextRankSummarizer()
    if language is not None:
        try:
            summarizer.stop_words = get_stop_words(language)
        except LookupError:
            raise ParamError(
                f"language={language!r}: sumy has no stop words of it. Names are English, as in 'german'"
            ) from None

    def rank(sentences: list[str], count: int) -> list[int]:
        if len(sentences) <= count:
            return list(range(len(sentences)))
        model = [Sentence(sentence, _Words) for sentence in sentences]
        best = summarizer(ObjectDocumentModel([Paragraph(model)]), count)
        return [next(place for place, each in enumerate(model) if each is sentence) for sentence in best]

    return rank
