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
        for sentence, group in groupby(labels, key=lambda label: label.metadata.get("sentence")):
            members = list(group)
            for member in members:
                if member.result is None:
                    yield member._replace(annotatorType=CHUNK)
            for entity, first, last in chunks([member.result or "O" for member in members]):
                if entity not in self.ignored:
                    document = _document_of(documents, sentence, members[first])
                    yield self._chunk(entity, members[first : last + 1], document)

    def _chunk(self, entity: str, members: Sequence[Annotation], document: Annotation | None) -> Annotation:
        """Join the labelled tokens of one entity; an error where no document contains them."""
        begin, end = members[0].begin, members[-1].end
        metadata = {"entity": entity}
        if "sentence" in members[0].metadata:
            metadata["sentence"] = members[0].metadata["sentence"]
        if document is None or document.result is None:
            metadata["error"] = "ColumnError: no document contains these tokens"
            if self.fails:
                raise fatal(metadata["error"], members[0].metadata.get("word"))
            return Annotation(CHUNK, begin, end, None, metadata)
        text = document.result[begin - document.begin : end + 1 - document.begin]
        scores = [member.score for member in members if member.score is not None]
        score = sum(scores) / len(scores) if scores else None
        return Annotation(CHUNK, begin, end, text, metadata, None, score)


def _document_of(documents: Sequence[Annotation], sentence: str | None, token: Annotation) -> Annotation | None:
    """Return the document that a token stands in: of its sentence, else the first that contains it."""
    around = []
    for document in documents:
        contains = document.begin <= token.begin and token.end <= document.end
        if contains and document.result is not None:
            around.append(document)
    for document in around:
        if document.metadata.get("sentence") == sentence:
            return document
    return around[0] if around else None
