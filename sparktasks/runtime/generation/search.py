"""What every search for the next token has: requests, rules, results, and the state of each text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sparktasks.ops.logits import log_parts
from sparktasks.ops.sampling import keep_epsilon, keep_eta, keep_min_p, keep_top_k, keep_top_p, keep_typical
from sparktasks.runtime.generation.batch import Batch, History
from sparktasks.runtime.generation.processors import Processor, Progress
from sparktasks.runtime.generation.settings import Settings

if TYPE_CHECKING:
    from typing_extensions import Self

EOS, STOP, LENGTH = "eos", "stop", "length"
Stops = Callable[[list[int]], bool]


@dataclass(frozen=True)
class Request:
    """A text to generate.

    ``prompt`` is read by the decoder, ``source`` by the encoder if there is one; ``key`` seeds the sampling, and
    ``limit`` is the most tokens that may be generated.
    """

    prompt: tuple[int, ...]
    source: tuple[int, ...] = ()
    key: bytes = b""
    forced_first: int | None = None
    limit: int = 0

    @property
    def encoder_input(self) -> tuple[int, ...]:
        """The tokens that the encoder reads; without an encoder, the prompt, as Hugging Face's processors have it."""
        return self.source or self.prompt


@dataclass(frozen=True)
class Generated:
    """New tokens, the end token included; ``score`` is their mean log-probability, ``reason`` why there are no more."""

    ids: list[int]
    reason: str
    score: float


Result = list[Generated] | Exception


@dataclass(frozen=True)
class Rules:
    """What a search obeys: settings, processors, and stop strings.

    ``stops`` says whether a text ends with one, by the text's last ``stop_tokens`` tokens.
    """

    settings: Settings
    processors: Sequence[Processor]
    stops: Stops | None
    stop_tokens: int = 0

    def active(self, progress: Progress) -> list[Processor]:
        """Return the processors that change some row's scores now."""
        return [processor for processor in self.processors if len(processor.rows(progress))]

    def ends(self, tokens: np.ndarray) -> np.ndarray:
        """Return which tokens end a text."""
        return np.isin(tokens, self.settings.eos_token_id)

    def stopped(self, history: History) -> np.ndarray:
        """Return which rows end with a stop string."""
        stopped = np.zeros(len(history.lengths), bool)
        if self.stops is not None:
            counts = np.minimum(history.lengths, self.stop_tokens)
            for row, count in enumerate(counts.tolist()):
                stopped[row] = self.stops(history.row(row, count))
        return stopped


class Search(Protocol):
    """The texts of a batch that are being generated: ``width`` rows each."""

    width: int

    def advance(self, logits: np.ndarray, batch: Batch) -> list[tuple[int, Result]]:
        """Choose each row's next token by logits ``(rows, vocabulary)``, float32, and append it to the batch's history.

        Returns the texts that are finished, by place.
        """

    def take(self, places: np.ndarray) -> Self:
        """Return the search of some of the texts."""

    def join(self, other: Self) -> None:
        """Add the texts of another search after these."""


class NotANumber(ValueError):
    """A model computed no numbers where scores of tokens are expected."""

    def __init__(self) -> None:
        super().__init__("the model computed logits that are NaN or infinite")


class NothingAllowed(ValueError):
    """Settings contradict each other: no token is left to generate."""

    def __init__(self) -> None:
        super().__init__(
            "no token is left that all settings allow: jsonSchema or regex, badWords, suppressTokens, "
            "noRepeatNgramSize and minNewTokens may contradict each other"
        )


@dataclass
class TextStates:
    """What a search of any kind knows of its texts, one value per text.

    ``new`` counts the tokens that were generated, ``limits`` how many there may be; ``forced_first`` is -1 for a text
    whose first token is free; ``random`` is empty for a search that does not sample.
    """

    new: np.ndarray
    limits: np.ndarray
    forced_first: np.ndarray
    encoder_inputs: list[tuple[int, ...]]
    random: list[np.random.Generator]

    @classmethod
    def of(cls, requests: Sequence[Request], do_sample: bool) -> TextStates:
        """Return the states of texts that begin."""
        states = cls(
            new=np.zeros(len(requests), np.int64),
            limits=np.zeros(len(requests), np.int64),
            forced_first=np.full(len(requests), -1),
            encoder_inputs=[],
            random=[],
        )
        for place, request in enumerate(requests):
            states.limits[place] = request.limit
            if request.forced_first is not None:
                states.forced_first[place] = request.forced_first
            states.encoder_inputs.append(request.encoder_input)
            if do_sample:
                # A text's own random numbers depend on its key alone, not on the texts beside it.
                key = int.from_bytes(request.key[:16], "little")
                states.random.append(np.random.Generator(np.random.Philox(key=key)))
        return states

    def take(self, places: np.ndarray) -> TextStates:
        """Return the states of some of the texts."""
        random: list[np.random.Generator] = []
        if self.random:
            random = [self.random[place] for place in places]
        return TextStates(
            new=self.new[places],
            limits=self.limits[places],
            forced_first=self.forced_first[places],
            encoder_inputs=[self.encoder_inputs[place] for place in places],
            random=random,
        )

    def join(self, other: TextStates) -> TextStates:
        """Return the states of these texts, and of those of another search after them."""
        return TextStates(
            new=np.concatenate([self.new, other.new]),
            limits=np.concatenate([self.limits, other.limits]),
            forced_first=np.concatenate([self.forced_first, other.forced_first]),
            encoder_inputs=self.encoder_inputs + other.encoder_inputs,
            random=self.random + other.random,
        )


def check_logits(logits: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return logits, their `log_parts`, and which rows are broken: those whose highest is no finite number.

    Broken rows become zeros, so that nothing computes with them.
    """
    with np.errstate(invalid="ignore"):  # broken rows are what this is about
        parts = log_parts(logits)
    broken: np.ndarray = ~np.isfinite(parts[0][:, 0])
    if broken.any():
        logits = np.where(broken[:, None], np.float32(0), logits)
        parts = log_parts(logits)
    return logits, parts, broken


def filter_scores(scores: np.ndarray, settings: Settings, keep: int) -> None:
    """Drop the tokens that must not be sampled, in place; at least ``keep`` per row stay."""
    if settings.temperature != 1.0:
        scores /= settings.temperature
    if settings.top_k:
        keep_top_k(scores, settings.top_k, keep)
    if settings.top_p < 1.0:
        keep_top_p(scores, settings.top_p, keep)
    if settings.min_p is not None:
        keep_min_p(scores, settings.min_p, keep)
    if settings.typical_p < 1.0:
        keep_typical(scores, settings.typical_p, keep)
    if 0.0 < settings.epsilon_cutoff < 1.0:
        keep_epsilon(scores, settings.epsilon_cutoff, keep)
    if 0.0 < settings.eta_cutoff < 1.0:
        keep_eta(scores, settings.eta_cutoff, keep)
