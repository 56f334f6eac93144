"""What the annotators that run a text model share: their params, and what their kernels carry."""

from __future__ import annotations

from dataclasses import dataclass

from sparktasks.runtime.text_model import TextModel
from sparktasks.runtime.tokens import Lengths
from sparktasks.spark.annotator import ModelAnnotator
from sparktasks.spark.delivery import BundleRef, locate
from sparktasks.spark.params import P, at_least, param


@dataclass(frozen=True)
class TextRunner:
    """A text model to be, in the form that kernels carry."""

    bundle: BundleRef
    lengths: Lengths
    batch_tokens: int
    device: str
    run_seconds: float

    def open(self) -> TextModel:
        """Return the model, opened at first use in this process."""
        return TextModel(locate(self.bundle), self.lengths, self.batch_tokens, self.device, self.run_seconds)


class TextModelAnnotator(ModelAnnotator):
    """A column annotator whose model reads the token ids of texts."""

    maxLength: P[int | None] = param(
        "most tokens per run, special ones included; None asks the bundle", default=None, check=at_least(1)
    )
    batchTokens: P[int] = param("most padded tokens per model run", default=512, check=at_least(1))
    batchInvariant: P[bool] = param(
        (
            "run each text by itself, so that no bit of its result depends on the others; slower, and a must for "
            "int8 where that matters"
        ),
        default=False,
    )

    def runner(self, lengths: Lengths) -> TextRunner:
        """Return what a kernel carries to run the model on texts that are cut as ``lengths`` says."""
        budget = 1 if self.getOrDefault("batchInvariant") else self.getOrDefault("batchTokens")
        return TextRunner(
            self.bundle_ref(), lengths, budget, self.getOrDefault(self.device), self.getOrDefault(self.maxRunSeconds)
        )
