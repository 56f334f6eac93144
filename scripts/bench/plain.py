"""A text classifier without Spark and without sparktasks: tokenizers and onnxruntime, by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Encoding, Tokenizer


class PlainClassifier:
    """A bundle's tokenizer and session; ``threads`` None leaves onnxruntime its default."""

    def __init__(self, folder: Path, max_length: int | None = None, threads: int | None = None) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        if max_length is not None:
            self.tokenizer.enable_truncation(max_length)
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        names = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        self.labels = np.array([names[key] for key in sorted(names, key=int)])

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Run texts as one batch, padded to the longest; returns probabilities ``(texts, labels)``."""
        return self._run(self.tokenizer.encode_batch_fast(list(texts)))

    def sorted_scores(self, texts: Sequence[str], budget: int) -> np.ndarray:
        """Run texts longest first, as many at once as stay within a budget of padded tokens; returns them in the order
        given."""
        encodings = self.tokenizer.encode_batch_fast(list(texts))
        lengths = np.array([len(encoding) for encoding in encodings])
        order = np.argsort(-lengths, kind="stable")
        found = np.empty((len(texts), len(self.labels)), np.float32)
        start = 0
        while start < len(order):
            batch = order[start : start + max(1, budget // lengths[order[start]])]
            found[batch] = self._run([encodings[place] for place in batch])
            start += len(batch)
        return found

    def _run(self, encodings: Sequence[Encoding]) -> np.ndarray:
        ids = np.zeros((len(encodings), max(map(len, encodings))), np.int64)
        mask = np.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding)] = encoding.ids
            mask[row, : len(encoding)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        logits = self.session.run(["logits"], feeds)[0]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
