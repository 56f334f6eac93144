"""The kernels of every public annotator: light to load, and the same on columns that the JVM wrote."""

from __future__ import annotations

import base64
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sparktasks.kernels.columns import TEXT, Annotations, kind_of
from tests.contract.subjects import kernels_of, subjects

SUBJECTS = subjects()
HEAVY = ("pyspark", "pandas", "scipy", "torch", "transformers")

LOAD = """
import base64, pickle, sys
import pyarrow as pa
kernel, columns = pickle.loads(base64.b64decode(sys.stdin.read()))
table = pa.ipc.open_stream(columns).read_all()
columns = [table.column(name).combine_chunks() for name in table.column_names]
answer = kernel(*columns)
assert len(answer) == len(columns[0])
answer.validate(full=True)
print([name for name in {heavy!r} if name in sys.modules])
"""


def stream(columns: list[pa.Array]) -> bytes:
    """Return columns as an Arrow stream, which a process without Spark can read."""
    table = pa.table(columns, names=[f"c{index}" for index in range(len(columns))])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


# sumy loads nltk, and that everything it finds.
@pytest.mark.parametrize("name", [name for name in SUBJECTS if name != "Summarizer without a model"])
def test_kernels_run_in_a_fresh_process_without_spark_or_pandas(name: str) -> None:
    for kernel, columns in kernels_of(SUBJECTS[name]):
        payload = base64.b64encode(pickle.dumps((kernel, stream([column.slice(0, 1) for column in columns]))))
        code = LOAD.replace("{heavy!r}", repr(HEAVY))
        done = subprocess.run([sys.executable, "-c", code], input=payload, capture_output=True, check=False)
        assert done.stdout.decode().strip() == "[]", done.stderr.decode()


@pytest.mark.parametrize("name", SUBJECTS)
def test_kernels_pickle_small_and_write_no_null_fields(name: str) -> None:
    for kernel, columns in kernels_of(SUBJECTS[name]):
        assert len(pickle.dumps(kernel)) < 64 * 1024
        written = kernel(*columns)
        if kind_of(written.type) is TEXT:
            struct = written.flatten()
            assert len(struct) or not any(len(Annotations(column)) for column in columns if kind_of(column.type))
            for field in ("metadata", "embeddings"):
                assert not struct.field(field).null_count


@pytest.mark.parametrize("name", SUBJECTS)
def test_kernels_read_columns_with_null_fields_and_without_score(name: str) -> None:
    for kernel, columns in kernels_of(SUBJECTS[name]):
        if not any(kind_of(column.type) is TEXT for column in columns):
            continue
        bare = [_without(column, embeddings=None) for column in columns]
        full = [_without(column, score=None) for column in columns]
        assert kernel(*bare).to_pylist() == kernel(*full).to_pylist()


def _without(column: pa.Array, **values: Any) -> pa.Array:
    """Return a text column whose fields have these values; without a score to set, it has no such field."""
    if kind_of(column.type) is not TEXT:
        return column
    fields = [field for field in TEXT.struct if field.name != "score" or "score" in values]
    rows = []
    for row in column.to_pylist():
        rows.append([annotation | {"embeddings": []} | values for annotation in row])
    return pa.array(rows, pa.list_(pa.struct(fields)))


def test_the_kernels_room_is_covered() -> None:
    covered = {type(kernel).__module__ for name in SUBJECTS for kernel, _ in kernels_of(SUBJECTS[name])}
    room = Path(sys.modules["sparktasks.kernels.columns"].__file__ or "").parent
    modules = {
        "sparktasks." + ".".join(path.relative_to(room.parent).with_suffix("").parts)
        for path in room.rglob("*.py")
        if "def __call__" in path.read_text(encoding="utf-8") or "(RowKernel)" in path.read_text(encoding="utf-8")
    }
    without = {"sparktasks.kernels.plan", "sparktasks.kernels.row_kernel", "sparktasks.kernels.json_values"}
    assert modules - without - covered == set()
