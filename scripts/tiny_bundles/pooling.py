"""The pooling formulas of sentence-transformers (models/Pooling.py) in torch, and the files that describe them."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as hf

from .exports import write_json

FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


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


def write_pooling_files(folder: Path, mode: str, size: int, normalize: bool) -> None:
    """Write the list of modules and the pooling's config."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    if normalize:
        kinds["2_Normalize"] = "Normalize"
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds.items())
    ]
    flags = {flag: name == mode for name, flag in FLAGS.items()}
    write_json(folder / "modules.json", modules)
    write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": size, **flags, "include_prompt": True}
    )


def write_text_files(folder: Path, max_seq_length: int, lower_case: bool, prompts: dict[str, str]) -> None:
    """Write what sentence-transformers does with a text before its tokens run."""
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": lower_case})
    versions = {"sentence_transformers": "5.1.0", "transformers": hf.__version__, "pytorch": "2.8.0"}
    settings = {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(folder / "config_sentence_transformers.json", {"__version__": versions, **settings})
