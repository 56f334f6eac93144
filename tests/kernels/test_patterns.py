"""Patterns of users find what Python's ``re`` finds, in every script, and end in time."""

from __future__ import annotations

import re
import time
import warnings

import pytest

from sparktasks.errors import DataError
from sparktasks.ops.patterns import Pattern, cannot_backtrack, check_pattern

TEXTS = [
    "हिन्दी में café é naïve a\x1cb\u2028c 😀x ²½ Ⅷ _a' don't e-mail [x] ^y] 3.5%",
    "ﬁ İstanbul ǅ\u0345 ①② x\xa0y STRASSE straße",
    "Mr. Brown's 12.5 % of €3,000.\n\nab@c.de\taab",
    "",
    " \n ",
]
LINEAR = [r"\s+", r"\w+|[^\w\s]", r"[^\W\d_]+", r"\S+", r"[a-z]|[A-Z]+|.", r"x"]
OTHERS = [
    r"\w+(?:['’-]\w+)*",
    r"\b\w",
    r"\B.",
    r"[]x]+y?",
    r"[^]a]+b?",
    r"[[a]+x?",
    r"(\w)\1",
    r"(?i)straße|É",
    r"\S+@\S+",
    r"a*",
    r"(?<=\d)\.\d+",
    r"[\w'-]+\s*",
    r"(?m)^\w+$",
    r"(?s).+?\s",
    r"(?a)\w+b?",
]


def parts_by_re(pattern: str, text: str) -> list[str]:
    parts, end = [], 0
    for match in re.finditer(pattern, text):
        parts += [text[end : match.start()], match[0]]
        end = match.end()
    return [*parts, text[end:]]


@pytest.mark.parametrize("pattern", LINEAR + OTHERS)
def test_parts_are_those_of_re(pattern: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of re, for a bracket in a set
        check_pattern(pattern)
        for text in TEXTS:
            assert Pattern(pattern, 5.0).cutter()(text) == parts_by_re(pattern, text), text


def test_only_patterns_that_cannot_backtrack_run_without_a_limit() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        assert [pattern for pattern in LINEAR if not cannot_backtrack(pattern)] == []
        assert [pattern for pattern in OTHERS if cannot_backtrack(pattern)] == []
    assert not cannot_backtrack("(")


@pytest.mark.parametrize("pattern", LINEAR)
def test_patterns_without_a_limit_are_fast_on_any_text(pattern: str) -> None:
    for text in ("a" * 300_000, " " * 300_000, "a " * 150_000):
        begun = time.process_time()
        Pattern(pattern, 5.0).cutter()(text)
        assert time.process_time() - begun < 5


def test_a_search_is_ended() -> None:
    with pytest.raises(DataError, match=r"the pattern '\(a\+\)\+b' takes more than 0.1 seconds"):
        Pattern("(a+)+b", 0.1).cutter()("a" * 30_000 + "c b")


def test_what_is_no_pattern_is_refused() -> None:
    for pattern in ("(", "[", "*", "(?<=a+)b"):
        with pytest.raises(re.error):
            check_pattern(pattern)
