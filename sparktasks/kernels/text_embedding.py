"""Text embedding on the executor: tokenize, run, pool the token vectors, scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from sparktasks.errors import DataError
from sparktasks.kernels.columns import SENTENCE_EMBEDDINGS, WORD_EMBEDDINGS, Annotation, Annotations
from sparktasks.kernels.models import TextModelRef
from sparktasks.kernels.row_kernel import NO_TOKENS, RowKernel, inherited
from sparktasks.ops.pooling import pool, unit
from sparktasks.runtime.sentence_files import POOLED, TOKEN_OUTPUTS, Layer
from sparktasks.runtime.sentence_head import open_head
from sparktasks.runtime.text_model import Answer, TextModel, whole
from sparktasks.runtime.tokens import stitched

if TYPE_CHECKING:
    from tokenizers import Encoding


def token_vectors(model: TextModel, encodings: Sequence[Encoding]) -> list[Answer]:
    """Return the vectors of each encoding's tokens, ``(tokens, width)``, or what is wrong with a text."""
    output = next(name for name in TOKEN_OUTPUTS if name in model.session.outputs)
    return model.run(encodings, output)


# -- one vector for each document


@dataclass(frozen=True)
class Embedded:
    """A text's vector, shape ``(width,)``, and whether the end of the text was not read."""

    vector: np.ndarray
    truncated: bool


@dataclass(frozen=True, kw_only=True)
class EmbedTexts(RowKernel):
    """documents -> sentence embeddings."""

    model: TextModelRef
    prompt: str
    pooling: tuple[str, ...]
    pools_prompt: bool
    layers: tuple[Layer, ...]
    dimensions: int | None
    scales: bool

    kind = SENTENCE_EMBEDDINGS

    def answers(self, items: Sequence[str]) -> list[Embedded | DataError]:
        """Return each text's vector, or what is wrong with the text."""
        model = self.model.open()
        head = open_head(model.bundle, self.layers)
        skipped = 0 if self.pools_prompt else _prompt_tokens(model, self.prompt)
        encodings = model.tokenizer.encode([self.prompt + text for text in items], offsets=False)
        outputs = token_vectors(model, encodings) if self.pooling else model.run(encodings, POOLED)
        answers: list[Embedded | DataError] = []
        for encoding, output in zip(encodings, outputs, strict=True):
            vector = self._pooled(encoding, output, skipped)
            if isinstance(vector, DataError):
                answers.append(vector)
            else:
                answers.append(self._embedded(head(vector), bool(encoding.overflowing)))
        return answers

    def _pooled(self, encoding: Encoding, output: Answer, skipped: int) -> Answer:
        """Pool a text's token vectors, unless the graph did."""
        if not encoding.ids:
            return NO_TOKENS
        if isinstance(output, DataError) or not self.pooling:
            return output
        if skipped >= len(output):
            return DataError(f"the prompt {self.prompt!r} leaves no room for the text")
        return pool(output, self.pooling, skipped)

    def _embedded(self, vector: np.ndarray, truncated: bool) -> Embedded | DataError:
        """Cut a vector to the dimensions that were asked for, and scale it."""
        vector = vector[: self.dimensions]
        # Only now: what is left of a vector of length 1 is shorter.
        if self.scales:
            vector = unit(vector)
        if not np.isfinite(vector).all():
            return DataError("the vector of this text has NaN or infinity in it")
        return Embedded(vector, truncated)

    def annotations(self, source: Annotations, index: int, item: str, answer: Embedded) -> list[Annotation]:
        """Return the vector beside its text."""
        metadata = inherited(source, index)
        if answer.truncated:
            metadata["truncated"] = "true"
        begin, end = source.begin[index], source.end[index]
        return [Annotation(SENTENCE_EMBEDDINGS, begin, end, item, metadata, answer.vector)]


def _prompt_tokens(model: TextModel, prompt: str) -> int:
    """Return how many tokens a prompt takes, the special ones before it included, as sentence-transformers counts."""
    if not prompt:
        return 0
    encoding = model.tokenizer.encode([prompt])[0]
    if encoding.overflowing or not encoding.ids:
        return len(encoding.ids)
    return len(encoding.ids) - int(encoding.special_tokens_mask[-1])


# -- one vector for each token

Span = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class EmbedTokens(RowKernel):
    """documents -> word embeddings, one per model token of the text itself (not of the prompt)."""

    model: TextModelRef
    prompt: str
    normalize: bool

    kind = WORD_EMBEDDINGS

    def answers(self, items: Sequence[str]) -> list[list[tuple[Span, np.ndarray]] | DataError]:
        """Return the span and the vector of every token of each text, or what is wrong with a text."""
        model = self.model.open()
        windows = []
        flat: list[Encoding] = []
        for encoding in model.tokenizer.encode([self.prompt + text for text in items]):
            text_windows = model.tokenizer.windows(encoding)
            windows.append(text_windows)
            flat.extend(text_windows)
        vectors = iter(token_vectors(model, flat))
        answers: list[list[tuple[Span, np.ndarray]] | DataError] = []
        for text_windows in windows:
            window_vectors = whole(list(islice(vectors, len(text_windows))))
            if isinstance(window_vectors, DataError):
                answers.append(window_vectors)
            else:
                answers.append(self._tokens(text_windows, window_vectors))
        return answers

    def _tokens(self, windows: Sequence[Encoding], vectors: Sequence[np.ndarray]) -> list[tuple[Span, np.ndarray]]:
        shift = len(self.prompt)
        tokens = []
        for number, place in stitched(windows, self.model.lengths.stride):
            begin, end = windows[number].offsets[place]
            # A token of the prompt.
            if begin < shift:
                continue
            vector = vectors[number][place]
            scaled = unit(vector) if self.normalize else vector.astype(np.float32)
            span = (begin - shift, end - shift)
            tokens.append((span, scaled))
        return tokens

    def annotations(
        self, source: Annotations, index: int, item: str, answer: Sequence[tuple[Span, np.ndarray]]
    ) -> list[Annotation]:
        """Return each token's vector beside its source text."""
        offset = source.begin[index]
        metadata = inherited(source, index)
        annotations = []
        for (start, end), vector in answer:
            word = item[start:end]
            annotations.append(
                Annotation(WORD_EMBEDDINGS, offset + start, offset + end - 1, word, metadata, vector),
            )
        return annotations
