"""What transformers and sentence-transformers answer, without padding, in torch, and the goldens made of it."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers as hf
from tokenizers import normalizers
from transformers.pipelines.token_classification import AggregationStrategy

from .pooling import pool
from .samples import Pair, sample_pairs, sample_texts

if TYPE_CHECKING:
    from .text_encoders import Spec

LabelScore = tuple[str, float]
Span = tuple[str, int, int, float]  # label, start, end (exclusive), score
Golden = dict[str, dict[str, Any]]  # kind of input, or strategy: text id: answer

TIE_NOISE = 2e-5  # ten times what graph and network differ by
TIE_DRAWS = 24
STRATEGIES = ("none", "simple", "first", "average", "max")
STRIDE = 16
FEEDS = ("input_ids", "attention_mask", "token_type_ids")
BATCH = 64
ONE_BY_ONE = 1  # for goldens, lest their last digits depend on which texts stand beside each other


def text_labels(twin: Path, inputs: Iterable[str | Pair], most: int = BATCH, **options: Any) -> list[list[LabelScore]]:
    """Return every label and score, best first, of texts or text pairs."""
    classify = hf.pipeline("text-classification", model=str(twin), device="cpu")
    encoding, _, decoding = classify._sanitize_parameters(top_k=None, truncation=True, **options)
    queries = [item if isinstance(item, str) else {"text": item[0], "text_pair": item[1]} for item in inputs]
    encoded = [classify.preprocess(query, **encoding) for query in queries]
    answers = []
    for logits in run_alike(classify.model, encoded, most):
        items = classify.postprocess({"logits": logits}, **decoding)
        answers.append([(item["label"], item["score"]) for item in items])
    return answers


def run_alike(network: hf.PreTrainedModel, items: Sequence[Mapping[str, Any]], most: int = BATCH) -> list[torch.Tensor]:
    """Return the first output (1, ...) of a network for each of its inputs, which are (1, tokens).

    Those of one length run together, at most so many: that needs no padding, and is faster than one by one.
    """
    if network.config.pad_token_id is None:
        most = 1  # decoders without a pad token refuse two texts
    alike: dict[tuple[int, int], list[int]] = {}
    for place, item in enumerate(items):
        ids = item["input_ids"][0].tolist()
        ends = ids.count(network.config.eos_token_id)  # which BART wants to be as many in all texts of a batch
        alike.setdefault((len(ids), ends), []).append(place)
    outputs: dict[int, torch.Tensor] = {}
    for places in alike.values():
        for start in range(0, len(places), most):
            together = places[start : start + most]
            with torch.no_grad():
                rows = network(**joined([items[place] for place in together]))[0]
            outputs.update(zip(together, rows.split(1), strict=True))
    return [outputs[place] for place in range(len(items))]


def joined(items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Return what a network takes of some inputs, as one batch."""
    return {name: torch.cat([item[name] for item in items]) for name in FEEDS if name in items[0]}


def text_golden(twin: Path) -> Golden:
    """Return all labels with scores, best first, of texts and of text pairs."""
    texts, pairs = sample_texts(), sample_pairs()
    return {
        "texts": dict(zip(texts, text_labels(twin, texts.values(), ONE_BY_ONE), strict=True)),
        "pairs": dict(zip(pairs, text_labels(twin, pairs.values(), ONE_BY_ONE), strict=True)),
    }


