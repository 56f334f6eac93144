"""The pages' examples run and print what the pages say, links lead somewhere, and tables name what there is."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from sparktasks import TASKS, cli
from sparktasks.jobs.loading import load_job
from sparktasks.jobs.spec import Job, ReadSection, SparkSection, WriteSection
from sparktasks.runtime import accuracy, sharing, store
from sparktasks.runtime.layouts import LAYOUTS, PRECISIONS
from sparktasks.spark import delivery, fusion, vectorized
from tests.docs.pages import DOCS, PAGES, ROOT, anchors, examples, links, names, run, tables

LINKED = [*PAGES, *sorted((DOCS / "bench").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
MOST_LINES = 110  # of the README


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples_print_what_the_page_says(
    page: Path, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = names(spark, tmp_path)
    for code, output in examples(page):
        printed = run(code, namespace)
        assert output is None or printed == output


def test_every_task_has_a_page_with_a_checked_example() -> None:
    for task in TASKS:
        assert any(output for _, output in examples(DOCS / "tasks" / f"{task}.md"))


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def test_anchors_are_those_of_headings_outside_of_code(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two`: three\n\n```bash\n# no heading\n```\n\n### Spark's own\n")
    assert anchors(page) == {"one-two-three", "sparks-own"}


def test_the_readme_is_short_and_names_the_test_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= MOST_LINES
    assert "`scripts/test`" in readme


def test_the_figures_of_the_readme_stand_in_the_pages_it_names() -> None:
    rows = [row for table in tables(ROOT / "README.md") for row in table if "docs/bench/" in row[-1]]
    figures = [(page, figure) for row in rows for page, figure in figures_of(row)]
    assert len(figures) >= 3
    for page, figure in figures:
        assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d,]|\.\d)", (ROOT / page).read_text("utf-8")), figure


def figures_of(row: list[str]) -> list[tuple[str, str]]:
    """Return the figures in bold in a table's row, each with the page that the row names."""
    (page,) = re.findall(r"\((docs/bench/[^)]+)\)", row[-1])
    return [(page, figure) for cell in row for figure in re.findall(r"\*\*([\d.,]+)\*\*", cell)]


def test_the_tree_of_contributing_is_the_package() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^      ([\w.]+)/? ", text, re.MULTILINE))
    rooms = {path.name for path in (ROOT / "sparktasks").iterdir() if path.name[:2] != "__" and path.name != "py.typed"}
    assert named == rooms | {"__init__.pyi"}
    for name in re.findall(r"^        ([\w.]+)/? ", text, re.MULTILINE):
        assert list((ROOT / "sparktasks").glob(f"*/{name}")), name


def test_job_files_in_pages_are_valid(tmp_path: Path) -> None:
    blocks = [block for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    assert blocks
    for block in blocks:
        (tmp_path / "job.yaml").write_text(block)
        assert load_job(tmp_path / "job.yaml").stages


def test_every_key_of_a_job_file_is_explained() -> None:
    keys = {row[0].strip("`"): row[1] for table in tables(DOCS / "running.md") for row in table if len(row) == 2}
    whole = {field.name for field in dataclasses.fields(Job)} - {"name"}
    assert whole <= set(keys)
    for key, section in (("read", ReadSection), ("write", WriteSection), ("spark", SparkSection)):
        inner = {field.name for field in dataclasses.fields(section)}
        assert inner <= set(re.findall(r"`(\w+)`", keys[key])), key


def test_every_setting_variable_and_exit_code_is_explained() -> None:
    first = {row[0].strip("`") for table in tables(DOCS / "running.md") for row in table}
    settings = {delivery.DELIVERY_SETTING, fusion.FUSE_SETTING, vectorized.ADAPTER_SETTING}
    cache = {store.ROOT_VARIABLE, store.LIMIT_VARIABLE}
    variables = {*cache, sharing.THRESHOLD_VARIABLE, accuracy.LEVEL_VARIABLE}
    codes = {str(code) for code in (cli.DONE, cli.FAILED, cli.REFUSED, cli.STOPPED, cli.TERMINATED)}
    assert settings | variables | codes <= first


def test_every_precision_and_layout_is_explained() -> None:
    rows = [row for table in tables(DOCS / "models.md") for row in table]
    suffixes = {row[0].strip("`"): set(re.findall(r"`(_\w+)`", row[1])) for row in rows}
    for precision, named in PRECISIONS.items():
        assert suffixes[precision] == set(named) - {""}
    assert {f"`{main}.onnx`" for main in LAYOUTS} <= {row[0] for row in rows}
