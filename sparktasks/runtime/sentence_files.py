"""What sentence-transformers' files in a folder say: how token vectors become the vector of a text (versions 1 to 5).

A folder is a chain of modules: a transformer, a pooling, and what follows it. All of it is done here, or refused by
name; nothing is passed over in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sparktasks.errors import BundleError, listed
from sparktasks.ops.pooling import ACTIVATIONS, POOLINGS, layer_norm, unit
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.cache import ProcessCache
from sparktasks.runtime.folder_files import TRANSFORMERS

POOLED = "sentence_embedding"
TOKEN_OUTPUTS = ("token_embeddings", "last_hidden_state")

DENSE, LAYER_NORM, NORMALIZE = "Dense", "LayerNorm", "Normalize"
_LAYERS = (DENSE, LAYER_NORM, NORMALIZE)
_KNOWN = ("Transformer", "Pooling", "Dropout", *_LAYERS)

# The transformer module's file, by the class that wrote it.
_TRANSFORMER_FILES = tuple(f"sentence_{name}_config.json" for name in TRANSFORMERS)

# How versions before 5.4 name the poolings, in the order in which several are joined.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last",
}
_MODES = {"mean_sqrt_len_tokens": "mean_sqrt_len", "lasttoken": "last"}  # where our name is another
_PROCESSING = {"text": ("max_length", "padding", "truncation"), "common": ("return_tensors",)}


@dataclass(frozen=True)
class Layer:
    """A module behind the pooling: its kind, its folder, and a Dense module's activation."""

    kind: str
    path: str = ""
    activation: str = "Identity"


@dataclass(frozen=True)
class SentenceFiles:
    """What the files of a folder say; where they are missing, the defaults, and ``assumed`` names them.

    ``pooling`` are the modes, whose vectors are joined. Without ``pools_prompt`` the tokens of a prompt are left out
    of the pooling. ``dimensions`` is how many numbers of a vector are kept.
    """

    pooling: tuple[str, ...] = ("mean",)
    pools_prompt: bool = True
    layers: tuple[Layer, ...] = ()
    max_length: int | None = None
    lower: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    dimensions: int | None = None
    assumed: bool = False

    @property
    def normalizes(self) -> bool:
        """Tell whether vectors are scaled to length one."""
        return any(layer.kind == NORMALIZE for layer in self.layers)


def read_sentence_files(bundle: Bundle) -> SentenceFiles:
    """Read the files of a folder; `BundleError` names what they want and nobody here does."""
    modules = _modules(bundle)
    settings = _object(bundle, "config_sentence_transformers.json")
    prompts = {str(name): str(text or "") for name, text in (settings.get("prompts") or {}).items()}
    default = settings.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise BundleError(
            f"{bundle.folder}/config_sentence_transformers.json: default_prompt_name={default!r} is none of "
            f"its prompts: {listed(prompts)}"
        )
    pools_itself = POOLED in [port.name for port in bundle.graph.outputs]
    transformer = _transformer(bundle, modules)
    pooling = _folder_config(bundle, modules, "Pooling", "1_Pooling")
    return SentenceFiles(
        pooling=_modes(bundle, pooling),
        pools_prompt=bool(pooling.get("include_prompt", True)),
        layers=_layers(bundle, modules, pools_itself),
        max_length=_max_length(bundle, transformer),
        lower=bool(transformer.get("do_lower_case")),
        prompts=prompts,
        default_prompt=prompts.get(str(default), ""),
        dimensions=settings.get("truncate_dim"),
        assumed=not modules and not pooling and not pools_itself,
    )


def _modules(bundle: Bundle) -> list[Mapping[str, Any]]:
    modules = bundle.read_json("modules.json") or []
    if not all(isinstance(module, dict) and isinstance(module.get("type"), str) for module in modules):
        raise BundleError(f"{bundle.folder}/modules.json is not a list of modules, each with a type and a path")
    return modules


def _kind(module: Mapping[str, Any]) -> str:
    return str(module["type"]).rpartition(".")[2]


