"""Where a model to export comes from: a folder that transformers or sentence-transformers saved, or the hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparktasks.errors import BundleError, listed
from sparktasks.runtime.folder_files import inside, interpreting, read_json

_SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_WEIGHTS = (*_SAFE_WEIGHTS, "pytorch_model.bin", "pytorch_model.bin.index.json")

# Where a repository has its weights; the second is sentence-transformers' of before 2021.
_PLACES = ("", "0_Transformer")
_SMALL_FILES = ["*.json", "*.txt", "*.jinja", "*.model", "*.spm", "LICENSE*", "NOTICE*", "README.md"]

# Of sentence-transformers' modules the older ones have their weights in this form only; they are small.
_MODULE_WEIGHTS = ["*_Dense/pytorch_model.bin", "*_LayerNorm/pytorch_model.bin"]

# Other forms of the same weights, and what training left behind.
_OTHER_FORMS = ["onnx/*", "openvino/*", "original/*", "consolidated*", "checkpoint-*/*", "runs/*"]


@dataclass(frozen=True)
class Source:
    """A model in PyTorch, under the ``name`` that the user gave it.

    ``folder`` holds config.json, the tokenizer and the weights. It is ``root``, or below it where sentence-transformers
    gave its transformer module a folder of its own. ``modules`` is the content of modules.json.
    """

    name: str
    root: Path
    folder: Path
    config: Mapping[str, Any]
    modules: tuple[Mapping[str, Any], ...]

    @property
    def model_type(self) -> str:
        """The architecture's name, as config.json has it."""
        return str(self.config.get("model_type"))


def find_source(name: str) -> Source:
    """Find a model by a folder or a hub id (``owner/name`` or ``owner/name@revision``).

    Raises `BundleError` where it is not found, or not a model in PyTorch.
    """
    path = Path(name).expanduser()
    root = (path if path.is_dir() else _from_hub(name)).resolve()
    modules = tuple(read_json(root / "modules.json") or ())
    with interpreting(root / "modules.json"):
        place = _transformer_path(modules)
    folder = root
    if place:
        folder = inside(root, f"{place}/config.json", str(root / "modules.json")).parent
    config = read_json(folder / "config.json")
    if config is None:
        raise BundleError(_not_a_model(name, folder))
    if not any((folder / file).is_file() for file in _WEIGHTS):
        raise BundleError(
            f"{name} has no weights in PyTorch: neither model.safetensors nor pytorch_model.bin, whole or in parts. "
            f"It has: {list_files(folder)}"
        )
    return Source(name, root, folder, config, modules)


def _transformer_path(modules: Iterable[Mapping[str, Any]]) -> str:
    """Return the folder of sentence-transformers' transformer module; "" where it is the root."""
    kinds = {str(module["type"]).rpartition(".")[2]: str(module.get("path") or "") for module in modules}
    return kinds.get("Transformer", "")


def _not_a_model(name: str, folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return (
            f"{name} is an adapter, not a model. Merge it into its base model first, with peft: "
            "AutoPeftModel.from_pretrained(...).merge_and_unload().save_pretrained(...)"
        )
    return f"{name} has no config.json: it is not a model that transformers saved. It has: {list_files(folder)}"


def list_files(folder: Path) -> str:
    """Name what is in a folder, for a message."""
    return listed(sorted(path.name for path in folder.iterdir()))


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    is_path = repository.count("/") != 1 or repository.startswith((".", "/", "~"))
    if is_path:
        raise BundleError(f"there is no folder {name!r}, and no hub id looks like this: owner/name is expected")

    def fetch(patterns: list[str]) -> Path:
        return Path(
            snapshot_download(
                repository, revision=revision or None, allow_patterns=patterns, ignore_patterns=_OTHER_FORMS
            )
        )

    try:
        folder = fetch([*_SMALL_FILES, *_MODULE_WEIGHTS, "*.safetensors"])
        if not any((folder / place / file).is_file() for place in _PLACES for file in _SAFE_WEIGHTS):
            folder = fetch(["*pytorch_model*.bin"])
    except Exception as error:
        raise BundleError(
            f"there is no folder {name!r} here, and the hub did not give it: {type(error).__name__}: {error}"
        ) from error
    return folder
