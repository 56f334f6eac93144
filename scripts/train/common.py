"""What the training scripts of the starter bundles share: vocabulary, training loop, ONNX export, cards."""

import argparse
import lzma
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tokenizers import BertWordPieceTokenizer
from torch.nn import functional
from transformers import BertConfig, BertTokenizerFast, PreTrainedModel

IGNORED = -100
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
STARTER = Path(__file__).resolve().parents[2] / "sparktasks" / "starter"

Example = tuple[list[int], int | list[int]]


@dataclass(frozen=True)
class Recipe:
    """The settings of one training run."""

    epochs: int
    learning_rate: float
    batch_tokens: int
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    unknown_rate: float = 0.0
    warmup: float = 0.1
    seed: int = field(default=0, kw_only=True)


def arguments(description: str, bundle: str) -> argparse.Namespace:
    """The command line that both scripts take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data files, plain or .xz")
    parser.add_argument(
        "--out", type=Path, default=STARTER / bundle, help="bundle folder to write (default: the package's)"
    )
    parser.add_argument("--keep-torch", type=Path, help="also save the torch checkpoint into this folder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--threads", type=int, default=1, help="torch threads; the weights repeat exactly only for the same number"
    )
    return parser.parse_args()


def seed_everything(seed: int, threads: int) -> None:
    """Make a run repeatable."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def read_text(folder: Path, *names: str) -> str:
    """The text of the first of the named files that the folder holds, plain or xz-compressed."""
    for name in names:
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
        if (folder / f"{name}.xz").is_file():
            return lzma.decompress((folder / f"{name}.xz").read_bytes()).decode("utf-8")
    raise FileNotFoundError(f"none of {', '.join(names)} (or .xz) in {folder}")


def train_tokenizer(
    texts: Sequence[str], *, size: int, lowercase: bool, max_length: int, alphabet: int = 120
) -> BertTokenizerFast:
    """A BERT tokenizer with its own WordPiece vocabulary.

    The continuations of single characters are given to the trainer up front, as it numbers them in random order
    otherwise.
    """
    trainer = BertWordPieceTokenizer(lowercase=lowercase)
    counts = Counter(character for text in texts for character in trainer.normalize(text) if not character.isspace())
    characters = sorted(sorted(counts, key=lambda character: (-counts[character], character))[:alphabet])
    reserved = [*SPECIAL_TOKENS, *characters, *(f"##{character}" for character in characters)]
    trainer.train_from_iterator(
        texts, vocab_size=size, min_frequency=2, limit_alphabet=alphabet, special_tokens=reserved, show_progress=False
    )
    words = BertWordPieceTokenizer(trainer.get_vocab(), lowercase=lowercase)
    return BertTokenizerFast(tokenizer_object=words._tokenizer, do_lower_case=lowercase, model_max_length=max_length)


def bert_config(
    tokenizer: BertTokenizerFast, labels: Sequence[str], *, width: int, layers: int, dropout: float, **other
) -> BertConfig:
    """The configuration of a small stock BERT with named labels."""
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=4 * width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.06,
        max_position_embeddings=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        attn_implementation="eager",
        **other,
    )


def bucketed(examples: Sequence[Example], batch_tokens: int, rng: random.Random) -> list[list[Example]]:
    """Batches of about equal padded size, examples of like length together, in random order."""
    ordered = sorted(examples, key=lambda example: len(example[0]) + rng.random() * 3)
    batches: list[list[Example]] = [[]]
    for example in ordered:
        longest = max(len(example[0]), *(len(ids) for ids, _ in batches[-1]), 1)
        if batches[-1] and longest * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
        batches[-1].append(example)
    rng.shuffle(batches)
    return batches


def collate(batch: Sequence[Example], pad: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Model inputs and labels of one batch, padded to its longest example."""
    length = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([ids + [pad] * (length - len(ids)) for ids, _ in batch])
    mask = torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids, _ in batch])
    if isinstance(batch[0][1], int):
        labels = torch.tensor([label for _, label in batch])
    else:
        labels = torch.tensor([marks + [IGNORED] * (length - len(marks)) for _, marks in batch])
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}, labels


def hide_tokens(inputs: dict[str, torch.Tensor], rate: float, tokenizer: BertTokenizerFast) -> None:
    """Turn a random share of the ordinary tokens into the unknown token, in place."""
    ids = inputs["input_ids"]
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    ids[(torch.rand(ids.shape) < rate) & ~special] = tokenizer.unk_token_id


def optimizer_for(model: PreTrainedModel, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW that decays matrices and leaves biases and norms alone."""
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    plain = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def pace(progress: float, warmup: float) -> float:
    """The share of the learning rate at a point of the run: linear warm-up, then cosine decay to zero."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def train(
    model: PreTrainedModel,
    tokenizer: BertTokenizerFast,
    examples_of: Callable[[random.Random], Sequence[Example]],
    recipe: Recipe,
    score: Callable[[], float],
) -> None:
    """Train a model on the examples that `examples_of` gives for each epoch, telling the score as it goes."""
    rng = random.Random(recipe.seed)
    optimizer = optimizer_for(model, recipe)
    started = time.monotonic()
    for epoch in range(recipe.epochs):
        model.train()
        batches = bucketed(examples_of(rng), recipe.batch_tokens, rng)
        for number, batch in enumerate(batches):
            rate = recipe.learning_rate * pace((epoch + number / len(batches)) / recipe.epochs, recipe.warmup)
            loss = train_step(model, optimizer, batch, tokenizer, recipe, rate)
        if epoch % 5 == 4 or epoch == recipe.epochs - 1:
            print(
                f"epoch {epoch + 1}: loss {loss:.3f}, score {score():.4f}, {time.monotonic() - started:.0f} s",
                flush=True,
            )


def train_step(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    batch: Sequence[Example],
    tokenizer: BertTokenizerFast,
    recipe: Recipe,
    rate: float,
) -> float:
    """One step of the optimizer; gives the loss."""
    inputs, labels = collate(batch, tokenizer.pad_token_id)
    hide_tokens(inputs, recipe.unknown_rate, tokenizer)
    logits = model(**inputs).logits.flatten(0, -2)
    loss = functional.cross_entropy(
        logits, labels.flatten(), ignore_index=IGNORED, label_smoothing=recipe.label_smoothing
    )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def predict(model: PreTrainedModel, sequences: Sequence[list[int]], pad: int, batch_size: int = 64) -> list[np.ndarray]:
    """The logits of each token sequence, in the order given."""
    model.eval()
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        inputs, _ = collate([(list(sequences[index]), 0) for index in chosen], pad)
        for index, logits in zip(chosen, model(**inputs).logits.numpy(), strict=True):
            found[index] = logits
    return [found[index] for index in range(len(sequences))]
