"""Proof that a bundle can fail: weak networks and faulty exports are refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import transformers as hf

from .pooling import pool
from .specs import DECODERS, EMBEDDING, TEXT, TOKEN, Spec

Batch = dict[str, torch.Tensor]

DISTINCT = {TEXT: 3, TOKEN: 6, EMBEDDING: 30}
SHARE = 0.75
MARGIN = 0.05
WRONG_INPUT = 100 * 1e-4
EXPORT_TOLERANCE = 2e-5
PADS = 6
WRONG_PAD = 20  # what a decoder does not take for padding: it must change the answers


class WeakBundle(ValueError):
    """A network whose scores could not show a mistake."""


@dataclass(frozen=True)
class Evidence:
    """How much the scores of a network move; gaps are medians over the test texts."""

    task: str
    distinct: int  # top labels; different rounded rows where a row has no top label
    share: float  # of the commonest answer
    margin: float  # first minus second score; distance to the nearest other row where a row has no top label
    changed: float  # largest score difference after one changed token
    unmasked: float  # the same after padding without the mask
    untyped: float  # the same with every token type 0; infinite where the network has no types

    def faults(self) -> list[str]:
        """Return what keeps this network from being a parity bundle."""
        least = {"distinct": DISTINCT[self.task], "margin": MARGIN}
        least |= dict.fromkeys(("changed", "unmasked", "untyped"), WRONG_INPUT)
        faults = [
            f"{key} {getattr(self, key):.4g} < {bound}" for key, bound in least.items() if getattr(self, key) < bound
        ]
        return faults + ([f"share {self.share:.2g} > {SHARE}"] if self.share > SHARE else [])


class Probe:
    """A network with its tokenizer, asked for scores as the pipelines compute them."""

    def __init__(self, spec: Spec, network: hf.PreTrainedModel, tokenizer: hf.PreTrainedTokenizerFast) -> None:
        self.spec, self.network, self.tokenizer = spec, network, tokenizer

    def encode(self, text: str, pair: str | None = None) -> Batch:
        """Tokenize one text, leaving room for padding."""
        return dict(self.tokenizer(text, pair, truncation=True, max_length=64 - PADS, return_tensors="pt"))

    def scores(self, batch: Batch) -> np.ndarray:
        """Return scores: (1, labels), (tokens, labels) with padding left out, or (1, size)."""
        with torch.no_grad():
            output = self.network(**batch)
        mask = batch["attention_mask"]
        if self.spec.task == EMBEDDING:
            return pool(output.last_hidden_state, mask, self.spec.pooling).numpy()
        logits = output.logits[0, mask[0].bool()] if self.spec.task == TOKEN else output.logits
        if self.spec.problem_type == "regression":
            return logits.numpy()
        single = self.spec.problem_type is None and len(self.spec.labels) > 1
        return (torch.softmax(logits, -1) if single else torch.sigmoid(logits)).numpy()

    def padded(self, batch: Batch) -> Batch:
        """Return the batch with pad tokens on the tokenizer's side, masked."""
        sides = (PADS, 0) if self.tokenizer.padding_side == "left" else (0, PADS)
        pad = WRONG_PAD if self.spec.arch in DECODERS else self.tokenizer.pad_token_id
        fill = {"input_ids": pad, "token_type_ids": self.tokenizer.pad_token_type_id}
        return {key: torch.nn.functional.pad(value, sides, value=fill.get(key, 0)) for key, value in batch.items()}

    def without_mask(self, batch: Batch) -> np.ndarray:
        """Return the scores of a padded batch whose network sees the pads, read at the true tokens."""
        padded = self.padded(batch)
        seen = padded | {"attention_mask": torch.ones_like(padded["attention_mask"])}
        scores = self.scores(seen)
        return scores[padded["attention_mask"][0].bool().numpy()] if self.spec.task == TOKEN else scores

    def with_changed_token(self, batch: Batch) -> np.ndarray:
        """Return the scores after one inner token became another ordinary one."""
        ids = batch["input_ids"].clone()
        place = ids.shape[1] // 2
        special = set(self.tokenizer.all_special_ids)
        shifted = (int(ids[0, place]) + 1 + step for step in range(len(self.tokenizer)))
        ids[0, place] = next(i % len(self.tokenizer) for i in shifted if i % len(self.tokenizer) not in special)
        return self.scores(batch | {"input_ids": ids})


def examine(probe: Probe, texts: Iterable[str], pairs: Iterable[tuple[str, str]]) -> Evidence:
    """Measure how a network answers true and deliberately wrong inputs."""
    batches = [batch for text in dict.fromkeys(texts) if (batch := probe.encode(text))["input_ids"].shape[1] > 4]
    true = [probe.scores(batch) for batch in batches]
    answers, margins = ranked(true) if probe.spec.labels[1:] else spread(true)
    _, counts = np.unique(answers, return_counts=True, axis=0)
    return Evidence(
        task=probe.spec.task,
        distinct=len(counts),
        share=float(counts.max() / counts.sum()),
        margin=float(np.median(margins)),
        changed=median_gap(true, [probe.with_changed_token(batch) for batch in batches]),
        unmasked=median_gap(true, [probe.without_mask(batch) for batch in batches]),
        untyped=type_gap(probe, pairs),
    )


def ranked(scores: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the top label of every row and its lead over the second."""
    rows = np.concatenate(scores)
    ordered = np.sort(rows, axis=-1)
    return rows.argmax(-1), ordered[:, -1] - ordered[:, -2]


def spread(scores: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rounded rows, for single scores and vectors, and each one's distance to the nearest other."""
    rows = np.concatenate(scores)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
    if rows.shape[1] == 1:
        return rows.round(1), distances[~np.eye(len(rows), dtype=bool)]
    return rows.round(1), np.where(np.eye(len(rows), dtype=bool), np.inf, distances).min(axis=1)


def median_gap(true: list[np.ndarray], wrong: list[np.ndarray]) -> float:
    """Return the median over texts of the largest difference."""
    return float(np.median([np.abs(a - b).max() for a, b in zip(true, wrong, strict=True)]))


def type_gap(probe: Probe, pairs: Iterable[tuple[str, str]]) -> float:
    """Return what the token types of text pairs are worth to a sequence classifier."""
    batches = [probe.encode(*pair) for pair in pairs]
    types_matter = probe.spec.task == TEXT and getattr(probe.network.config, "type_vocab_size", 2) > 1
    if not types_matter or "token_type_ids" not in batches[0]:
        return float("inf")
    blank = [batch | {"token_type_ids": torch.zeros_like(batch["token_type_ids"])} for batch in batches]
    return median_gap([probe.scores(batch) for batch in batches], [probe.scores(batch) for batch in blank])


def check_export(probe: Probe, model: Path, texts: Iterable[str]) -> float:
    """Return the largest difference of graph and network, alone and padded; raise where it is no noise."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    worst = 0.0
    for batch in (probe.encode(text) for text in texts):
        if batch["input_ids"].shape[1] == 0:
            continue
        changes = probe.spec.leaks or probe.spec.arch in DECODERS
        for given in (batch,) if changes else (batch, probe.padded(batch)):
            graph = session.run(None, {name: given[name].numpy() for name in names})[0]
            with torch.no_grad():
                network = probe.network(**batch)[0].numpy()
            if graph.ndim == 3:
                graph = graph[given["attention_mask"].numpy().astype(bool)][None]
            worst = max(worst, float(np.abs(graph - network).max() / max(1.0, np.abs(network).max())))
    if worst > EXPORT_TOLERANCE:
        raise WeakBundle(f"{probe.spec.name}: graph and network differ by {worst:.3g}")
    return worst
