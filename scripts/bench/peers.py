"""The contenders of text.py: the same model over the same texts, with and without Spark, with and without
sparktasks."""

from __future__ import annotations

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from encoder import Models
from plain import PlainClassifier

RAW_BUDGET = 512  # padded tokens a run: 256 to 4,096 were tried, 256 and 512 are the fastest

Answers = tuple[list[str], list[float]]
Frames = tuple[Any, Any]  # all texts, and a few for warming up; columns id, text


@dataclass(frozen=True)
class Job:
    """What all contenders do: classify the texts, cut to ``max_length`` tokens, on so many cores."""

    models: Models
    texts: list[str]
    max_length: int
    cores: int


class Peer(ABC):
    """A contender: ``warm`` opens its model, ``run`` does the whole job, ``answers`` keeps what it found, in the order
    of the texts."""

    def __init__(self, name: str, setting: str) -> None:
        self.name, self.setting = name, setting

    @abstractmethod
    def warm(self) -> None:
        """Do a small job first, so that no run pays for opening models."""

    @abstractmethod
    def run(self) -> None:
        """Do the whole job and throw the result away."""

    @abstractmethod
    def answers(self) -> Answers:
        """Do the whole job and return the labels and their scores."""


_RAW = f"sorted, {RAW_BUDGET} padded tokens a run"


class RawThreads(Peer):
    """onnxruntime in this process: one session with a thread for each core."""

    def __init__(self, job: Job) -> None:
        super().__init__("raw-threads", f"1 session x {job.cores} threads, {_RAW}")
        self._job = job
        self._model = PlainClassifier(job.models.classifier, job.max_length, job.cores)

    def warm(self) -> None:
        self._model.sorted_scores(self._job.texts[:32], RAW_BUDGET)

    def run(self) -> None:
        self._scores()

    def answers(self) -> Answers:
        return _best(self._model.labels, self._scores())

    def _scores(self) -> np.ndarray:
        return self._model.sorted_scores(self._job.texts, RAW_BUDGET)


class RawProcesses(Peer):
    """onnxruntime in processes of one thread each, the texts dealt out to them by length."""

    def __init__(self, job: Job) -> None:
        super().__init__("raw-processes", f"{job.cores} processes x 1 thread, {_RAW}")
        self._job = job
        self._labels = PlainClassifier(job.models.classifier).labels
        context = multiprocessing.get_context("spawn")
        start = (job.models.classifier, job.max_length)
        self._pools = [ProcessPoolExecutor(1, context, _open_plain, start) for _ in range(job.cores)]

    def warm(self) -> None:
        self._scores(self._job.texts[:32])

    def run(self) -> None:
        self._scores(self._job.texts)

    def answers(self) -> Answers:
        return _best(self._labels, self._scores(self._job.texts))

    def _scores(self, texts: Sequence[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        shares = [order[start :: len(self._pools)] for start in range(len(self._pools))]
        futures = [
            pool.submit(_score_plain, [texts[place] for place in share])
            for pool, share in zip(self._pools, shares, strict=True)
        ]
        found = np.empty((len(texts), len(self._labels)), np.float32)
        for share, future in zip(shares, futures, strict=True):
            found[share] = future.result()
        return found

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools:
            pool.shutdown()


class OnSpark(Peer):
    """A contender on Spark: ``build`` appends its columns to a frame, ``view`` selects (id, label, score) of the
    result."""

    def __init__(
        self, name: str, setting: str, frames: Frames, build: Callable[[Any], Any], view: Sequence[str]
    ) -> None:
        super().__init__(name, setting)
        self._full, self._small = frames
        self._build, self._view = build, view

    def warm(self) -> None:
        _drain(self._build(self._small))

    def run(self) -> None:
        _drain(self._build(self._full))

    def answers(self) -> Answers:
        rows = sorted(self._build(self._full).selectExpr(*self._view).collect())
        return [row[1] for row in rows], [row[2] for row in rows]


def sparktasks_peer(name: str, job: Job, frames: Frames) -> Peer:
    """Return sparktasks as it comes; only ``maxLength`` is set."""
    from pyspark.ml import PipelineModel

    from sparktasks import DocumentAssembler, TextClassifier

    classifier = TextClassifier.pretrained(job.models.classifier, maxLength=job.max_length)
    model = PipelineModel([DocumentAssembler(), classifier])
    setting = f"defaults: batchTokens={classifier.getBatchTokens()}, 1 thread a worker"
    return OnSpark(name, setting, frames, model.transform, ["id", "category[0].result", "category[0].score"])


def batch_udf_peer(name: str, job: Job, frames: Frames, batch_size: int, threads: int | None) -> Peer:
    """Return ``predict_batch_udf`` around tokenizers and onnxruntime, as its documentation shows; ``threads`` None is
    onnxruntime's default."""
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.types import FloatType, StringType, StructField, StructType

    kind = StructType([StructField("label", StringType()), StructField("score", FloatType())])
    classify = predict_batch_udf(_predictor(job, threads), return_type=kind, batch_size=batch_size)
    setting = f"batch_size={batch_size}, {'default threads' if threads is None else f'{threads} thread a worker'}"
    return OnSpark(
        name,
        setting,
        frames,
        lambda df: df.withColumn("answer", classify("text")),
        ["id", "answer.label", "answer.score"],
    )


def _predictor(job: Job, threads: int | None) -> Callable[[], Callable[[np.ndarray], dict[str, np.ndarray]]]:
    folder, max_length = job.models.classifier, job.max_length

    def make_predict() -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        model = PlainClassifier(folder, max_length, threads)

        def predict(texts: np.ndarray) -> dict[str, np.ndarray]:
            scores = model.scores(texts.tolist())
            return {"label": model.labels[scores.argmax(axis=1)], "score": scores.max(axis=1)}

        return predict

    return make_predict


def transformers_peer(name: str, job: Job, frames: Frames, batch_size: int) -> Peer:
    """Return transformers' pipeline in an iterator ``pandas_udf``."""
    from pyspark.sql.functions import pandas_udf

    folder, max_length = job.models.torch, job.max_length

    def classify(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        answer = open_pipeline(folder)
        for texts in batches:
            yield pd.DataFrame(answer(texts.tolist(), batch_size=batch_size, truncation=True, max_length=max_length))

    classify.__annotations__ = {"batches": Iterator[pd.Series], "return": Iterator[pd.DataFrame]}
    udf = pandas_udf(classify, "label string, score float")
    setting = f"torch, batch_size={batch_size}, 1 thread a worker"
    return OnSpark(
        name, setting, frames, lambda df: df.withColumn("answer", udf("text")), ["id", "answer.label", "answer.score"]
    )


@lru_cache(maxsize=1)
def open_pipeline(folder: Path) -> Any:
    """Return this process's transformers pipeline."""
    import torch
    from transformers import pipeline

    torch.set_num_threads(1)
    return pipeline("text-classification", model=str(folder), device="cpu")


_plain: list[PlainClassifier] = []


def _open_plain(folder: Path, max_length: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _plain.append(PlainClassifier(folder, max_length, threads=1))


def _score_plain(texts: Sequence[str]) -> np.ndarray:
    return _plain[0].sorted_scores(texts, RAW_BUDGET)


def _best(labels: np.ndarray, scores: np.ndarray) -> Answers:
    return labels[scores.argmax(axis=1)].tolist(), scores.max(axis=1).tolist()


def _drain(df: Any) -> None:
    df.write.format("noop").mode("overwrite").save()
