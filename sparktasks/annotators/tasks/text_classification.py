"""TextClassifier: one label, or several, for a text or a pair of texts."""

from __future__ import annotations

from sparktasks.errors import ParamError
from sparktasks.kernels.columns import CATEGORY, DOCUMENT
from sparktasks.kernels.text_classification import ClassifyTexts
from sparktasks.ops.logits import FUNCTIONS
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.checks import check_logits, check_text_encoder
from sparktasks.runtime.tokens import Lengths, longest
from sparktasks.spark.params import P, at_least, one_of, param
from sparktasks.spark.text_annotator import TextModelAnnotator


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
        function = self.getOrDefault(self.functionToApply)
        window = self.getOrDefault(self.longText) == "window"
        pairs = len(self.getOrDefault(self.inputCols)) > 1
        # Windows of two texts would have to be paired with each other.
        if window and pairs:
            raise ParamError(
                f"{self.uid}: longText='window' reads single documents; pairs of documents can only be truncated"
            )
        # A text that is cut has no second window.
        stride = self.getOrDefault(self.stride) if window else 0
        most = longest(bundle, self.getOrDefault(self.maxLength))
        return ClassifyTexts(
            model=self.model_ref(Lengths(most, stride, pairs=pairs, windows=window)),
            function=function_of(bundle) if function == "auto" else function,
            top_k=self.getOrDefault(self.topK),
            threshold=self.getOrDefault(self.threshold),
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
