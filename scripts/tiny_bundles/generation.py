"""Text generators of the stock Hugging Face architectures, in every layout that their graphs are published in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers as hf

from .checks import Measure, Texts, text_measures
from .exports import place_graph, save_tokenizer
from .generation_exports import (
    CAUSAL,
    EMBEDS,
    EVERY,
    FILES,
    GROUPED,
    LOGITS,
    MERGED,
    NO_PAST,
    PAST,
    SEQ2SEQ,
    SPLIT,
    export_graphs,
    halve,
)
from .generation_graphs import compare_graphs
from .generation_grouped import write_genai_config
from .generation_networks import end_sometimes, ids_of, make_config, tune
from .generation_oracle import STEPS, Prompts, end_ids, padded, texts_of, without_mask
from .published_tokenizers import make_tokenizer
from .samples import sample_prompts

HALF = "fp16"  # weights, cache and logits are float16, and the files are named so
AUTO_CLASSES: dict[str, Any] = {CAUSAL: hf.AutoModelForCausalLM, SEQ2SEQ: hf.AutoModelForSeq2SeqLM}

# Networks that a mistake about positions does not touch: distances count in them, or pads are not counted.
UNMOVED = ("bloom", "mpt", "t5", "mt5", "m2m_100")

COMPARED = 24  # prompts whose graphs are compared with the network
TOLERANCE = 1e-4
ROUNDED = 8 * 2**-10  # of the largest logit: eight times what float16 cannot tell apart there


@dataclass(frozen=True)
class Spec:
    """What one bundle folder holds; `name` is `<architecture>-<task>[-<variant>]`."""

    name: str
    task: str
    arch: str
    layout: str
    tokenizer: str
    generation: dict[str, Any] = field(default_factory=dict)  # of generation_config.json; ids are written as tokens
    sizes: dict[str, Any] = field(default_factory=dict)  # of the network, over those of its architecture
    ends_at: float = 0.015  # share of steps at which a token that ends a text is the best
    seed: int = 0  # the first to try
    max_length: int = 256
    tokenizer_options: dict[str, object] = field(default_factory=dict)
    subfolder: str = ""  # "onnx" as transformers.js lays it out, "" as Optimum does
    external_data: bool = False
    precision: str = ""  # HALF, or "" for float32

    @property
    def exported(self) -> tuple[str, ...]:
        """Return the names of the graphs as they are exported, in float32."""
        return FILES[self.task, self.layout]

    @property
    def files(self) -> tuple[str, ...]:
        """Return the names of the graphs."""
        if not self.precision:
            return self.exported
        return tuple(f"{Path(name).stem}_{self.precision}.onnx" for name in self.exported)


def causal(
    arch: str, tokenizer: str, generation: dict[str, Any], variant: str = "", layout: str = PAST, **options: Any
) -> Spec:
    """Return the decoder of an architecture."""
    name = "-".join(filter(None, (arch, CAUSAL, variant)))
    return Spec(name, CAUSAL, arch, layout, tokenizer, generation, **options)


def seq2seq(
    arch: str, tokenizer: str, generation: dict[str, Any], variant: str = "", layout: str = MERGED, **options: Any
) -> Spec:
    """Return the encoder and decoder of an architecture."""
    name = "-".join(filter(None, (arch, SEQ2SEQ, variant)))
    return Spec(name, SEQ2SEQ, arch, layout, tokenizer, generation, **options)


END = "<|endoftext|>"
GPT2 = {"bos_token_id": END, "eos_token_id": END}
NEOX = {**GPT2, "pad_token_id": "<|padding|>"}
OPT = {"bos_token_id": "</s>", "eos_token_id": "</s>", "pad_token_id": "<pad>"}
BLOOM = {"bos_token_id": "<s>", "eos_token_id": "</s>", "pad_token_id": "<pad>"}
LLAMA = {"bos_token_id": "<s>", "eos_token_id": "</s>"}
QWEN = {"bos_token_id": END, "eos_token_id": ["<|im_end|>", END], "pad_token_id": END}
GEMMA = {"bos_token_id": "<bos>", "eos_token_id": "<eos>", "pad_token_id": "<pad>"}
PHI3 = {"bos_token_id": "<s>", "eos_token_id": [END, "<|end|>"], "pad_token_id": END}
OLMO = {"eos_token_id": END, "pad_token_id": "<|padding|>"}
T5 = {"decoder_start_token_id": "<pad>", "eos_token_id": "</s>", "pad_token_id": "<pad>"}
BART = {**BLOOM, "decoder_start_token_id": "</s>", "forced_eos_token_id": "</s>"}
MBART = {**BART, "forced_bos_token_id": "fr_XX", "num_beams": 2}
M2M = {
    **BLOOM,
    "decoder_start_token_id": "</s>",
    "forced_bos_token_id": "__fr__",
    "num_beams": 2,
    "early_stopping": True,
}
NLLB = {**M2M, "forced_bos_token_id": "fra_Latn"}
PEGASUS = {**T5, "forced_eos_token_id": "</s>", "num_beams": 3, "length_penalty": 0.8}
MARIAN = {**T5, "forced_eos_token_id": "</s>", "num_beams": 2, "bad_words_ids": [["<pad>"]]}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_layers": 3}
# No distance at the edge of a bucket, where float16 would find another.
UNROUNDED = {"relative_attention_max_distance": 40}

SPECS: tuple[Spec, ...] = (
    causal("gpt2", "gpt2", GPT2, seed=3),
    causal("gpt_neox", "gpt_neox", NEOX, seed=3),
    causal("opt", "opt", OPT),
    causal("bloom", "bloom", BLOOM, seed=5),
    causal("mpt", "gpt_neox", NEOX, seed=4),
    causal("llama", "llama", LLAMA, seed=1),
    causal("mistral", "llama", LLAMA, seed=1),
    causal("qwen2", "qwen2", QWEN),
    causal("qwen3", "qwen2", QWEN),
    causal("gemma", "gemma", GEMMA),
    causal("gemma2", "gemma", GEMMA),
    causal("phi", "phi", GPT2, external_data=True),
    causal("phi3", "phi3", PHI3),
    causal("olmo", "gpt_neox", OLMO),
    causal("starcoder2", "gpt2", GPT2, subfolder="onnx", seed=2),
    causal("gpt_bigcode", "gpt2", GPT2, seed=4),
    seq2seq("t5", "t5", T5, seed=31),
    seq2seq("t5", "t5", T5, "gated", sizes=GATED, seed=10),
    seq2seq("mt5", "t5", T5, seed=1),
    seq2seq("bart", "bart", BART, seed=41),
    seq2seq("mbart", "mbart", MBART, seed=3),
    seq2seq("pegasus", "pegasus", PEGASUS),
    seq2seq("marian", "marian", MARIAN, subfolder="onnx", seed=6),
    seq2seq("m2m_100", "m2m_100", M2M, external_data=True, seed=16),
    causal("gpt2", "gpt2", GPT2, NO_PAST, NO_PAST, seed=3),
    causal("gpt2", "gpt2", GPT2, SPLIT, SPLIT, seed=3),
    causal("gpt2", "gpt2", GPT2, MERGED, MERGED, seed=3),
    causal("gpt2", "gpt2", GPT2, HALF, precision=HALF, subfolder="onnx", seed=3),
    causal("llama", "llama", LLAMA, LOGITS, LOGITS, seed=1),
    causal("llama", "llama", LLAMA, EMBEDS, EMBEDS, subfolder="onnx", seed=1),
    causal("llama", "llama", LLAMA, GROUPED, GROUPED, sizes={"head_dim": 16}, seed=1),
    seq2seq("t5", "t5", T5, NO_PAST, NO_PAST, seed=31),
    seq2seq("t5", "t5", T5, SPLIT, SPLIT, seed=31),
    seq2seq("t5", "t5", T5, EVERY, EVERY, seed=31),
    seq2seq("t5", "t5", T5, HALF, precision=HALF, sizes=UNROUNDED, seed=35),
    seq2seq("m2m_100", "nllb", NLLB, "nllb", seed=32),
)
BY_NAME: dict[str, Spec] = {spec.name: spec for spec in SPECS}

COMMITTED: tuple[str, ...] = ("gpt2-text-generation", "t5-text2text-generation")


def processor(spec: Spec) -> hf.PreTrainedTokenizerFast:
    """Return the bundle's tokenizer."""
    return make_tokenizer(spec.tokenizer, spec.max_length, spec.tokenizer_options)


