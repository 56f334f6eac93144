"""How far quantised forms of a bundle agree with it, how fast they are, and which of them to take."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import truediv
from typing import NamedTuple

import numpy as np

from sparktasks.errors import BundleError, ParamError
from sparktasks.ops.pooling import pool
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.generation.layout import generates
from sparktasks.runtime.sentence_files import TOKEN_OUTPUTS, read_sentence_files
from sparktasks.runtime.subjects import Encoding, Generation, Subject, seconds

NEXT_TOKEN, TOP_LABEL = "next token", "top label"

# Rounds of timing. Each runs every model once, so that what else the machine does falls on all of them.
_ROUNDS = 3

# What a form must keep to be recommended. One wrong label in a hundred, or vectors that turn by 2.5 degrees, lie below
# the differences between two training runs of a model. Next tokens are a choice among tens of thousands, where ties
# are so near that a changed token is seldom a worse one; below this, texts visibly go other ways.
_SHARES = {TOP_LABEL: 0.99, NEXT_TOKEN: 0.95}
_COSINE = 0.999

# A form that is not faster than this is worth its size only: rounds of one and the same model differ by as much.
_FASTER = 1.05

# Among fewer texts, a share or a mean rests on one or two of them.
_FEW_TEXTS = 100


class Verdict(NamedTuple):
    """How much a form keeps of what `recommendation` goes by, how much it must keep, and both in words."""

    kept: float
    needed: float
    reason: str


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
        lines = [
            f"texts: {self.texts:,}",
            f"cosine of the outputs: {self.cosine:.4f} mean, {self.lowest:.4f} lowest",
        ]
        if self.pooled is not None:
            lines.append(f"cosine of the text vectors: {self.pooled:.4f} mean")
        lines.append(f"largest difference of an output: {self.difference:.4g}")
        if self.same is not None:
            lines.append(f"same {self.choice}: {self.same:.2%}")
        speed = f"speed on this machine: {self.faster:.2f} times"
        if self.spread is not None:
            lowest, highest = self.spread
            speed += f" ({lowest:.2f}-{highest:.2f})"
        lines.append(speed)
        return lines

    def verdict(self) -> Verdict:
        """Judge by the share of equal choices, where there are choices, else by the cosine of text vectors or
        outputs."""
        if self.same is not None:
            needed = _SHARES[self.choice]
            reason = f"{self.same:.1%} of the {self.choice}s are the same ({needed:.1%} needed)"
            return Verdict(self.same, needed, reason)
        # Whoever embeds texts reads their vectors, never the outputs for single tokens.
        kept, what = self.cosine, "outputs"
        if self.pooled is not None:
            kept, what = self.pooled, "text vectors"
        return Verdict(kept, _COSINE, f"the cosine of the {what} is {kept:.4f} ({_COSINE} needed)")


def recommendation(results: Mapping[str, Agreement]) -> str:
    """Say in a sentence which of some forms to take, by precision: the fastest of those that keep enough.

    >>> recommendation({"int8": Agreement(200, 0.99, 0.9, 1, 0.92, 2.1), "int8w": Agreement(200, 1, 1, 0, 0.998, 1.4)})
    'Recommended: int8w, 1.40 times as fast as fp32; 99.8% of the top labels are the same (99.0% needed).'
    """
    verdicts = {name: result.verdict() for name, result in results.items()}
    good = {}
    for name, verdict in verdicts.items():
        if verdict.kept >= verdict.needed:
            good[name] = results[name]
    if not good:
        precision = max(verdicts, key=lambda name: verdicts[name].kept)
        sentence = f"Recommended: stay with fp32; of {precision}, {verdicts[precision].reason}"
        return _with_doubts(sentence, results[precision])

    precision = max(good, key=lambda name: good[name].faster)
    best = good[precision]
    speed = f"{best.faster:.2f} times as fast as fp32"
    if best.faster < _FASTER:
        speed = f"for its size only (it is {speed})"
    sentence = f"Recommended: {precision}, {speed}; {verdicts[precision].reason}"
    return _with_doubts(sentence, best)


def _with_doubts(sentence: str, result: Agreement) -> str:
    if result.texts >= _FEW_TEXTS:
        return f"{sentence}."
    return f"{sentence}. These are only {result.texts} texts: {_FEW_TEXTS} or more are surer."


def agreement(original: Bundle, form: Bundle, texts: Sequence[str], batch_tokens: int = 512) -> Agreement:
    """Run both models over the texts and compare their first outputs."""
    return agreements(original, {"form": form}, texts, batch_tokens)["form"]


def agreements(
    original: Bundle, forms: Mapping[str, Bundle], texts: Sequence[str], batch_tokens: int = 512, rounds: int = _ROUNDS
) -> dict[str, Agreement]:
    """Run a model and forms of it, by name, over the texts; compare the first outputs of each with the model's.

    In each of the rounds every model is timed once.
    """
    subjects = {name: _subject(bundle, original, texts, batch_tokens) for name, bundle in forms.items()}
    first = _subject(original, original, texts, batch_tokens)
    times = seconds([first, *subjects.values()], rounds)
    expected = first.outputs()
    results = {}
    for (name, subject), measured in zip(subjects.items(), times[1:], strict=True):
        # Round by round: what slows the machine down for a while, slows both.
        ratios = list(map(truediv, times[0], measured))
        results[name] = _compared(original, expected, subject.outputs(), ratios)
    return results


def _subject(bundle: Bundle, original: Bundle, texts: Sequence[str], batch_tokens: int) -> Subject:
    if generates(original):
        return Generation(bundle, texts, batch_tokens)
    return Encoding(bundle, original, texts, batch_tokens)


_Pairs = Sequence[tuple[np.ndarray, np.ndarray]]


def _compared(
    original: Bundle,
    left: Sequence[np.ndarray | None],
    right: Sequence[np.ndarray | None],
    ratios: Sequence[float],
) -> Agreement:
    """Compare the outputs of two models, text by text, leaving out texts that one of them cannot read."""
    pairs = _pairs(left, right)
    if not pairs:
        raise ParamError("the models can read none of the texts: there is nothing to compare")
    cosines = [_cosine(one.ravel(), other.ravel()) for one, other in pairs]
    differences = [float(np.abs(one - other).max()) for one, other in pairs]
    is_generator = generates(original)
    has_labels = is_generator or original.logits.name == "logits"
    return Agreement(
        texts=len(pairs),
        cosine=float(np.mean(cosines)),
        lowest=min(cosines),
        difference=max(differences),
        same=_same(pairs) if has_labels else None,
        faster=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        choice=NEXT_TOKEN if is_generator else TOP_LABEL,
        pooled=_pooled(original, pairs),
    )


def _pairs(left: Sequence[np.ndarray | None], right: Sequence[np.ndarray | None]) -> _Pairs:
    """Return both models' outputs for each text that both can read, in float64."""
    pairs = []
    for one, other in zip(left, right, strict=True):
        if one is None or other is None:
            continue
        # A text of no tokens has no outputs.
        if one.size and other.size:
            pairs.append((one.astype(np.float64), other.astype(np.float64)))
    return pairs


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
    except BundleError:
        # Of modules that TextEmbedder cannot follow; the states of tokens are compared all the same.
        return None
    cosines = [_cosine(pool(one, modes), pool(other, modes)) for one, other in pairs]
    return float(np.mean(cosines))


def _cosine(left: np.ndarray, right: np.ndarray) -> float:
    lengths = np.linalg.norm(left) * np.linalg.norm(right)
    # Two vectors of zeros are at no angle; they count as unlike.
    return float(left @ right / max(lengths, np.finfo(np.float64).tiny))
