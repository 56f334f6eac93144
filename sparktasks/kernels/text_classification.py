"""Text classification on the executor: tokenize, run, turn logits into labels with scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sparktasks.errors import BundleError, DataError
from sparktasks.kernels.columns import CATEGORY, Annotation, Annotations, split
from sparktasks.kernels.models import TextModelRef
from sparktasks.kernels.parcels import locate
from sparktasks.kernels.row_kernel import NO_TOKENS, RowKernel, inherited
from sparktasks.ops.logits import FUNCTIONS, top
from sparktasks.runtime.text_model import Answer, whole

if TYPE_CHECKING:
    from tokenizers import Encoding

_UNPAIRED = DataError("there is no document to pair this one with")

Texts = tuple[str, str | None]
"""A text, and the one it is paired with, or None where texts come alone."""


@dataclass(frozen=True)
class Scored:
    """The scores of a text's labels, shape ``(labels,)``, and whether the end of the text was not read."""

    scores: np.ndarray
    truncated: bool


@dataclass(frozen=True, kw_only=True)
class ClassifyTexts(RowKernel):
    """documents (and documents to pair them with) -> categories."""

    model: TextModelRef
    function: str
    top_k: int | None
    threshold: float | None
    window: bool

    kind = CATEGORY

    def items(self, source: Annotations, others: Sequence[pa.Array], usable: Sequence[int]) -> list[Texts | DataError]:
        """Return each text with its partner."""
        texts = [str(source.result[index]) for index in usable]
        if not others:
            return [(text, None) for text in texts]
        partners = _partners(source, Annotations(others[0]))
        pairs: list[Texts | DataError] = []
        for index, text in zip(usable, texts, strict=True):
            partner = partners[index]
            if partner is None:
                pairs.append(_UNPAIRED)
            else:
                pairs.append((text, partner))
        return pairs

    def answers(self, items: Sequence[Texts]) -> list[Scored | DataError]:
        """Return each text's scores, or what is wrong with it."""
        model = self.model.open()
        texts = [text for text, _ in items]
        partners = None
        # Either all texts are paired, or none is.
        if items[0][1] is not None:
            partners = [str(partner) for _, partner in items]
        encodings = model.tokenizer.encode(texts, partners, offsets=False)
        windows: list[list[Encoding]] = []
        flat: list[Encoding] = []
        for encoding in encodings:
            text_windows = [encoding]
            if self.window:
                text_windows.extend(encoding.overflowing)
            windows.append(text_windows)
            flat.extend(text_windows)
        # The windows of all texts run together: the model batches them by their lengths.
        logits = iter(model.run(flat, model.bundle.logits.name))
        answers: list[Scored | DataError] = []
        for text_windows in windows:
            text_logits = list(islice(logits, len(text_windows)))
            answers.append(self._scored(text_windows, text_logits))
        return answers

    def _scored(self, windows: Sequence[Encoding], logits: Sequence[Answer]) -> Scored | DataError:
        """Turn the logits of a text's windows into its scores."""
        if not windows[0].ids:
            return NO_TOKENS
        numbers = whole(logits)
        if isinstance(numbers, DataError):
            return numbers
        scores = FUNCTIONS[self.function](np.stack(numbers).astype(np.float32))
        truncated = bool(windows[0].overflowing) and not self.window
        return Scored(_mean_by_tokens(scores, windows), truncated)

    def annotations(self, source: Annotations, index: int, item: Texts, answer: Scored) -> list[Annotation]:
        """Return the best labels that reach the threshold."""
        labels = locate(self.model.bundle).labels
        if len(labels) != len(answer.scores):
            raise BundleError(
                f"{self.model.bundle.folder}: config.json names {len(labels)} labels, but the graph computed "
                f"{len(answer.scores)} scores"
            )
        metadata = inherited(source, index)
        if answer.truncated:
            metadata["truncated"] = "true"
        begin, end = source.begin[index], source.end[index]
        categories = []
        for label in top(answer.scores, self.top_k):
            score = float(answer.scores[label])
            if self.threshold is None or score >= self.threshold:
                categories.append(Annotation(CATEGORY, begin, end, labels[label], metadata, None, score))
        return categories


def _mean_by_tokens(scores: np.ndarray, windows: Sequence[Encoding]) -> np.ndarray:
    """Average the scores of a text's windows, weighted by their text tokens: ``(windows, labels)`` -> ``(labels,)``."""
    if len(windows) == 1:
        return np.asarray(scores[0])
    # The last window is often short, and says as much less of the text.
    weights = [len(window) - sum(window.special_tokens_mask) for window in windows]
    return np.average(scores, axis=0, weights=weights)


def _partners(source: Annotations, others: Annotations) -> list[str | None]:
    """Return the text that each document is paired with: the one at its place in the row, or the row's only one.

    A row without any gives empty texts, as a null second sentence does in transformers; None marks a document without
    a partner, or one whose partner is an error.
    """
    rows = split(others.result, others.lengths)
    partners = []
    for texts, length in zip(rows, source.lengths, strict=True):
        for place in range(length):
            partners.append(_partner(texts, place))
    return partners


def _partner(texts: list[str | None], place: int) -> str | None:
    if not texts:
        return ""
    if len(texts) == 1:
        return texts[0]
    # Which text belongs to which is not to be guessed.
    if place >= len(texts):
        return None
    return texts[place]