def network(spec: Spec, tokenizer: hf.PreTrainedTokenizerFast, seed: int) -> hf.PreTrainedModel:
    """Return the randomly initialised network of a bundle, in eval mode, with its generation config."""
    torch.manual_seed(seed)
    settings = {key: ids_of(value, tokenizer) for key, value in spec.generation.items()}
    config = make_config(spec.arch, spec.sizes, settings, len(tokenizer))
    network = AUTO_CLASSES[spec.task].from_config(config).eval()
    network.generation_config = hf.GenerationConfig(**settings)
    tune(network, spec.arch, tokenizer.pad_token_id)
    end_sometimes(network, batch(spec, tokenizer, sample_prompts()), spec.ends_at)
    return network


def batch(spec: Spec, tokenizer: hf.PreTrainedTokenizerFast, prompts: list[str], swapped: bool = False) -> Prompts:
    """Return prompts in one batch, padded on the side where its task wants pads, or `swapped` on the other."""
    fill = tokenizer.pad_token_id
    if fill is None:
        fill, *_ = end_ids(ids_of(spec.generation["eos_token_id"], tokenizer))
    return padded(tokenizer, prompts, fill, left=(spec.task == CAUSAL) is not swapped)


def inputs(spec: Spec, tokenizer: hf.PreTrainedTokenizerFast) -> list[Prompts]:
    """Return one batch of the prompts that differ in their tokens."""
    return [batch(spec, tokenizer, distinct_prompts(tokenizer))]


