"""A text encoder on this machine: tokenizer and session together, fed in batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparktasks.errors import DataError
from sparktasks.runtime.attention import longest_text, too_long
from sparktasks.runtime.batching import equal_batches, pad, token_batches, unpad
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.cache import ProcessCache
from sparktasks.runtime.checks import without_embedding
from sparktasks.runtime.padding import Padding, find_padding
from sparktasks.runtime.session import RUN_SECONDS, RunFailed, Session, open_session
from sparktasks.runtime.tokens import Lengths, TextTokenizer, open_tokenizer

if TYPE_CHECKING:
    from tokenizers import Encoding

Answer = np.ndarray | DataError
"""A text's part of an output, or what is wrong with this text."""


def whole(answers: Sequence[Answer]) -> list[np.ndarray] | DataError:
    """Return the answers of a text's windows, or what is wrong with the first of them that has none."""
    numbers: list[np.ndarray] = []
    for answer in answers:
        if isinstance(answer, DataError):
            return answer
        numbers.append(answer)
    return numbers


@dataclass(frozen=True)
class _Row:
    """A text's token ids; the types of its tokens are asked of its encoding, and are 0 where it has none."""

    ids: Sequence[int]
    encoding: Encoding | None = None

    @property
    def types(self) -> Sequence[int]:
        return [0] * len(self.ids) if self.encoding is None else self.encoding.type_ids


_paddings: ProcessCache[Padding] = ProcessCache(limit=64)


