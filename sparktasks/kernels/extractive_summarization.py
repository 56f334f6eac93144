"""Summarization without a model: the most central sentences of a text, by TextRank (Mihalcea and Tarau 2004)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparktasks.errors import DataError, MissingDependency, ParamError
from sparktasks.kernels.columns import DOCUMENT, Annotation, Annotations
from sparktasks.kernels.row_kernel import RowKernel, inherited
from sparktasks.ops.sentences import sentence_spans

# Ranking compares every sentence with every other one: 4,000 take 128 MB. A longer text is ranked part by part first.
MOST_SENTENCES = 4000

_WORD = re.compile(r"\w+(?:['’]\w+)?")

Rank = Callable[[list[str], int], list[int]]
"""Takes sentences and a number, returns the places of so many of the most central ones."""


@dataclass(frozen=True, kw_only=True)
class ExtractSentences(RowKernel):
    """documents -> documents, made of their most central sentences."""

    sentences: int
    language: str | None

    kind = DOCUMENT

    def answers(self, items: Sequence[str]) -> list[tuple[str, list[int]] | DataError]:
        """Return each text's summary and the places of its sentences, or what is wrong with the text."""
        rank = sentence_ranker(self.language)
        answers: list[tuple[str, list[int]] | DataError] = []
        for text in items:
            sentences = [text[begin:end] for begin, end in sentence_spans(text)]
            try:
                kept = _central(rank, sentences, self.sentences)
            except Exception as error:  # of the package, on a text that it did not foresee
                answers.append(DataError(f"sumy cannot rank the sentences of this text: {error}"))
                continue
            answers.append((" ".join(sentences[place] for place in kept), kept))
        return answers

    def annotations(
        self, source: Annotations, index: int, item: str, answer: tuple[str, list[int]]
    ) -> list[Annotation]:
        """Return the summary as one document."""
        summary, kept = answer
        metadata = inherited(source, index)
        metadata["sentences"] = ",".join(map(str, kept))
        return [Annotation(DOCUMENT, 0, len(summary) - 1, summary, metadata)]


def _central(rank: Rank, sentences: Sequence[str], count: int) -> list[int]:
    """Return the places of the most central sentences, in order; a long text's are ranked part by part first."""
    places = list(range(len(sentences)))
    # A part must keep fewer sentences than it has, or the rounds would never end.
    size = max(MOST_SENTENCES, 2 * count)
    while len(places) > size:
        kept: list[int] = []
        for start in range(0, len(places), size):
            part = places[start : start + size]
            kept.extend(_best_of(rank, sentences, part, count))
        places = sorted(kept)
    return sorted(_best_of(rank, sentences, places, count))


def _best_of(rank: Rank, sentences: Sequence[str], places: Sequence[int], count: int) -> list[int]:
    """Return the most central of the sentences at these places, by their places."""
    best = rank([sentences[place] for place in places], count)
    # The ranker numbers the sentences that it was given.
    return [places[index] for index in best]


class _Words:
    """How sumy gets the words of a sentence."""

    @staticmethod
    def to_words(sentence: str) -> tuple[str, ...]:
        return tuple(_WORD.findall(sentence.lower()))


def sentence_ranker(language: str | None) -> Rank:
    """Return what ranks sentences; `MissingDependency` without sumy, `ParamError` where it lacks the language."""
    try:
        from sumy.models.dom import ObjectDocumentModel, Paragraph, Sentence
        from sumy.summarizers.text_rank import TextRankSummarizer
        from sumy.utils import get_stop_words
    except ImportError as error:
        raise MissingDependency("sumy", "method='extractive'", "summarize") from error

    class FastTextRank(TextRankSummarizer):  # type: ignore[misc]
        """sumy's TextRank; its own matrix takes a Python call for each pair of sentences."""

        def _create_matrix(self, document: Any) -> np.ndarray:
            words = [self._to_words_set(sentence) for sentence in document.sentences]
            weights = similarities(words)
            weights /= weights.sum(axis=1)[:, np.newaxis] + self._ZERO_DIVISION_PREVENTION
            moved: np.ndarray = (1.0 - self.damping) / len(words) + self.damping * weights
            return moved

    summarizer = FastTextRank()
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
        # Sentences of the same words are equal to sumy: identity tells them apart.
        places = {id(sentence): place for place, sentence in enumerate(model)}
        return [places[id(sentence)] for sentence in best]

    return rank


def similarities(sentences: Sequence[Sequence[str]]) -> np.ndarray:
    """Return how alike sentences are, shape ``(sentences, sentences)``: the pairs of equal words that two have, divided
    by the sum of the logarithms of their lengths."""
    postings: dict[str, list[tuple[int, int]]] = {}
    for place, words in enumerate(sentences):
        for word, count in Counter(words).items():
            postings.setdefault(word, []).append((place, count))
    common = np.zeros((len(sentences), len(sentences)))
    for pairs in postings.values():
        places, counts = np.array(pairs).T
        common[np.ix_(places, places)] += np.outer(counts, counts)
    logarithms = np.log([max(1, len(words)) for words in sentences])
    norms = np.add.outer(logarithms, logarithms)
    # Two sentences of one word each: nothing to divide by.
    norms[norms < 1e-8] = 1.0
    return common / norms
