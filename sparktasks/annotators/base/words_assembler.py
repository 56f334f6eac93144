"""WordsAssembler: text that is tokenized already becomes document and token columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql.types import ArrayType, StringType, StructField

from sparktasks.errors import ColumnError, ParamError, listed
from sparktasks.spark.annotations import ANNOTATIONS, DOCUMENT, TOKEN, Annotation, build
from sparktasks.spark.annotator import Annotator
from sparktasks.spark.fusion import Chain
from sparktasks.spark.params import P, param


class WordsAssembler(Annotator):
    """Turns an array<string> column of words into a document column and a token column.

    The document is the words joined by single spaces, and each token's offsets point into it. Null and empty words are
    left out; a row without words gives no document.

    >>> from sparktasks import LocalPipeline
    >>> LocalPipeline([WordsAssembler()]).annotate({"words": ["Do", "n't", "panic"]})
    {'document': ["Do n't panic"], 'token': ['Do', "n't", 'panic']}
    """

    inputCol: P[str] = param("name of the array<string> column to read", default="words")
    outputCols: P[list[str]] = param(
        "names of the document and the token column to write", default=["document", "token"]
    )

    def extend(self, chain: Chain) -> Chain:
        """Append one kernel for the documents and one for the tokens."""
        column, outputs = chain.find(self.getOrDefault("inputCol"), self.uid), self.getOrDefault("outputCols")
        if column.dataType is not None and not _is_words(column.dataType):
            fitting = [other.name for other in chain.visible if _is_words(other.dataType)]
            raise ColumnError(
                f"{self.uid}: the column {column.name!r} is {column.dataType.simpleString()}, but "
                "array<string> is wanted. "
                f"Columns that would fit: {listed(fitting)}"
            )
        if len(outputs) != 2:
            raise ParamError(
                f"{self.uid}: outputCols={outputs!r} must name two columns: the document and the token column"
            )
        self.check_distinct(outputs)
        for name, kind in zip(outputs, (DOCUMENT, TOKEN), strict=True):
            chain = chain.add(
                AssembleWords(kind),
                [column],
                StructField(name, ANNOTATIONS, metadata={"annotatorType": kind}),
                self.uid,
            )
        return chain


def _is_words(dtype: object) -> bool:
    return isinstance(dtype, ArrayType) and isinstance(dtype.elementType, StringType)


@dataclass(frozen=True)
class AssembleWords:
    """list<string> -> the document the words make, or the tokens in it."""

    kind: str

    def __call__(self, *columns: pa.Array) -> pa.Array:
        if pa.types.is_string(columns[0].type):
            raise ColumnError("WordsAssembler: lists of words are wanted, not strings")
        rows = [[word for word in words or () if word] for words in columns[0].to_pylist()]
        return build([self._document(words) if self.kind == DOCUMENT else list(self._tokens(words)) for words in rows])

    def _document(self, words: Sequence[str]) -> list[Annotation]:
        text = " ".join(words)
        return [Annotation(DOCUMENT, 0, len(text) - 1, text, {"sentence": "0"})] if text else []

    def _tokens(self, words: Sequence[str]) -> Iterator[Annotation]:
        begin = 0
        for word in words:
            yield Annotation(TOKEN, begin, begin + len(word) - 1, word, {"sentence": "0"})
            begin += len(word) + 1
