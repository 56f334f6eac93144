"""What pages say about annotators is what their classes say."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import annotators_page
from sparktasks.spark.params import declared

PAGES = annotators_page.pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(annotators_page.ROOT)))
def test_page_is_what_the_classes_make(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == PAGES[page], "run: python scripts/annotators_page.py"


def test_every_param_of_every_annotator_is_on_the_page() -> None:
    sections = {part.partition("\n")[0]: part for part in PAGES[annotators_page.PAGE].split("\n### ")[1:]}
    for name, cls in annotators_page.annotators().items():
        shared = [sections[parent.__name__] for parent in annotators_page.shared_parents(cls)]
        shown = "\n".join([sections[name], *shared])
        assert [param for param in declared(cls) if f"| `{param}` |" not in shown] == [], name


def test_cells_keep_their_bars_and_brackets() -> None:
    assert annotators_page.table(["a"], [["x | array<int> `array<int>`"]]).splitlines()[-1] == (
        r"| x \| array&lt;int> `array<int>` |"
    )


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(SystemExit, match="markers"):
        annotators_page.with_table("# Tasks\n", "")
