"""Proof that a bundle's texts can be wrong: generators whose answers would hide a mistake are refused."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf

from .generation_oracle import end_ids, until_end
from .generation_specs import CAUSAL, GenerationSpec

Ids = tuple[int, ...]
Batch = dict[str, torch.Tensor]

STEPS = 24
TOKENS = 8
LONE = 0.02
CHANGED = 0.5
ENDED = (0.1, 0.9)
LENGTHS = 6
GAP = 1e-3
RISKY = 0.01
SHIFT = 3
LOUDEST = 100.0
UNMOVED = ("t5", "mt5", "m2m_100")


@dataclass(frozen=True)
class GenerationEvidence:
    """How much the texts of a generator depend on what it is given; shares are of the prompts."""

    tokens: int  # different ones in all texts
    lone: float  # share of prompts whose text is that of another prompt
    ended: float  # share of texts that end before the limit
    lengths: int  # different ones
    risky: float  # share of steps whose best token leads by less than GAP
    unmasked: float  # share of texts that change when pads are not masked
    misplaced: float  # the same when positions are wrong; infinite where nothing in the graphs' inputs is a position

    def faults(self) -> list[str]:
        """Return what keeps this generator from being a parity bundle."""
        least = {"tokens": TOKENS, "lengths": LENGTHS, "ended": ENDED[0], "unmasked": CHANGED, "misplaced": CHANGED}
        most = {"lone": LONE, "ended": ENDED[1], "risky": RISKY}
        low = [
            f"{key} {getattr(self, key):.3g} < {bound}" for key, bound in least.items() if getattr(self, key) < bound
        ]
        return low + [
            f"{key} {getattr(self, key):.3g} > {bound}" for key, bound in most.items() if getattr(self, key) > bound
        ]


class Generator:
    """A network with its tokenizer that answers prompts in padded batches, rightly or deliberately wrongly."""

    def __init__(
        self, spec: GenerationSpec, network: hf.PreTrainedModel, tokenizer: hf.PreTrainedTokenizerFast
    ) -> None:
        self.spec, self.network, self.tokenizer = spec, network, tokenizer
        self.ends = end_ids(network.generation_config.eos_token_id)

    def batch(self, prompts: Sequence[str], side: str | None = None) -> Batch:
        """Return prompts as one batch, padded on the side where its task wants pads, or on the given one."""
        rows = [self.tokenizer(prompt).input_ids for prompt in prompts]
        width = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        fill = self.ends[0] if pad is None else pad
        left = (side or ("left" if self.spec.task == CAUSAL else "right")) == "left"
        ids = [[fill] * (width - len(row)) + row if left else row + [fill] * (width - len(row)) for row in rows]
        mask = [
            [0] * (width - len(row)) + [1] * len(row) if left else [1] * len(row) + [0] * (width - len(row))
            for row in rows
        ]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}

    def answers(self, batch: Batch, **options: Any) -> tuple[list[Ids], torch.Tensor]:
        """Return the new tokens of each prompt and the logits (steps, prompts, vocabulary)."""
        settings = {
            "max_new_tokens": STEPS,
            "num_beams": 1,
            "do_sample": False,
            "return_dict_in_generate": True,
            "output_logits": True,
        }
        answer = self.network.generate(**batch, **{**settings, **options})
        start = 1 if self.network.config.is_encoder_decoder else batch["input_ids"].shape[1]
        return [tuple(until_end(row[start:].tolist(), self.ends)) for row in answer.sequences], torch.stack(
            answer.logits
        )

    def unmasked(self, batch: Batch) -> list[Ids]:
        """Return the answers of a network that takes pads for tokens, and counts them."""
        seen = torch.ones_like(batch["attention_mask"])
        return self.answers({**batch, "attention_mask": seen})[0]

    def misplaced(self, prompts: Sequence[str]) -> list[Ids] | None:
        """Return the answers after a mistake about positions; None where the network could not notice one."""
        batch = self.batch(prompts)
        if self.spec.task != CAUSAL:
            return self.answers(self.batch(prompts, "left"))[0] if self.has_places() else None
        with shifted_positions(self.network) as moved:
            found = self.answers(batch)[0]
        return found if moved else None

    def has_places(self) -> bool:
        """Tell whether pads before a text move its tokens: not where distances count, nor where pads are not
        counted."""
        return self.network.config.model_type not in UNMOVED


@contextmanager
def shifted_positions(network: hf.PreTrainedModel) -> Iterator[list[bool]]:
    """Let a decoder's steps after the first stand too far behind the prompt; yields a list that is filled if they
    do."""
    prepare, moved = network.prepare_inputs_for_generation, []

    @functools.wraps(prepare)  # whose parameters `generate` looks at
    def prepared(*args: Any, **options: Any) -> dict[str, Any]:
        inputs = prepare(*args, **options)
        places = inputs.get("position_ids")
        if places is not None and options["cache_position"][0] > 0:
            moved.append(True)
            inputs["position_ids"] = places + SHIFT
        return inputs

    network.prepare_inputs_for_generation = prepared
    try:
        yield moved
    finally:
        del network.prepare_inputs_for_generation


def end_sometimes(generator: Generator, prompts: Sequence[str]) -> None:
    """Scale the output weights of the tokens that end a text, so that one is the best at `ends_at` of the steps.

    The factor is rounded, lest float noise make another network.
    """
    _, logits = generator.answers(generator.batch(prompts), forced_eos_token_id=None)
    others = logits.clone()
    others[..., generator.ends] = -torch.inf
    rivals = others.amax(dim=-1)
    with torch.no_grad():
        for end in generator.ends:
            factors = torch.where(logits[..., end] > 0, rivals / logits[..., end], torch.inf)
            factor = float(
                factors.flatten().quantile(generator.spec.ends_at / len(generator.ends), interpolation="lower")
            )
            generator.network.get_output_embeddings().weight[end] *= round(factor, 1) if factor < LOUDEST else 1.0


def examine_generator(generator: Generator, prompts: Sequence[str]) -> GenerationEvidence:
    """Measure how a generator answers true and deliberately wrong inputs."""
    prompts = list({tuple(generator.tokenizer(prompt).input_ids): prompt for prompt in prompts}.values())
    batch = generator.batch(prompts)
    true, logits = generator.answers(batch)
    unique = Counter(true)
    misplaced = generator.misplaced(prompts)
    return GenerationEvidence(
        tokens=len({token for ids in true for token in ids}),
        lone=sum(unique[ids] > 1 for ids in true) / len(true),
        ended=sum(len(ids) < STEPS for ids in true) / len(true),
        lengths=len({len(ids) for ids in true}),
        risky=risky_share(true, logits),
        unmasked=changed(padded(batch, true), padded(batch, generator.unmasked(batch))),
        misplaced=float("inf") if misplaced is None else changed(true, misplaced),
    )


def padded(batch: Batch, answers: list[Ids]) -> list[Ids]:
    """Return the answers to prompts with a good many pads."""
    pads = (1 - batch["attention_mask"]).sum(dim=1)
    return [ids for ids, count in zip(answers, pads, strict=True) if count > SHIFT]


def changed(true: list[Ids], wrong: list[Ids]) -> float:
    """Return the share of answers that differ."""
    return sum(a != b for a, b in zip(true, wrong, strict=True)) / len(true)


def risky_share(answers: list[Ids], logits: torch.Tensor) -> float:
    """Return the share of steps at which float noise might choose another token."""
    best = logits.topk(2, dim=-1).values
    gaps = best[..., 0] - best[..., 1]
    steps = [gaps[: len(ids), number] for number, ids in enumerate(answers)]
    return float((torch.cat(steps) < GAP).float().mean())
