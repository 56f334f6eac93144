"""Every annotator of the front door, made ready to run on one frame; there is no hand-kept list of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

import sparktasks
from sparktasks import (
    TASKS,
    DocumentAssembler,
    RegexTokenizer,
    Summarizer,
    TextEmbedder,
    TokenClassifier,
    WordsAssembler,
)
from sparktasks.kernels.columns import Annotation
from sparktasks.kernels.plan import Kernel
from sparktasks.kernels.values import typed_array
from sparktasks.spark.annotator import Annotator, ModelAnnotator
from sparktasks.spark.fusion import Chain
from sparktasks.spark.generation_annotator import GenerationAnnotator
from sparktasks.spark.local import _LocalChain

BUNDLES = Path(__file__).parent.parent / "bundles"

TEXTS: list[str | None] = [
    "Romeo and Juliet met in Verona.",
    None,
    "",
    "   ",
    "Romeo and Juliet met in Verona.",
    "naïve café – 日本語 😀 مرحبا",
    "One. " * 90,
    "A",
    "Play some jazz, please; then\nset an alarm\tfor 7:30!",
    "x" * 300,
    "first\x00second",
    "and/or https://example.org/a?b=c#d",
]
ROWS = [(index, text, text.split() if text is not None else None) for index, text in enumerate(TEXTS)]
SCHEMA = "id int, text string, words array<string>"


def subjects() -> dict[str, Annotator]:
    """One instance of every annotator class, and one more for each param that changes what a class writes."""
    classes = {name: getattr(sparktasks, name) for name in sparktasks.__all__}
    found = {
        name: _make(name, cls) for name, cls in classes.items() if isinstance(cls, type) and issubclass(cls, Annotator)
    }
    assert set(TASKS.values()) <= set(found)
    grouped = found["TokenClassifier"].copy().setParams(aggregation="average")
    given = found["TokenClassifier"].copy().setParams(inputCols=["document", "token"])
    vectors = found["TextEmbedder"].copy().setParams(level="token")
    paired = found["TextClassifier"].copy().setParams(inputCols=["document", "word_document"], topK=None)
    return found | {
        "TokenClassifier grouped": grouped,
        "TokenClassifier of tokens": given,
        "TextEmbedder of tokens": vectors,
        "TextClassifier of pairs": paired,
        "TextGenerator that draws": found["TextGenerator"].copy().setParams(doSample=True, numReturnSequences=2),
        "Summarizer without a model": Summarizer(method="extractive", sentences=2, outputCol="out"),
    }


def _make(name: str, cls: Any) -> Annotator:
    stage = cls.pretrained(_bundle(name)) if issubclass(cls, ModelAnnotator) else cls()
    if isinstance(stage, GenerationAnnotator):
        stage.setMaxNewTokens(16)
    if stage.hasParam("outputCol"):
        stage.setOutputCol("out")
    else:
        stage.setOutputCols(
            [f"out{index}" for index in range(len(stage.getOrDefault("outputCols") or stage.getInputCols()))]
        )
    return stage.setCleanAnnotations(False) if name == "Finisher" else stage


def _bundle(name: str) -> Path:
    task = next(task for task, cls in TASKS.items() if cls == name)
    return next(path for path in sorted(BUNDLES.iterdir()) if f"-{_FOLDER_WORD.get(task, task)}" in path.name)


_FOLDER_WORD = {"text-embedding": "embedding", "summarization": "text2text", "translation": "text2text"}


def upstream() -> list[Annotator]:
    """The stages that make every column some annotator reads by default."""
    return [
        DocumentAssembler(),
        WordsAssembler(outputCols=["word_document", "word_token"]),
        RegexTokenizer(),
        TokenClassifier.pretrained(BUNDLES / "bert-token-classification"),
        TextEmbedder.pretrained(BUNDLES / "distilbert-embedding-cls"),
    ]


def needed(stage: Annotator) -> list[Annotator]:
    """Return the stages that make the columns a subject reads, and what those read."""
    made = {name: each for each in upstream() for name in outputs(each)}
    wanted, chosen = _reads(stage), []
    while wanted:
        each = made.get(wanted.pop())
        if each is not None and each not in chosen:
            chosen.append(each)
            wanted += _reads(each)
    return sorted(chosen, key=lambda each: [type(other) for other in upstream()].index(type(each)))


def _reads(stage: Annotator) -> list[str]:
    names = stage.getOrDefault("inputCols") if stage.hasParam("inputCols") else None
    return list(names or [stage.getOrDefault("inputCol")])


def outputs(stage: Annotator) -> list[str]:
    """Name the columns a subject writes."""
    several = stage.getOrDefault("outputCols") if stage.hasParam("outputCols") else None
    return list(several or [stage.getOrDefault("outputCol")])


def kernels_of(stage: Annotator) -> list[tuple[Kernel, list[pa.Array]]]:
    """Return the kernels that a subject appends to a chain, each with its columns for the rows of this module."""
    chain: Chain = _LocalChain(None, ())
    for other in needed(stage):
        chain = other.extend(chain)
    before = len(chain.steps)
    chain = stage.extend(chain)
    cells = {name: [row[place] for row in ROWS] for place, name in enumerate(("id", "text", "words"))}
    inputs = [typed_array(cells[column.name], column.wanted.local, column.name) for column in chain.inputs]  # type: ignore[union-attr]
    results: list[pa.Array] = []
    kernels = []
    for step in chain.steps:
        columns = [results[ref.place] if ref.from_step else inputs[ref.place] for ref in step.arguments]
        kernels.append((step.kernel, columns))
        results.append(step.kernel(*columns))
    return kernels[before:]


def plain(cell: Any) -> Any:
    """Make a cell of Spark or of LocalPipeline comparable: annotations as tuples of plain values."""
    if isinstance(cell, list):
        return [plain(item) for item in cell]
    if isinstance(cell, Annotation) or hasattr(cell, "annotatorType"):
        # Without a vector, a column has an empty one and `Annotation` None.
        vector = [] if cell.embeddings is None else [float(value) for value in cell.embeddings]
        return (cell.annotatorType, cell.begin, cell.end, cell.result, dict(cell.metadata or {}), vector, cell.score)
    return [float(value) for value in cell] if hasattr(cell, "toArray") else cell


def same(left: Any, right: Any) -> bool:
    """Compare cells; numbers to 1e-5."""
    if isinstance(left, float) and isinstance(right, float):
        return abs(left - right) <= 1e-5
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(same(*pair) for pair in zip(left, right, strict=True))
    return bool(left == right)
