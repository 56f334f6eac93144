"""The builder of every bundle: a strong network, its torch twin, its ONNX folder, and goldens."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import logging
import shutil
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers as hf

from . import generation, text_encoders
from .checks import Measure, WeakBundle
from .samples import ROOT

COMMITTED_BUNDLES = ROOT / "tests" / "bundles"
GOLDENS = ROOT / "tests" / "goldens"
PROCESSOR_FILES = ("*token*.json", "*processor*.json")
SEEDS = 40
DIGITS = 7  # of a golden's scores, after the point


class Modality(Protocol):
    """What the file of a modality holds.

    A spec has a unique `name`, a `task`, and the first `seed` to try; a processor is a tokenizer or whatever else makes
    inputs of samples.
    """

    SPECS: tuple[Any, ...]
    COMMITTED: tuple[str, ...]  # names of the bundles in tests/bundles

    def processor(self, spec: Any) -> Any:
        """Return what makes inputs."""

    def network(self, spec: Any, processor: Any, seed: int) -> hf.PreTrainedModel:
        """Return a random network in eval mode."""

    def inputs(self, spec: Any, processor: Any) -> list[Any]:
        """Return the hashable inputs that a network is tried with."""

    def answer(self, spec: Any, network: hf.PreTrainedModel, item: Any) -> Any:
        """Return what the network answers to one input."""

    def wrong_inputs(self, spec: Any, processor: Any, items: list[Any]) -> dict[str, list[tuple[Any, Any]]]:
        """Return by the name of a mistake what a right and a careless caller would feed."""

    def measures(self, spec: Any, answers: list[Any], mistakes: dict[str, list[tuple[Any, Any]]]) -> list[Measure]:
        """Measure the answers, and right and wrong answers by the name of the mistake."""

    def export(self, spec: Any, network: hf.PreTrainedModel, processor: Any, folder: Path) -> None:
        """Write the bundle's files into an empty folder; the network is not used afterwards."""

    def export_difference(self, spec: Any, network: hf.PreTrainedModel, processor: Any, folder: Path) -> Measure:
        """Compare the bundle's graphs with the network."""

    def golden(self, spec: Any, twin: Path) -> dict[str, dict[str, Any]]:
        """Return answers by section and sample id, to be committed; empty where none are."""


MODALITIES: tuple[Modality, ...] = (
    text_encoders,
    generation,
)
BUNDLES: dict[str, tuple[Modality, Any]] = {
    spec.name: (modality, spec) for modality in MODALITIES for spec in modality.SPECS
}
COMMITTED: list[str] = [name for modality in MODALITIES for name in modality.COMMITTED]


def build_all(names: Iterable[str], out: Path) -> None:
    """Build the named bundles below `out`."""
    torch.set_num_threads(1)
    hf.logging.set_verbosity_error()
    for name in names:
        build(name, out)


def build(name: str, out: Path) -> None:
    """Build one bundle and its torch twin below `out`; raise `WeakBundle` where it could not fail or is wrong."""
    modality, spec = BUNDLES[name]
    processor = modality.processor(spec)
    network, measures = strong_network(modality, spec, processor)
    folder, twin = out / name, out / "torch" / name
    network.save_pretrained(twin)  # first: it names the architecture in the config
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with quiet():
        modality.export(spec, copy.deepcopy(network), processor, folder)  # an export leaves its network changed
    difference = modality.export_difference(spec, network, processor, folder)
    if not difference.passes:
        raise WeakBundle(f"{name}: {difference}")
    for pattern in PROCESSOR_FILES:
        for path in folder.glob(pattern):
            shutil.copy(path, twin / path.name)
    print(f"{name}: {kilobytes(folder)} KB, {', '.join(map(str, [difference, *measures]))}")


def strong_network(modality: Modality, spec: Any, processor: Any) -> tuple[hf.PreTrainedModel, list[Measure]]:
    """Return the network of the first seed whose measures pass; raise `WeakBundle` where none does."""
    items = modality.inputs(spec, processor)
    wrong = modality.wrong_inputs(spec, processor, items)
    failures: list[Measure] = []
    for seed in range(spec.seed, spec.seed + SEEDS):
        network = modality.network(spec, processor, seed)
        answer = functools.cache(functools.partial(modality.answer, spec, network))  # right inputs come several times
        mistakes = {}
        for mistake, pairs in wrong.items():
            mistakes[mistake] = [(answer(right), answer(careless)) for right, careless in pairs]
        measures = modality.measures(spec, [answer(item) for item in items], mistakes)
        failures = [measure for measure in measures if not measure.passes]
        if not failures:
            return network, measures
    reasons = "; ".join(map(str, failures))
    raise WeakBundle(f"{spec.name}: none of {SEEDS} seeds is good enough; the last one: {reasons}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings about traced shapes; `export_difference` tries other shapes."""
    logging.getLogger("optimum").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def kilobytes(folder: Path) -> int:
    """Return the size of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) // 1000


def commit(names: Iterable[str], out: Path) -> None:
    """Copy bundles into the repository, and record what transformers answers for those that have goldens."""
    for name in names:
        shutil.rmtree(COMMITTED_BUNDLES / name, ignore_errors=True)
        shutil.copytree(out / name, COMMITTED_BUNDLES / name)
        modality, spec = BUNDLES[name]
        golden = modality.golden(spec, out / "torch" / name)
        if golden:
            write_golden(spec.task, golden, GOLDENS / f"{name}.json")


def write_golden(task: str, golden: dict[str, dict[str, Any]], path: Path) -> None:
    """Write one golden file, a line for each sample."""
    head = [f'"transformers": {json.dumps(hf.__version__)}', f'"task": {json.dumps(task)}']
    sections = [f"{json.dumps(kind)}: {{\n{lines(answers)}\n}}" for kind, answers in golden.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(head + sections) + "\n}\n", encoding="utf-8")


def lines(answers: dict[str, Any]) -> str:
    """Return the JSON lines of one section."""
    compact = functools.partial(json.dumps, separators=(",", ":"))
    return ",\n".join(f" {json.dumps(key)}: {compact(rounded(answer))}" for key, answer in answers.items())


def rounded(value: Any) -> Any:
    """Return the value with every float cut to `DIGITS` digits after the point."""
    if isinstance(value, float):
        return round(value, DIGITS)
    return [rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
