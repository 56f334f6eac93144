"""The pages' examples run and print what the pages say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from sparktasks import TASKS
from tests.docs.pages import PAGES, ROOT, examples, names, run


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_print_what_the_page_says(
    page: Path, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = names(spark)
    for code, output in examples(page):
        printed = run(code, namespace)
        assert output is None or printed == output


def test_every_task_has_a_page_with_a_checked_example() -> None:
    hub = (ROOT / "docs" / "tasks" / "README.md").read_text(encoding="utf-8")
    for task in TASKS:
        assert f"({task}.md)" in hub
        assert any(output for _, output in examples(ROOT / "docs" / "tasks" / f"{task}.md"))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
