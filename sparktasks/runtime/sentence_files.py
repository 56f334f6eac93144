"""What sentence-transformers' files in a folder say: how token vectors become the vector of a text (versions 1 to 5).

A folder is a chain of modules: a transformer, a pooling, and what follows it. All of it is done here, or refused by
name; nothing is passed over in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparktasks.errors import BundleError, listed
from sparktasks.ops.pooling import ACTIVATIONS, POOLINGS
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.folder_files import TRANSFORMERS, section

POOLED = "sentence_embedding"
TOKEN_OUTPUTS = ("token_embeddings", "last_hidden_state")

DENSE, LAYER_NORM, NORMALIZE = "Dense", "LayerNorm", "Normalize"
_LAYERS = (DENSE, LAYER_NORM, NORMALIZE)
_KNOWN = ("Transformer", "Pooling", "Dropout", *_LAYERS)

# The transformer module's file, by the class that wrote it.
_TRANSFORMER_FILES = tuple(f"sentence_{name}_config.json" for name in TRANSFORMERS)

_SETTINGS = "config_sentence_transformers.json"

# How versions before 5.4 name the poolings, in the order in which several are joined.
_FLAG = "pooling_mode_"
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
        return Layer(NORMALIZE) in self.layers


def read_sentence_files(bundle: Bundle) -> SentenceFiles:
    """Read the files of a folder; `BundleError` names what they require that is not done here."""
    modules = _modules(bundle)
    settings = bundle.read_object(_SETTINGS)
    prompts = {}
    for name, text in section(settings, "prompts").items():
        # A prompt that is null stands for no prompt.
        prompts[str(name)] = str(text or "")
    pools_itself = bundle.graph.output(POOLED) is not None
    transformer = _transformer(bundle, modules)
    pooling_folder = _path(modules, "Pooling", "1_Pooling")
    pooling = bundle.read_object(f"{pooling_folder}/config.json")
    return SentenceFiles(
        pooling=_modes(bundle, pooling),
        pools_prompt=bool(pooling.get("include_prompt", True)),
        layers=_layers(bundle, modules, pools_itself),
        max_length=_max_length(bundle, transformer),
        lower=bool(transformer.get("do_lower_case")),
        prompts=prompts,
        default_prompt=_default_prompt(bundle, settings, prompts),
        dimensions=settings.get("truncate_dim"),
        assumed=not (modules or pooling or pools_itself),
    )


def _default_prompt(bundle: Bundle, settings: Mapping[str, Any], prompts: Mapping[str, str]) -> str:
    """Return the text of the prompt that the settings name; an empty one where they name none."""
    name = settings.get("default_prompt_name")
    if name is None:
        return ""
    if name not in prompts:
        raise BundleError(
            f"{bundle.folder}/{_SETTINGS}: default_prompt_name={name!r} is none of its prompts: {listed(prompts)}"
        )
    return prompts[name]


# -- modules


def _modules(bundle: Bundle) -> list[Mapping[str, Any]]:
    """Return the modules in their order: type, path and name of each."""
    modules = bundle.read_json("modules.json") or []
    for module in modules:
        kind = module.get("type") if isinstance(module, dict) else None
        if not isinstance(kind, str):
            raise BundleError(f"{bundle.folder}/modules.json is not a list of modules, each with a type and a path")
    return list(modules)


def _kind(module: Mapping[str, Any]) -> str:
    return str(module["type"]).rpartition(".")[2]


def _path(modules: Sequence[Mapping[str, Any]], kind: str, usual: str) -> str:
    """Return the folder of the first module of a kind."""
    for module in modules:
        if _kind(module) == kind:
            # An empty path is the folder itself.
            return str(module.get("path", usual) or ".")
    return usual


# -- the transformer


def _transformer(bundle: Bundle, modules: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Read the settings of the transformer module; `BundleError` where they require what is not done here."""
    path = _path(modules, "Transformer", ".")
    # The class that wrote the folder left one of them: none is read behind it.
    candidates = (bundle.read_object(f"{path}/{name}") for name in _TRANSFORMER_FILES)
    settings: dict[str, Any] = next(filter(None, candidates), {})
    who = f"{bundle.folder}: its sentence-transformers files"
    task = settings.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise BundleError(f"{who} want transformer_task={task!r}; vectors need 'feature-extraction'")
    if "message" in section(settings, "modality_config"):
        raise BundleError(f"{who} put texts into a chat template, which is not done here")
    for part, options in section(settings, "processing_kwargs").items():
        unknown = sorted(set(options).difference(_PROCESSING.get(part, ())))
        if unknown:
            raise BundleError(f"{who} set processing_kwargs {part}: {listed(unknown)}, which are not known here")
    return settings


