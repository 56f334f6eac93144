"""Columnar writers of text columns: for annotators that write one annotation per word, where a Python object per token
would cost more than the work itself.

`write_spans` is for tokenizers, matchers and splitters, `map_words` for annotators that change word by word,
`filter_annotations` for those that leave words out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparktasks.kernels.arrow import booleans, lengths_of, numbers, offsets_of, repeated, strings, to_numpy
from sparktasks.kernels.columns import TEXT, Annotations, assemble, maps_of, single_maps
from sparktasks.kernels.row_kernel import fatal, inherited


def write_spans(
    kind: str,
    source: Annotations,
    parents: np.ndarray,
    begin: np.ndarray,
    end: np.ndarray,
    result: pa.Array,
) -> pa.ListArray:
    """Make a column of spans of the source's texts.

    ``parents`` is the source annotation of each span, in ascending order; ``begin`` and ``end`` (exclusive) are
    code-point offsets into its text; ``result`` is what is written. Metadata: ``sentence``, where the parent has it.
    """
    starts = np.asarray(source.begin, np.int64)[parents]
    lengths = np.bincount(source.rows[parents], minlength=len(source.lengths))
    metadata = single_maps("sentence", source.metadata_field("sentence").take(numbers(parents, pa.int64())))
    first = numbers(starts + begin, pa.int32())
    last = numbers(starts + end - 1, pa.int32())
    return assemble(lengths, repeated(kind, len(parents)), first, last, result, metadata)


def write_errors(
    kind: str,
    source: Annotations,
    column: pa.ListArray,
    faults: Mapping[int, str],
    fails: bool,
) -> pa.ListArray:
    """Add an error to a column for each source annotation that is one, or that has a fault of its own.

    ``column`` holds what was made of the others; errors come last in their row. With ``fails`` a fault raises
    `DataError`.
    """
    if fails:
        for index, reason in faults.items():
            raise fatal(reason, source.result[index])
    upstream = pc.and_(source.field("result").is_null(), source.field("annotatorType").is_valid())
    broken = sorted({*np.flatnonzero(to_numpy(upstream)).tolist(), *faults})
    if not broken:
        return column
    reasons = source.metadata_value("error")
    metadata = []
    for index in broken:
        entries = inherited(source, index)
        entries["error"] = faults.get(index) or reasons[index] or "Unknown: no reason was given"
        metadata.append(entries)
    lengths = np.bincount(source.rows[broken], minlength=len(source.lengths))
    begin = numbers([source.begin[index] for index in broken], pa.int32())
    end = numbers([source.end[index] for index in broken], pa.int32())
    nulls = pa.nulls(len(broken), pa.string())
    errors = assemble(lengths, repeated(kind, len(broken)), begin, end, nulls, maps_of(metadata))
    return _side_by_side(column, errors)


def _side_by_side(left: pa.ListArray, right: pa.ListArray) -> pa.ListArray:
    """Join two columns row by row."""
    left_lengths, right_lengths = lengths_of(left), lengths_of(right)
    rows = np.arange(len(left))
    order = np.argsort(np.concatenate([np.repeat(rows, left_lengths), np.repeat(rows, right_lengths)]), kind="stable")
    joined = pa.concat_arrays([left.flatten(), right.flatten()]).take(numbers(order, pa.int64()))
    return pa.ListArray.from_arrays(offsets_of(left_lengths + right_lengths), joined)


def map_words(
    kind: str,
    source: Annotations,
    function: Callable[[str], str | None],
) -> pa.ListArray:
    """Put ``function`` of each result in its place, once per distinct word; the other fields stay as they are.

    Annotations that it gives None or "" are left out; errors are passed on.
    """
    encoded = source.field("result").dictionary_encode()
    words = [function(word) or None for word in encoded.dictionary.to_pylist()]
    results = strings(words).take(encoded.indices)
    kept = pc.or_(results.is_valid(), source.field("result").is_null())
    return _with_results(kind, source, results, kept)


def filter_annotations(kind: str, source: Annotations, kept: pa.Array) -> pa.ListArray:
    """Keep those annotations for which ``kept``, one boolean for each, is true; errors are always kept."""
    results = source.field("result")
    return _with_results(kind, source, results, pc.or_(pc.fill_null(kept, _FALSE), results.is_null()))


def _with_results(kind: str, source: Annotations, results: pa.Array, kept: pa.Array) -> pa.ListArray:
    fields = [
        repeated(kind, len(source)),
        numbers(source.begin, pa.int32()),
        numbers(source.end, pa.int32()),
        results,
        filled(source.values("metadata", TEXT.struct.field("metadata").type)),
        filled(source.values("embeddings", TEXT.struct.field("embeddings").type)),
        source.values("score", pa.float32()),
    ]
    lengths = source.lengths
    if not pc.all(kept).as_py():
        fields = [field.filter(kept) for field in fields]
        lengths = np.bincount(source.rows[to_numpy(kept)], minlength=len(source.lengths))
    return assemble(lengths, *fields)


def filled(lists: pa.Array) -> pa.Array:
    """Return lists or maps with empty ones in the place of nulls."""
    if not lists.null_count:
        return lists
    nulls = to_numpy(lists.is_null())
    if pa.types.is_map(lists.type):
        lists = lists.cast(pa.list_(pa.struct([lists.type.key_field, lists.type.item_field])))
        pairs = lists.flatten()
        offsets = offsets_of(np.where(nulls, 0, lengths_of(lists)))
        return pa.MapArray.from_arrays(offsets, pc.struct_field(pairs, 0), pc.struct_field(pairs, 1))
    return pa.ListArray.from_arrays(offsets_of(np.where(nulls, 0, lengths_of(lists))), lists.flatten())


_FALSE = booleans(np.zeros(1, bool))[0]
