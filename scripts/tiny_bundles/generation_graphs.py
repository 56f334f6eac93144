"""Whether exported graphs answer as their network does: a padded batch, then steps with the cache."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf

from .exports import open_graph
from .generation_exports import DECODER_MERGED, EMBED_TOKENS, ENCODER
from .generation_oracle import Prompts

STEPS = 6

Arrays = dict[str, np.ndarray]


class Graphs:
    """The decoder of a bundle in one or two files, its encoder, and the graph that turns ids into vectors, where it has
    them; `head` is what a key has room for, where a graph does not tell."""

    def __init__(self, folder: Path, files: Sequence[str], head: int = 0) -> None:
        sessions = {file: open_graph(folder / file) for file in files}
        self.encoder = self.pop(sessions, ENCODER)
        self.embed = self.pop(sessions, EMBED_TOKENS)
        decoders = list(sessions.values())
        self.first, self.later = decoders[0], decoders[-1]
        self.cache: Arrays = {}
        self.head = head

    @staticmethod
    def pop(sessions: dict[str, Any], name: str) -> Any:
        """Take the graph of a name, in any precision, out of the others; None where there is none."""
        return next((sessions.pop(file) for file in [*sessions] if file.startswith(Path(name).stem)), None)

    def encode(self, feeds: Arrays) -> Arrays:
        """Return what the decoder is fed of the prompts at every step."""
        if self.encoder is None:
            return {}
        hidden = self.encoder.run(None, feeds)[0]
        return {"encoder_hidden_states": hidden, "encoder_attention_mask": feeds["attention_mask"]}

    def logits(self, number: int, feeds: Arrays, ids: np.ndarray) -> np.ndarray:
        """Return the logits behind all tokens so far, of which a graph with a cache is fed the last only."""
        session = self.later if number else self.first
        inputs = {item.name: item for item in session.get_inputs()}
        past = {name: self.past(item, len(ids)) for name, item in inputs.items() if name.startswith("past_key_values")}
        new_ids = ids[:, -1:] if number and past else ids
        feeds = {
            **feeds,
            **past,
            "input_ids": new_ids,
            "use_cache_branch": np.array([number > 0]),
            "num_logits_to_keep": np.array(1),
        }
        if "position_ids" in feeds:
            feeds["position_ids"] = feeds["position_ids"][:, -new_ids.shape[1] :]
        if self.embed is not None:
            feeds["inputs_embeds"] = self.embed.run(None, {"input_ids": new_ids})[0]
        answer = session.run(None, {name: feeds[name] for name in inputs})
        outputs = {item.name: value for item, value in zip(session.get_outputs(), answer, strict=True)}
        self.cache |= {name: value for name, value in outputs.items() if name.startswith("present") and value.size}
        return outputs["logits"][:, -1].astype(np.float32)

    def past(self, item: Any, batch: int) -> np.ndarray:
        """Return one part of the cache, empty at the first step."""
        _, heads, _, size = item.shape
        size = self.head if isinstance(size, str) else size
        blank = np.zeros((batch, heads, 0, size), dtype=np.float16 if item.type == "tensor(float16)" else np.float32)
        return self.cache.get(item.name.replace("past_key_values", "present"), blank)


def compare_graphs(
    folder: Path, files: Sequence[str], network: hf.PreTrainedModel, batches: Sequence[Prompts]
) -> tuple[float, float]:
    """Return the largest difference of graphs and network, which is nan where one is, and the largest logit."""
    head = getattr(network.config, "head_dim", 0)
    differences, largest = [], 0.0
    for generating in generating_files(files):
        for prompts in batches:
            for logits, expected in steps(network, Graphs(folder, generating, head), prompts):
                differences.append(np.abs(logits - expected).max())
                largest = max(largest, float(np.abs(expected).max()))
    return float(np.max(differences)), largest


def generating_files(files: Sequence[str]) -> list[Sequence[str]]:
    """Return the sets of files each of which generates alone."""
    if len(files) < 4:
        return [files]
    return [[file for file in files if file != DECODER_MERGED], [ENCODER, DECODER_MERGED]]


def steps(network: hf.PreTrainedModel, graphs: Graphs, prompts: Prompts) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for every step the logits of the graphs, and those of the network that reads all tokens afresh."""
    is_causal = not network.config.is_encoder_decoder
    ids, mask = prompts.feeds["input_ids"], prompts.feeds["attention_mask"]
    if not is_causal:
        ids = torch.full_like(ids[:, :1], network.generation_config.decoder_start_token_id)
    encoded = graphs.encode(arrays(prompts.feeds))
    for number in range(STEPS):
        tokens = {}
        if is_causal:
            tokens = {"attention_mask": mask, "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)}
        logits = graphs.logits(number, encoded | arrays(tokens), ids.numpy())
        with torch.no_grad():
            expected = network(**reference(network, prompts, ids, tokens)).logits[:, -1]
        yield logits, expected.numpy()
        ids = torch.cat([ids, expected.argmax(dim=-1, keepdim=True)], dim=1)
        if is_causal:
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)


def arrays(tensors: dict[str, torch.Tensor]) -> Arrays:
    """Return tensors as onnxruntime takes them."""
    return {name: value.numpy() for name, value in tensors.items()}


def reference(
    network: hf.PreTrainedModel, prompts: Prompts, ids: torch.Tensor, tokens: dict[str, torch.Tensor]
) -> dict[str, Any]:
    """Return the inputs of the network, without a cache."""
    if not tokens:
        return {**prompts.feeds, "decoder_input_ids": ids, "use_cache": False}
    known = inspect.signature(network.forward).parameters
    return {"input_ids": ids, "use_cache": False, **{name: value for name, value in tokens.items() if name in known}}
