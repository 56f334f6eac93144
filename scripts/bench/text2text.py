"""Translation- and summarization-sized encoder-decoders: sparktasks against transformers and CTranslate2.

    python scripts/bench/text2text.py                       # both models, greedy and 4 beams, into
    docs/bench/text2text.md

The same random weights for all: Marian's shape (6+6 layers x 512) and BART base's (6+6 x 768), CTranslate2's converted
by its own converter. Sources are random tokens, 8 to 40 (Marian) or 60 to 200 (BART) of them; every output has 48
tokens, the end token being held back. CTranslate2 sorts and batches by itself (``max_batch_size``, by tokens as its
documentation advises). Needs: pip install ctranslate2
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import Spread, generation_arguments, ratios, seconds, write_generation_page

from sparktasks.runtime import threads
from sparktasks.runtime.bundle import open_bundle
from sparktasks.runtime.generation.decoder import Decoder
from sparktasks.runtime.generation.scheduler import BatchLimits, Scheduler
from sparktasks.runtime.generation.search import Request, Rules
from sparktasks.runtime.generation.settings import Settings
from sparktasks.runtime.quantize import quantize

NEW_TOKENS = 48
OURS, OURS_INT8 = "sparktasks, float32", "sparktasks, int8"
SOURCES = {"marian": (8, 40), "bart": (60, 200)}
SEED = 1


@dataclass(frozen=True)
class Seq2seq:
    """Folders of one network: ONNX bundle, its int8 form, checkpoint, and what CTranslate2 made of that."""

    bundle: Path
    int8: Path
    torch: Path
    ctranslate2: Path


def model(name: str, folder: Path) -> Seq2seq:
    """Return a model's folders, building them at first use."""
    found = Seq2seq(folder / name / "onnx", folder / name / "int8", folder / name / "torch", folder / name / "ct2")
    if not (found.ctranslate2 / "model.bin").is_file():
        _build(name, found)
    if not found.int8.is_dir():
        quantize(open_bundle(found.bundle), found.int8)
    return found


def _network(name: str) -> Any:
    import torch
    from transformers import BartConfig, BartForConditionalGeneration, MarianConfig, MarianMTModel

    torch.manual_seed(SEED)
    if name == "bart":
        form = {
            "normalize_before": False,
            "normalize_embedding": True,
        }  # as published configs have it; CTranslate2 asks
        return BartForConditionalGeneration(
            BartConfig(**_sides(layers=6, ffn_dim=3072, attention_heads=12), **form, d_model=768, init_std=0.05)
        ).eval()
    ids = {
        "vocab_size": 58101,
        "pad_token_id": 58100,
        "decoder_start_token_id": 58100,
        "eos_token_id": 0,
        "forced_eos_token_id": None,
    }
    form = {"static_position_embeddings": True, "activation_function": "swish", "scale_embedding": True}
    config = MarianConfig(
        **_sides(layers=6, ffn_dim=2048, attention_heads=8), **ids, **form, d_model=512, init_std=0.05
    )
    return MarianMTModel(config).eval()


def _sides(**sizes: int) -> dict[str, int]:
    """Say the same of encoder and decoder."""
    return {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in sizes.items()}


