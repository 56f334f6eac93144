"""Regular expressions that users give: each search ends in time, on any text.

Python's ``re`` can take hours over one text (``(a+)+b``, but also ``a+b`` over a million a's), and nothing stops it.
Patterns that cannot backtrack run by ``re``; all others by the ``regex`` package under a time limit.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import regex

from sparktasks.errors import DataError

_parser: Any = re._parser  # type: ignore[attr-defined]  # sre_parse, which re itself compiles with

SINGLE = {"LITERAL", "NOT_LITERAL", "IN", "ANY", "CATEGORY"}
REPEATS = {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}


@dataclass(frozen=True)
class Pattern:
    """A compiled pattern; ``seconds`` is what one text may take."""

    source: str
    seconds: float

    def cutter(self) -> Callable[[str], list[str]]:
        """Return what cuts a text at the matches: what stands before the first one, the first match, and so on.

        Its lists have an odd length, and joined they are the text. It raises `DataError` where a text takes too long.
        """
        compiled, is_linear = _compiled(self.source)
        if is_linear:
            split: Callable[[str], list[str]] = compiled.split
            return split

        def cut(text: str) -> list[str]:
            parts: list[str] = []
            end = 0
            try:
                for match in compiled.finditer(text, timeout=self.seconds):
                    begin, stop = match.span()
                    parts += (text[end:begin], text[begin:stop])
                    end = stop
            except TimeoutError:
                raise DataError(
                    f"the pattern {self.source!r} takes more than {self.seconds:g} seconds over this text"
                ) from None
            parts.append(text[end:])
            return parts

        return cut

    def separator(self, is_matched: bool) -> str | None:
        """Return a character that may stand between texts, so that they can be cut in one go.

        With ``is_matched`` it is one that the pattern matches, else one that it does not: no match, or no piece between
        two matches, then reaches from one text into the next. None where there is no such character, or where what a
        pattern matches may depend on what stands around it.
        """
        compiled, is_linear = _compiled(self.source)
        if not is_linear:
            return None
        for character in _SEPARATORS:
            if (compiled.fullmatch(character) is not None) == is_matched:
                return character
        return None


_SEPARATORS = "\n \x00\x1fa0.,-"


def check_pattern(source: str) -> None:
    """Raise ``re.error`` where a pattern is not a regular expression of Python's."""
    re.compile(source)
    try:
        _compiled(source)
    except regex.error as error:
        raise re.error(str(error)) from error


@lru_cache(maxsize=64)
def _compiled(source: str) -> tuple[Any, bool]:
    """Compile a pattern; a linear one with a group around it, so that ``split`` hands the matches back, too."""
    if cannot_backtrack(source):
        return re.compile(f"({source})"), True
    return regex.compile(as_re_reads(source)), False


_WORD = r"\p{L}\p{N}_"
_SPACE = r"\s\x1c-\x1f"
_OUTSIDE = {
    "w": f"[{_WORD}]",
    "W": f"[^{_WORD}]",
    "s": f"[{_SPACE}]",
    "S": f"[^{_SPACE}]",
    "b": f"(?:(?<=[{_WORD}])(?![{_WORD}])|(?<![{_WORD}])(?=[{_WORD}]))",
    "B": f"(?:(?<=[{_WORD}])(?=[{_WORD}])|(?<![{_WORD}])(?![{_WORD}]))",
    "Z": r"\Z",
}
_INSIDE = {"w": _WORD, "s": _SPACE}


def as_re_reads(source: str) -> str:
    """Write a pattern so that ``regex`` finds what ``re`` finds: to ``re``, marks such as Hindi's vowel signs belong to
    no word, and the separators U+001C to U+001F are white space.

    >>> print(as_re_reads(r"\\w+[\\w-]"))
    [\\p{L}\\p{N}_]+[\\p{L}\\p{N}_-]
    """
    if re.compile(source).flags & re.ASCII:
        return source
    written = []
    in_set = False
    position = 0
    while position < len(source):
        character = source[position]
        if character == "\\":
            letter = source[position + 1 : position + 2]
            written.append((_INSIDE if in_set else _OUTSIDE).get(letter, character + letter))
            position += 2
            continue
        if character == "[" and in_set:
            character = r"\["  # to regex it could begin a set within the set
        elif character == "[":
            in_set = True
            # A bracket that closes right behind the one that opens is an ordinary character.
            opening = re.match(r"\[\^?\]?", source[position:])
            character = opening[0].replace("]", r"\]") if opening else character
            position += len(opening[0]) - 1 if opening else 0
        elif character == "]":
            in_set = False
        written.append(character)
        position += 1
    return "".join(written)


def cannot_backtrack(source: str) -> bool:
    """Tell whether a pattern chooses among single characters and runs of one kind of them, as ``\\w+|[^\\w\\s]`` does.

    A search with such a pattern takes time linear in the text: where a choice does not match at its first character,
    the next one is tried, and a run that has begun is never given up.

    >>> cannot_backtrack(r"\\s+"), cannot_backtrack(r"\\w+|[^\\w\\s]"), cannot_backtrack(r"a+b")
    (True, True, False)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            tree = _parser.parse(source)
    except (re.error, RecursionError, OverflowError):
        return False  # regex has the last word on what is an error
    if tree.state.groups > 1 or tree.state.flags & ~re.UNICODE:
        return False
    return _is_choice(list(tree))


def _is_choice(items: list[Any]) -> bool:
    if len(items) != 1:
        return False
    operator, argument = items[0]
    if str(operator) == "BRANCH":
        return all(_is_choice(list(branch)) for branch in argument[1])
    if str(operator) in REPEATS:
        least, _, repeated = argument
        return least == 1 and len(repeated) == 1 and str(repeated[0][0]) in SINGLE
    return str(operator) in SINGLE
