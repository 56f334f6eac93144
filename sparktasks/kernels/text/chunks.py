"""Chunks on the executor: labels of single tokens are joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from sparktasks.kernels.columns import CHUNK, Annotation, Annotations, build
from sparktasks.kernels.row_kernel import fatal
from sparktasks.ops.spans import chunks


@dataclass(frozen=True, kw_only=True)
class MergeEntities:
    """documents and named entities -> chunks."""

    ignored: frozenset[str]
    fails: bool

    def __call__(self, *columns: pa.Array) -> pa.Array:
        documents = Annotations(columns[0])
        labels = Annotations(columns[1], documents=documents)
        rows = []
        for row_documents, row_labels in zip(documents.by_row(), labels.by_row(), strict=True):
            rows.append(list(self._merged(row_documents, row_labels)))
        return build(rows)

    def _merged(self, documents: Sequence[Annotation], labels: Sequence[Annotation]) -> Iterator[Annotation]:
        """Yield one row's chunks, sentence by sentence; errors go before the chunks of their sentence."""
        for sentence, group in groupby(labels, key=_sentence_of):
            members = list(group)
            for error in [member for member in members if member.result is None]:
                yield error._replace(annotatorType=CHUNK)
            # An error is no part of an entity, and parts those around it.
            tags = [member.result or "O" for member in members]
            for entity, first, last in chunks(tags):
                if entity in self.ignored:
                    continue
                document = _document_of(documents, sentence, members[first])
                yield self._chunk(entity, members[first : last + 1], document)

    def _chunk(self, entity: str, members: Sequence[Annotation], document: Annotation | None) -> Annotation:
        """Join the labelled tokens of one entity; an error where no document contains them."""
        begin = members[0].begin
        end = members[-1].end
        metadata = {"entity": entity}
        if "sentence" in members[0].metadata:
            metadata["sentence"] = members[0].metadata["sentence"]
        if document is None:
            metadata["error"] = "ColumnError: no document contains these tokens"
            if self.fails:
                raise fatal(metadata["error"], members[0].metadata.get("word"))
            return Annotation(CHUNK, begin, end, None, metadata)
        # Offsets count from the start of the row's text, in which a sentence begins further on.
        text = str(document.result)[begin - document.begin : end + 1 - document.begin]
        return Annotation(CHUNK, begin, end, text, metadata, None, _mean_score(members))


def _sentence_of(annotation: Annotation) -> str | None:
    return annotation.metadata.get("sentence")


def _mean_score(members: Sequence[Annotation]) -> float | None:
    """Average the scores of an entity's tokens; labels of other annotators may have none."""
    scores = [member.score for member in members if member.score is not None]
    if not scores:
        return None
    return sum(scores) / len(scores)


def _document_of(documents: Sequence[Annotation], sentence: str | None, token: Annotation) -> Annotation | None:
    """Return the document that a token stands in: of its sentence, else the first that contains it."""
    containing = [document for document in documents if _contains(document, token)]
    for document in containing:
        if _sentence_of(document) == sentence:
            return document
    return next(iter(containing), None)


def _contains(document: Annotation, token: Annotation) -> bool:
    if document.result is None:
        return False
    return document.begin <= token.begin and token.end <= document.end
