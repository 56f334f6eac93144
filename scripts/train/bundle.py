"""Write a trained model as a starter bundle in Optimum's layout: ONNX graph, tokenizer files, card, licence."""

import argparse
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import numpy as np
import onnxruntime
import torch
from common import collate
from transformers import BertTokenizerFast, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")
SIZE_LIMIT = 4_000_000
CARDS = Path(__file__).resolve().parent / "cards"


def export_onnx(model: PreTrainedModel, path: Path, *, per_token: bool) -> None:
    """Export the model with free batch and sequence axes."""
    model.eval()
    model.config.return_dict = False
    axes = {0: "batch_size", 1: "sequence_length"}
    inputs, _ = collate([([2, 10, 11, 3], 0), ([2, 12, 3], 0)], model.config.pad_token_id)
    torch.onnx.export(
        model,
        tuple(inputs[name] for name in INPUT_NAMES),
        str(path),
        input_names=list(INPUT_NAMES),
        output_names=["logits"],
        dynamic_axes=dict.fromkeys(INPUT_NAMES, axes) | {"logits": axes if per_token else {0: "batch_size"}},
        opset_version=17,
        dynamo=False,
    )
    model.config.return_dict = True


@torch.no_grad()
def check_onnx(model: PreTrainedModel, path: Path, sequences: Sequence[list[int]], tolerance: float = 1e-4) -> float:
    """The largest distance between onnxruntime's and torch's logits over batches of many shapes; raises above the
    tolerance."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = random.Random(0)
    worst, start = 0.0, 0
    while start < len(sequences):
        size = rng.choice((1, 3, 5, 8))
        inputs, _ = collate([(list(ids), 0) for ids in sequences[start : start + size]], model.config.pad_token_id)
        start += size
        (found,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in inputs.items()})
        worst = max(worst, float(np.abs(found - model(**inputs).logits.numpy()).max()))
    if worst > tolerance:
        raise RuntimeError(f"onnxruntime and torch differ by {worst}")
    return worst


def write_bundle(  # noqa: PLR0913
    model: PreTrainedModel,
    tokenizer: BertTokenizerFast,
    samples: Sequence[list[int]],
    options: argparse.Namespace,
    *,
    card: str,
    values: Mapping[str, object],
    started: float,
) -> None:
    """Write the bundle folder, check its graph on the samples and its size against the limit, say how long the run
    took."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    export_onnx(model, out / "model.onnx", per_token="Token" in type(model).__name__)
    print(f"onnxruntime and torch differ by at most {check_onnx(model, out / 'model.onnx', samples):.1e}")
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(out)
    tokenizer.backend_tokenizer.no_truncation()
    finish(model, tokenizer, options, card=card, values=values, started=started)


def write_decoder(  # noqa: PLR0913
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    samples: Sequence[list[int]],
    options: argparse.Namespace,
    *,
    card: str,
    values: Mapping[str, object],
    started: float,
) -> None:
    """Write the bundle folder of a model that continues texts, with a key-value cache; check its graph on the
    samples."""
    from optimum.exporters.onnx import onnx_export_from_model

    model.eval()
    model.generation_config.pad_token_id = model.config.eos_token_id
    onnx_export_from_model(model, options.out, task="text-generation-with-past", do_validation=False)
    print(f"onnxruntime and torch differ by at most {check_decoder(model, options.out / 'model.onnx', samples):.1e}")
    finish(model, tokenizer, options, card=card, values=values, started=started)


@torch.no_grad()
def check_decoder(model: PreTrainedModel, path: Path, sequences: Sequence[list[int]], tolerance: float = 1e-4) -> float:
    """The largest distance between onnxruntime's and torch's logits, texts read at once and token by token; raises
    above the tolerance."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = [port.name for port in session.get_outputs()]
    empty = {
        port.name: np.zeros((1, port.shape[1], 0, port.shape[3]), np.float32)
        for port in session.get_inputs()
        if "past" in port.name
    }
    worst = 0.0
    for number, sequence in enumerate(sequences):
        ids, cache, found = np.array([sequence]), empty, []
        for part in np.split(ids, [] if number % 2 else range(1, len(sequence)), axis=1):
            seen = next(iter(cache.values())).shape[2]
            places = np.arange(seen, seen + part.shape[1])[None]
            feeds = {
                "input_ids": part,
                "attention_mask": np.ones((1, places[0, -1] + 1), np.int64),
                "position_ids": places,
            }
            values = dict(zip(outputs, session.run(None, feeds | cache), strict=True))
            found.append(values["logits"])
            cache = {name: values[name.replace("past_key_values", "present")] for name in empty}
        worst = max(worst, float(np.abs(np.concatenate(found, axis=1) - model(torch.tensor(ids)).logits.numpy()).max()))
    if worst > tolerance:
        raise RuntimeError(f"onnxruntime and torch differ by {worst}")
    return worst


def finish(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    options: argparse.Namespace,
    *,
    card: str,
    values: Mapping[str, object],
    started: float,
) -> None:
    """Write tokenizer, card and licence beside a graph; check the size; say how long the run took."""
    out: Path = options.out
    tokenizer.save_pretrained(out)
    if options.keep_torch:
        model.save_pretrained(options.keep_torch)
        tokenizer.save_pretrained(options.keep_torch)
    seconds = time.monotonic() - started
    facts = {"minutes": f"{time.process_time() / 60:.0f}", "seed": options.seed, "threads": options.threads}
    write_card(model.config, CARDS / card, out, {**facts, **values})
    print(
        f"{dict(values)}, {check_size(out) / 1e6:.2f} MB, {seconds:.0f} s in all, {time.process_time():.0f} s "
        "of the processor"
    )


def write_card(config: PretrainedConfig, templates: Path, out: Path, values: Mapping[str, object]) -> None:
    """Fill in the bundle's card and licence."""
    shape = {
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "vocabulary": f"{config.vocab_size:,}",
        "max_length": config.max_position_embeddings,
    }
    for name in ("README.md", "LICENSE"):
        text = Template((templates / name).read_text(encoding="utf-8")).substitute({**shape, **values})
        (out / name).write_text(text, encoding="utf-8")


def check_size(out: Path) -> int:
    """The bytes of the bundle; raises above the limit."""
    size = sum(file.stat().st_size for file in out.iterdir())
    if size > SIZE_LIMIT:
        raise RuntimeError(f"the bundle is {size} bytes, more than {SIZE_LIMIT}")
    return size
