"""Decoders whose attention is one node, onnxruntime's GroupQueryAttention: the graphs and folders that
onnxruntime-genai's builder writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers as hf

DOMAIN = "com.microsoft"
SIZES = ("batch_size", "num_heads", "past_sequence_length", "kv_cache_dim")


class GroupedAttention(torch.autograd.Function):
    """Stands for the node while a graph is traced; what it computes then has the right shapes, and nothing else."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, *rest: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the attention's output and the longer cache."""
        _, past, *_ = rest
        grown = torch.cat([past, past.new_zeros(*past.shape[:2], query.shape[1], past.shape[3])], dim=2)
        return torch.zeros_like(query), grown, grown.clone()

    @staticmethod
    def symbolic(g: Any, *inputs: Any) -> Any:
        """Write the node."""
        *tensors, heads, groups = inputs
        made = g.op(
            f"{DOMAIN}::GroupQueryAttention",
            *tensors,
            num_heads_i=heads,
            kv_num_heads_i=groups,
            do_rotary_i=1,
            outputs=3,
        )
        for output, like in zip(made, (tensors[0], *tensors[3:5]), strict=True):
            output.setType(like.type().with_sizes([None] * like.type().dim()))
        return made


class Grouped(torch.nn.Module):
    """A Llama with such attention: it counts the mask's ones, and finds positions by itself."""

    def __init__(self, network: hf.LlamaForCausalLM) -> None:
        super().__init__()
        self.network, config = network, network.config
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        places = torch.arange(config.max_position_embeddings)[None]
        angles = network.model.rotary_emb(torch.zeros(1), places)
        self.cos, self.sin = (table[0, :, : table.shape[-1] // 2].contiguous() for table in angles)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the logits and the cache."""
        model, cache = self.network.model, []
        seen = (mask.sum(dim=1) - 1).to(torch.int32)
        total = torch._shape_as_tensor(mask)[1].to(torch.int32)
        hidden = model.embed_tokens(ids)
        for layer, key, value in zip(model.layers, past[::2], past[1::2], strict=True):
            states, part = layer.input_layernorm(hidden), layer.self_attn
            read = (part.q_proj(states), part.k_proj(states), part.v_proj(states))
            made, *grown = GroupedAttention.apply(
                *read, key, value, seen, total, self.cos, self.sin, self.heads, self.groups
            )
            cache.extend(grown)
            hidden = hidden + part.o_proj(made)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return self.network.lm_head(model.norm(hidden)), *cache


def export_grouped(network: hf.LlamaForCausalLM, path: Path, opset: int) -> None:
    """Export a Llama with the builder's names and shapes."""
    config, ids, mask = network.config, torch.ones((2, 3), dtype=torch.long), torch.ones((2, 7), dtype=torch.long)
    past = [torch.zeros(2, config.num_key_value_heads, 4, config.head_dim) for _ in range(2 * config.num_hidden_layers)]
    layers = [f"{layer}.{part}" for layer in range(config.num_hidden_layers) for part in ("key", "value")]
    taken, given = ([f"{name}.{layer}" for layer in layers] for name in ("past_key_values", "present"))
    varying = {0: SIZES[0], 2: SIZES[2], 3: SIZES[3]}
    axes = {name: {0: SIZES[0], 1: "tokens"} for name in ("input_ids", "attention_mask", "logits")} | dict.fromkeys(
        (*taken, *given), varying
    )
    torch.onnx.export(
        Grouped(network).eval(),
        (ids, mask, *past),
        path,
        input_names=["input_ids", "attention_mask", *taken],
        output_names=["logits", *given],
        dynamic_axes=axes,
        opset_version=opset,
        custom_opsets={DOMAIN: 1},
        dynamo=False,
    )


def write_genai_config(network: hf.LlamaForCausalLM, folder: Path) -> None:
    """Write genai_config.json in the place of Hugging Face's files."""
    config, settings = network.config, network.generation_config
    ids = {name: getattr(settings, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model = {
        **ids,
        "context_length": config.max_position_embeddings,
        "decoder": {
            "filename": "model.onnx",
            "head_size": config.head_dim,
            "num_key_value_heads": config.num_key_value_heads,
        },
        "type": config.model_type,
        "vocab_size": config.vocab_size,
    }
    search = {
        "do_sample": False,
        "max_length": config.max_position_embeddings,
        "num_beams": 1,
        "past_present_share_buffer": True,
        "top_k": 50,
    }
    (folder / "genai_config.json").write_text(
        json.dumps({"model": model, "search": search}, indent=1), encoding="utf-8"
    )
    for name in ("config.json", "generation_config.json"):
        (folder / name).unlink()
