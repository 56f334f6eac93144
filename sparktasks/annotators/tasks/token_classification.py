"""TokenClassifier: a label for every token, or the entities that neighbouring tokens make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sparktasks.errors import BundleError, DataError
from sparktasks.ops.logits import softmax
from sparktasks.ops.spans import STRATEGIES, Entity, Tokens, aggregate, label_tokens, resolve_overlaps
from sparktasks.runtime.batching import distinct
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.checks import check_logits, check_text_encoder
from sparktasks.runtime.text_model import TextModel, whole
from sparktasks.runtime.tokens import Lengths, longest, stitched, text_tokens
from sparktasks.spark.annotations import CHUNK, DOCUMENT, NAMED_ENTITY, TOKEN, Annotation, Annotations
from sparktasks.spark.annotator import annotate_each, failed, inherited
from sparktasks.spark.kernels import Kernel
from sparktasks.spark.params import P, at_least, one_of, param
from sparktasks.spark.text_annotator import TextModelAnnotator, TextRunner

if TYPE_CHECKING:
    from tokenizers import Encoding

_Label = tuple[str, float]


class TokenClassifier(TextModelAnnotator):
    """Labels tokens with a token-classification model, as transformers' ``token-classification`` pipeline does.

    What it writes depends on params:

    - ``aggregation="none"``: named_entity, one per model token whose label is not ignored; ``result`` is the label,
      metadata ``word`` the token's source text;
    - any other aggregation: chunk, one per entity; ``result`` is the source text, metadata ``entity`` the label;
    - with a token column as second input: named_entity, exactly one per given token (the label of its first subword),
      metadata ``word``.

    ``score`` is the probability, ``begin`` and ``end`` are offsets into the row's document. Texts longer than the model
    takes are read in overlapping windows, so that no token goes unlabelled. A token column makes ``aggregation``,
    ``ignoreLabels`` and ``longText`` meaningless.
    """

    reads = (DOCUMENT,)
    optional = (TOKEN,)
    starter = "pos-ud-english"

    outputCol: P[str] = param("name of the column to write", default="entities")
    aggregation: P[str] = param(
        "how tokens become entities, by transformers' strategies", default="none", check=one_of(*STRATEGIES)
    )
    ignoreLabels: P[list[str]] = param("labels that are left out; a given token column gets every label", default=["O"])
    longText: P[str] = param(
        (
            "texts beyond maxLength: window (read all of them in overlapping windows) or truncate (leave the end "
            "unlabelled)"
        ),
        default="window",
        check=one_of("window", "truncate"),
    )
    stride: P[int | None] = param(
        "tokens that neighbouring windows share; None: an eighth of maxLength", default=None, check=at_least(0)
    )

    @property
    def writes(self) -> str:
        """chunk where tokens are aggregated, named_entity where each gets its label."""
        return NAMED_ENTITY if self._takes_tokens() or self.getOrDefault("aggregation") == "none" else CHUNK

    def _takes_tokens(self) -> bool:
        return len(self.getOrDefault("inputCols")) > 1

    def check_bundle(self, bundle: Bundle) -> None:
        """Require a text encoder with logits for each token, one for each label."""
        check_text_encoder(bundle)
        check_logits(bundle, "batch", "tokens", "labels")

    def kernel(self) -> Kernel:
        """Return the executor half."""
        bundle, words = self.getBundle(), self._takes_tokens()
        most = longest(bundle, self.getOrDefault("maxLength"))
        window = words or self.getOrDefault("longText") == "window"
        stride = self.getOrDefault("stride")
        if stride is None:
            stride = (most or 0) // 8
        lengths = Lengths(most, stride if window else 0, words, windows=window)
        runner, fails = self.runner(lengths), self.fails()
        if words:
            return LabelTokens(runner=runner, fails=fails)
        strategy, ignored = self.getOrDefault("aggregation"), frozenset(self.getOrDefault("ignoreLabels"))
        return FindEntities(runner=runner, fails=fails, strategy=strategy, ignored=ignored, window=window)


@dataclass(frozen=True, kw_only=True)
class _TokenKernel:
    runner: TextRunner
    fails: bool

    def scores(self, model: TextModel, windows: Sequence[Sequence[Encoding]]) -> list[list[np.ndarray] | DataError]:
        """Return the probabilities of each window of each text, ``(tokens, labels)``, or what is wrong with a text."""
        logits = iter(model.run([window for each in windows for window in each], model.bundle.logits.name))
        found: list[list[np.ndarray] | DataError] = []
        for each in windows:
            numbers = whole([next(logits) for _ in each])
            if not isinstance(numbers, DataError):
                numbers = [softmax(values.astype(np.float32)) for values in numbers]
                _check_width(model, numbers)
            found.append(numbers)
        return found


def _check_width(model: TextModel, scores: Sequence[np.ndarray]) -> None:
    """Raise `BundleError` where a graph whose header does not tell computes another number of scores than there are
    labels."""
    labels = len(model.bundle.labels)
    widths = {part.shape[-1] for part in scores if len(part)}
    if widths - {labels}:
        raise BundleError(
            f"{model.bundle.folder}: config.json names {labels} labels, but the graph computed {max(widths)} scores"
        )


@dataclass(frozen=True, kw_only=True)
class FindEntities(_TokenKernel):
    """documents -> named entities or chunks."""

    strategy: str
    ignored: frozenset[str]
    window: bool

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])
        grouped = self.strategy != "none"
        kind = CHUNK if grouped else NAMED_ENTITY

        def compute(usable: list[int]) -> list[list[Annotation]]:
            unique, inverse = distinct([str(source.result[index]) for index in usable])
            found = self._entities(unique)
            made: list[list[Annotation]] = []
            for index, place in zip(usable, inverse, strict=True):
                entities = found[place]
                if isinstance(entities, DataError):
                    made.append([failed(kind, source, index, entities)])
                else:
                    made.append([_annotation(source, index, unique[place], entity, grouped) for entity in entities])
            return made

        return annotate_each(kind, source, compute, self.fails)

    def _entities(self, texts: Sequence[str]) -> list[list[Entity] | DataError]:
        if not texts:
            return []
        model = self.runner.open()
        encodings = model.tokenizer.encode(texts)
        windows = [model.tokenizer.windows(encoding) if self.window else [encoding] for encoding in encodings]
        labels = model.bundle.labels
        found: list[list[Entity] | DataError] = []
        for text, each, scores in zip(texts, windows, self.scores(model, windows), strict=True):
            found.append(scores if isinstance(scores, DataError) else self._read(model, labels, text, each, scores))
        return found

    def _read(
        self,
        model: TextModel,
        labels: Sequence[str],
        text: str,
        windows: Sequence[Encoding],
        scores: Sequence[np.ndarray],
    ) -> list[Entity]:
        if self.strategy == "none":
            found = label_tokens(_covering(windows, scores, self.runner.lengths.stride), labels)
        else:
            found = []
            for window, probabilities in zip(windows, scores, strict=True):
                known = text_tokens(window)
                tokens = Tokens(
                    probabilities[[index for index, _ in known]],
                    [span for _, span in known],
                    model.tokenizer.is_subword(window, text),
                )
                found.extend(
                    entity for entity in aggregate(tokens, labels, self.strategy) if entity.label not in self.ignored
                )
            found = resolve_overlaps(found) if len(windows) > 1 else found
        return [entity for entity in found if entity.label not in self.ignored]


def _covering(windows: Sequence[Encoding], scores: Sequence[np.ndarray], stride: int) -> Tokens:
    """Return every token of a text once, from the windows that know it best."""
    cover = stitched(windows, stride)
    spans = [window.offsets for window in windows]
    width = max(part.shape[-1] for part in scores)
    stacked = (
        np.stack([scores[number][place] for number, place in cover]) if cover else np.empty((0, width), np.float32)
    )
    return Tokens(stacked, [spans[number][place] for number, place in cover], [])


def _annotation(source: Annotations, index: int, text: str, entity: Entity, grouped: bool) -> Annotation:
    offset, word = source.begin[index], text[entity.start : entity.end]
    kind, result, extra = (
        (CHUNK, word, {"entity": entity.label}) if grouped else (NAMED_ENTITY, entity.label, {"word": word})
    )
    return Annotation(
        kind,
        offset + entity.start,
        offset + entity.end - 1,
        result,
        inherited(source, index) | extra,
        None,
        entity.score,
    )


@dataclass(frozen=True, kw_only=True)
class LabelTokens(_TokenKernel):
    """documents and tokens -> one named entity per token; the tokens of a sentence are read together."""

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[1])

        def compute(usable: list[int]) -> list[list[Annotation]]:
            sentences: dict[tuple[int, str | None], list[int]] = {}
            for index in usable:
                sentences.setdefault((source.rows[index], source.sentence[index]), []).append(index)
            words = [tuple(str(source.result[index]) for index in members) for members in sentences.values()]
            unique, inverse = distinct(words)
            labelled = self._labels(unique)
            made: dict[int, list[Annotation]] = {}
            for members, place in zip(sentences.values(), inverse, strict=True):
                for index, label in zip(members, labelled[place], strict=True):
                    made[index] = [_labelled(source, index, label)]
            return [made[index] for index in usable]

        return annotate_each(NAMED_ENTITY, source, compute, self.fails)

    def _labels(self, sentences: Sequence[Sequence[str]]) -> list[list[_Label | DataError]]:
        """Return the label and score of each word's first subword, or why there is none."""
        if not sentences:
            return []
        model = self.runner.open()
        labels = model.bundle.labels
        windows = [model.tokenizer.windows(encoding) for encoding in model.tokenizer.encode_words(sentences)]
        found: list[list[_Label | DataError]] = []
        for words, each, scores in zip(sentences, windows, self.scores(model, windows), strict=True):
            if isinstance(scores, DataError):
                found.append([scores] * len(words))
                continue
            row: list[_Label | DataError] = [_nothing_of(word) for word in words]
            places = [window.word_ids for window in each]
            for number, place in reversed(stitched(each, self.runner.lengths.stride)):
                best = int(scores[number][place].argmax())
                row[places[number][place]] = labels[best], float(scores[number][place][best])
            found.append(row)
        return found


def _nothing_of(word: str) -> DataError:
    return DataError(f"the tokenizer makes nothing of the token {word!r}")


def _labelled(source: Annotations, index: int, label: _Label | DataError) -> Annotation:
    word = str(source.result[index])
    if isinstance(label, DataError):
        return failed(NAMED_ENTITY, source, index, label)
    metadata = inherited(source, index) | {"word": word}
    return Annotation(NAMED_ENTITY, source.begin[index], source.end[index], label[0], metadata, None, label[1])
