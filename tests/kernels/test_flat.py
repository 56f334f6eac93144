"""Nested columns survive being flat, as they are for a ``pandas_udf``."""

from __future__ import annotations

import pyarrow as pa
import pytest

from sparktasks.kernels.columns import AUDIO, IMAGE, Annotation, build
from sparktasks.kernels.flat import flat_arrays, flat_types, series, unflatten

STRINGS = pa.map_(pa.string(), pa.string())
PICTURE = {"annotatorType": "image", "origin": "a", "height": 1, "width": 2, "result": b"\x00\xff", "metadata": []}
CLIP = {"annotatorType": "audio", "origin": None, "sampleRate": 0, "result": None, "metadata": [("error", "x")]}
CELLS = {
    "struct": (
        pa.struct([("a", pa.int32()), ("m", pa.map_(pa.string(), pa.list_(pa.string())))]),
        [None, {"a": 1, "m": [("x", ["y", None])]}, {"a": None, "m": None}],
    ),
    "structs in a list": (
        pa.list_(pa.struct([("role", pa.string()), ("more", pa.struct([("raw", pa.binary())]))])),
        [None, [], [None, {"role": "a", "more": {"raw": b"q"}}, {"role": None, "more": None}]],
    ),
    "maps in lists": (pa.list_(pa.list_(pa.map_(pa.string(), pa.int64()))), [[[[("k", 1)], None], None], None]),
    "map of structs": (pa.map_(pa.string(), pa.struct([("x", pa.float64())])), [None, [("k", {"x": 1.5})], []]),
    "images": (IMAGE.column, [[PICTURE, PICTURE], [], None]),
    "clips": (AUDIO.column, [[CLIP], []]),
    "strings": (pa.list_(pa.string()), [["a", None], None]),
}


@pytest.mark.parametrize("name", CELLS)
def test_nested_cells_come_back(name: str) -> None:
    dtype, cells = CELLS[name]
    column = pa.array(cells, dtype)
    flat = flat_arrays(column)
    assert [array.type for array in flat] == flat_types(dtype)
    back = unflatten([series(array) for array in flat], [dtype])[0]
    assert back.to_pylist() == column.to_pylist()


def test_annotations_come_back_without_a_flag_for_each() -> None:
    rows = [
        [Annotation("document", 0, 2, "abc", {"sentence": "0"})],
        [],
        [Annotation("token", 0, 0, None, {}, None, 1.0)],
    ]
    column = build(rows)
    flat = flat_arrays(column)
    assert pa.list_(pa.bool_()) not in [array.type for array in flat]
    assert unflatten([series(array) for array in flat], [column.type])[0].equals(column)
    assert unflatten([series(array) for array in flat_arrays(column.slice(1))], [column.type])[0].equals(
        column.slice(1)
    )
