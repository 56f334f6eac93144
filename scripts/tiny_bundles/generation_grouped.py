"""Decoders whose attention is one node, onnxruntime's GroupQueryAttention: the graphs and folders that
onnxruntime-genai's builder writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from .exports import trace

DOMAIN = "com.microsoft"
OPSET = 18
BATCH = "batch_size"
CACHE_AXES = {0: BATCH, 2: "past_sequence_length", 3: "kv_cache_dim"}


class GroupedAttention(torch.autograd.Function):
    """Stands for the node while a graph is traced; what it computes then has the right shapes, and nothing else."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, past: torch.Tensor, *rest: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the attention's output and the longer cache."""
        batch, heads, _, size = past.shape
        longer = torch.cat([past, past.new_zeros(batch, heads, query.shape[1], size)], dim=2)
        return torch.zeros_like(query), longer, longer.clone()

    @staticmethod
    def symbolic(g: Any, *inputs: Any) -> Any:
        """Write the node."""
        *tensors, heads, groups = inputs
        sizes = {"num_heads_i": heads, "kv_num_heads_i": groups, "do_rotary_i": 1}
        outputs = g.op(f"{DOMAIN}::GroupQueryAttention", *tensors, **sizes, outputs=3)
        query, past_key, past_value = tensors[0], tensors[3], tensors[4]
        for output, like in zip(outputs, (query, past_key, past_value), strict=True):
            output.setType(like.type().with_sizes([None] * like.type().dim()))
        return outputs


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
            states, attention = layer.input_layernorm(hidden), layer.self_attn
            projected = (attention.q_proj(states), attention.k_proj(states), attention.v_proj(states))
            rest = (seen, total, self.cos, self.sin, self.heads, self.groups)
            output, *present = GroupedAttention.apply(*projected, key, value, *rest)
            cache.extend(present)
            hidden = hidden + attention.o_proj(output)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return self.network.lm_head(model.norm(hidden)), *cache


def export_grouped(network: hf.LlamaForCausalLM, work: Path) -> None:
    """Export a Llama with the builder's names and shapes."""
    config = network.config
    feeds = {"input_ids": torch.ones((2, 3), dtype=torch.long), "attention_mask": torch.ones((2, 7), dtype=torch.long)}
    outputs = ["logits"]
    axes = {name: {0: BATCH, 1: "tokens"} for name in [*feeds, *outputs]}
    for layer in range(config.num_hidden_layers):
        for part in ("key", "value"):
            past, present = f"past_key_values.{layer}.{part}", f"present.{layer}.{part}"
            feeds[past] = torch.zeros(2, config.num_key_value_heads, 4, config.head_dim)
            outputs.append(present)
            axes |= {past: CACHE_AXES, present: CACHE_AXES}
    trace(Grouped(network), feeds, outputs, axes, work / "model.onnx", opset_version=OPSET, custom_opsets={DOMAIN: 1})


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
    content = json.dumps({"model": model, "search": search}, indent=1)
    (folder / "genai_config.json").write_text(content, encoding="utf-8")
    for name in ("config.json", "generation_config.json"):
        (folder / name).unlink()
