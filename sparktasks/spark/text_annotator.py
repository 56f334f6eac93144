"""What the annotators that run a text model share."""

from __future__ import annotations

from sparktasks.kernels.models import TextModelRef
from sparktasks.runtime.tokens import Lengths
from sparktasks.spark.annotator import ModelAnnotator
from sparktasks.spark.params import P, at_least, param


class TextModelAnnotator(ModelAnnotator):
    """A column annotator whose model reads the token ids of texts."""

    maxLength: P[int | None] = param(
        "most tokens per run, special ones included; None asks the bundle", default=None, check=at_least(1)
    )
    batchTokens: P[int] = param("most padded tokens per model run", default=512, check=at_least(1))
    batchInvariant: P[bool] = param(
        (
            "run each text by itself, so that no bit of its result depends on the others; slower, and needed for "
            "int8 where that matters"
        ),
        default=False,
    )

    def model_ref(self, lengths: Lengths) -> TextModelRef:
        """Return what a kernel carries to run the model on texts that are cut as ``lengths`` says."""
        budget = 1 if self.getOrDefault(self.batchInvariant) else self.getOrDefault(self.batchTokens)
        return TextModelRef(
            self.bundle_ref(),
            lengths,
            budget,
            self.getOrDefault(self.device),
            self.getOrDefault(self.maxRunSeconds),
        )
