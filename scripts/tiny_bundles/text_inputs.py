"""Tokenized texts, and what a careless caller might make of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import transformers as hf

LENGTH = 64  # of the texts that networks are tried with
PADS = 6


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a network is fed, each (1, tokens), and which of the tokens are a text's own: (tokens,), of booleans."""

    feeds: dict[str, torch.Tensor]
    own: torch.Tensor

    def changed(self, **feeds: torch.Tensor) -> Encoded:
        """Return the same with other feeds."""
        return Encoded({**self.feeds, **feeds}, self.own)


def encode(tokenizer: hf.PreTrainedTokenizerFast, text: str, pair: str | None = None) -> Encoded:
    """Tokenize a text or a pair of texts, leaving room for padding."""
    feeds = dict(tokenizer(text, pair, truncation=True, max_length=LENGTH - PADS, return_tensors="pt"))
    return Encoded(feeds, feeds["attention_mask"][0].bool())


def padded(tokenizer: hf.PreTrainedTokenizerFast, item: Encoded, pad_id: int) -> Encoded:
    """Return a text with masked pad tokens on the tokenizer's side."""
    sides = (PADS, 0) if tokenizer.padding_side == "left" else (0, PADS)
    fill = {"input_ids": pad_id, "token_type_ids": tokenizer.pad_token_type_id}
    feeds = {name: torch.nn.functional.pad(value, sides, value=fill.get(name, 0)) for name, value in item.feeds.items()}
    return Encoded(feeds, feeds["attention_mask"][0].bool())


def unmasked(item: Encoded) -> Encoded:
    """Return a padded text whose network takes the pads for tokens."""
    return item.changed(attention_mask=torch.ones_like(item.feeds["attention_mask"]))


def with_changed_token(tokenizer: hf.PreTrainedTokenizerFast, item: Encoded) -> Encoded:
    """Return a text whose middle token became another ordinary one."""
    ids = item.feeds["input_ids"].clone()
    place = ids.shape[1] // 2
    special = set(tokenizer.all_special_ids)
    index = (int(ids[0, place]) + 1) % len(tokenizer)
    while index in special:
        index = (index + 1) % len(tokenizer)
    ids[0, place] = index
    return item.changed(input_ids=ids)


def without_types(item: Encoded) -> Encoded:
    """Return a pair whose texts have the same token type."""
    return item.changed(token_type_ids=torch.zeros_like(item.feeds["token_type_ids"]))
