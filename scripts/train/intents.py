"""Train the starter bundle `intents-clinc150`: user requests into 150 intents.

The data is CLINC150 (CC BY 3.0): `data/data_full.json` of https://github.com/clinc/oos-eval at commit
828f8093932c8fe6ca7936c3d2e52903b1c523de. Give its folder as `--data`; `train` and `val` are read, `test` is not.

    python scripts/train/intents.py --data DIR
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bundle import write_bundle
from common import Recipe, arguments, bert_config, predict, read_text, seed_everything, train, train_tokenizer
from transformers import BertForSequenceClassification, BertTokenizerFast

BUNDLE = "intents-clinc150"
MAX_LENGTH = 128
REJECT_BELOW = 0.5

Rows = Sequence[tuple[str, str]]


def load(folder: Path) -> dict[str, Rows]:
    """The parts of the data set by name."""
    return json.loads(read_text(folder, "data_full.json", "data_train_val.json"))


def token_ids(tokenizer: BertTokenizerFast, rows: Rows) -> list[list[int]]:
    """The token ids of each text, with [CLS] and [SEP]."""
    return tokenizer([text for text, _ in rows], truncation=True)["input_ids"]


def logits(model: BertForSequenceClassification, tokenizer: BertTokenizerFast, rows: Rows) -> np.ndarray:
    """The logits of each text, one row each."""
    return np.stack(predict(model, token_ids(tokenizer, rows), tokenizer.pad_token_id))


def accuracy(model: BertForSequenceClassification, tokenizer: BertTokenizerFast, rows: Rows, best: int = 1) -> float:
    """The share of texts whose label is among the `best` highest logits."""
    gold = np.array([model.config.label2id[label] for _, label in rows])
    ranked = np.argsort(-logits(model, tokenizer, rows), axis=1)[:, :best]
    return float((ranked == gold[:, None]).any(axis=1).mean())


def top_scores(model: BertForSequenceClassification, tokenizer: BertTokenizerFast, rows: Rows) -> np.ndarray:
    """The softmax score of the best label of each text."""
    found = logits(model, tokenizer, rows)
    return 1 / np.exp(found - found.max(axis=1, keepdims=True)).sum(axis=1)


def main() -> None:
    """Train, measure and write the bundle."""
    options = arguments(__doc__, BUNDLE)
    started = time.monotonic()
    seed_everything(options.seed, options.threads)
    parts = load(options.data)
    labels = sorted({label for _, label in parts["train"]})
    tokenizer = train_tokenizer([text for text, _ in parts["train"]], size=3500, lowercase=True, max_length=MAX_LENGTH)
    config = bert_config(
        tokenizer, labels, width=128, layers=2, dropout=0.1, problem_type="single_label_classification"
    )
    model = BertForSequenceClassification(config)
    targets = [config.label2id[label] for _, label in parts["train"]]
    examples = list(zip(token_ids(tokenizer, parts["train"]), targets, strict=True))
    recipe = Recipe(epochs=25, learning_rate=2e-3, batch_tokens=1024, unknown_rate=0.1, seed=options.seed)
    train(model, tokenizer, lambda _: examples, recipe, lambda: accuracy(model, tokenizer, parts["val"]))
    known, foreign = (top_scores(model, tokenizer, parts[name]) for name in ("val", "oos_val"))
    values = {
        "accuracy": f"{accuracy(model, tokenizer, parts['val']):.2%}",
        "top3": f"{accuracy(model, tokenizer, parts['val'], best=3):.2%}",
        "reject_below": REJECT_BELOW,
        "mean_score": f"{known.mean():.1%}",
        "kept": f"{(known >= REJECT_BELOW).mean():.0%}",
        "rejected": f"{(foreign < REJECT_BELOW).mean():.0%}",
    }
    samples = token_ids(tokenizer, parts["val"])[::30]
    write_bundle(model, tokenizer, samples, options, card=BUNDLE, values=values, started=started)


if __name__ == "__main__":
    main()
