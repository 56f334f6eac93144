"""Summarizer: long texts become short ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sparktasks.errors import MissingDependency
from sparktasks.ops.sentences import halves, sentence_spans
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.generation.generator import Generator, Prompt
from sparktasks.runtime.generation.scheduler import Result
from sparktasks.spark.annotations import DOCUMENT, Annotation, Annotations
from sparktasks.spark.annotator import ColumnAnnotator, annotate_each, inherited
from sparktasks.spark.fusion import Chain
from sparktasks.spark.generation_annotator import GenerationAnnotator, GenerationRunner, described, failed, seq2seq_only, task_params
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
        "texts the model has no room for: truncate (flagged), or hierarchical: summarize windows of whole sentences, then the summaries",
        default="truncate",
        check=one_of("truncate", "hierarchical"),
    )
    sentences: P[int] = param("sentences of an extractive summary", default=3, check=at_least(1))
    language: P[str | None] = param("with extractive: language whose stop words do not count, in English, as in 'german'", default=None)

    def needs_model(self) -> bool:
        """Tell whether a model writes the summaries."""
        return bool(self.getOrDefault("method") == "abstractive")

    def check_bundle(self, bundle: Bundle) -> None:
        """Want an encoder and a decoder."""
        super().check_bundle(bundle)
        seq2seq_only(bundle, self.uid)

    def extend(self, chain: Chain) -> Chain:
        return super().extend(chain) if self.needs_model() else ColumnAnnotator.extend(self, chain)

    def kernel(self) -> AbstractTexts | ExtractSentences:
        """Return the executor half."""
        if not self.needs_model():
            return ExtractSentences(self.getOrDefault("sentences"), self.getOrDefault("language"))
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
        texts = [str(source.result[index]) for index in usable]
        windows, faults = [1] * len(texts), dict[int, Exception]()
        if self.hierarchical:
            self._shorten(generator, texts, windows, faults)
        prompts = generator.prompts([self.prefix + text for text in texts])
        results = [faults.get(place, result) for place, result in enumerate(generator.run(prompts))]
        return [self._annotations(generator, source, *each) for each in zip(usable, prompts, windows, results, strict=True)]

    def _shorten(self, generator: Generator, texts: list[str], counts: list[int], faults: dict[int, Exception]) -> None:
        """Put the summaries of its windows in the place of each text that is too long, until it is not, or they grow no fewer; also count
        those windows."""
        last: dict[int, int] = {}
        while True:
            prompts = generator.prompts([self.prefix + text for text in texts])
            windows = {place: self._windows(generator, texts[place]) for place, prompt in enumerate(prompts) if prompt.truncated}
            windows = {place: found for place, found in windows.items() if 1 < len(found) < last.get(place, len(found) + 1)}
            last |= {place: len(found) for place, found in windows.items()}
            if not windows:
                break
            flat = generator.prompts([self.prefix + window for found in windows.values() for window in found])
            results = iter(generator.run(flat))
            for place, found in windows.items():
                each = [next(results) for _ in found]
                faults.update((place, result) for result in each if isinstance(result, Exception))
                summaries = [generator.decode(result[0].ids) for result in each if not isinstance(result, Exception)]
                texts[place], counts[place] = " ".join(summaries), max(counts[place], len(found))

    def _windows(self, generator: Generator, text: str) -> list[str]:
        """Cut a text between sentences into parts that the model has room for; only sentences that are too long alone are cut."""
        room = (generator.tokenizer.max_length or 0) - len(generator.prompts([self.prefix])[0].ids)
        if room < 1:
            return [text]
        windows: list[list[tuple[int, int]]] = []
        used = 0
        for span, length in self._fitting(generator, text, room):
            if not windows or used + length > room:
                windows.append([])
                used = 0
            windows[-1].append(span)
            used += length
        return [text[window[0][0] : window[-1][1]] for window in windows]

    @staticmethod
    def _fitting(generator: Generator, text: str, room: int) -> list[tuple[tuple[int, int], int]]:
        """Return the bounds of a text's sentences and their tokens; those with more than there is room for are halved until they fit."""
        spans, lengths = sentence_spans(text), dict[tuple[int, int], int]()
        while fresh := [span for span in spans if span not in lengths]:
            prompts = generator.prompts([text[begin:end] for begin, end in fresh], special=False)
            lengths |= {span: room + 1 if prompt.truncated else len(prompt.ids) for span, prompt in zip(fresh, prompts, strict=True)}
            spans = [part for span in spans for part in (halves(text, *span) if lengths[span] > room and span[1] - span[0] > 1 else [span])]
        return [(span, lengths[span]) for span in spans]

    def _annotations(self, generator: Generator, source: Annotations, index: int, prompt: Prompt, windows: int, result: Result) -> list[Annotation]:
        if isinstance(result, Exception):
            return [failed(source, index, result)]
        metadata = inherited(source, index) | ({"windows": str(windows)} if windows > 1 else {})
        return [described(generator.decode(each.ids), prompt, [each], metadata) for each in result]


@dataclass(frozen=True)
class ExtractSentences:
    """documents -> documents, made of their most central sentences."""

    sentences: int
    language: str | None

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])

        def compute(usable: list[int]) -> list[list[Annotation]]:
            rank = _ranker(self.language) if usable else None
            return [[self._summary(source, index, rank)] for index in usable]

        return annotate_each(DOCUMENT, source, compute)

    def _summary(self, source: Annotations, index: int, rank: Any) -> Annotation:
        text = str(source.result[index])
        sentences = [text[begin:end] for begin, end in sentence_spans(text)]
        kept = sorted(rank(sentences, self.sentences))
        summary = " ".join(sentences[place] for place in kept)
        return Annotation(DOCUMENT, 0, len(summary) - 1, summary, inherited(source, index) | {"sentences": ",".join(map(str, kept))})


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
        summarizer.stop_words = get_stop_words(language)

    def rank(sentences: list[str], count: int) -> list[int]:
        if len(sentences) <= count:
            return list(range(len(sentences)))
        model = [Sentence(sentence, _Words) for sentence in sentences]
        best = summarizer(ObjectDocumentModel([Paragraph(model)]), count)
        return [next(place for place, each in enumerate(model) if each is sentence) for sentence in best]

    return rank
