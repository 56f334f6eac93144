"""CoNLL-U sentences: syntactic words with their part of speech and their place in the raw text."""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Word:
    """A syntactic word; `start` and `end` place it in the sentence's text."""

    form: str
    tag: str
    start: int
    end: int


@dataclass
class Sentence:
    """A sentence's raw text and its syntactic words."""

    text: str
    words: list[Word] = field(default_factory=list)


def read_conllu(text: str) -> Iterator[Sentence]:
    """The sentences of a CoNLL-U file."""
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        raw = next(line.removeprefix("# text = ") for line in lines if line.startswith("# text = "))
        sentence = Sentence(raw)
        rows = [line.split("\t") for line in lines if line[:1].isdigit()]
        for surface, parts in surface_tokens(rows):
            place_words(sentence, surface, parts)
        yield sentence


def surface_tokens(rows: list[list[str]]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each surface token with the form and tag of its syntactic words: one, or those of a multiword line (`3-4`).

    Empty nodes (`8.1`) stand for words that are not in the text and are left out.
    """
    rows = [row for row in rows if "." not in row[0]]
    index = 0
    while index < len(rows):
        first, _, last = rows[index][0].partition("-")
        count = int(last) - int(first) + 1 if last else 1
        begin = index + 1 if last else index
        yield rows[index][1], [(row[1], row[3]) for row in rows[begin : begin + count]]
        index = begin + count


def place_words(sentence: Sentence, surface: str, parts: list[tuple[str, str]]) -> None:
    """Add the words of one surface token: side by side where they spell it, else each over the whole of it."""
    cursor = sentence.words[-1].end if sentence.words else 0
    start = sentence.text.index(surface, cursor)
    spelled = "".join(form for form, _ in parts) == surface
    for form, tag in parts:
        end = start + len(form if spelled else surface)
        sentence.words.append(Word(form, tag, start, end))
        start = end if spelled else start