def _max_length(bundle: Bundle, transformer: Mapping[str, Any]) -> int | None:
    """Return the most tokens of a text, never more than the model has positions; None where no file limits them."""
    text = section(section(transformer, "processing_kwargs"), "text")
    asked = text.get("max_length", transformer.get("max_seq_length"))
    if asked is None:
        return None
    limits = [int(asked)]
    if bundle.positions is not None:
        limits.append(bundle.positions)
    return min(limits)


# -- the pooling


def _modes(bundle: Bundle, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the pooling modes by our names; of files that name none, what sentence-transformers takes then."""
    modes = [_MODES.get(mode, mode) for mode in _named_modes(config)]
    unknown = sorted(set(modes).difference(POOLINGS))
    if unknown:
        raise BundleError(f"{bundle.folder}: the pooling {listed(unknown)} is not known. Known are: {listed(POOLINGS)}")
    if modes:
        return tuple(modes)
    # Vectors of decoders are made by embedding models that say nothing of a pooling: their last token has read all.
    is_causal = any(name.endswith("ForCausalLM") for name in bundle.architectures)
    if is_causal and not config:
        return ("last",)
    return ("mean",)


def _named_modes(config: Mapping[str, Any]) -> list[str]:
    """Return the pooling modes as a module's config.json names them, those that are unknown first."""
    named = config.get("pooling_mode")
    if isinstance(named, str):
        return [named]
    if named is not None:
        return list(named)

    # Files of before version 5.4 have a flag for each mode.
    unknown = []
    for key, value in config.items():
        if value and key.startswith(_FLAG) and key not in _FLAGS:
            unknown.append(key)
    known = []
    for key, mode in _FLAGS.items():
        if config.get(key):
            known.append(mode)
    return unknown + known


# -- what follows the pooling


def _layers(bundle: Bundle, modules: Sequence[Mapping[str, Any]], pools_itself: bool) -> tuple[Layer, ...]:
    """Return what follows the pooling; of a graph that pools itself all but scaling to length one is in the graph."""
    unknown = sorted(set(map(_kind, modules)).difference(_KNOWN))
    if unknown and not pools_itself:
        raise BundleError(
            f"{bundle.folder}: modules.json wants {listed(unknown)}, which the graph does not contain. Known "
            f"are: {listed(_KNOWN)}"
        )
    kinds = (NORMALIZE,) if pools_itself else _LAYERS
    layers = []
    for module in modules:
        if _kind(module) in kinds:
            layers.append(_layer(bundle, module))
    return tuple(layers)


def _layer(bundle: Bundle, module: Mapping[str, Any]) -> Layer:
    """Read the settings of a module; `BundleError` where it has no weights that are read here."""
    kind = _kind(module)
    if kind == NORMALIZE:
        return Layer(kind)
    path = str(module.get("path") or "")
    config = bundle.read_object(f"{path}/config.json")
    if f"{path}/model.safetensors" not in bundle.files:
        raise BundleError(
            f"{bundle.folder}: the weights of its module {kind} are not in {path}/model.safetensors. A "
            "pytorch_model.bin is not read, since it can run code: save the model again with a "
            "sentence-transformers of today"
        )
    if kind == LAYER_NORM:
        return Layer(kind, path)
    return Layer(kind, path, _activation(bundle, path, config))


def _activation(bundle: Bundle, path: str, config: Mapping[str, Any]) -> str:
    """Return the activation of a Dense module; `BundleError` where it is unknown, or the module works on other
    vectors than those of texts."""
    inputs = config.get("module_input_name") or POOLED
    outputs = config.get("module_output_name") or inputs
    if (inputs, outputs) != (POOLED, POOLED):
        raise BundleError(
            f"{bundle.folder}: {path} works on {inputs!r}, not on the vectors of texts: that is not done here"
        )
    named = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = named.rpartition(".")[2]
    if activation not in ACTIVATIONS or not named.startswith("torch."):
        raise BundleError(
            f"{bundle.folder}: {path} wants the activation {named!r}. Known are: {listed(ACTIVATIONS)} of torch.nn"
        )
    return activation
