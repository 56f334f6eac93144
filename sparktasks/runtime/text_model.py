"""A text encoder on this machine: tokenizer and session together, fed in batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Encoding

from sparktasks.runtime.batching import pad, token_batches, unpad
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.session import Session, open_session
from sparktasks.runtime.tokens import Lengths, TextTokenizer, open_tokenizer


class TextModel:
    """Runs encodings through a bundle's graph; sequence outputs give one row a text, token outputs one row a token."""

    def __init__(self, bundle: Bundle, lengths: Lengths, batch_tokens: int, device: str = "auto") -> None:
        self.bundle = bundle
        self.tokenizer: TextTokenizer = open_tokenizer(bundle, lengths)
        self.session: Session = open_session(bundle, device)
        self.batch_tokens = batch_tokens

    def run(self, encodings: Sequence[Encoding], output: str) -> list[np.ndarray]:
        """Return each encoding's part of one graph output: ``(tokens, n)`` where the output has a token axis, else ``(n,)``.

        An encoding without tokens gives ``(0, 1)``.
        """
        ids = [encoding.ids for encoding in encodings]
        lengths = [len(row) for row in ids]
        found: list[np.ndarray] = [np.empty((0, 1), np.float32)] * len(ids)
        filled = np.flatnonzero(lengths)  # a tokenizer without special tokens makes nothing of some texts
        for places in token_batches([lengths[index] for index in filled], self.batch_tokens):
            batch = filled[places]
            feeds = self._feeds([encodings[index] for index in batch], [ids[index] for index in batch])
            stacked = self.session.run([output], **feeds)[0]
            values = unpad(stacked, [lengths[index] for index in batch], self.tokenizer.pads_left) if stacked.ndim == 3 else stacked
            for index, value in zip(batch, values, strict=True):
                found[index] = value
        return found

    def _feeds(self, encodings: Sequence[Encoding], ids: Sequence[list[int]]) -> dict[str, np.ndarray]:
        left = self.tokenizer.pads_left
        feeds = {"input_ids": pad(ids, self.tokenizer.pad_id, left), "attention_mask": pad([[1] * len(row) for row in ids], 0, left)}
        if "token_type_ids" in self.session.inputs:
            feeds["token_type_ids"] = pad([encoding.type_ids for encoding in encodings], self.tokenizer.pad_type_id, left)
        if "position_ids" in self.session.inputs:
            feeds["position_ids"] = np.maximum(np.cumsum(feeds["attention_mask"], axis=1) - 1, 0)
        return feeds
