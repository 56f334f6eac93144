"""What a folder needs beside its graphs: configs and tokenizer as they are, tokenizer.json where there is none,
sentence-transformers' modules."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparktasks.errors import BundleError
from sparktasks.export.source import Source, list_files
from sparktasks.runtime.folder_files import inside
from sparktasks.runtime.sentencepieces import SOURCES

_CONFIGS = ("config.json", "generation_config.json")
_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json"),
)
# Of tokenizers that have no tokenizer.json, and can have none.
_PIECES = ("vocab.json", "target_vocab.json", "target.spm", *SOURCES)
_CARD = ("README.md", "LICENSE", "LICENSE.txt", "NOTICE")
_SENTENCE_SETTINGS = ("modules.json", "config_sentence_transformers.json")


def load_tokenizer(source: Source) -> Any:
    """Open a model's tokenizer; `BundleError` where it is missing, or of a kind that needs Python code of its own."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of any kind, where files are missing
        raise BundleError(
            f"{source.name}: transformers cannot open its tokenizer ({type(error).__name__}: {error}). "
            f"It has: {list_files(source.folder)}"
        ) from error
    has_pieces = any((source.folder / name).is_file() for name in SOURCES) and (source.folder / "vocab.json").is_file()
    if not tokenizer.is_fast and not has_pieces:
        raise BundleError(
            f"{source.name}: its tokenizer, {type(tokenizer).__name__}, has no fast form in transformers, so there "
            "can be no tokenizer.json"
        )
    return tokenizer


def write_small_files(source: Source, tokenizer: Any, target: Path) -> None:
    """Write all that a folder needs beside its graphs."""
    _copy(source.root, _CARD, target)
    _copy(source.folder, _CONFIGS, target)
    if tokenizer.is_fast and not (source.folder / "tokenizer.json").is_file():
        tokenizer.save_pretrained(target, legacy_format=False)
    else:
        _copy(source.folder, _TOKENIZER if tokenizer.is_fast else (*_TOKENIZER, *_PIECES), target)
    if source.modules:
        _write_modules(source, target)


def _copy(folder: Path, names: tuple[str, ...], target: Path) -> None:
    for name in names:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)


def _write_modules(source: Source, target: Path) -> None:
    """Carry over sentence-transformers' settings, and the modules behind the transformer with their weights."""
    _copy(source.root, _SENTENCE_SETTINGS, target)
    for settings in source.folder.glob("sentence_*_config.json"):
        copy = target / settings.relative_to(source.root)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(settings, copy)
    for module in source.modules:
        path = str(module.get("path") or "")
        if path and source.root / path != source.folder:
            _write_module(source, path, target / path)


def _write_module(source: Source, path: str, target: Path) -> None:
    """Copy a module's settings and weights; some, such as Normalize, have neither."""
    if not (source.root / path / "config.json").is_file():
        return
    folder = inside(source.root, f"{path}/config.json", str(source.root / "modules.json")).parent
    target.mkdir(parents=True, exist_ok=True)
    _copy(folder, ("config.json", "model.safetensors"), target)
    pickled = folder / "pytorch_model.bin"
    if pickled.is_file() and not (folder / "model.safetensors").is_file():
        _save_tensors(_unpickled(pickled), target / "model.safetensors")


def _unpickled(path: Path) -> Mapping[str, Any]:
    import torch

    weights: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def _save_tensors(weights: Mapping[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
