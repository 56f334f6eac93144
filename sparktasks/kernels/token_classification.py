"""Token classification on the executor: tokenize, run, turn each token's logits into labels or entities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sparktasks.errors import BundleError, DataError
from sparktasks.kernels.columns import CHUNK, NAMED_ENTITY, Annotation, Annotations
from sparktasks.kernels.models import TextModelRef
from sparktasks.kernels.plan import MODEL_WINDOW
from sparktasks.kernels.row_kernel import RowKernel, annotate_each, failed, inherited
from sparktasks.ops.logits import softmax
from sparktasks.ops.spans import Entity, Tokens, aggregate, label_tokens, resolve_overlaps
from sparktasks.runtime.batching import distinct
from sparktasks.runtime.text_model import TextModel, whole
from sparktasks.runtime.tokens import stitched, text_tokens

if TYPE_CHECKING:
    from tokenizers import Encoding


def window_scores(model: TextModel, windows: Sequence[Sequence[Encoding]]) -> list[list[np.ndarray] | DataError]:
    """Return the probabilities of each window of each text, ``(tokens, labels)``, or what is wrong with a text."""
    flat: list[Encoding] = []
    for text_windows in windows:
        flat.extend(text_windows)
    # The windows of all texts run together: the model batches them by their lengths.
    logits = iter(model.run(flat, model.bundle.logits.name))
    scores: list[list[np.ndarray] | DataError] = []
    for text_windows in windows:
        numbers = whole(list(islice(logits, len(text_windows))))
        if not isinstance(numbers, DataError):
            numbers = [softmax(values.astype(np.float32)) for values in numbers]
            _check_width(model, numbers)
        scores.append(numbers)
    return scores


def _check_width(model: TextModel, scores: Sequence[np.ndarray]) -> None:
    """Raise `BundleError` where a graph whose header does not tell computes another number of scores than there are
    labels."""
    labels = len(model.bundle.labels)
    widths = {part.shape[-1] for part in scores if len(part)}
    if widths - {labels}:
        raise BundleError(
            f"{model.bundle.folder}: config.json names {labels} labels, but the graph computed {max(widths)} scores"
        )


# -- entities in the text, tokens of the model


@dataclass(frozen=True, kw_only=True)
class FindEntities(RowKernel):
    """documents -> named entities, one per model token, or chunks."""

    model: TextModelRef
    strategy: str
    ignored: frozenset[str]
    window: bool

    @property
    def kind(self) -> str:
        """named_entity for single tokens, chunk where they are aggregated."""
        return NAMED_ENTITY if self.strategy == "none" else CHUNK

    def answers(self, items: Sequence[str]) -> list[list[Entity] | DataError]:
        """Return the entities of each text, or what is wrong with it."""
        model = self.model.open()
        windows = []
        for encoding in model.tokenizer.encode(items):
            text_windows = model.tokenizer.windows(encoding) if self.window else [encoding]
            windows.append(text_windows)
        answers: list[list[Entity] | DataError] = []
        for text, text_windows, scores in zip(items, windows, window_scores(model, windows), strict=True):
            if isinstance(scores, DataError):
                answers.append(scores)
                continue
            entities = self._entities(model, text, text_windows, scores)
            answers.append([entity for entity in entities if entity.label not in self.ignored])
        return answers

    def _entities(
        self,
        model: TextModel,
        text: str,
        windows: Sequence[Encoding],
        scores: Sequence[np.ndarray],
    ) -> list[Entity]:
        """Read the entities from the scores of a text's windows."""
        labels = model.bundle.labels
        if self.strategy == "none":
            return label_tokens(_covering(windows, scores, self.model.lengths.stride), labels)
        entities = []
        for window, probabilities in zip(windows, scores, strict=True):
            known = text_tokens(window)
            places = [place for place, _ in known]
            spans = [span for _, span in known]
            tokens = Tokens(probabilities[places], spans, model.tokenizer.is_subword(window, text))
            for entity in aggregate(tokens, labels, self.strategy):
                # An ignored label must not push an entity of the neighbouring window out.
                if entity.label not in self.ignored:
                    entities.append(entity)
        # Within one window no two entities overlap.
        if len(windows) == 1:
            return entities
        return resolve_overlaps(entities)

    def annotations(self, source: Annotations, index: int, item: str, answer: Sequence[Entity]) -> list[Annotation]:
        """Return the entities with offsets into the row's document."""
        offset = source.begin[index]
        annotations = []
        for entity in answer:
            metadata = inherited(source, index)
            word = result = item[entity.start : entity.end]
            if self.kind == CHUNK:
                metadata["entity"] = entity.label
            else:
                metadata["word"] = word
                result = entity.label
            begin, end = offset + entity.start, offset + entity.end - 1
            annotations.append(Annotation(self.kind, begin, end, result, metadata, None, entity.score))
        return annotations


