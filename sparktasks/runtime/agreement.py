"""How far a bundle agrees with the one it was made from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.generation.generator import Generator, Reading
from sparktasks.runtime.generation.layout import generates
from sparktasks.runtime.generation.scheduler import Capacity
from sparktasks.runtime.generation.settings import Settings
from sparktasks.runtime.text_model import TextModel
from sparktasks.runtime.tokens import Lengths

_NEW_TOKENS = 16


@dataclass(frozen=True)
class Agreement:
    """How a model's outputs compare with those of the one it was made from, over some texts.

    ``cosine`` and ``lowest`` are the mean and the lowest cosine of the texts' outputs, all tokens of a text together;
    ``difference`` is the largest absolute one; ``same`` the share of equal top labels, of texts or of tokens (None where
    there are no labels to choose from); ``faster`` the ratio of the times. Of models that generate, the outputs are the
    logits of the next token, ``same`` is the share of equal ones, and the times are those of 16 new tokens.
    """

    texts: int
    cosine: float
    lowest: float
    difference: float
    same: float | None
    faster: float
    choice: str = "top label"

    def lines(self) -> list[str]:
        """Say it in words."""
        same = [] if self.same is None else [f"same {self.choice}: {self.same:.2%}"]
        return [
            f"texts: {self.texts:,}",
            f"cosine of the outputs: {self.cosine:.4f} mean, {self.lowest:.4f} lowest",
            f"largest difference of an output: {self.difference:.4g}",
            *same,
            f"speed on this machine: {self.faster:.2f} times",
        ]


def agreement(original: Bundle, made: Bundle, texts: Sequence[str], batch_tokens: int = 512) -> Agreement:
    """Run both models over the texts and compare their first outputs."""
    if generates(original):
        return _agreement(texts, [_next_tokens(each, texts, batch_tokens) for each in (original, made)], "next token")
    labels = original.logits.name == "logits"
    return _agreement(texts, [_outputs(each, original, texts, batch_tokens) for each in (original, made)], "top label" if labels else "")


Measured = tuple[float, list[np.ndarray]]


def _outputs(bundle: Bundle, original: Bundle, texts: Sequence[str], batch_tokens: int) -> Measured:
    """Return how long a text encoder takes, and each text's first output."""
    model = TextModel(bundle, Lengths(original.max_length), batch_tokens, "cpu")
    encodings, output = model.tokenizer.encode(texts, offsets=False), original.logits.name
    model.run(encodings[:8], output)
    return _timed(lambda: model.run(encodings, output))


def _next_tokens(bundle: Bundle, texts: Sequence[str], batch_tokens: int) -> Measured:
    """Return how long a generator takes, and the logits of the token after each text."""
    settings = Settings(max_new_tokens=_NEW_TOKENS, decoder_start_token_id=bundle.config.get("decoder_start_token_id"))
    room = None if bundle.positions is None else bundle.positions - _NEW_TOKENS
    generator = Generator(bundle, settings, Reading(room), Capacity(8, 1 << 16, batch_tokens), device="cpu")
    prompts = [prompt for prompt in generator.prompts(texts) if prompt.ids]
    generator.run(prompts[:1])
    seconds, _ = _timed(lambda: generator.run(prompts))
    return seconds, [generator.first_logits(prompt) for prompt in prompts]


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = run()
    return time.perf_counter() - started, found


def _agreement(texts: Sequence[str], measured: Sequence[Measured], choice: str) -> Agreement:
    (before, left), (after, right) = measured
    pairs = [(one.astype(np.float64), other.astype(np.float64)) for one, other in zip(left, right, strict=True)]
    cosines = [_cosine(one.ravel(), other.ravel()) for one, other in pairs]
    difference = max(float(np.abs(one - other).max()) for one, other in pairs)
    same = None
    if choice and pairs[0][0].shape[-1] > 1:
        same = float(np.mean(np.concatenate([np.atleast_1d(one.argmax(axis=-1) == other.argmax(axis=-1)) for one, other in pairs])))
    return Agreement(len(texts), float(np.mean(cosines)), min(cosines), difference, same, before / after, choice)


def _cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float(left @ right / max(np.linalg.norm(left) * np.linalg.norm(right), np.finfo(np.float64).tiny))