def _object(bundle: Bundle, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = bundle.read_json(name) or {}
    return found


def _folder_config(bundle: Bundle, modules: Sequence[Mapping[str, Any]], kind: str, usual: str) -> Mapping[str, Any]:
    """Read the config.json of a module's folder, which modules.json names."""
    path = next((str(module.get("path", usual)) for module in modules if _kind(module) == kind), usual)
    return _object(bundle, f"{path}/config.json")


def _transformer(bundle: Bundle, modules: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    path = next((str(module.get("path") or ".") for module in modules if _kind(module) == "Transformer"), ".")
    found: Mapping[str, Any] = {}
    for name in _TRANSFORMER_FILES:
        found = found or _object(bundle, f"{path}/{name}")
    who = f"{bundle.folder}: its sentence-transformers files"
    task = found.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise BundleError(f"{who} want transformer_task={task!r}; vectors need 'feature-extraction'")
    if "message" in (found.get("modality_config") or {}):
        raise BundleError(f"{who} put texts into a chat template, which is not done here")
    for part, options in (found.get("processing_kwargs") or {}).items():
        unknown = sorted(set(options) - set(_PROCESSING.get(part, ())))
        if unknown:
            raise BundleError(f"{who} set processing_kwargs {part}: {listed(unknown)}, which are not known here")
    return found


def _max_length(bundle: Bundle, transformer: Mapping[str, Any]) -> int | None:
    """Return the most tokens of a text, never more than the model has positions."""
    text = (transformer.get("processing_kwargs") or {}).get("text") or {}
    asked = text.get("max_length", transformer.get("max_seq_length"))
    limits = [int(limit) for limit in (asked, bundle.positions if asked else None) if limit is not None]
    return min(limits, default=None)


def _modes(bundle: Bundle, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the pooling modes by our names; mean where the files name none."""
    named = config.get("pooling_mode")
    if named is None:
        unknown = [key for key, on in config.items() if key.startswith("pooling_mode_") and on and key not in _FLAGS]
        named = unknown + [mode for key, mode in _FLAGS.items() if config.get(key)]
    modes = tuple(_MODES.get(mode, mode) for mode in ([named] if isinstance(named, str) else named))
    if set(modes) - set(POOLINGS):
        raise BundleError(
            f"{bundle.folder}: the pooling {listed(sorted(set(modes) - set(POOLINGS)))} is not known. Known "
            f"are: {listed(POOLINGS)}"
        )
    if modes:
        return modes
    causal = any(str(name).endswith("ForCausalLM") for name in bundle.config.get("architectures") or ())
    return ("last",) if causal and not config else ("mean",)


def _layers(bundle: Bundle, modules: Sequence[Mapping[str, Any]], pools_itself: bool) -> tuple[Layer, ...]:
    """Return what follows the pooling; of a graph that pools itself all but scaling to length one is in the graph."""
    unknown = sorted({_kind(module) for module in modules} - set(_KNOWN))
    if unknown and not pools_itself:
        raise BundleError(
            f"{bundle.folder}: modules.json wants {listed(unknown)}, which the graph does not contain. Known "
            f"are: {listed(_KNOWN)}"
        )
    kinds = (NORMALIZE,) if pools_itself else _LAYERS
    return tuple(_layer(bundle, module) for module in modules if _kind(module) in kinds)


def _layer(bundle: Bundle, module: Mapping[str, Any]) -> Layer:
    kind, path = _kind(module), str(module.get("path") or "")
    if kind == NORMALIZE:
        return Layer(kind)
    config = _object(bundle, f"{path}/config.json")
    if f"{path}/model.safetensors" not in bundle.files:
        raise BundleError(
            f"{bundle.folder}: the weights of its module {kind} are not in {path}/model.safetensors. A "
            "pytorch_model.bin is "
            "not read, since it can run code: save the model again with a sentence-transformers of today"
        )
    if kind == LAYER_NORM:
        return Layer(kind, path)
    inputs = config.get("module_input_name") or POOLED
    if inputs != POOLED or (config.get("module_output_name") or inputs) != POOLED:
        raise BundleError(
            f"{bundle.folder}: {path} works on {inputs!r}, not on the vectors of texts: that is not done here"
        )
    named = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = named.rpartition(".")[2]
    if activation not in ACTIVATIONS or not named.startswith("torch."):
        raise BundleError(
            f"{bundle.folder}: {path} wants the activation {named!r}. Known are: {listed(ACTIVATIONS)} of torch.nn"
        )
    return Layer(kind, path, activation)


class Head:
    """The modules behind the pooling, with their weights."""

    def __init__(self, folder: Path, layers: Sequence[Layer]) -> None:
        self._layers = [(layer, _weights(folder / layer.path) if layer.path else {}) for layer in layers]

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """Map a pooled vector ``(width,)`` to the vector of a text, float32."""
        found = vector.astype(np.float32)
        for layer, weights in self._layers:
            if layer.kind == DENSE:
                found = weights["linear.weight"] @ found + weights.get("linear.bias", np.float32(0))
                found = ACTIVATIONS[layer.activation](found)
            elif layer.kind == LAYER_NORM:
                found = layer_norm(found, weights["norm.weight"], weights["norm.bias"])
            else:
                found = unit(found)
        return found


def _weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    path = folder / "model.safetensors"
    try:
        return {name: array.astype(np.float32) for name, array in load_file(path).items()}
    except Exception as error:  # the library raises a family of its own
        raise BundleError(f"{path} cannot be read: {error}") from error


_heads: ProcessCache[Head] = ProcessCache(limit=32)


def open_head(bundle: Bundle, layers: tuple[Layer, ...]) -> Head:
    """Return this process's modules behind the pooling of a bundle, loaded at first use."""
    return _heads.get((bundle.hash, layers), lambda: Head(bundle.folder, layers))
