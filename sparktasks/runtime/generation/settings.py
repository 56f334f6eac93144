"""What decides a generated text besides model and prompt: Hugging Face's generation settings, under their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

Bias = tuple[tuple[int, ...], float]


@dataclass(frozen=True)
class Settings:
    """How texts are generated. Lengths count tokens; ``max_length`` and ``min_length`` count the decoder's prompt
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

    def minimum(self, prompt_tokens: np.ndarray) -> np.ndarray:
        """Return how many tokens must come before an end token, for prompts of these lengths."""
        return np.asarray(np.maximum(self.min_new_tokens, self.min_length - prompt_tokens))


# Settings that Hugging Face's files may have and this engine does not support, with the values that switch them off.
UNSUPPORTED = {
    "num_beam_groups": (1, None),
    "penalty_alpha": (0, None),
    "guidance_scale": (1, None),
    "constraints": (None,),
    "force_words_ids": (None,),
    "watermarking_config": (None,),
    "dola_layers": (None,),
}

# Seed and grammar are ours: Hugging Face's files have no such keys, and must not set them by accident.
_GENERATION_KEYS = frozenset(field.name for field in fields(Settings)) - {"seed", "grammar"}


def read_settings(*sources: Mapping[str, Any]) -> Settings:
    """Read settings from JSON-like mappings; later ones override earlier ones. Unknown keys and nulls are ignored."""
    values: dict[str, Any] = {}
    for source in sources:
        for key, value in source.items():
            if key in _GENERATION_KEYS and value is not None:
                values[key] = value
    for key, freeze in _FREEZE.items():
        if key in values:
            values[key] = freeze(values[key])
    return replace(Settings(), **values)


def unsupported(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that ask for something this engine does not support."""
    return {key: source[key] for key, idle in UNSUPPORTED.items() if source.get(key) not in idle}


def _tuple(value: Any) -> tuple[Any, ...]:
    """Freeze a list; a single value is a list of one."""
    if isinstance(value, (list, tuple)):
        return tuple(value)
    return (value,)


def _bad_words(value: Any) -> tuple[tuple[int, ...], ...]:
    """Freeze lists of ids."""
    return tuple(tuple(ids) for ids in value)


def _sequence_bias(value: Any) -> tuple[Bias, ...]:
    """Freeze pairs of ids and what is added to their scores; older files have a mapping."""
    if isinstance(value, Mapping):
        value = value.items()
    return tuple((tuple(ids), float(bias)) for ids, bias in value)


def _decay(value: Any) -> tuple[int, float]:
    """Freeze the pair of a start and a factor."""
    return int(value[0]), float(value[1])


# JSON has lists where settings must be hashable: they are part of the key of a process's generators.
_FREEZE: dict[str, Callable[[Any], Any]] = {
    "suppress_tokens": _tuple,
    "begin_suppress_tokens": _tuple,
    "bos_token_id": _tuple,
    "eos_token_id": _tuple,
    "forced_eos_token_id": _tuple,
    "stop_strings": _tuple,
    "bad_words_ids": _bad_words,
    "sequence_bias": _sequence_bias,
    "exponential_decay_length_penalty": _decay,
}