def _build(name: str, target: Seq2seq) -> None:
    from ctranslate2.converters import TransformersConverter
    from optimum.exporters.onnx import onnx_export_from_model
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    network = _network(name)
    config = network.config
    network.generation_config.forced_eos_token_id = None
    words = {f"w{index}": index for index in range(config.vocab_size)}
    names = {"eos_token": config.eos_token_id, "pad_token": config.pad_token_id, "unk_token": 3}
    names |= {"bos_token": 0} if config.eos_token_id else {}  # Marian has none
    special = {key: f"<{key.removesuffix('_token')}>" for key in names}
    for key, index in names.items():
        words.pop(f"w{index}", None)
        words[special[key]] = index
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token=special["unk_token"])), **special
    )
    for folder in (target.bundle, target.ctranslate2):
        shutil.rmtree(folder, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracer warnings about shapes
        onnx_export_from_model(network, target.bundle, task="text2text-generation-with-past", do_validation=False)
    tokenizer.save_pretrained(target.bundle)
    network.save_pretrained(target.torch)
    tokenizer.save_pretrained(target.torch)
    TransformersConverter(str(target.torch)).convert(str(target.ctranslate2))


def sources(name: str, count: int, vocabulary: int) -> list[list[int]]:
    """Return random sources."""
    random.seed(0)
    low, high = SOURCES[name]
    return [[random.randrange(10, vocabulary - 10) for _ in range(random.randint(low, high))] for _ in range(count)]


Run = Callable[[Sequence[list[int]]], int]


def ours(folder: Path, beams: int) -> Run:
    """Generate with the scheduler; all runs return how many tokens they made."""
    bundle = open_bundle(folder)
    decoder = Decoder(bundle)
    start, end = int(bundle.config["decoder_start_token_id"]), int(bundle.config["eos_token_id"])
    scheduler = Scheduler(
        decoder,
        Rules(Settings(num_beams=beams, suppress_tokens=(end,)), _holding(end), None),
        BatchLimits(32 * beams, 1 << 20, 1024),
    )

    def run(rows: Sequence[list[int]]) -> int:
        made = scheduler.run([Request((start,), (*row, end), limit=NEW_TOKENS) for row in rows])
        return sum(len(result[0].ids) for result in made if not isinstance(result, Exception))

    return run


def _holding(end: int) -> list[Any]:
    from sparktasks.runtime.generation.processors import Suppress

    return [Suppress((end,))]


def of_transformers(folders: Seq2seq, beams: int, size: int = 32) -> Run:
    """Generate with transformers, in batches of sources of similar length."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    torch.set_num_threads(threads.count())
    network = AutoModelForSeq2SeqLM.from_pretrained(folders.torch).eval()
    end = network.config.eos_token_id

    def run(rows: Sequence[list[int]]) -> int:
        ordered, count = sorted(rows, key=len), 0
        for start in range(0, len(ordered), size):
            part = [[*row, end] for row in ordered[start : start + size]]
            width = max(map(len, part))
            ids = torch.tensor([row + [network.config.pad_token_id] * (width - len(row)) for row in part])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in part])
            with torch.inference_mode():
                found = network.generate(
                    ids,
                    attention_mask=mask,
                    max_new_tokens=NEW_TOKENS,
                    min_new_tokens=NEW_TOKENS,
                    num_beams=beams,
                    do_sample=False,
                )
            count += (found.shape[1] - 1) * len(part)
        return count

    return run


def of_ctranslate2(folders: Seq2seq, beams: int, compute: str) -> Run:
    """Generate with CTranslate2."""
    import ctranslate2

    translator = ctranslate2.Translator(
        str(folders.ctranslate2), device="cpu", compute_type=compute, intra_threads=threads.count(), inter_threads=1
    )
    names = json.loads((folders.bundle / "tokenizer.json").read_text())["model"]["vocab"]
    words = {index: name for name, index in names.items()}
    end = json.loads((folders.bundle / "config.json").read_text())["eos_token_id"]

    def run(rows: Sequence[list[int]]) -> int:
        tokens = [[words[index] for index in (*row, end)] for row in rows]
        found = translator.translate_batch(
            tokens,
            beam_size=beams,
            max_batch_size=1024,
            batch_type="tokens",
            max_decoding_length=NEW_TOKENS,
            min_decoding_length=NEW_TOKENS,
        )
        return sum(len(each.hypotheses[0]) for each in found)

    return run


def report(name: str, folders: Seq2seq, beams: int, options: argparse.Namespace) -> str:
    """Measure one model with one number of beams."""
    rows = sources(name, options.texts, int(json.loads((folders.bundle / "config.json").read_text())["vocab_size"]))
    runs: dict[str, Run] = {
        OURS: ours(folders.bundle, beams),
        OURS_INT8: ours(folders.int8, beams),
        "transformers": of_transformers(folders, beams),
        "CTranslate2, float32": of_ctranslate2(folders, beams, "float32"),
        "CTranslate2, int8": of_ctranslate2(folders, beams, "int8"),
    }
    rates: dict[str, list[float]] = {key: [] for key in runs}
    for run in runs.values():
        run(rows[:8])
    ratio_of = {key: OURS_INT8 if key.endswith("int8") else OURS for key in runs if key not in (OURS, OURS_INT8)}
    for number in range(options.rounds):
        for key, run in runs.items():
            counts: list[int] = []
            taken = seconds(lambda run=run, counts=counts: counts.append(run(rows)))
            rates[key].append(counts[0] / taken)
            print(f"{name}, {beams} beams, round {number + 1}: {key} {rates[key][-1]:.0f} tokens/s", flush=True)
    lines = [
        f"| {key} | {Spread.of(values)} | {ratios(rates[ratio_of[key]], values) if key in ratio_of else ''} |"
        for key, values in rates.items()
    ]
    low, high = SOURCES[name]
    head = f"\n## {name}, {'greedy' if beams == 1 else f'{beams} beams'}\n\n"
    head += f"{len(rows)} sources of {low} to {high} tokens, {NEW_TOKENS} new tokens each.\n"
    return (
        head + "\n| | tokens/s | sparktasks of this precision is faster by |\n|---|---|---|\n" + "\n".join(lines) + "\n"
    )


def main() -> None:
    """Run the command line."""
    parser = generation_arguments(__doc__, "text2text")
    parser.add_argument("--names", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--beams", nargs="+", type=int, default=[1, 4])
    options = parser.parse_args()
    threads.use(options.threads)
    parts = [
        report(name, model(name, options.models), beams, options) for name in options.names for beams in options.beams
    ]
    write_generation_page(options, "Encoder-decoders: tokens a second", parts)


if __name__ == "__main__":
    main()
