"""sparktasks: ML tasks as Spark annotators, with any Hugging Face ONNX folder.

>>> from sparktasks import TASKS
>>> TASKS["text-classification"]
'TextClassifier'
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

from sparktasks.errors import MissingDependency, did_you_mean

__version__ = "0.1.0"

TASKS = {
    "summarization": "Summarizer",
    "text-classification": "TextClassifier",
    "text-embedding": "TextEmbedder",
    "text-generation": "TextGenerator",
    "token-classification": "TokenClassifier",
    "translation": "Translator",
}
"""The class of each task, by its public task id."""


@cache
def _modules() -> dict[str, str]:
    """Return the module of each public name: __init__.pyi is the one list of them, for editors and for this."""
    import ast

    stub = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    modules = {}
    for statement in ast.parse(stub).body:
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                modules[alias.name] = str(statement.module)
    return modules


def __getattr__(name: str) -> Any:
    # Looked up at first use: a worker's first import must cost neither Spark nor onnxruntime, nor reading the list.
    modules = _modules()
    if name == "__all__":
        names = globals()[name] = sorted(["TASKS", "__version__", *modules])
        return names
    if name not in modules:
        raise AttributeError(f"module 'sparktasks' has no attribute {name!r}.{did_you_mean(name, __dir__())}")
    try:
        import pyspark  # noqa: F401
    except ImportError as error:
        raise MissingDependency("pyspark", f"sparktasks.{name}", "local") from error
    value = getattr(importlib.import_module(modules[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__getattr__("__all__"))
