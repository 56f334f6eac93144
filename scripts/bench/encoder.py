"""The models of the benchmarks: the shapes of MiniLM and BERT base with random weights, as two ONNX bundles and their
torch twin."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MINILM = {
    "num_hidden_layers": 6,
    "hidden_size": 384,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 30522,
}
BASE = {
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30522,
}
LABELS = ("sports", "politics", "science", "arts", "economy", "health")
SEED = 1


@dataclass(frozen=True)
class Models:
    """Folders of one network: a sequence classifier and its encoder as ONNX bundles, and the classifier for
    transformers."""

    classifier: Path
    encoder: Path
    torch: Path


def models(folder: Path, tokenizer: Path, shape: dict[str, int] = MINILM) -> Models:
    """Return the models in a folder, building them at first use; ``tokenizer`` is bert-base-uncased's tokenizer.json,
    gzipped."""
    found = Models(folder / "classifier", folder / "encoder", folder / "torch")
    if not (found.torch / "config.json").is_file():
        _build(found, tokenizer, shape)
    return found


def _build(target: Models, tokenizer_file: Path, shape: dict[str, int]) -> None:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(SEED)
    names = dict(enumerate(LABELS))
    config = BertConfig(
        **shape, id2label=names, label2id={name: index for index, name in names.items()}, initializer_range=0.06
    )
    network = BertForSequenceClassification(config).eval()
    network.classifier.weight.data *= 5  # labels that differ, by clear scores
    tokenizer = _tokenizer(tokenizer_file)
    _export(network, tokenizer, target.classifier, "text-classification")
    _export(network.bert, tokenizer, target.encoder, "feature-extraction")
    tokenizer.save_pretrained(target.torch)
    network.save_pretrained(target.torch)


def _tokenizer(path: Path) -> Any:
    from transformers import BertTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "tokenizer.json")
        plain.write_bytes(gzip.decompress(path.read_bytes()))
        return BertTokenizerFast(tokenizer_file=str(plain), model_max_length=512)


def _export(network: Any, tokenizer: Any, folder: Path, task: str) -> None:
    from optimum.exporters.onnx import onnx_export_from_model

    shutil.rmtree(folder, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracer warnings about shapes
        onnx_export_from_model(network, folder, task=task, do_validation=False)
    tokenizer.save_pretrained(folder)
