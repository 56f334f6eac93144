"""Annotators that make chunks."""

from __future__ import annotations

from sparktasks.kernels.columns import CHUNK, DOCUMENT, NAMED_ENTITY
from sparktasks.kernels.text.chunks import MergeEntities
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
        ignored: list[str] = self.getOrDefault(self.ignoreLabels)
        return MergeEntities(ignored=frozenset(ignored), fails=self.fails())
