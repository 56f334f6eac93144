"""What transformers and sentence-transformers answer, one text at a time, in torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from tokenizers.normalizers import Lowercase, Sequence
from transformers.pipelines.token_classification import AggregationStrategy

from .pooling import pool
from .specs import TEXT, TOKEN, Spec

LabelScore = tuple[str, float]
Span = tuple[str, int, int, float]  # label, start, end (exclusive), score
Pair = tuple[str, str]

TIE_NOISE = 2e-5  # ten times what graph and network differ by
TIE_DRAWS = 24


def text_labels(twin: Path, inputs: Iterable[str | Pair], **options: Any) -> list[list[LabelScore]]:
    """Return every label and score, best first, of texts or text pairs."""
    classify = hf.pipeline(TEXT, model=str(twin), device="cpu")
    given = [item if isinstance(item, str) else {"text": item[0], "text_pair": item[1]} for item in inputs]
    answers = classify(given, top_k=None, truncation=True, **options)
    return [[(answer["label"], answer["score"]) for answer in row] for row in answers]


class TokenOracle:
    """The token-classification pipeline; the network runs once per text, whatever the strategies."""

    def __init__(self, twin: Path, stride: int | None = None) -> None:
        self.pipeline = hf.pipeline(TOKEN, model=str(twin), device="cpu")
        strategy = {} if stride is None else {"stride": stride, "aggregation_strategy": "first"}
        self.options, _, _ = self.pipeline._sanitize_parameters(**strategy)
        self.outputs: dict[str, list[dict[str, Any]]] = {}

    def spans(self, text: str, strategy: str, ignored: list[str] | None = None) -> list[Span]:
        """Return the spans of one text, those of the labels `ignored` (by default "O") left out."""
        if text not in self.outputs:
            self.outputs[text] = [
                self.pipeline.forward(chunk) for chunk in self.pipeline.preprocess(text, **self.options)
            ]
        return self.decode(self.outputs[text], strategy, ignored)

    def decode(self, outputs: list[dict[str, Any]], strategy: str, ignored: list[str] | None) -> list[Span]:
        """Return the spans that the pipeline reads from the network's outputs."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "does not support real words, using fallback heuristic"
            found = self.pipeline.postprocess(outputs, AggregationStrategy(strategy), ignored)
        spans = [
            (item.get("entity_group", item.get("entity")), item["start"], item["end"], float(item["score"]))
            for item in found
        ]
        return without_echo(spans) if len(outputs) > 1 else spans

    def spans_if_tied(self, text: str, strategy: str, ignored: list[str] | None = None) -> list[list[Span]]:
        """Return the answers for slightly moved logits: where two labels tie, float noise decides."""
        generator = torch.Generator().manual_seed(0)
        answers = []
        for _ in range(TIE_DRAWS):
            moved = [
                output
                | {"logits": output["logits"] + TIE_NOISE * torch.randn(output["logits"].shape, generator=generator)}
                for output in self.outputs[text]
            ]
            answers.append(self.decode(moved, strategy, ignored))
        return answers


def without_echo(spans: list[Span]) -> list[Span]:
    """Drop the repetition of an empty first span: transformers' merging of windows compares the first span with itself.

    `aggregate_overlapping_entities` takes a span for new unless it starts inside the one before, and an empty one
    (a lone byte-level space token has one) does not start inside itself.
    """
    return spans[1:] if len(spans) > 1 and spans[0] == spans[1] and spans[0][1] == spans[0][2] else spans


class EmbeddingOracle:
    """The vectors of sentence-transformers' Transformer, Pooling and Normalize modules."""

    def __init__(self, twin: Path, spec: Spec) -> None:
        self.twin, self.spec = twin, spec

    @cached_property
    def network(self) -> hf.PreTrainedModel:
        """Return the encoder."""
        return hf.AutoModel.from_pretrained(self.twin).eval()

    @cached_property
    def tokenizer(self) -> hf.PreTrainedTokenizerFast:
        """Return the tokenizer; sentence-transformers puts texts into small letters by a normalizer before the
        others."""
        tokenizer = hf.AutoTokenizer.from_pretrained(self.twin)
        if self.spec.lower_case:
            backend = tokenizer.backend_tokenizer
            backend.normalizer = Sequence([Lowercase(), *filter(None, [backend.normalizer])])
        return tokenizer

    def vector(self, text: str) -> np.ndarray:
        """Return the vector (size,) of one text."""
        limit = self.spec.max_seq_length or self.spec.max_length
        batch = self.tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")
        with torch.no_grad():
            hidden = self.network(**batch).last_hidden_state
        pooled = pool(hidden, batch["attention_mask"], self.spec.pooling)
        return (torch.nn.functional.normalize(pooled) if self.spec.normalize else pooled)[0].numpy()
