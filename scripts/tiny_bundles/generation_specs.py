"""The literal table of tiny bundles that generate text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CAUSAL = "text-generation"
SEQ2SEQ = "text2text-generation"

# What the graphs of a bundle are: the files of each layout are in FILES.
PAST = "past"  # one graph with a cache, as Optimum exports decoders today
NO_PAST = "no-past"
SPLIT = "split"  # a graph for the first step and one for the others
MERGED = "merged"  # both in one file, chosen by the input use_cache_branch
EVERY = "every"  # split and merged files side by side, as Optimum leaves them
LOGITS = "logits"  # like PAST, with the input num_logits_to_keep
# a decoder with a cache that takes vectors, and a graph that turns ids into them: as models that also see are published
EMBEDS = "embeds"
# attention is one node, and genai_config.json stands for config.json: as onnxruntime-genai's builder writes
GROUPED = "grouped"

HALF = "fp16"  # weights, cache and logits are float16, and the files are named so

DECODER, WITH_PAST, DECODER_MERGED = "decoder_model.onnx", "decoder_with_past_model.onnx", "decoder_model_merged.onnx"
ENCODER, EMBED_TOKENS = "encoder_model.onnx", "embed_tokens.onnx"
FILES: dict[tuple[str, str], tuple[str, ...]] = {
    (CAUSAL, PAST): ("model.onnx",),
    (CAUSAL, LOGITS): ("model.onnx",),
    (CAUSAL, GROUPED): ("model.onnx",),
    (CAUSAL, EMBEDS): (DECODER_MERGED, EMBED_TOKENS),
    (CAUSAL, NO_PAST): ("model.onnx",),
    (CAUSAL, SPLIT): (DECODER, WITH_PAST),
    (CAUSAL, MERGED): (DECODER_MERGED,),
    (SEQ2SEQ, NO_PAST): (ENCODER, DECODER),
    (SEQ2SEQ, SPLIT): (ENCODER, DECODER, WITH_PAST),
    (SEQ2SEQ, MERGED): (ENCODER, DECODER_MERGED),
    (SEQ2SEQ, EVERY): (ENCODER, DECODER, WITH_PAST, DECODER_MERGED),
}


@dataclass(frozen=True)
class GenerationSpec:
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
    baked_blocks: bool = False
    precision: str = ""  # HALF, or "" for float32

    @property
    def files(self) -> tuple[str, ...]:
        """Return the names of the graphs."""
        return tuple(f"{Path(name).stem}_{self.precision}.onnx" if self.precision else name for name in self.exported)

    @property
    def exported(self) -> tuple[str, ...]:
        """Return the names of the graphs as they are exported, in float32."""
        return FILES[self.task, self.layout]


def causal(
    arch: str, tokenizer: str, generation: dict[str, Any], variant: str = "", layout: str = PAST, **options: Any
) -> GenerationSpec:
    """Return the decoder of an architecture."""
    return GenerationSpec(
        "-".join(filter(None, (arch, CAUSAL, variant))), CAUSAL, arch, layout, tokenizer, generation, **options
    )


def seq2seq(
    arch: str, tokenizer: str, generation: dict[str, Any], variant: str = "", layout: str = MERGED, **options: Any
) -> GenerationSpec:
    """Return the encoder and decoder of an architecture."""
    return GenerationSpec(
        "-".join(filter(None, (arch, SEQ2SEQ, variant))), SEQ2SEQ, arch, layout, tokenizer, generation, **options
    )


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
UNROUNDED = {
    "relative_attention_max_distance": 40
}  # no distance at the edge of a bucket, where float16 would find another

GENERATION_SPECS: tuple[GenerationSpec, ...] = (
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
    seq2seq("t5", "t5", T5, HALF, precision=HALF, sizes=UNROUNDED, seed=31),
    seq2seq("m2m_100", "nllb", NLLB, "nllb", seed=32),
)

GENERATION: dict[str, GenerationSpec] = {spec.name: spec for spec in GENERATION_SPECS}
