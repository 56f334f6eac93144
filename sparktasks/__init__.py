"""sparktasks: ML tasks as Spark annotators, with any Hugging Face ONNX folder.

>>> from sparktasks import TASKS
>>> TASKS["text-classification"]
'TextClassifier'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparktasks.errors import MissingDependency, did_you_mean

if TYPE_CHECKING:
    from sparktasks.annotators.base.document_assembler import DocumentAssembler as DocumentAssembler
    from sparktasks.annotators.base.finisher import Finisher as Finisher
    from sparktasks.annotators.base.vector_finisher import VectorFinisher as VectorFinisher
    from sparktasks.annotators.base.words_assembler import WordsAssembler as WordsAssembler
    from sparktasks.annotators.tasks.summarization import Summarizer as Summarizer
    from sparktasks.annotators.tasks.text_classification import TextClassifier as TextClassifier
    from sparktasks.annotators.tasks.text_embedding import TextEmbedder as TextEmbedder
    from sparktasks.annotators.tasks.text_generation import TextGenerator as TextGenerator
    from sparktasks.annotators.tasks.token_classification import TokenClassifier as TokenClassifier
    from sparktasks.annotators.tasks.translation import Translator as Translator
    from sparktasks.annotators.text.entity_merger import EntityMerger as EntityMerger
    from sparktasks.annotators.text.regex_tokenizer import RegexTokenizer as RegexTokenizer
    from sparktasks.spark.annotations import Annotation as Annotation
    from sparktasks.spark.local import LocalPipeline as LocalPipeline

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

_HOMES = {
    "Annotation": "spark.annotations",
    "DocumentAssembler": "annotators.base.document_assembler",
    "EntityMerger": "annotators.text.entity_merger",
    "Finisher": "annotators.base.finisher",
    "LocalPipeline": "spark.local",
    "RegexTokenizer": "annotators.text.regex_tokenizer",
    "Summarizer": "annotators.tasks.summarization",
    "TextClassifier": "annotators.tasks.text_classification",
    "TextEmbedder": "annotators.tasks.text_embedding",
    "TextGenerator": "annotators.tasks.text_generation",
    "TokenClassifier": "annotators.tasks.token_classification",
    "Translator": "annotators.tasks.translation",
    "VectorFinisher": "annotators.base.vector_finisher",
    "WordsAssembler": "annotators.base.words_assembler",
}

__all__ = sorted(["TASKS", "__version__", *_HOMES])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sparktasks' has no attribute {name!r}.{did_you_mean(name, __all__)}")
    try:
        import pyspark  # noqa: F401
    except ImportError as error:
        raise MissingDependency("pyspark", f"sparktasks.{name}", "local") from error
    value = getattr(importlib.import_module(f"sparktasks.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
