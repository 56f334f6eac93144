"""Assemblers: plain columns become annotation columns."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

from sparktasks.errors import ParamError
from sparktasks.kernels.assemblers import CLEANUP, AssembleDocuments, AssembleWords
from sparktasks.kernels.columns import DOCUMENT, TOKEN
from sparktasks.spark.annotator import Annotator
from sparktasks.spark.flat import readable
from sparktasks.spark.fusion import Chain
from sparktasks.spark.inputs import STRINGS, TEXTS
from sparktasks.spark.params import P, one_of, param
from sparktasks.spark.types import ANNOTATIONS, annotation_field


class DocumentAssembler(Annotator):
    """Turns text columns (string, or array<string> with one document per element) into document columns.

    Null and empty texts give no document. Metadata: ``sentence``, the index of the element (0 for a string).
    Offsets of everything downstream refer to the document's result, that is, to the text after ``cleanupMode``.

    >>> DocumentAssembler(inputCol="text").getOutputCol()
    'document'
    """

    inputCol: P[str] = param("name of the text column to read", default="text")
    outputCol: P[str] = param("name of the document column to write", default="document")
    inputCols: P[list[str] | None] = param("names of several text columns, instead of inputCol", default=None)
    outputCols: P[list[str] | None] = param("names of the document columns, one for each of inputCols", default=None)
    cleanupMode: P[str] = param(
        "what is done to white space before anything else", default="disabled", check=one_of(*CLEANUP)
    )

    def extend(self, chain: Chain) -> Chain:
        """Append one kernel for each column."""
        pairs = self._pairs()
        self.check_distinct([output for _, output in pairs])
        cleanup = self.getOrDefault(self.cleanupMode)
        kernel = AssembleDocuments(cleanup)
        for name, output in pairs:
            column = chain.find(name, self.uid, TEXTS)
            # What Catalyst computes need not come back from Python, but it does not know Python's white space.
            is_plain = cleanup == "disabled" and isinstance(column.dataType, StringType)
            field = annotation_field(output, DOCUMENT)
            chain = chain.add(kernel, [column], field, self.uid, _projected if is_plain else None)
        return chain

    def _pairs(self) -> list[tuple[str, str]]:
        """Return the columns to read, each with the one to write."""
        inputs, outputs = self.getOrDefault(self.inputCols), self.getOrDefault(self.outputCols)
        if inputs is None and outputs is None:
            return [(self.getOrDefault(self.inputCol), self.getOrDefault(self.outputCol))]
        if not inputs or not outputs or len(inputs) != len(outputs):
            raise ParamError(
                f"{self.uid}: inputCols={inputs!r} and outputCols={outputs!r} must be lists of equal length"
            )
        return list(zip(inputs, outputs, strict=True))


def _projected(text: Column) -> Column:
    """Make a document of a string column in Catalyst; `AssembleDocuments` does the same in Arrow."""
    # Lengths count characters of what Python will see, in which bytes that are not UTF-8 are replaced.
    valid = readable(text)
    document = F.struct(
        F.lit(DOCUMENT),
        F.lit(0),
        F.length(valid) - 1,  # the end is inclusive
        valid,
        F.create_map(F.lit("sentence"), F.lit("0")),
        F.array().cast("array<float>"),
        F.lit(None).cast("float"),
    )
    documents = F.array(document).cast(ANNOTATIONS)
    return F.when(F.length(valid) > 0, documents).otherwise(F.array().cast(ANNOTATIONS))


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
        column = chain.find(self.getOrDefault(self.inputCol), self.uid, STRINGS)
        outputs = self.getOrDefault(self.outputCols)
        if len(outputs) != 2:
            raise ParamError(
                f"{self.uid}: outputCols={outputs!r} must name two columns: the document and the token column"
            )
        self.check_distinct(outputs)
        # A kernel for each: what nobody reads of the two is not run.
        for name, kind in zip(outputs, (DOCUMENT, TOKEN), strict=True):
            chain = chain.add(AssembleWords(kind), [column], annotation_field(name, kind), self.uid)
        return chain
