"""Where sentences end."""

from __future__ import annotations

import pytest

from sparktasks.ops.sentences import halves, sentence_spans


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One. Two!", ["One.", "Two!"]),
        ("Dr. Who met Mr. J. Smith. They left.", ["Dr. Who met Mr. J. Smith.", "They left."]),
        ('"Stop!" he said. "Why?" she asked', ['"Stop!" he said.', '"Why?" she asked']),
        ("It costs 3.50 in the U.S. today. Yes.", ["It costs 3.50 in the U.S. today.", "Yes."]),
        ("今日は晴れ。明日は雨!", ["今日は晴れ。", "明日は雨!"]),
        ("A heading\nA sentence. \n\n Another", ["A heading", "A sentence.", "Another"]),
        ("no end", ["no end"]),
        ("  \n ", []),
        ("", []),
    ],
)
def test_sentences_end_where_readers_see_it(text: str, wanted: list[str]) -> None:
    assert [text[begin:end] for begin, end in sentence_spans(text)] == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("to be or not to be", ["to be or", "not to be"]),
        ("a verylongword", ["a", "verylongword"]),
        ("verylongword a", ["verylongword", "a"]),
        ("abcdef", ["abc", "def"]),
        ("ab", ["a", "b"]),
        ("今日は晴れ", ["今日", "は晴れ"]),
    ],
)
def test_halves_are_cut_at_white_space_where_there_is_some(text: str, wanted: list[str]) -> None:
    spans = halves(f"x {text} y", 2, 2 + len(text))
    assert [f"x {text} y"[begin:end] for begin, end in spans] == wanted