class TokenOracle:
    """The token-classification pipeline; the network runs once per text, whatever the strategies."""

    def __init__(self, twin: Path, stride: int | None = None) -> None:
        self.pipeline = hf.pipeline("token-classification", model=str(twin), device="cpu")
        strategy = {} if stride is None else {"stride": stride, "aggregation_strategy": "first"}
        self.options, _, _ = self.pipeline._sanitize_parameters(**strategy)
        self.outputs: dict[str, list[dict[str, Any]]] = {}

    def read(self, texts: Iterable[str]) -> None:
        """Run the network for texts that are new."""
        new = [text for text in dict.fromkeys(texts) if text not in self.outputs]
        chunks = [list(self.pipeline.preprocess(text, **self.options)) for text in new]
        logits = iter(run_alike(self.pipeline.model, list(itertools.chain.from_iterable(chunks))))
        for text, of_text in zip(new, chunks, strict=True):
            self.outputs[text] = [{**chunk, "logits": next(logits)} for chunk in of_text]

    def spans(self, text: str, strategy: str, ignored: list[str] | None = None) -> list[Span]:
        """Return the spans of one text, those of the labels `ignored` (by default "O") left out."""
        self.read([text])
        return self.decode(self.outputs[text], strategy, ignored)

    def decode(self, outputs: list[dict[str, Any]], strategy: str, ignored: list[str] | None) -> list[Span]:
        """Return the spans that the pipeline reads from the network's outputs."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "does not support real words, using fallback heuristic"
            items = self.pipeline.postprocess(outputs, AggregationStrategy(strategy), ignored)
        spans = [
            (item.get("entity_group", item.get("entity")), item["start"], item["end"], float(item["score"]))
            for item in items
        ]
        return without_echo(spans) if len(outputs) > 1 else spans

    def spans_if_tied(self, text: str, strategy: str, ignored: list[str] | None = None) -> list[list[Span]]:
        """Return the answers for slightly moved logits: where two labels tie, float noise decides."""
        generator = torch.Generator().manual_seed(0)
        answers = []
        for _ in range(TIE_DRAWS):
            moved = [with_noise(output, generator) for output in self.outputs[text]]
            answers.append(self.decode(moved, strategy, ignored))
        return answers


def with_noise(output: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
    """Return a network's output with float noise on its logits."""
    logits = output["logits"]
    return {**output, "logits": logits + TIE_NOISE * torch.randn(logits.shape, generator=generator)}


def without_echo(spans: list[Span]) -> list[Span]:
    """Drop the repetition of an empty first span: transformers' merging of windows compares the first span with itself.

    `aggregate_overlapping_entities` takes a span for new unless it starts inside the one before, and an empty one
    (a lone byte-level space token has one) does not start inside itself.
    """
    if len(spans) < 2 or spans[0] != spans[1]:
        return spans
    _, start, end, _ = spans[0]
    return spans[1:] if start == end else spans


def token_golden(twin: Path) -> Golden:
    """Return the spans of every strategy, and of one with overlapping windows over long texts."""
    texts = sample_texts()
    oracle, windows = TokenOracle(twin), TokenOracle(twin, stride=STRIDE)
    golden: Golden = {}
    for strategy in STRATEGIES:
        golden[strategy] = {key: oracle.spans(text, strategy) for key, text in texts.items()}
    golden[f"first_stride_{STRIDE}"] = {key: windows.spans(text, "first") for key, text in texts.items()}
    return golden


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
        """Return the tokenizer; sentence-transformers lower-cases by a normalizer before the others."""
        tokenizer = hf.AutoTokenizer.from_pretrained(self.twin)
        if self.spec.lower_case:
            backend = tokenizer.backend_tokenizer
            lower_case = normalizers.Lowercase()
            backend.normalizer = normalizers.Sequence([lower_case, *filter(None, [backend.normalizer])])
        return tokenizer

    def vectors(self, texts: Iterable[str], most: int = BATCH) -> list[np.ndarray]:
        """Return the vector (size,) of each text."""
        limit = self.spec.max_seq_length or self.spec.max_length
        encoded = [self.tokenizer(text, truncation=True, max_length=limit, return_tensors="pt") for text in texts]
        vectors = []
        for hidden, item in zip(run_alike(self.network, encoded, most), encoded, strict=True):
            pooled = pool(hidden, item["attention_mask"], self.spec.pooling)
            vectors.append((torch.nn.functional.normalize(pooled) if self.spec.normalize else pooled)[0].numpy())
        return vectors


def embedding_golden(twin: Path, spec: Spec) -> Golden:
    """Return the pooled vectors, plain and with each of the bundle's prompts."""
    oracle = EmbeddingOracle(twin, spec)
    prompts = {"texts": "", **{f"prompt_{name}": prompt for name, prompt in spec.prompts.items()}}
    golden: Golden = {}
    for kind, prompt in prompts.items():
        vectors = oracle.vectors([prompt + text for text in sample_texts().values()], ONE_BY_ONE)
        golden[kind] = {key: vector.tolist() for key, vector in zip(sample_texts(), vectors, strict=True)}
    return golden
