"""TextClassifier: one label, or several, for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sparktasks.errors import BundleError, DataError, ParamError
from sparktasks.ops.logits import FUNCTIONS, top
from sparktasks.runtime.batching import distinct
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.checks import check_logits, check_text_encoder
from sparktasks.runtime.text_model import Answer, whole
from sparktasks.runtime.tokens import Lengths, longest
from sparktasks.spark.annotations import CATEGORY, DOCUMENT, Annotation, Annotations
from sparktasks.spark.annotator import NO_TOKENS, annotate_each, failed, inherited
from sparktasks.spark.delivery import locate
from sparktasks.spark.params import P, at_least, one_of, param
from sparktasks.spark.text_annotator import TextModelAnnotator, TextRunner

if TYPE_CHECKING:
    from tokenizers import Encoding


class TextClassifier(TextModelAnnotator):
    """Labels each document with a sequence-classification model, as transformers' ``text-classification`` pipeline
    does.

    Writes category annotations: ``result`` is the label, ``score`` its probability (the raw value for regression),
    ``begin`` and ``end`` those of the document; the labels of a document come in descending score. Metadata:
    ``sentence``, and ``truncated`` = "true" where the end of a long text was not read.

    A second input column makes text pairs (premise and hypothesis): the documents of a row are paired in order.
    """

    reads = (DOCUMENT,)
    optional = (DOCUMENT,)
    writes = CATEGORY
    starter = "intents-clinc150"

    outputCol: P[str] = param("name of the column to write", default="category")
    topK: P[int | None] = param("labels kept per document, best first; None keeps all", default=1, check=at_least(1))
    threshold: P[float | None] = param(
        "labels with a lower score are left out; with a multi-label model usually 0.5 and topK=None", default=None
    )
    functionToApply: P[str] = param(
        "how logits become scores; auto reads it from config.json as transformers does",
        default="auto",
        check=one_of("auto", *FUNCTIONS),
    )
    longText: P[str] = param(
        (
            "texts beyond maxLength: truncate them (flagged in metadata), or window: score every window and "
            "average by token count"
        ),
        default="truncate",
        check=one_of("truncate", "window"),
    )
    stride: P[int] = param("tokens that neighbouring windows share", default=0, check=at_least(0))

    def check_bundle(self, bundle: Bundle) -> None:
        """Require a text encoder with logits for each text, one for each label."""
        check_text_encoder(bundle)
        check_logits(bundle, "batch", "labels")

    def kernel(self) -> ClassifyTexts:
        """Return the executor half."""
        bundle = self.getBundle()
        function = self.getOrDefault("functionToApply")
        window, pairs = self.getOrDefault("longText") == "window", len(self.getOrDefault("inputCols")) > 1
        if window and pairs:
            raise ParamError(
                f"{self.uid}: longText='window' reads single documents; pairs of documents can only be truncated"
            )
        stride = self.getOrDefault("stride") if window else 0
        return ClassifyTexts(
            runner=self.runner(
                Lengths(longest(bundle, self.getOrDefault(self.maxLength)), stride, pairs=pairs, windows=window)
            ),
            function=function_of(bundle) if function == "auto" else function,
            top_k=self.getOrDefault("topK"),
            threshold=self.getOrDefault("threshold"),
            window=window,
            fails=self.fails(),
        )


def function_of(bundle: Bundle) -> str:
    """Choose the function as transformers' pipelines do: none for regression, sigmoid for multi-label or one label,
    else softmax."""
    problem = bundle.config.get("problem_type")
    if problem == "regression":
        return "none"
    if problem == "multi_label_classification" or len(bundle.labels) == 1:
        return "sigmoid"
    return "softmax"


_UNPAIRED = DataError("there is no document to pair this one with")


@dataclass(frozen=True)
class ClassifyTexts:
    """documents (and documents to pair them with) -> categories."""

    runner: TextRunner
    function: str
    top_k: int | None
    threshold: float | None
    window: bool
    fails: bool

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])
        pairs = _partners(source, Annotations(columns[1])) if len(columns) > 1 else None

        def compute(usable: list[int]) -> list[list[Annotation]]:
            made = {}
            if pairs is not None:
                made = {index: [failed(CATEGORY, source, index, _UNPAIRED)] for index in usable if pairs[index] is None}
            whole = [index for index in usable if index not in made]
            unique, inverse = distinct(
                [(str(source.result[index]), pairs[index] if pairs else None) for index in whole]
            )
            scored, labels = self._scored(unique), locate(self.runner.bundle).labels
            for index, place in zip(whole, inverse, strict=True):
                made[index] = self._annotations(source, index, labels, *scored[place])
            return [made[index] for index in usable]

        return annotate_each(CATEGORY, source, compute, self.fails)

    def _scored(self, texts: Sequence[tuple[str, str | None]]) -> list[tuple[Answer, bool]]:
        """Return each text's scores, shape ``(labels,)``, or what is wrong with it, and whether it was cut."""
        if not texts:
            return []
        model = self.runner.open()
        paired = [pair or "" for _, pair in texts] if texts[0][1] is not None else None
        encodings = model.tokenizer.encode([text for text, _ in texts], paired, offsets=False)
        windows = [[encoding, *(encoding.overflowing if self.window else ())] for encoding in encodings]
        flat = [window for each in windows for window in each]
        logits = iter(model.run(flat, model.bundle.logits.name))
        scored: list[tuple[Answer, bool]] = []
        for encoding, each in zip(encodings, windows, strict=True):
            found = [next(logits) for _ in each]
            truncated = bool(encoding.overflowing) and not self.window
            scored.append((self._scores(encoding, each, found), truncated))
        return scored

    def _scores(self, encoding: Encoding, windows: Sequence[Encoding], logits: Sequence[Answer]) -> Answer:
        """Turn the logits of a text's windows into scores, shape ``(labels,)``."""
        if not len(encoding.ids):
            return DataError(NO_TOKENS)
        numbers = whole(logits)
        if isinstance(numbers, DataError):
            return numbers
        scores = FUNCTIONS[self.function](np.stack(numbers).astype(np.float32))
        return _mean_by_tokens(scores, windows)

    def _annotations(
        self, source: Annotations, index: int, labels: Sequence[str], scores: Answer, truncated: bool
    ) -> list[Annotation]:
        if isinstance(scores, DataError):
            return [failed(CATEGORY, source, index, scores)]
        if len(labels) != len(scores):
            raise BundleError(
                f"{self.runner.bundle.folder}: config.json names {len(labels)} labels, but the graph computed "
                f"{len(scores)} scores"
            )
        metadata = inherited(source, index) | ({"truncated": "true"} if truncated else {})
        kept = [best for best in top(scores, self.top_k) if self.threshold is None or scores[best] >= self.threshold]
        begin, end = source.begin[index], source.end[index]
        return [Annotation(CATEGORY, begin, end, labels[best], metadata, None, float(scores[best])) for best in kept]


def _mean_by_tokens(scores: np.ndarray, windows: Sequence[Encoding]) -> np.ndarray:
    """Average the scores of a text's windows, weighted by their text tokens, shape ``(windows, labels)`` ->
    ``(labels,)``."""
    if len(windows) == 1:
        return np.asarray(scores[0])
    weights = [len(window) - sum(window.special_tokens_mask) for window in windows]
    return np.average(scores, axis=0, weights=weights)


def _partners(source: Annotations, others: Annotations) -> list[str | None]:
    """Return the text that each document is paired with: the one at its place in the row, or the row's only one.

    A row without any gives empty texts, as a null second sentence does in transformers; None marks a document without
    a partner, or one whose partner is an error.
    """
    rows: list[list[str | None]] = [[] for _ in others.lengths]
    for row, text in zip(others.rows, others.result, strict=True):
        rows[row].append(text)
    places = np.arange(len(source)) - np.repeat(np.cumsum(source.lengths) - source.lengths, source.lengths)
    return [_partner(rows[row], place) for row, place in zip(source.rows, places, strict=True)]


def _partner(texts: list[str | None], place: int) -> str | None:
    if not texts:
        return ""
    if len(texts) == 1:
        return texts[0]
    return texts[place] if place < len(texts) else None
