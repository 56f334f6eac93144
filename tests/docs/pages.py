"""Runs the Python blocks of a Markdown page in order; the text block behind a Python block is what it prints.

``python -m tests.docs.pages PAGE ...`` writes the real output into pages.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((DOCS / "tasks").glob("*.md"))]
_BLOCK = re.compile(r"```python\n(?P<code>.*?)```(?:\n\n```text\n(?P<output>.*?)```)?", re.DOTALL)


def examples(page: Path) -> list[tuple[str, str | None]]:
    """Return the code and the promised output (None: not shown) of each Python block."""
    return [(match["code"], match["output"]) for match in _BLOCK.finditer(page.read_text(encoding="utf-8"))]


def prose(page: Path) -> str:
    """Return a page without its blocks of code and output."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[tuple[str, str]]:
    """Return the targets and the anchors ("" where there is none) of a page's links to files of the repository."""
    targets = re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page))
    return [(target.partition("#")[0], target.partition("#")[2]) for target in targets]


def tables(page: Path) -> list[list[list[str]]]:
    """Return a page's tables: for each its rows of cells, without the header."""
    found: list[list[list[str]]] = []
    before = ""
    for line in prose(page).splitlines():
        if line.startswith("|") and not before.startswith("|"):
            found.append([])
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        before = line
    return [rows[2:] for rows in found]


def run(code: str, namespace: dict[str, Any]) -> str:
    """Run one block and return what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "example", "exec"), namespace)
    return "\n".join(line.rstrip() for line in printed.getvalue().strip("\n").split("\n")) + "\n"


def refresh(page: Path, namespace: dict[str, Any]) -> None:
    """Write what each block prints into the text block behind it."""

    def real(match: re.Match[str]) -> str:
        output = run(match["code"], namespace)
        return match[0] if match["output"] is None else f"```python\n{match['code']}```\n\n```text\n{output}```"

    page.write_text(_BLOCK.sub(real, page.read_text(encoding="utf-8")), encoding="utf-8")


def names(spark: Any, scratch: Path) -> dict[str, Any]:
    """Return what examples may use without defining it: a session, folders of models with random weights, and a folder
    to write to (``path``)."""
    bundles = ROOT / "tests" / "bundles"
    models = {"folder": bundles / "bert-embedding-mean", "tiny": bundles / "t5-text2text-generation"}
    return {"spark": spark, "path": str(scratch), **models}


if __name__ == "__main__":
    os.environ["PYSPARK_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    session = SparkSession.builder.master("local[2]").config("spark.ui.showConsoleProgress", "false").getOrCreate()
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as scratch:
            refresh(Path(name), names(session, Path(scratch)))
