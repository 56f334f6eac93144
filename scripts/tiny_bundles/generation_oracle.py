"""What transformers generates, one prompt at a time, in torch."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf


@dataclass(frozen=True)
class Record:
    """One generated sequence: its new tokens, their text, and the score that a beam search gave it."""

    ids: tuple[int, ...]
    text: str
    score: float | None = None


@functools.lru_cache(maxsize=4)
def twin_of(folder: Path) -> tuple[hf.PreTrainedModel, hf.PreTrainedTokenizerFast]:
    """Return the network and the tokenizer of a torch checkpoint."""
    config = hf.AutoConfig.from_pretrained(folder)
    auto = hf.AutoModelForSeq2SeqLM if config.is_encoder_decoder else hf.AutoModelForCausalLM
    network = auto.from_pretrained(folder).eval()
    settings = network.generation_config
    if settings.pad_token_id is None:
        settings.pad_token_id = end_ids(settings.eos_token_id)[0]  # as `generate` does, with a message for every prompt
    return network, hf.AutoTokenizer.from_pretrained(folder)


def generated(twin: Path, prompts: Iterable[str], **options: Any) -> list[list[Record]]:
    """Return for each prompt one record per returned sequence; options are those of `generate`."""
    network, tokenizer = twin_of(Path(twin))
    with calm():
        return [records(network, tokenizer, prompt, options) for prompt in prompts]


def traced(twin: Path, prompts: Iterable[str], **options: Any) -> list[tuple[tuple[int, ...], torch.Tensor]]:
    """Return for each prompt its new tokens and the logits that the network computed before each, untouched by any
    option."""
    network, tokenizer = twin_of(Path(twin))
    found = []
    with calm():
        for prompt in prompts:
            answer, (ids,) = answered(network, tokenizer, prompt, {**options, "output_logits": True})
            found.append((ids, torch.stack(answer.logits[: len(ids)])[:, 0]))
    return found


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """Let torch use one thread, and say nothing about options that others switch off."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        torch.set_num_threads(threads)


def records(
    network: hf.PreTrainedModel, tokenizer: hf.PreTrainedTokenizerFast, prompt: str, options: dict[str, Any]
) -> list[Record]:
    """Return what a network answers to one prompt."""
    answer, found = answered(network, tokenizer, prompt, options)
    scores = answer.sequences_scores.tolist() if "sequences_scores" in answer else [None] * len(found)
    texts = (tokenizer.decode(ids, skip_special_tokens=True) for ids in found)
    return [Record(ids, text, score) for ids, text, score in zip(found, texts, scores, strict=True)]


def answered(
    network: hf.PreTrainedModel, tokenizer: hf.PreTrainedTokenizerFast, prompt: str, options: dict[str, Any]
) -> tuple[Any, list[tuple[int, ...]]]:
    """Return what `generate` answers to one prompt, and the new tokens of each sequence."""
    batch = tokenizer(prompt, return_tensors="pt")
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    answer = network.generate(**given, **options, return_dict_in_generate=True, output_scores=True)
    start = 1 if network.config.is_encoder_decoder else given["input_ids"].shape[1]
    ends = end_ids(options.get("eos_token_id", network.generation_config.eos_token_id))
    return answer, [tuple(until_end(row[start:].tolist(), ends)) for row in answer.sequences]


def end_ids(value: int | list[int] | None) -> tuple[int, ...]:
    """Return the ids that end a text, given as one, several or none."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def until_end(ids: list[int], ends: tuple[int, ...]) -> list[int]:
    """Return the new tokens up to the first that ends the text, without the pads behind it."""
    place = next((number for number, token in enumerate(ids) if token in ends), len(ids))
    return ids[: place + 1]
