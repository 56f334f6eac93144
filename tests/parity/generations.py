"""What the parity tests of generation share: the bundles, ways to run them, and how their texts are compared with
transformers'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_bundles.generation import HALF, MERGED, PAST, SPECS
from tiny_bundles.generation_oracle import Record, generated, twin_of

from sparktasks import DocumentAssembler, LocalPipeline
from sparktasks.runtime.bundle import open_bundle
from sparktasks.runtime.generation.generator import Generator, GeneratorOptions, Reading, open_generator
from sparktasks.runtime.generation.scheduler import BatchLimits
from sparktasks.runtime.generation.search import Generated
from sparktasks.runtime.generation.settings import read_settings
from sparktasks.spark.generation_annotator import generation_config

HALVES = [spec.name for spec in SPECS if spec.precision == HALF]
FAMILIES = [spec.name for spec in SPECS if spec.layout in (PAST, MERGED) and spec.name.count("-") < 3]
# Families whose graphs want other inputs, or keep another cache, than those of the others: with and without positions,
# of shared and of fused keys, with forced first and last tokens.
KINDS = [f"{arch}-text-generation" for arch in ("gpt2", "bloom", "llama", "gpt_bigcode")]
KINDS += [f"{arch}-text2text-generation" for arch in ("t5", "bart", "m2m_100")]
LAYOUTS = [spec.name for spec in SPECS if spec.name not in (*FAMILIES, *HALVES)]
ROOM = BatchLimits(32, 1 << 16, 512)
# What runs together, and of how many prompts one is tried: alone they take longest.
CAPACITIES = {ROOM: 1, BatchLimits(8, 600, 64): 1, BatchLimits(1, 1 << 16, 512, alone=True): 4}
TIE = 1e-5
GREEDY = {"max_new_tokens": 24, "num_beams": 1, "do_sample": False}
BEAMS = {"max_new_tokens": 16, "num_beams": 3, "do_sample": False}


def generator(folder: Path, capacity: BatchLimits = ROOM, **options: Any) -> Generator:
    """Open a generator with the bundle's settings and these."""
    bundle = open_bundle(folder)
    start = {"decoder_start_token_id": bundle.config.get("decoder_start_token_id")}
    settings = read_settings(start, generation_config(bundle), options)
    return open_generator(bundle, GeneratorOptions(settings, Reading(), capacity))


def written(generator: Generator, texts: Sequence[str]) -> list[list[Generated]]:
    """Return what is generated for each text."""
    return [result for result in generator.run(generator.prompts(texts)) if not isinstance(result, Exception)]


def same(name: str, folder: Path, twin: Path, texts: Sequence[str], **options: Any) -> list[list[Record]]:
    """Fail unless all texts are what transformers generates, alone and together with others."""
    expected = generated(twin, texts, **options)
    for capacity, step in CAPACITIES.items():
        found = written(generator(folder, capacity, **options), texts[::step])
        pairs = list(zip(texts[::step], expected[::step], found, strict=True))
        other = [pair for pair in pairs if [record.ids for record in pair[1]] != [tuple(each.ids) for each in pair[2]]]
        wrong = [pair for pair in other if not ties(twin, *pair)]
        if wrong or len(other) > 0.01 * len(texts):
            pytest.fail(
                f"{name}, {capacity}: {len(wrong)} of {len(pairs)} differ, {len(other) - len(wrong)} tie: "
                f"{(wrong or other)[0]}"
            )
    return expected


def ties(twin: Path, text: str, wanted: Sequence[Record], found: Sequence[Generated]) -> bool:
    """Tell whether beams that differ are equally likely, as far as 32 bits tell: then none is better."""
    return len(wanted) == len(found) > 0 and all(
        left.score is not None and abs(likelihood(twin, text, left.ids) - likelihood(twin, text, right.ids)) < TIE
        for left, right in zip(wanted, found, strict=True)
    )


def likelihood(twin: Path, text: str, ids: Sequence[int]) -> float:
    """Return the mean log-probability of new tokens but for the last, which may be forced."""
    return float(log_probabilities(twin, text, ids)[:-1].mean())


def log_probabilities(twin: Path, text: str, ids: Sequence[int]) -> torch.Tensor:
    """Return the log-probability that the network gives to each of some new tokens, read all at once."""
    network, tokenizer = twin_of(twin)
    prompt = tokenizer(text, return_tensors="pt")["input_ids"]
    start = torch.tensor([[network.config.decoder_start_token_id]]) if network.config.is_encoder_decoder else prompt
    whole = torch.cat([start, torch.tensor([ids])], dim=1)
    given = (
        {"input_ids": prompt, "decoder_input_ids": whole} if network.config.is_encoder_decoder else {"input_ids": whole}
    )
    with torch.no_grad():
        return chosen(network(**given).logits[0, start.shape[1] - 1 : -1], ids)


def chosen(logits: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    """Return the log-probability of one token of each row of logits."""
    return logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]


def annotated(stage: Any, texts: Sequence[str]) -> list[list[Any]]:
    """Return what an annotator writes for each text."""
    rows = LocalPipeline([DocumentAssembler(), stage.setOutputCol("out")]).fullAnnotate(list(texts))
    return [row["out"] for row in rows]


def texts_of(stage: Any, texts: Sequence[str]) -> list[list[str]]:
    """Return the texts that an annotator writes for each text."""
    return [[item.result for item in row] for row in annotated(stage, texts)]
