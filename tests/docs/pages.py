"""Runs the Python blocks of a Markdown page in order; the text block behind a Python block is what it prints.

``python -m tests.docs.pages PAGE ...`` writes the real output into pages.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "tasks").glob("*.md"))]
_BLOCK = re.compile(r"```python\n(?P<code>.*?)```(?:\n\n```text\n(?P<output>.*?)```)?", re.DOTALL)


def examples(page: Path) -> list[tuple[str, str | None]]:
    """Return the code and the promised output (None: not shown) of each Python block."""
    return [(match["code"], match["output"]) for match in _BLOCK.finditer(page.read_text(encoding="utf-8"))]


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


def names(spark: Any) -> dict[str, Any]:
    """Return what examples may use without defining it: a session, and folders of models with random weights."""
    bundles = ROOT / "tests" / "bundles"
    return {"spark": spark, "folder": bundles / "bert-embedding-mean", "tiny": bundles / "t5-text2text-generation"}


if __name__ == "__main__":
    os.environ["PYSPARK_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    session = SparkSession.builder.master("local[2]").config("spark.ui.showConsoleProgress", "false").getOrCreate()
    for name in sys.argv[1:]:
        refresh(Path(name), names(session))
