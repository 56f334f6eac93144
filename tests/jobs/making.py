"""Job files and inputs for the tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

BUNDLE = Path(__file__).parent.parent / "bundles" / "bert-text-classification"
STAGES: list[Any] = [
    {"DocumentAssembler": {"inputCol": "text"}},
    {"TextClassifier": {"pretrained": str(BUNDLE), "outputCol": "intent"}},
    {"Finisher": {"inputCols": ["intent"], "values": ["result", "score"]}},
]


def texts(ids: Iterable[int]) -> list[dict[str, Any]]:
    return [{"id": number, "text": f"Play song number {number}, please"} for number in ids]


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows as a file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def job(folder: Path, **changes: Any) -> dict[str, Any]:
    """A job that reads JSON lines in ``folder/in`` and writes Parquet to ``folder/out``; sections given are updated,
    other keys set."""
    content: dict[str, Any] = {
        "read": {"format": "json", "path": str(folder / "in"), "schema": "id bigint, text string"},
        "stages": STAGES,
        "write": {"format": "parquet", "path": str(folder / "out")},
    }
    for name, value in changes.items():
        content[name] = content[name] | value if isinstance(content.get(name), dict) else value
    return {name: value for name, value in content.items() if value is not None}


def write_job(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job(folder, **changes), sort_keys=False))
    return path
