"""Sentence bounds by punctuation: where long texts may be cut."""

from __future__ import annotations

import re

# What ends a sentence: a mark and closing quotes, before white space and something that is not a small letter; East
# Asian full stops need no space. Line breaks end a sentence too.
_BOUND = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s+[^\sa-z])|[。！？｡]+[」』”’）]*|(?<=\S)(?=\s*\n)")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|etc|e\.g|i\.e|cf|al|Inc|Ltd|Co|Corp|Fig|Eq|No|Nos|Vol|pp?|approx|resp|U\.S|U\.K)\.$"
)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return begin and exclusive end of each sentence, white space around it left out.

    >>> [text[begin:end] for text in ["Dr. Who left. He ran!"] for begin, end in sentence_spans(text)]
    ['Dr. Who left.', 'He ran!']
    """
    spans, begin = [], 0
    for bound in _BOUND.finditer(text):
        end = bound.end()
        if end > begin and not _ABBREVIATION.search(text, begin, end):
            spans.append((begin, end))
            begin = end
    spans.append((begin, len(text)))
    return [span for span in (_trimmed(text, *span) for span in spans) if span[0] < span[1]]


def _trimmed(text: str, begin: int, end: int) -> tuple[int, int]:
    part = text[begin:end]
    return begin + len(part) - len(part.lstrip()), end - (len(part) - len(part.rstrip()))


def halves(text: str, begin: int, end: int) -> list[tuple[int, int]]:
    """Cut a part of a text at the white space nearest to its middle, or in the middle where there is none.

    >>> halves("to be or not", 0, 12)
    [(0, 5), (6, 12)]
    """
    middle = (begin + end) // 2
    after = next((place for place in range(middle, end) if text[place].isspace()), end)
    before = next((place for place in range(middle, begin, -1) if text[place].isspace()), begin)
    cut = before if middle - before <= after - middle else after
    cut = cut if begin < cut < end else middle
    return [span for span in (_trimmed(text, begin, cut), _trimmed(text, cut, end)) if span[0] < span[1]]