def _covering(windows: Sequence[Encoding], scores: Sequence[np.ndarray], stride: int) -> Tokens:
    """Return every token of a text once, from the windows that know it best."""
    cover = stitched(windows, stride)
    offsets = [window.offsets for window in windows]
    if not cover:
        width = max(part.shape[-1] for part in scores)
        return Tokens(np.empty((0, width), np.float32), [], [])
    stacked = np.stack([scores[number][place] for number, place in cover])
    return Tokens(stacked, [offsets[number][place] for number, place in cover], [])


# -- labels of given tokens

_Label = tuple[str, float]


@dataclass(frozen=True, kw_only=True)
class LabelTokens:
    """documents and tokens -> one named entity per token; the tokens of a sentence are read together."""

    model: TextModelRef
    fails: bool

    window_rows = MODEL_WINDOW

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[1], documents=Annotations(columns[0]))

        def compute(usable: list[int]) -> list[list[Annotation]]:
            sentences: dict[tuple[int, str | None], list[int]] = {}
            for index in usable:
                sentences.setdefault((source.rows[index], source.sentence[index]), []).append(index)
            words = []
            for members in sentences.values():
                words.append(tuple([str(source.result[index]) for index in members]))
            unique, places = distinct(words)
            labelled = self._labels(unique) if unique else []
            annotations: dict[int, list[Annotation]] = {}
            for members, place in zip(sentences.values(), places, strict=True):
                for index, label in zip(members, labelled[place], strict=True):
                    annotations[index] = [_annotation(source, index, label)]
            return [annotations[index] for index in usable]

        return annotate_each(NAMED_ENTITY, source, compute, self.fails)

    def _labels(self, sentences: Sequence[Sequence[str]]) -> list[list[_Label | DataError]]:
        """Return the label and score of each word's first subword, or why there is none."""
        model = self.model.open()
        labels = model.bundle.labels
        windows = [model.tokenizer.windows(encoding) for encoding in model.tokenizer.encode_words(sentences)]
        labelled: list[list[_Label | DataError]] = []
        for words, text_windows, scores in zip(sentences, windows, window_scores(model, windows), strict=True):
            if isinstance(scores, DataError):
                labelled.append([scores] * len(words))
            else:
                labelled.append(self._word_labels(words, text_windows, scores, labels))
        return labelled

    def _word_labels(
        self,
        words: Sequence[str],
        windows: Sequence[Encoding],
        scores: Sequence[np.ndarray],
        labels: Sequence[str],
    ) -> list[_Label | DataError]:
        """Read the label of each word of a sentence from the scores of its windows."""
        word_labels: list[_Label | DataError] = [_nothing_of(word) for word in words]
        word_ids = [window.word_ids for window in windows]
        # Backwards, so that a word's first subword is written last and stays.
        for number, place in reversed(stitched(windows, self.model.lengths.stride)):
            probabilities = scores[number][place]
            best = int(probabilities.argmax())
            word = word_ids[number][place]
            word_labels[word] = labels[best], float(probabilities[best])
        return word_labels


def _nothing_of(word: str) -> DataError:
    return DataError(f"the tokenizer makes nothing of the token {word!r}")


def _annotation(source: Annotations, index: int, label: _Label | DataError) -> Annotation:
    if isinstance(label, DataError):
        return failed(NAMED_ENTITY, source, index, label)
    metadata = inherited(source, index)
    metadata["word"] = str(source.result[index])
    return Annotation(NAMED_ENTITY, source.begin[index], source.end[index], label[0], metadata, None, label[1])
