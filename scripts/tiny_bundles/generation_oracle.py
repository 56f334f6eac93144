"""What transformers generates in torch: without padding, and in padded batches, rightly or wrongly."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from .checks import Ids, Texts

STEPS = 24  # of the texts that networks are tried with
SHIFT = 3


@dataclass(frozen=True)
class Record:
    """One generated sequence: its new tokens, their text, and the score that a beam search gave it."""

    ids: Ids
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
    records: dict[int, list[Record]] = {}
    # What stops by a string has no end token: in a batch it would be followed by pads, which may be end tokens.
    for numbers, ids in alike(tokenizer, prompts, together="stop_strings" not in options):
        answer, sequences = answered(network, ids, options)
        scores = answer.sequences_scores.tolist() if "sequences_scores" in answer else [None] * len(sequences)
        each = len(sequences) // len(numbers)
        for place, new_ids in enumerate(sequences):
            record = Record(new_ids, tokenizer.decode(new_ids, skip_special_tokens=True), scores[place])
            records.setdefault(numbers[place // each], []).append(record)
    return [records[number] for number in range(len(records))]


def traced(twin: Path, prompts: Iterable[str], **options: Any) -> list[tuple[Ids, torch.Tensor]]:
    """Return for each prompt its new tokens and the logits that the network computed before each, without options'
    changes."""
    network, tokenizer = twin_of(Path(twin))
    traces: dict[int, tuple[Ids, torch.Tensor]] = {}
    for numbers, ids in alike(tokenizer, prompts):
        answer, sequences = answered(network, ids, {**options, "output_logits": True})
        logits = torch.stack(answer.logits)
        for row, (number, new_ids) in enumerate(zip(numbers, sequences, strict=True)):
            traces[number] = new_ids, logits[: len(new_ids), row]
    return [traces[number] for number in range(len(traces))]


def alike(
    tokenizer: hf.PreTrainedTokenizerFast, prompts: Iterable[str], together: bool = True
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield the numbers and ids (prompts, tokens) of prompts of one length, or of each alone.

    Those of one length are answered as each would be alone, since none is padded; 200 prompts in a third of the time.
    """
    rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    groups: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(len(row) if together else number, []).append(number)
    for numbers in groups.values():
        yield numbers, torch.tensor([rows[number] for number in numbers])


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


def answered(network: hf.PreTrainedModel, ids: torch.Tensor, options: dict[str, Any]) -> tuple[Any, list[Ids]]:
    """Return what `generate` answers to prompts (prompts, tokens), and the new tokens of each sequence."""
    with calm():
        answer = network.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **options,
            return_dict_in_generate=True,
            output_scores=True,
        )
    ends = end_ids(options.get("eos_token_id", network.generation_config.eos_token_id))
    return answer, new_tokens(network, answer.sequences, ids, ends)


def new_tokens(
    network: hf.PreTrainedModel, sequences: torch.Tensor, prompts: torch.Tensor, ends: tuple[int, ...]
) -> list[Ids]:
    """Return what follows the prompts, or a decoder's start token, in each sequence."""
    start = 1 if network.config.is_encoder_decoder else prompts.shape[1]
    return [tuple(until_end(row[start:].tolist(), ends)) for row in sequences]


def end_ids(value: int | list[int] | None) -> tuple[int, ...]:
    """Return the ids that end a text, given as one, several or none."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def until_end(ids: list[int], ends: tuple[int, ...]) -> list[int]:
    """Return the new tokens up to the first that ends the text, without the pads behind it."""
    place = next((number for number, token in enumerate(ids) if token in ends), len(ids))
    return ids[: place + 1]


# -- padded batches


@dataclass(frozen=True, eq=False)
class Prompts:
    """A batch of prompts (prompts, tokens) with their numbers; `shifted` misplaces what is generated."""

    feeds: dict[str, torch.Tensor]
    numbers: Sequence[int]
    shifted: bool = False


def padded(tokenizer: hf.PreTrainedTokenizerFast, texts: Sequence[str], fill: int, left: bool) -> Prompts:
    """Return texts as one batch, filled up on one side."""
    rows = [tokenizer(text).input_ids for text in texts]
    width = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        pads = width - len(row)
        before, after = (pads, 0) if left else (0, pads)
        ids.append([fill] * before + row + [fill] * after)
        mask.append([0] * before + [1] * len(row) + [0] * after)
    return Prompts({"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}, range(len(texts)))


def without_mask(prompts: Prompts) -> Prompts:
    """Return the prompts with a good many pads, all of them taken for tokens."""
    pads = (1 - prompts.feeds["attention_mask"]).sum(dim=1)
    rows = [row for row, count in enumerate(pads.tolist()) if count > SHIFT]
    ids = prompts.feeds["input_ids"][rows]
    feeds = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return Prompts(feeds, [prompts.numbers[row] for row in rows])


def generate(network: hf.PreTrainedModel, prompts: Prompts, **options: Any) -> tuple[list[Ids], torch.Tensor]:
    """Return the new tokens of each prompt and the logits (steps, prompts, vocabulary) of greedy search."""
    settings = {"max_new_tokens": STEPS, "num_beams": 1, "do_sample": False, **options}
    with shifted_positions(network) if prompts.shifted else contextlib.nullcontext():
        answer = network.generate(**prompts.feeds, **settings, return_dict_in_generate=True, output_logits=True)
    ends = end_ids(network.generation_config.eos_token_id)
    sequences = new_tokens(network, answer.sequences, prompts.feeds["input_ids"], ends)
    return sequences, torch.stack(answer.logits)


def texts_of(network: hf.PreTrainedModel, prompts: Prompts) -> Texts:
    """Return what greedy search generates, by the prompts' numbers."""
    sequences, logits = generate(network, prompts)
    best = logits.topk(2, dim=-1).values
    leads = best[..., 0] - best[..., 1]
    until_ends = [leads[: len(ids), row] for row, ids in enumerate(sequences)]
    return Texts(dict(zip(prompts.numbers, sequences, strict=True)), torch.cat(until_ends).numpy())


@contextlib.contextmanager
def shifted_positions(network: hf.PreTrainedModel) -> Iterator[None]:
    """Let a decoder's steps after the first stand too far behind the prompt."""
    prepare = network.prepare_inputs_for_generation

    @functools.wraps(prepare)  # whose parameters `generate` looks at
    def prepared(*args: Any, **options: Any) -> dict[str, Any]:
        inputs = prepare(*args, **options)
        if options["cache_position"][0] > 0:
            inputs["position_ids"] = inputs["position_ids"] + SHIFT
        return inputs

    network.prepare_inputs_for_generation = prepared
    try:
        yield
    finally:
        del network.prepare_inputs_for_generation
