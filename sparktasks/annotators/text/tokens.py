"""Tokenizers."""

from __future__ import annotations

import re

from sparktasks.errors import ParamError
from sparktasks.kernels.columns import DOCUMENT, TOKEN
from sparktasks.kernels.text.tokens import FindTokens
from sparktasks.ops.patterns import Pattern, check_pattern
from sparktasks.spark.annotator import ColumnAnnotator
from sparktasks.spark.params import P, above, at_least, param


class RegexTokenizer(ColumnAnnotator):
    """Splits documents into tokens at a pattern (``gaps=True``), or takes the pattern's matches as tokens.

    Writes token annotations whose offsets are those of the source text. Metadata: ``sentence``. Patterns are Python's
    ``re``; ``\\w+|[^\\w\\s]`` with ``gaps=False`` gives words and punctuation marks. A pattern that takes longer than
    ``maxSeconds`` over one text makes an error of it.

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
    maxSeconds: P[float] = param("longest search through one text, in seconds", default=10.0, check=above(0))

    def kernel(self) -> FindTokens:
        """Return the executor half; `ParamError` where the pattern is not a regular expression."""
        pattern = self.getOrDefault(self.pattern)
        # Here on the driver, so that no job starts with a pattern that cannot run.
        try:
            check_pattern(pattern)
        except re.error as error:
            raise ParamError(f"{self.uid}: pattern={pattern!r} is not a regular expression: {error}") from error
        return FindTokens(
            pattern=Pattern(pattern, self.getOrDefault(self.maxSeconds)),
            gaps=self.getOrDefault(self.gaps),
            lower=self.getOrDefault(self.toLowercase),
            shortest=self.getOrDefault(self.minLength),
            longest=self.getOrDefault(self.maxLength),
            fails=self.fails(),
        )
