"""Sentence bounds by punctuation: where long texts may be cut."""

from __future__ import annotations

import re

# What ends a sentence: a mark and closing quotes, before white space and something that is not a small letter; East
# Asian full stops need no space. Line breaks end a sentence too.
_BOUND = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s+[^\sa-z])|[。！？｡]+[」』”’）]*|(?<=\S)(?=\s*\n)")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|etc|e\.g|i\.e|cf|al|Inc|Ltd|Co|Corp|Fig|Eq|No|Nos|Vol|pp?"
    r"|approx|resp|U\.S|U\.K)\.$"
)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return begin and exclusive end of each sentence, without the white space around it.

    >>> text = "Dr. Who left. He ran!"
    >>> [text[begin:end] for begin, end in sentence_spans(text)]
    ['Dr. Who left.', 'He ran!']
    """
    spans: list[tuple[int, int]] = []
    begin = 0
    for bound in _BOUND.finditer(text):
        end = bound.end()
        if end > begin and not _ABBREVIATION.search(text, begin, end):
            _append_trimmed(spans, text, begin, end)
            begin = end
    _append_trimmed(spans, text, begin, len(text))
    return spans


def halves(text: str, begin: int, end: int) -> list[tuple[int, int]]:
    """Cut a part of a text at the white space nearest to its middle, or in the middle if there is none.

    >>> halves("to be or not", 0, 12)
    [(0, 5), (6, 12)]
    """
    middle = (begin + end) // 2
    before = after = middle
    while before > begin and not text[before].isspace():
        before -= 1
    while after < end and not text[after].isspace():
        after += 1

    cut = after
    if middle - before <= after - middle:
        cut = before
    if not begin < cut < end:
        cut = middle
    spans: list[tuple[int, int]] = []
    _append_trimmed(spans, text, begin, cut)
    _append_trimmed(spans, text, cut, end)
    return spans


def _append_trimmed(
    spans: list[tuple[int, int]],
    text: str,
    begin: int,
    end: int,
) -> None:
    """Append a span without the white space around it, unless nothing is left."""
    part = text[begin:end]
    first = begin + len(part) - len(part.lstrip())
    last = begin + len(part.rstrip())
    if first < last:
        spans.append((first, last))
