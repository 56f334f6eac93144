"""EntityMerger: labels of single tokens become chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from sparktasks.ops.spans import chunks
from sparktasks.spark.annotations import CHUNK, DOCUMENT, NAMED_ENTITY, Annotation, Annotations, build
from sparktasks.spark.annotator import ColumnAnnotator
from sparktasks.spark.params import P, param


class EntityMerger(ColumnAnnotator):
    """Joins named_entity annotations labelled in IOB, IOB2, IOE, BIOES or BILOU into chunks.

    Reads a document and a named_entity column. Writes chunk annotations: ``result`` is the source text, ``score`` the
    mean of the tokens' scores, metadata ``entity`` the type and ``sentence``. No chunk crosses a sentence. The rules
    are those of the CoNLL-2000 evaluation script.
    """

    reads = (DOCUMENT, NAMED_ENTITY)
    writes = CHUNK

    inputCols: P[list[str]] = param(
        "names of the document and the named_entity column", default=["document", "entities"]
    )
    outputCol: P[str] = param("name of the column to write", default="chunk")
    ignoreLabels: P[list[str]] = param("entity types that are left out", default=[])

    def kernel(self) -> MergeEntities:
        """Return the executor half."""
        return MergeEntities(frozenset(self.getOrDefault("ignoreLabels")))


@dataclass(frozen=True)
class MergeEntities:
    """documents and named entities -> chunks."""

    ignored: frozenset[str]

    def __call__(self, *columns: pa.Array) -> pa.Array:
        documents, labels = Annotations(columns[0]).by_row(), Annotations(columns[1]).by_row()
        return build([list(self._merged(*row)) for row in zip(documents, labels, strict=True)])

    def _merged(self, documents: Sequence[Annotation], labels: Sequence[Annotation]) -> Iterator[Annotation]:
        for sentence, group in groupby(labels, key=lambda label: label.metadata.get("sentence")):
            members = list(group)
            yield from (_error(member) for member in members if member.result is None)
            for kind, first, last in chunks([member.result or "O" for member in members]):
                if kind not in self.ignored:
                    yield _chunk(kind, members[first : last + 1], _source(documents, sentence, members[first]))


def _error(label: Annotation) -> Annotation:
    return Annotation(CHUNK, label.begin, label.end, None, label.metadata)


def _source(documents: Sequence[Annotation], sentence: str | None, token: Annotation) -> Annotation | None:
    """Return the document a token was found in: of its sentence, else the first that contains it."""
    around = [
        document
        for document in documents
        if document.result is not None and document.begin <= token.begin and token.end <= document.end
    ]
    return next(
        (document for document in around if document.metadata.get("sentence") == sentence),
        around[0] if around else None,
    )


def _chunk(kind: str, members: Sequence[Annotation], source: Annotation | None) -> Annotation:
    begin, end = members[0].begin, members[-1].end
    metadata = {"entity": kind} | {key: value for key, value in members[0].metadata.items() if key == "sentence"}
    if source is None or source.result is None:
        return Annotation(
            CHUNK, begin, end, None, metadata | {"error": "ColumnError: no document contains these tokens"}
        )
    scores = [member.score for member in members if member.score is not None]
    text = source.result[begin - source.begin : end + 1 - source.begin]
    return Annotation(CHUNK, begin, end, text, metadata, None, sum(scores) / len(scores) if scores else None)
