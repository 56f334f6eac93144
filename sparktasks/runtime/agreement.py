"""How far quantised forms of a bundle agree with it, how fast they are, and which of them to take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sparktasks.errors import BundleError, DataError, ParamError
from sparktasks.ops.pooling import pool
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.generation.generator import Generator, GeneratorOptions, Reading
from sparktasks.runtime.generation.layout import generates
from sparktasks.runtime.generation.scheduler import BatchLimits
from sparktasks.runtime.generation.settings import Settings
from sparktasks.runtime.sentence_files import TOKEN_OUTPUTS, read_sentence_files
from sparktasks.runtime.text_model import TextModel
from sparktasks.runtime.tokens import Lengths

NEXT_TOKEN, TOP_LABEL = "next token", "top label"

_NEW_TOKENS = 16
_SEQUENCES = 8  # texts that are generated at once

# Rounds of timing. Each runs every model once, so that what else the machine does falls on all of them.
_ROUNDS = 3
_WARM_TEXTS = 2

# Texts that are timed: more of them would take minutes for a model that generates, and tell no more.
_TIMED_TEXTS = 32

# What a form must keep to be recommended. One wrong label in a hundred, or vectors that turn by 2.5 degrees, lie below
# the differences between two training runs of a model. Next tokens are a choice among tens of thousands, where ties
# are so near that a changed token is seldom a worse one; below this, texts visibly go other ways.
_SHARES = {TOP_LABEL: 0.99, NEXT_TOKEN: 0.95}
_COSINE = 0.999

# A form that is not faster than this is worth its size only: rounds of one and the same model differ by as much.
_FASTER = 1.05

# Among fewer texts, a share or a mean rests on one or two of them.
_FEW_TEXTS = 100


@dataclass(frozen=True)
class Agreement:
    """How a model's outputs compare with those of the one it was made from, over some texts.

    ``cosine`` and ``lowest`` are the mean and the lowest cosine of the texts' outputs, all tokens of a text together;
    ``pooled`` the mean cosine of the texts' vectors, for models that embed; ``difference`` the largest absolute
    difference of an output; ``same`` the share of equal top labels, of texts or of tokens (None where there are no
    labels to choose from); ``faster`` the median over some rounds of the ratio of the times, ``spread`` its lowest and
    highest. Of models that generate, the outputs are the logits of the next token, ``same`` is the share of equal
    ones, and the times are those of 16 new tokens, 8 texts at once.
    """

    texts: int
    cosine: float
    lowest: float
    difference: float
    same: float | None
    faster: float
    choice: str = TOP_LABEL
    pooled: float | None = None
    spread: tuple[float, float] | None = None

    def lines(self) -> list[str]:
        """Say it in words."""
        same = [] if self.same is None else [f"same {self.choice}: {self.same:.2%}"]
        pooled = [] if self.pooled is None else [f"cosine of the text vectors: {self.pooled:.4f} mean"]
        spread = "" if self.spread is None else f" ({self.spread[0]:.2f}-{self.spread[1]:.2f})"
        return [
            f"texts: {self.texts:,}",
            f"cosine of the outputs: {self.cosine:.4f} mean, {self.lowest:.4f} lowest",
            *pooled,
            f"largest difference of an output: {self.difference:.4g}",
            *same,
            f"speed on this machine: {self.faster:.2f} times{spread}",
        ]

    @property
    def kept(self) -> float:
        """What `recommendation` goes by: the share of equal choices, else the cosine of text vectors or outputs."""
        if self.same is not None:
            return self.same
        return self.cosine if self.pooled is None else self.pooled

    @property
    def needed(self) -> float:
        """How much of that a form must keep to be recommended."""
        return _COSINE if self.same is None else _SHARES[self.choice]

    def reason(self) -> str:
        """Say what is kept."""
        if self.same is not None:
            return f"{self.same:.1%} of the {self.choice}s are the same"
        what = "outputs" if self.pooled is None else "text vectors"
        return f"the cosine of the {what} is {self.kept:.4f}"

    def limit(self) -> str:
        """Say what is needed."""
        return f"{self.needed:.1%}" if self.same is not None else f"{self.needed}"


def recommendation(results: Mapping[str, Agreement]) -> str:
    """Say in a sentence which of some forms to take, by precision: the fastest of those that keep enough.

    >>> recommendation({"int8": Agreement(200, 0.99, 0.9, 1, 0.92, 2.1), "int8w": Agreement(200, 1, 1, 0, 0.998, 1.4)})
    'Recommended: int8w, 1.40 times as fast as fp32; 99.8% of the top labels are the same (99.0% needed).'
    """
    good = {name: result for name, result in results.items() if result.kept >= result.needed}
    if not good:
        precision = max(results, key=lambda name: results[name].kept)
        best = results[precision]
        sentence = f"Recommended: stay with fp32; of {precision}, {best.reason()} ({best.limit()} needed)"
        return _with_doubts(sentence, best)
    precision = max(good, key=lambda name: good[name].faster)
    best = good[precision]
    speed = f"{best.faster:.2f} times as fast as fp32"
    if best.faster < _FASTER:
        speed = f"for its size only (it is {speed})"
    return _with_doubts(f"Recommended: {precision}, {speed}; {best.reason()} ({best.limit()} needed)", best)


def _with_doubts(sentence: str, result: Agreement) -> str:
    if result.texts >= _FEW_TEXTS:
        return f"{sentence}."
    return f"{sentence}. These are only {result.texts} texts: {_FEW_TEXTS} or more are surer."


def agreement(original: Bundle, made: Bundle, texts: Sequence[str], batch_tokens: int = 512) -> Agreement:
    """Run both models over the texts and compare their first outputs."""
    return agreements(original, {"made": made}, texts, batch_tokens)["made"]


def agreements(
    original: Bundle, made: Mapping[str, Bundle], texts: Sequence[str], batch_tokens: int = 512, rounds: int = _ROUNDS
) -> dict[str, Agreement]:
    """Run a model and forms of it, by name, over the texts; compare the first outputs of each with the model's.

    In each of the rounds every model is timed once.
    """
    subjects = {name: _subject(bundle, original, texts, batch_tokens) for name, bundle in made.items()}
    first = _subject(original, original, texts, batch_tokens)
    times = seconds([first, *subjects.values()], rounds)
    expected = first.outputs()
    results = {}
    for (name, subject), measured in zip(subjects.items(), times[1:], strict=True):
        ratios = [before / after for before, after in zip(times[0], measured, strict=True)]
        results[name] = _compared(original, expected, subject.outputs(), ratios)
    return results


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


def _subject(bundle: Bundle, original: Bundle, texts: Sequence[str], batch_tokens: int) -> Subject:
    if generates(original):
        return Generation(bundle, texts, batch_tokens)
    return Encoding(bundle, original, texts, batch_tokens)


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
        answers = self._model.run(self._encodings, self._output)
        return [None if isinstance(answer, DataError) else answer for answer in answers]


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


_Pairs = Sequence[tuple[np.ndarray, np.ndarray]]


def _compared(
    original: Bundle,
    left: Sequence[np.ndarray | None],
    right: Sequence[np.ndarray | None],
    ratios: Sequence[float],
) -> Agreement:
    """Compare the outputs of two models, text by text, leaving out texts that one of them cannot read."""
    pairs = []
    for one, other in zip(left, right, strict=True):
        if one is not None and other is not None and one.size and other.size:
            pairs.append((one.astype(np.float64), other.astype(np.float64)))
    if not pairs:
        raise ParamError("the models can read none of the texts: there is nothing to compare")
    cosines = [_cosine(one.ravel(), other.ravel()) for one, other in pairs]
    differences = [float(np.abs(one - other).max()) for one, other in pairs]
    is_generator = generates(original)
    chooses = is_generator or original.logits.name == "logits"
    return Agreement(
        texts=len(pairs),
        cosine=float(np.mean(cosines)),
        lowest=min(cosines),
        difference=max(differences),
        same=_same(pairs) if chooses else None,
        faster=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        choice=NEXT_TOKEN if is_generator else TOP_LABEL,
        pooled=_pooled(original, pairs),
    )


def _same(pairs: _Pairs) -> float | None:
    """Return the share of equal choices, of all texts or all their tokens; None where there is only one to choose."""
    if pairs[0][0].shape[-1] <= 1:
        return None
    equal = [np.atleast_1d(one.argmax(axis=-1) == other.argmax(axis=-1)) for one, other in pairs]
    return float(np.mean(np.concatenate(equal)))


def _pooled(original: Bundle, pairs: _Pairs) -> float | None:
    """Return the mean cosine of the texts' vectors; None where the outputs are not the states of tokens."""
    if generates(original) or original.logits.name not in TOKEN_OUTPUTS:
        return None
    try:
        modes = read_sentence_files(original).pooling
    except BundleError:  # of modules that TextEmbedder cannot follow; the states of tokens are compared all the same
        return None
    cosines = [_cosine(pool(one, modes), pool(other, modes)) for one, other in pairs]
    return float(np.mean(cosines))


def _cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float(left @ right / max(np.linalg.norm(left) * np.linalg.norm(right), np.finfo(np.float64).tiny))
