"""What decides a generated text besides model and prompt: Hugging Face's generation settings, under their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

Bias = tuple[tuple[int, ...], float]


@dataclass(frozen=True)
class Settings:
    """How texts are generated. Lengths count tokens; ``max_length`` and ``min_length`` those of the decoder's prompt
    too."""

    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int = 0
    min_length: int = 0
    num_beams: int = 1
    num_return_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = 50
    top_p: float = 1.0
    min_p: float | None = None
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    seed: int = 0
    repetition_penalty: float = 1.0
    encoder_repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    exponential_decay_length_penalty: tuple[int, float] | None = None
    sequence_bias: tuple[Bias, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: tuple[int, ...] = ()
    eos_token_id: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    grammar: str = ""
    bos_token_id: tuple[int, ...] = ()
    decoder_start_token_id: int | None = None

    def limit(self, prompt_tokens: int) -> int:
        """Return how many tokens may follow a decoder's prompt."""
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        return max(0, (self.max_length or 0) - prompt_tokens)

    def least(self, prompt_tokens: np.ndarray) -> np.ndarray:
        """Return how many tokens must come before an end token, for prompts of these lengths."""
        return np.asarray(np.maximum(self.min_new_tokens, self.min_length - prompt_tokens))


# What Hugging Face's files may say, and this engine does not do.
UNSUPPORTED = {
    "num_beam_groups": (1, None),
    "penalty_alpha": (0, None),
    "guidance_scale": (1, None),
    "constraints": (None,),
    "force_words_ids": (None,),
    "watermarking_config": (None,),
    "dola_layers": (None,),
}

_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bos_token_id", "eos_token_id", "forced_eos_token_id")
_GENERATION_KEYS = frozenset(field.name for field in fields(Settings)) - {"seed", "grammar"}


def read_settings(*sources: Mapping[str, Any]) -> Settings:
    """Read settings from JSON-like mappings; what a later one says goes first. Unknown keys are left alone, nulls say
    nothing."""
    found: dict[str, Any] = {}
    for source in sources:
        found.update({key: value for key, value in source.items() if key in _GENERATION_KEYS and value is not None})
    return replace(Settings(), **{key: _frozen(key, value) for key, value in found.items()})


def unsupported(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that ask for something this engine does not do."""
    return {key: source[key] for key, idle in UNSUPPORTED.items() if source.get(key) not in idle}


def _frozen(key: str, value: Any) -> Any:
    if key in _LISTS:
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if key == "bad_words_ids":
        return tuple(tuple(word) for word in value)
    if key == "sequence_bias":
        pairs = value.items() if isinstance(value, Mapping) else value
        return tuple((tuple(ids), float(bias)) for ids, bias in pairs)
    if key == "exponential_decay_length_penalty":
        return int(value[0]), float(value[1])
    if key == "stop_strings":
        return (value,) if isinstance(value, str) else tuple(value)
    return value
