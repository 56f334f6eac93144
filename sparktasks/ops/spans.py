"""Entities from token probabilities, as transformers' token-classification pipeline computes them (version 4.57.6)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

STRATEGIES = ("none", "simple", "first", "average", "max")


class Entity(NamedTuple):
    """A labelled span of a text: ``text[start:end]``."""

    label: str
    start: int
    end: int
    score: float


class Tokens(NamedTuple):
    """The text tokens of one window: probabilities ``(tokens, labels)``, spans, and which tokens continue a word."""

    scores: np.ndarray
    spans: Sequence[tuple[int, int]]
    is_subword: Sequence[bool]


def aggregate(tokens: Tokens, labels: Sequence[str], strategy: str) -> list[Entity]:
    """Turn the tokens of one window into entities by one of `STRATEGIES`; every label is kept, ``O`` too."""
    if strategy == "none":
        return label_tokens(tokens, labels)
    if strategy == "simple":
        return group(label_tokens(tokens, labels))
    return group(label_words(tokens, labels, strategy))


def label_tokens(tokens: Tokens, labels: Sequence[str]) -> list[Entity]:
    """Label each token with its most probable label."""
    best = tokens.scores.argmax(axis=-1)
    scores = tokens.scores[np.arange(len(best)), best].tolist()
    entities = []
    for label, span, score in zip(best.tolist(), tokens.spans, scores, strict=True):
        start, end = span
        entities.append(Entity(labels[label], start, end, score))
    return entities


def label_words(tokens: Tokens, labels: Sequence[str], strategy: str) -> list[Entity]:
    """Join subwords to words and label each word: by its first token, its most certain token, or its mean."""
    entities = []
    for first, stop in _words(tokens.is_subword):
        scores = _WORD_SCORES[strategy](tokens.scores[first:stop])
        best = int(scores.argmax())
        start, _ = tokens.spans[first]
        _, end = tokens.spans[stop - 1]
        entities.append(
            Entity(
                label=labels[best],
                start=start,
                end=end,
                score=float(scores[best]),
            )
        )
    return entities


# From the probabilities of a word's tokens, ``(tokens, labels)``, to those of the word.
_WORD_SCORES = {
    "first": lambda scores: scores[0],
    "average": lambda scores: np.nanmean(scores, axis=0),
    "max": lambda scores: scores[scores.max(axis=-1).argmax()],
}


def _words(is_subword: Sequence[bool]) -> list[tuple[int, int]]:
    """Return the first token of each word, and the one behind its last."""
    starts = [index for index, continues in enumerate(is_subword) if index == 0 or not continues]
    return list(pairwise([*starts, len(is_subword)]))


def group(entities: Sequence[Entity]) -> list[Entity]:
    """Join neighbours of one type; ``B-`` always begins a new group, and a label without a prefix counts as ``I-``."""
    groups: list[list[Entity]] = []
    previous_kind = None
    for entity in entities:
        prefix, kind = _split(entity.label)
        if prefix != "B" and kind == previous_kind:
            groups[-1].append(entity)
        else:
            groups.append([entity])
        previous_kind = kind
    return [_join(members) for members in groups]


def _split(label: str) -> tuple[str, str]:
    """Return the prefix of a label, and its type."""
    if label.startswith(("B-", "I-")):
        return label[0], label[2:]
    return "I", label


def _join(members: Sequence[Entity]) -> Entity:
    # transformers drops whatever stands before the first dash here, a prefix or not.
    label = members[0].label.split("-", 1)[-1]
    scores = np.array([member.score for member in members], np.float32)
    return Entity(
        label,
        start=members[0].start,
        end=members[-1].end,
        score=float(np.nanmean(scores)),
    )


def resolve_overlaps(entities: Sequence[Entity]) -> list[Entity]:
    """Where entities of neighbouring windows overlap, keep the longer one, and of equal length the one with the higher
    score."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda entity: entity.start):
        if not kept or entity.start >= kept[-1].end:
            kept.append(entity)
            continue
        rival = kept[-1]
        if (entity.end - entity.start, entity.score) > (rival.end - rival.start, rival.score):
            kept[-1] = entity
    return kept


# Schemes differ in the letters of their tags; BIOES is what `chunks` computes with.
_SAME_TAG = {"L": "E", "U": "S", "M": "I"}
_TAGS = frozenset("BIESLUM")

# Tags that begin a chunk although the chunk before may be of the same type.
_STARTS_AFTER = {"E": "EI", "S": "EI", "O": "EI"}


def chunks(labels: Sequence[str]) -> list[tuple[str, int, int]]:
    """Decode per-token labels (IOB1, IOB2, IOE1, IOE2, BIOES, BILOU) to (type, first token, last token).

    The rules are those of the CoNLL-2000 evaluation script, which read every scheme and forgive broken sequences.

    >>> chunks(["B-PER", "I-PER", "O", "S-LOC", "I-ORG", "E-ORG"])
    [('PER', 0, 1), ('LOC', 3, 3), ('ORG', 4, 5)]
    """
    result: list[tuple[str, int, int]] = []
    tag, kind = "O", ""
    start = None
    for index, label in enumerate([*labels, "O"]):  # the last one closes a chunk that is open at the end
        next_tag, next_kind = _tag(label)
        changes = kind != next_kind
        if start is not None and (changes or tag in "ES" or next_tag in "BSO"):
            result.append((kind, start, index - 1))
            start = None
        starts = changes or next_tag in "BS" or next_tag in _STARTS_AFTER.get(tag, "")
        if starts and next_tag != "O":
            start = index
        tag, kind = next_tag, next_kind
    return result


def _tag(label: str) -> tuple[str, str]:
    """Return the BIOES tag of a label, and its type; a label without a tag is inside (``I``)."""
    if label == "O":
        return "O", ""
    prefix, dash, kind = label.partition("-")
    if dash and prefix in _TAGS:
        return _SAME_TAG.get(prefix, prefix), kind
    return "I", label
