"""The table of metadata keys in docs/columns.md has the keys that annotators write."""

from __future__ import annotations

import pytest

from sparktasks import LocalPipeline
from sparktasks.spark.annotator import Annotator, ColumnAnnotator
from tests.contract.subjects import TEXTS, needed, outputs, subjects
from tests.docs.pages import DOCS, tables

SUBJECTS = subjects()
# Keys that the texts of the contract suite do not call for.
RARE = {"error", "source_language", "windows"}
EVERYBODY = {"all": Annotator, "all that read annotations": ColumnAnnotator}


@pytest.fixture(scope="module")
def written() -> dict[str, set[str]]:
    """Return the metadata keys that each class wrote, over all its subjects."""
    inputs = [{"text": text, "words": None if text is None else text.split()} for text in TEXTS]
    found: dict[str, set[str]] = {}
    for stage in SUBJECTS.values():
        rows = LocalPipeline([*needed(stage), stage]).fullAnnotate(inputs)
        cells = [row[column] for row in rows for column in outputs(stage)]
        annotations = [item for cell in cells if isinstance(cell, list) for item in cell if hasattr(item, "metadata")]
        for annotation in annotations:
            found.setdefault(type(stage).__name__, set()).update(annotation.metadata)
    return found


def on_the_page(cls: type) -> set[str]:
    """Return the keys that the page says a class writes."""
    (rows,) = [table for table in tables(DOCS / "columns.md") if table and table[0][0] == "`sentence`"]
    return {key.strip("`") for key, _, writers in rows if is_named(cls, writers)}


def is_named(cls: type, writers: str) -> bool:
    return issubclass(cls, EVERYBODY[writers]) if writers in EVERYBODY else f"`{cls.__name__}`" in writers


@pytest.mark.parametrize("cls", dict.fromkeys(map(type, SUBJECTS.values())), ids=lambda cls: cls.__name__)
def test_the_page_names_the_keys_that_an_annotator_writes(cls: type, written: dict[str, set[str]]) -> None:
    keys = written.get(cls.__name__)
    if keys is None:  # it writes plain columns
        assert on_the_page(cls) <= {"sentence"}
        return
    assert keys <= on_the_page(cls)
    assert on_the_page(cls) - keys <= RARE
