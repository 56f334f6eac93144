"""RegexTokenizer: tokens by a regular expression."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from sparktasks.errors import ParamError
from sparktasks.spark.annotations import DOCUMENT, TOKEN, Annotation, Annotations
from sparktasks.spark.annotator import ColumnAnnotator, annotate_each, inherited
from sparktasks.spark.params import P, at_least, param


class RegexTokenizer(ColumnAnnotator):
    """Splits documents into tokens at a pattern (``gaps=True``), or takes the pattern's matches as tokens.

    Writes token annotations whose offsets are those of the source text. Metadata: ``sentence``. Patterns are Python's
    ``re``; ``\\w+|[^\\w\\s]`` with ``gaps=False`` gives words and punctuation marks.

    >>> from sparktasks import DocumentAssembler, LocalPipeline
    >>> tokenizer = RegexTokenizer(pattern=r"\\w+|[^\\w\\s]", gaps=False)
    >>> LocalPipeline([DocumentAssembler(), tokenizer]).annotate("Don't panic!")["token"]
    ['Don', "'", 't', 'panic', '!']
    """

    reads = (DOCUMENT,)
    writes = TOKEN

    outputCol: P[str] = param("name of the column to write", default="token")
    pattern: P[str] = param(
        "regular expression: what stands between tokens, or with gaps=False the tokens", default=r"\s+"
    )
    gaps: P[bool] = param("whether the pattern matches the gaps (True) or the tokens (False)", default=True)
    toLowercase: P[bool] = param("whether results are lower-cased; offsets stay those of the source", default=False)
    minLength: P[int] = param("shortest token kept, in characters", default=1, check=at_least(1))
    maxLength: P[int | None] = param("longest token kept, in characters", default=None, check=at_least(1))

    def kernel(self) -> FindTokens:
        """Return the executor half; `ParamError` where the pattern is not a regular expression."""
        pattern = self.getOrDefault("pattern")
        try:
            re.compile(pattern)
        except re.error as error:
            raise ParamError(f"{self.uid}: pattern={pattern!r} is not a regular expression: {error}") from error
        bounds = self.getOrDefault("minLength"), self.getOrDefault("maxLength")
        return FindTokens(pattern, self.getOrDefault("gaps"), self.getOrDefault("toLowercase"), *bounds)


_compiled = lru_cache(maxsize=64)(re.compile)


@dataclass(frozen=True)
class FindTokens:
    """documents -> tokens."""

    pattern: str
    gaps: bool
    lower: bool
    shortest: int
    longest: int | None

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])
        return annotate_each(TOKEN, source, lambda usable: [self._tokens(source, index) for index in usable])

    def _tokens(self, source: Annotations, index: int) -> list[Annotation]:
        text, offset, metadata = str(source.result[index]), source.begin[index], inherited(source, index)
        made = []
        for start, end in self._spans(text):
            if self.shortest <= end - start and (self.longest is None or end - start <= self.longest):
                word = text[start:end].lower() if self.lower else text[start:end]
                made.append(Annotation(TOKEN, offset + start, offset + end - 1, word, metadata))
        return made

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        matches = [match.span() for match in _compiled(self.pattern).finditer(text)]
        if not self.gaps:
            return iter(matches)
        ends = [start for start, _ in matches] + [len(text)]
        return zip([0, *(end for _, end in matches)], ends, strict=True)