class TextModel:
    """Runs encodings through a bundle's graph; sequence outputs give one row a text, token outputs one row a token."""

    def __init__(
        self,
        bundle: Bundle,
        lengths: Lengths,
        batch_tokens: int,
        device: str = "auto",
        run_seconds: float = RUN_SECONDS,
    ) -> None:
        self.bundle = bundle
        self.tokenizer: TextTokenizer = open_tokenizer(bundle, lengths)
        self.session: Session = open_session(bundle, device, run_seconds)
        self.batch_tokens = batch_tokens
        self._embedding_rows = bundle.graph.embedding_rows
        self._longest = longest_text(bundle)

    def run(self, encodings: Sequence[Encoding], output: str) -> list[Answer]:
        """Return each encoding's part of one graph output: ``(tokens, n)`` where it has a token axis, else ``(n,)``.

        An encoding without tokens gives ``(0, 1)``. A text that the model cannot read gives a `DataError`, and costs
        the others nothing: a token without a row in the embedding, a run that fails, an answer that is no number.
        """
        answers: list[Answer] = [np.empty((0, 1), np.float32)] * len(encodings)
        rows = []
        places = []
        for place, encoding in enumerate(encodings):
            row = _Row(encoding.ids, encoding)
            if self._longest is not None and len(row.ids) > self._longest:
                answers[place] = too_long(len(row.ids), self._longest)
            elif row.ids:  # a tokenizer without special tokens makes nothing of some texts
                rows.append(row)
                places.append(place)
        if not rows:
            return answers
        padding = self.padding(output)
        for batch in self._batches([row.ids for row in rows], padding):
            indices = batch.tolist()
            batch_answers = self._answers([rows[index] for index in indices], output, padding)
            for index, answer in zip(indices, batch_answers, strict=True):
                answers[places[index]] = answer
        return answers

    def padding(self, output: str) -> Padding:
        """Return how this graph's texts are padded where this output is read."""

        def run(rows: Sequence[Sequence[int]], padding: Padding) -> list[np.ndarray]:
            samples = [_Row(row) for row in rows]
            return self._values(samples, self._feeds(samples, padding), output, padding)

        # Finding out runs the graph, and what is found holds for one output on one kind of device.
        key = (self.bundle.hash, self.bundle.model, self.session.provider, output)
        return _paddings.get(key, lambda: find_padding(self.bundle, self.tokenizer, self.session, output, run))

    def _batches(self, rows: Sequence[Sequence[int]], padding: Padding) -> Iterator[np.ndarray]:
        """Yield the indices of the texts that run together."""
        lengths = [len(row) for row in rows]
        fixed_rows = self.bundle.fixed_rows
        if fixed_rows is not None and not padding.equal_only:
            # In the order of their lengths, so that texts are padded little.
            yield from np.split(np.argsort(lengths), range(fixed_rows, len(rows), fixed_rows))
        elif fixed_rows is None and self.bundle.config.get("is_encoder_decoder"):
            yield from self._batches_of_alike(rows, lengths, padding)
        elif padding.equal_only:
            yield from equal_batches(lengths, self.batch_tokens, fixed_rows)
        else:
            yield from token_batches(lengths, self.batch_tokens)

    def _batches_of_alike(
        self, rows: Sequence[Sequence[int]], lengths: Sequence[int], padding: Padding
    ) -> Iterator[np.ndarray]:
        """Yield batches of texts with equally many end tokens.

        Encoder-decoders that label texts (BART) read the state at the last end token, and take the end tokens of all
        rows for a table with equally many in each.
        """
        ends = np.atleast_1d(self.bundle.config.get("eos_token_id", -1))
        counts = np.array([np.isin(row, ends).sum() for row in rows])
        cut = equal_batches if padding.equal_only else token_batches
        for count in np.unique(counts):
            group = np.flatnonzero(counts == count)
            group_lengths = [lengths[index] for index in group.tolist()]
            for places in cut(group_lengths, self.batch_tokens):
                yield group[places]

    def _answers(self, rows: Sequence[_Row], output: str, padding: Padding) -> list[Answer]:
        """Run texts together, and each by itself where that fails: an error belongs to the text that causes it."""
        try:
            feeds = self._feeds(rows, padding)
            self._check_ids(feeds["input_ids"])
            values = self._values(rows, feeds, output, padding)
        except (RunFailed, _NoEmbedding) as error:
            if len(rows) == 1:
                return [DataError(str(error))]
            answers = []
            for row in rows:
                answers += self._answers([row], output, padding)
            return answers
        return [value if np.isfinite(value).all() else _not_a_number(output) for value in values]

    def _check_ids(self, ids: np.ndarray) -> None:
        """Raise where a token has no row in the embedding: on a GPU the run would not fail, but answer."""
        largest = int(ids.max())
        if self._embedding_rows is not None and largest >= self._embedding_rows:
            token = self.tokenizer.core.id_to_token(largest)
            raise _NoEmbedding(f"the text has {without_embedding(token, largest, self._embedding_rows)}")

    def _values(
        self, rows: Sequence[_Row], feeds: Mapping[str, np.ndarray], output: str, padding: Padding
    ) -> list[np.ndarray]:
        """Run texts together; raises `RunFailed` where onnxruntime does."""
        stacked = self.session.run([output], **feeds)[0][: len(rows)]  # without the rows that only fill up a batch
        if stacked.ndim != 3:
            return list(stacked)
        return unpad(stacked, [len(row.ids) for row in rows], padding.left)

    def _feeds(self, rows: Sequence[_Row], padding: Padding) -> dict[str, np.ndarray]:
        """Stack texts, ``(texts, tokens)``; where the graph takes a fixed number of texts, the last one fills it up."""
        # The graph computes as many rows in any case; a repeated text is one that it can read.
        missing = (self.bundle.fixed_rows or 0) - len(rows)
        rows = [*rows, *[rows[-1]] * missing]

        def stacked(values: Sequence[Sequence[int]], fill: int) -> np.ndarray:
            return pad(values, fill, padding.left, self.bundle.fixed_length)

        feeds = {
            "input_ids": stacked([row.ids for row in rows], padding.pad_id),
            "attention_mask": stacked([[1] * len(row.ids) for row in rows], 0),
        }
        files = self.tokenizer.files
        if "token_type_ids" in self.session.inputs:
            types = [row.types if files.has_type_ids else [0] * len(row.ids) for row in rows]
            feeds["token_type_ids"] = stacked(types, files.family.pad_type_id)
        if "position_ids" in self.session.inputs:
            # Positions count text only: with padding on the left they begin where the text does.
            feeds["position_ids"] = np.maximum(np.cumsum(feeds["attention_mask"], axis=1) - 1, 0)
        return feeds


class _NoEmbedding(ValueError):
    """A token has no row in the embedding."""


def _not_a_number(output: str) -> DataError:
    return DataError(f"the model computed NaN or infinity for this text ({output})")
