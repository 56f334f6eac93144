"""What onnxruntime-genai's genai_config.json says of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparktasks.errors import BundleError

FILE = "genai_config.json"
_TOKENS = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
_ROOM = ("max_length", "min_length")


def decoder_file(folder: Path, genai: dict[str, Any]) -> str:
    """Return the file of the decoder; `BundleError` where none is named."""
    decoder = genai.get("model", {}).get("decoder")
    name = decoder.get("filename") if isinstance(decoder, dict) else None
    if not isinstance(name, str):
        raise BundleError(f"{folder / FILE}: model.decoder.filename is {name!r}; the name of an ONNX file is expected")
    return name


def as_config(genai: dict[str, Any]) -> dict[str, Any]:
    """Return it under the names that config.json and generation_config.json have for the same."""
    model, search = genai["model"], genai.get("search", {})
    # The lengths say how much room there is, not how long a text is to be.
    config = {key: value for key, value in search.items() if key not in _ROOM}
    config.update({key: model.get(key) for key in _TOKENS})
    config["max_position_embeddings"] = model.get("context_length")
    config["head_dim"] = model.get("decoder", {}).get("head_size")
    config["model_type"] = model.get("type")
    return config
