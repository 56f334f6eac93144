"""Make tiny randomly initialised ONNX bundles and their torch twins for the parity tests.

    python scripts/make_tiny_bundles.py --out build/bundles                # every bundle
    python scripts/make_tiny_bundles.py --out build/bundles --only bert-text-classification t5-text2text-generation
    python scripts/make_tiny_bundles.py --out build/bundles --committed    # refresh tests/bundles and tests/goldens

A bundle is `<out>/<name>`, its torch twin `<out>/torch/<name>`. Needs torch, transformers 4.57,
optimum-onnx 0.1.0, sentencepiece, protobuf and onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import torch
import transformers as hf
from tiny_bundles.checks import Evidence, Probe, WeakBundle, check_export, examine
from tiny_bundles.export import write_bundle
from tiny_bundles.generation_checks import GenerationEvidence, Generator, end_sometimes, examine_generator
from tiny_bundles.generation_export import write_generator
from tiny_bundles.generation_networks import load_generator, make_generator
from tiny_bundles.generation_session import check_generator
from tiny_bundles.generation_specs import GENERATION, GenerationSpec
from tiny_bundles.generation_vocabularies import GENERATION_TOKENIZERS
from tiny_bundles.goldens import record, write_golden
from tiny_bundles.networks import make_network
from tiny_bundles.prompts import prompts_from
from tiny_bundles.specs import BY_NAME, COMMITTED, DECODERS, NO_PAD, Spec
from tiny_bundles.vocabularies import TOKENIZERS

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ROOT / "tests" / "data" / "texts.json"
BUNDLES = ROOT / "tests" / "bundles"
GOLDENS = ROOT / "tests" / "goldens"
CORPUS = ROOT / "tests" / "data" / "corpus.txt"
SEEDS = 40
PROMPTS = 120


@cache
def sample_inputs() -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Return the committed texts and text pairs by id."""
    inputs = json.loads(TEXTS.read_text(encoding="utf-8"))
    return inputs["texts"], {key: (first, second) for key, (first, second) in inputs["pairs"].items()}


@cache
def corpus() -> list[str]:
    """Return the lines of the committed corpus."""
    return CORPUS.read_text(encoding="utf-8").splitlines()


def generation_prompts() -> list[str]:
    """Return prompts from the committed corpus."""
    return prompts_from(corpus(), PROMPTS)


def make_tokenizer(spec: Spec | GenerationSpec) -> hf.PreTrainedTokenizerFast:
    """Train the bundle's tokenizer on the committed corpus."""
    makers = {**GENERATION_TOKENIZERS, **TOKENIZERS} if isinstance(spec, Spec) else GENERATION_TOKENIZERS
    tokenizer = makers[spec.tokenizer or spec.arch](corpus())
    options = {"model_max_length": spec.max_length, **spec.tokenizer_options}
    for key, value in options.items():
        setattr(tokenizer, key, value)
    tokenizer.init_kwargs.update(options)
    if isinstance(spec, Spec) and spec.arch in DECODERS and spec.pads != NO_PAD:
        tokenizer.pad_token = tokenizer.eos_token
    elif isinstance(spec, Spec) and spec.pads == NO_PAD:
        tokenizer.pad_token = None
    return tokenizer


def strong_network(spec: Spec, tokenizer: hf.PreTrainedTokenizerFast) -> tuple[hf.PreTrainedModel, Evidence]:
    """Return the network of the first seed that passes the checks; raise `WeakBundle` when none does."""
    texts, pairs = sample_inputs()
    faults: list[str] = []
    for seed in range(SEEDS):
        network = make_network(spec, tokenizer, seed)
        evidence = examine(Probe(spec, network, tokenizer), texts.values(), pairs.values())
        faults = evidence.faults()
        if not faults:
            return network, evidence
    raise WeakBundle(f"{spec.name}: no seed below {SEEDS} is good enough; the last one: {'; '.join(faults)}")


def build(spec: Spec, out: Path) -> Path:
    """Build one bundle and its torch twin below `out` and return the bundle's folder."""
    tokenizer = make_tokenizer(spec)
    network, evidence = strong_network(spec, tokenizer)
    folder, twin = out / spec.name, out / "torch" / spec.name
    network.save_pretrained(twin)  # first: it names the architecture in the config
    model = write_bundle(spec, network, tokenizer, folder)
    worst = check_export(Probe(spec, network, tokenizer), model, sample_inputs()[0].values())
    for path in folder.glob("*token*.json"):
        shutil.copy(path, twin / path.name)
    print(f"{spec.name}: {kilobytes(folder)} KB, export differs by {worst:.1e}, {evidence}")
    return folder


def strong_generator(
    spec: GenerationSpec, tokenizer: hf.PreTrainedTokenizerFast
) -> tuple[Generator, GenerationEvidence]:
    """Return the generator of the first seed that passes the checks; raise `WeakBundle` when none does."""
    prompts = generation_prompts()
    faults: list[str] = []
    for seed in range(spec.seed, spec.seed + SEEDS):
        generator = Generator(spec, make_generator(spec, tokenizer, seed), tokenizer)
        end_sometimes(generator, prompts)
        evidence = examine_generator(generator, prompts)
        faults = evidence.faults()
        if not faults:
            return generator, evidence
    raise WeakBundle(f"{spec.name}: none of {SEEDS} seeds is good enough; the last one: {'; '.join(faults)}")


def build_generation(spec: GenerationSpec, out: Path) -> Path:
    """Build one bundle that generates text and its torch twin below `out` and return the bundle's folder."""
    tokenizer = make_tokenizer(spec)
    generator, evidence = strong_generator(spec, tokenizer)
    folder, twin = out / spec.name, out / "torch" / spec.name
    generator.network.save_pretrained(twin)  # first: it names the architecture in the config
    write_generator(spec, generator.network, tokenizer, folder)
    worst = check_generator(Generator(spec, load_generator(spec, twin), tokenizer), folder, generation_prompts())
    for path in folder.glob("*token*.json"):
        shutil.copy(path, twin / path.name)
    print(f"{spec.name}: {kilobytes(folder)} KB, export differs by {worst:.1e}, {evidence}")
    return folder


def kilobytes(folder: Path) -> int:
    """Return the size of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) // 1000


def build_all(names: Iterable[str], out: Path) -> None:
    """Build the named bundles below `out`."""
    torch.set_num_threads(1)
    hf.logging.set_verbosity_error()
    for name in names:
        if name in GENERATION:
            build_generation(GENERATION[name], out)
        else:
            build(BY_NAME[name], out)


def commit(names: Iterable[str], out: Path) -> None:
    """Copy bundles into the repository and record what transformers answers for those that have goldens."""
    for name in names:
        shutil.rmtree(BUNDLES / name, ignore_errors=True)
        shutil.copytree(out / name, BUNDLES / name)
        if name in BY_NAME:
            golden = record(BY_NAME[name], out / "torch" / name, *sample_inputs())
            write_golden(BY_NAME[name], golden, GOLDENS / f"{name}.json")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the bundles and torch twins")
    parser.add_argument(
        "--only", nargs="+", choices=sorted({**BY_NAME, **GENERATION}), metavar="NAME", help="bundles to build"
    )
    parser.add_argument(
        "--committed", action="store_true", help="copy the small subset to tests/bundles and record tests/goldens"
    )
    options = parser.parse_args()
    names = options.only or (COMMITTED if options.committed else [*BY_NAME, *GENERATION])
    build_all(names, options.out)
    if options.committed:
        commit(names, options.out)


if __name__ == "__main__":
    main()