def distinct_prompts(tokenizer: hf.PreTrainedTokenizerFast) -> list[str]:
    """Return the prompts that differ in their tokens."""
    return list({tuple(tokenizer(prompt).input_ids): prompt for prompt in sample_prompts()}.values())


def answer(spec: Spec, network: hf.PreTrainedModel, prompts: Prompts) -> Texts:
    """Return what the network generates."""
    return texts_of(network, prompts)


def wrong_inputs(
    spec: Spec, tokenizer: hf.PreTrainedTokenizerFast, items: list[Prompts]
) -> dict[str, list[tuple[Prompts, Prompts]]]:
    """Return right and wrong inputs by the name of the mistake."""
    (right,) = items
    mistakes = {"pads not masked": [(right, without_mask(right))]}
    if spec.arch not in UNMOVED:
        shifted = Prompts(right.feeds, right.numbers, shifted=True)
        swapped = batch(spec, tokenizer, distinct_prompts(tokenizer), swapped=True)
        mistakes["wrong positions"] = [(right, shifted if spec.task == CAUSAL else swapped)]
    return mistakes


def measures(spec: Spec, answers: list[Texts], mistakes: dict[str, list[tuple[Texts, Texts]]]) -> list[Measure]:
    """Measure the right texts and what mistakes change."""
    (texts,) = answers
    return text_measures(texts, mistakes, STEPS)


def export(spec: Spec, network: hf.PreTrainedModel, tokenizer: hf.PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the bundle's files."""
    network.config.use_cache = spec.layout != NO_PAST
    network.config.save_pretrained(folder)
    network.generation_config.save_pretrained(folder)
    with TemporaryDirectory() as name:
        work = Path(name)
        export_graphs(spec.task, spec.layout, network, work)
        if spec.precision == HALF:
            halve(work, spec.layout == MERGED)
        for plain, file in zip(spec.exported, spec.files, strict=True):
            place_graph(work / plain, folder / spec.subfolder / file, spec.external_data)
    save_tokenizer(tokenizer, folder)
    if spec.layout == GROUPED:
        write_genai_config(network, folder)


def export_difference(
    spec: Spec, network: hf.PreTrainedModel, tokenizer: hf.PreTrainedTokenizerFast, folder: Path
) -> Measure:
    """Compare the graphs with the network, on a padded batch and its next steps."""
    prompts = sample_prompts()[:COMPARED]
    # Grouped attention knows no pads before a text.
    parts = [[prompt] for prompt in prompts] if spec.layout == GROUPED else [prompts]
    batches = [batch(spec, tokenizer, part) for part in parts]
    worst, largest = compare_graphs(folder / spec.subfolder, spec.files, network, batches)
    tolerance = ROUNDED * largest if spec.precision == HALF else TOLERANCE
    return Measure("difference of the graphs", worst, most=tolerance)


def golden(spec: Spec, twin: Path) -> dict[str, Any]:
    """Return nothing: the committed generators are compared with transformers live."""
    return {}
