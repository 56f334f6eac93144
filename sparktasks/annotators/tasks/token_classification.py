"""TokenClassifier: a label for every token, or the entities that neighbouring tokens make."""

from __future__ import annotations

from sparktasks.kernels.columns import CHUNK, DOCUMENT, NAMED_ENTITY, TOKEN
from sparktasks.kernels.plan import Kernel
from sparktasks.kernels.token_classification import FindEntities, LabelTokens
from sparktasks.ops.spans import STRATEGIES
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.checks import check_logits, check_text_encoder
from sparktasks.runtime.tokens import Lengths, longest
from sparktasks.spark.params import P, at_least, one_of, param
from sparktasks.spark.text_annotator import TextModelAnnotator


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
        return NAMED_ENTITY if self._takes_tokens() or self.getOrDefault(self.aggregation) == "none" else CHUNK

    def _takes_tokens(self) -> bool:
        return len(self.getOrDefault(self.inputCols)) > 1

    def check_bundle(self, bundle: Bundle) -> None:
        """Require a text encoder with logits for each token, one for each label."""
        check_text_encoder(bundle)
        check_logits(bundle, "batch", "tokens", "labels")

    def kernel(self) -> Kernel:
        """Return the executor half."""
        words = self._takes_tokens()
        most = longest(self.getBundle(), self.getOrDefault(self.maxLength))
        # Given tokens each get a label, however long the text is.
        window = words or self.getOrDefault(self.longText) == "window"
        stride = self.getOrDefault(self.stride)
        # Tokens near a window's edge lack context: what two windows share is labelled by the one that sees more of it.
        if stride is None:
            stride = (most or 0) // 8
        ignored: list[str] = self.getOrDefault(self.ignoreLabels)
        model = self.model_ref(Lengths(most, stride if window else 0, words, windows=window))
        if words:
            return LabelTokens(model=model, fails=self.fails())
        return FindEntities(
            model=model,
            strategy=self.getOrDefault(self.aggregation),
            ignored=frozenset(ignored),
            window=window,
            fails=self.fails(),
        )
