"""Proof that exported graphs answer as their network does: a padded batch, then steps with the cache."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from .checks import WeakBundle
from .generation_checks import Batch, Generator
from .generation_specs import CAUSAL, DECODER_MERGED, EMBED_TOKENS, ENCODER, GROUPED, HALF, GenerationSpec

TOLERANCE = 1e-4
ROUNDED = 8 * 2**-10  # of the largest logit: eight times what float16 cannot tell apart there
STEPS = 6
BATCH = 24
Arrays = dict[str, np.ndarray]


class Graphs:
    """The decoder of a bundle in one or two files, its encoder, and the graph that turns ids into vectors, where it has
    them."""

    def __init__(self, folder: Path, files: tuple[str, ...], head: int = 0) -> None:
        sessions = {
            file: onnxruntime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"]) for file in files
        }
        self.encoder, self.embed = (self.beside(sessions, name) for name in (ENCODER, EMBED_TOKENS))
        decoders = [*sessions.values()]
        self.first, self.later = decoders[0], decoders[-1]
        self.cache: Arrays = {}
        self.head = head  # what a key has room for, where a graph does not tell

    @staticmethod
    def beside(sessions: dict[str, Any], name: str) -> Any:
        """Take the graph of a name, in any precision, out of the decoder's; None where there is none."""
        return next((sessions.pop(file) for file in [*sessions] if file.startswith(Path(name).stem)), None)

    def encoded(self, batch: Arrays) -> Arrays:
        """Return what the decoder is given of the prompts at every step."""
        if self.encoder is None:
            return {}
        hidden = self.encoder.run(None, batch)[0]
        return {"encoder_hidden_states": hidden, "encoder_attention_mask": batch["attention_mask"]}

    def logits(self, number: int, given: Arrays, ids: np.ndarray) -> np.ndarray:
        """Return the logits behind all tokens so far, of which a graph with a cache is given the last only."""
        session = self.later if number else self.first
        items = {item.name: item for item in session.get_inputs()}
        past = {name: self.past(item, len(ids)) for name, item in items.items() if name.startswith("past_key_values")}
        fresh = ids[:, -1:] if number and past else ids
        inputs = {
            **given,
            **past,
            "input_ids": fresh,
            "use_cache_branch": np.array([number > 0]),
            "num_logits_to_keep": np.array(1),
        }
        if "position_ids" in given:
            inputs["position_ids"] = given["position_ids"][:, -fresh.shape[1] :]
        if self.embed is not None:
            inputs["inputs_embeds"] = self.embed.run(None, {"input_ids": fresh})[0]
        answer = session.run(None, {name: inputs[name] for name in items})
        outputs = {item.name: value for item, value in zip(session.get_outputs(), answer, strict=True)}
        self.cache |= {name: value for name, value in outputs.items() if name.startswith("present") and value.size}
        return outputs["logits"][:, -1].astype(np.float32)

    def past(self, item: Any, batch: int) -> np.ndarray:
        """Return one part of the cache, empty at the first step."""
        _, heads, _, size = item.shape
        size = self.head if isinstance(size, str) else size
        blank = np.zeros((batch, heads, 0, size), dtype=np.float16 if item.type == "tensor(float16)" else np.float32)
        return self.cache.get(item.name.replace("past_key_values", "present"), blank)


def check_generator(generator: Generator, folder: Path, prompts: Sequence[str]) -> float:
    """Return the largest difference of graphs and network; raise where it is no noise."""
    spec, head = generator.spec, getattr(generator.network.config, "head_dim", 0)
    batches = (
        [[prompt] for prompt in prompts[:BATCH]] if spec.layout == GROUPED else [prompts[:BATCH]]
    )  # which knows no pads before a text
    pairs = [
        pair
        for files in sets_of_files(spec)
        for batch in batches
        for pair in steps(generator, Graphs(folder / spec.subfolder, files, head), generator.batch(batch))
    ]
    worst = float(np.max([np.abs(found - true) for found, true in pairs]))
    loudest = float(np.max([np.abs(true) for _, true in pairs]))
    if not worst <= (ROUNDED * loudest if spec.precision == HALF else TOLERANCE):  # so that nan is refused
        raise WeakBundle(f"{spec.name}: graphs and network differ by {worst:.3g}")
    return worst


def sets_of_files(spec: GenerationSpec) -> Iterator[tuple[str, ...]]:
    """Yield the sets of files each of which generates alone."""
    if len(spec.files) == 4:
        yield tuple(file for file in spec.files if file != DECODER_MERGED)
        yield ENCODER, DECODER_MERGED
    else:
        yield spec.files


def steps(generator: Generator, graphs: Graphs, batch: Batch) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for every step the logits of the graphs, and those of the network that reads all tokens afresh."""
    is_causal = generator.spec.task == CAUSAL
    start = generator.network.generation_config.decoder_start_token_id
    ids = batch["input_ids"] if is_causal else torch.full_like(batch["input_ids"][:, :1], start)
    mask = batch["attention_mask"]
    known = graphs.encoded({name: value.numpy() for name, value in batch.items()})
    for number in range(STEPS):
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)
        tokens = {"attention_mask": mask, "position_ids": places} if is_causal else {}
        found = graphs.logits(number, known | {name: value.numpy() for name, value in tokens.items()}, ids.numpy())
        with torch.no_grad():
            true = generator.network(**reference(generator, batch, ids, tokens)).logits[:, -1]
        yield found, true.numpy()
        ids = torch.cat([ids, true.argmax(dim=-1, keepdim=True)], dim=1)
        if is_causal:
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)


def reference(generator: Generator, batch: Batch, ids: torch.Tensor, tokens: Batch) -> dict[str, Any]:
    """Return the inputs of the network, without a cache."""
    if not tokens:
        return {**batch, "decoder_input_ids": ids, "use_cache": False}
    taken = inspect.signature(generator.network.forward).parameters
    return {"input_ids": ids, "use_cache": False, **{name: value for name, value in tokens.items() if name in taken}}
