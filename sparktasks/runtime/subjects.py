"""Models with some texts, to be timed and compared."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from sparktasks.errors import DataError
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.generation.generator import Generator, GeneratorOptions, Reading
from sparktasks.runtime.generation.scheduler import BatchLimits
from sparktasks.runtime.generation.settings import Settings
from sparktasks.runtime.text_model import TextModel
from sparktasks.runtime.tokens import Lengths

_NEW_TOKENS = 16

# Texts that are generated at once.
_SEQUENCES = 8

# The first runs open sessions and reserve memory; they are not timed.
_WARM_TEXTS = 2

# Texts that are timed: more of them would take minutes for a model that generates, and tell no more.
_TIMED_TEXTS = 32


class Subject(Protocol):
    """A model with some texts: what is timed, and what is compared."""

    def work(self, texts: int = _TIMED_TEXTS) -> object:
        """Do what is timed, on the first texts."""

    def outputs(self) -> list[np.ndarray | None]:
        """Return each text's first output; None for a text that the model cannot read."""


def seconds(subjects: Sequence[Subject], rounds: int, texts: int = _TIMED_TEXTS) -> list[list[float]]:
    """Time models in turn on their first texts, in rounds; returns the times of each.

    Each has run on a few texts before.
    """
    for subject in subjects:
        subject.work(_WARM_TEXTS)
    times: list[list[float]] = [[] for _ in subjects]
    for _ in range(rounds):
        for subject, measured in zip(subjects, times, strict=True):
            started = time.perf_counter()
            subject.work(texts)
            measured.append(time.perf_counter() - started)
    return times


class Encoding:
    """A text encoder that reads texts."""

    def __init__(self, bundle: Bundle, original: Bundle, texts: Sequence[str], batch_tokens: int = 512) -> None:
        self._model = TextModel(bundle, Lengths(original.max_length), batch_tokens, "cpu")
        self._encodings = self._model.tokenizer.encode(texts, offsets=False)
        self._output = original.logits.name

    def work(self, texts: int = _TIMED_TEXTS) -> object:
        """Run the first texts."""
        return self._model.run(self._encodings[:texts], self._output)

    def outputs(self) -> list[np.ndarray | None]:
        """Return each text's first output."""
        outputs: list[np.ndarray | None] = []
        for answer in self._model.run(self._encodings, self._output):
            outputs.append(None if isinstance(answer, DataError) else answer)
        return outputs


class Generation:
    """A generator that continues or answers texts, ``sequences`` of them at once."""

    def __init__(
        self,
        bundle: Bundle,
        texts: Sequence[str],
        batch_tokens: int = 512,
        sequences: int = _SEQUENCES,
    ) -> None:
        start = bundle.config.get("decoder_start_token_id")
        settings = Settings(max_new_tokens=_NEW_TOKENS, decoder_start_token_id=start)
        room = None if bundle.positions is None else bundle.positions - _NEW_TOKENS
        limits = BatchLimits(sequences, 1 << 16, batch_tokens)
        options = GeneratorOptions(settings, Reading(room), limits, device="cpu")
        self._generator = Generator(bundle, options)
        self._prompts = [prompt for prompt in self._generator.prompts(texts) if prompt.ids]

    def work(self, texts: int = _TIMED_TEXTS) -> object:
        """Generate 16 tokens after each of the first texts."""
        return self._generator.run(self._prompts[:texts])

    def outputs(self) -> list[np.ndarray | None]:
        """Return the logits of the token after each text."""
        return [self._generator.first_logits(prompt) for prompt in self._prompts]
