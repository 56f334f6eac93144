"""The pooling formulas of sentence-transformers (models/Pooling.py), in torch."""

from __future__ import annotations

import torch


def pool(hidden: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    """Pool hidden states (batch, tokens, size) under a mask (batch, tokens) to vectors (batch, size)."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    if mode == "cls":
        return hidden[:, 0]
    if mode == "max":
        return hidden.masked_fill(weights == 0, -1e9).max(dim=1).values
    if mode == "lasttoken":
        places = torch.arange(mask.shape[1]).expand_as(mask)
        last = (places * mask).argmax(dim=1)
        return hidden[torch.arange(len(hidden)), last]
    if mode == "mean":
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
    raise ValueError(f"pooling mode {mode!r} is none of cls, lasttoken, max, mean")
