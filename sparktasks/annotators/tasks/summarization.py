"""Summarizer: long texts become short ones."""

from __future__ import annotations

from importlib.util import find_spec

from sparktasks.kernels.columns import DOCUMENT
from sparktasks.kernels.extractive_summarization import ExtractSentences, sentence_ranker
from sparktasks.kernels.summarization import AbstractTexts
from sparktasks.runtime.bundle import Bundle
from sparktasks.spark.annotator import ColumnAnnotator
from sparktasks.spark.fusion import Chain
from sparktasks.spark.generation_annotator import GenerationAnnotator, seq2seq_only, task_params
from sparktasks.spark.params import P, at_least, one_of, param

_TASK = "summarization"


class Summarizer(GenerationAnnotator):
    """Summarizes each document, as transformers' ``summarization`` pipeline does: BART, T5, Pegasus.

    The settings and the prefix that config.json has for the task are used. ``longDocument`` says what happens to
    documents that the model has no room for.

    With ``method="extractive"`` no model is needed: the most central sentences are kept, in their order (TextRank,
    Mihalcea and Tarau 2004, by the sumy package).

    Writes document annotations: ``result`` is the summary, ``score`` the mean log-probability of its tokens (null
    without a model). Metadata: ``sentence``; of a model ``finish_reason`` (eos, stop or length), ``prompt_tokens``,
    ``new_tokens``, ``truncated`` = "true" where a part of the text was cut off, ``windows`` (how many the text was
    cut into); without one ``sentences``, the places of those that were kept.
    """

    reads = (DOCUMENT,)
    writes = DOCUMENT
    starter = None
    cut = "right"

    outputCol: P[str] = param("name of the column to write", default="summary")
    method: P[str] = param(
        "abstractive: a model writes the summary; extractive: sentences of the text, without a model",
        default="abstractive",
        check=one_of("abstractive", "extractive"),
    )
    longDocument: P[str] = param(
        (
            "texts the model has no room for: truncate (flagged), or hierarchical: summarize windows of whole "
            "sentences, then the summaries"
        ),
        default="truncate",
        check=one_of("truncate", "hierarchical"),
    )
    sentences: P[int] = param("sentences of an extractive summary", default=3, check=at_least(1))
    language: P[str | None] = param(
        "with extractive: language whose stop words do not count, in English, as in 'german'", default=None
    )

    def needs_model(self) -> bool:
        """Tell whether a model writes the summaries."""
        return bool(self.getOrDefault(self.method) == "abstractive")

    def check_bundle(self, bundle: Bundle) -> None:
        """Require an encoder and a decoder."""
        super().check_bundle(bundle)
        seq2seq_only(bundle, self.uid)

    def extend(self, chain: Chain) -> Chain:
        return super().extend(chain) if self.needs_model() else ColumnAnnotator.extend(self, chain)

    def kernel(self) -> AbstractTexts | ExtractSentences:
        """Return the executor half."""
        if not self.needs_model():
            # The check of the language needs the package, which only executors must have.
            if find_spec("sumy"):
                sentence_ranker(self.getOrDefault(self.language))
            return ExtractSentences(
                sentences=self.getOrDefault(self.sentences),
                language=self.getOrDefault(self.language),
                fails=self.fails(),
            )
        # T5 and BART have settings for summaries in config.json; a model without them runs with its general ones.
        bundle = self.getBundle()
        task = _TASK if _TASK in bundle.tasks else None
        return AbstractTexts(
            generator=self.generator_ref(self.settings(task)),
            prefix=str(task_params(bundle, task).get("prefix", "")),
            hierarchical=self.getOrDefault(self.longDocument) == "hierarchical",
            fails=self.fails(),
        )
