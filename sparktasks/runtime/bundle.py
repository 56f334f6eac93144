"""A bundle: an unmodified Hugging Face / Optimum ONNX folder, its files found, its configs read, its content hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sparktasks.errors import BundleError, DeliveryError, ParamError, listed
from sparktasks.runtime.folder_files import check_link, inside, interpreting, read_json
from sparktasks.runtime.graph import Graph, Port, read_graph
from sparktasks.runtime.store import file_hash, read_hash

MODEL_FOLDERS = ("onnx", "")
_OTHER_WEIGHTS = (
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".h5",
    ".msgpack",
    ".ot",
    ".gguf",
    ".tflite",
    ".npz",
    ".pb",
    ".onnx",
)
_CARD = ("README.md", "LICENSE", "LICENSE.txt", "NOTICE")
_UNLIMITED = 1_000_000

# What a model's graph is called: one that is whole, or the decoder of several.
_BASES = ("model", "decoder_model_merged", "decoder_model")

# The graphs that run beside a decoder: the name that each has in its place.
_COMPANIONS = {
    "decoder_model_merged": ("encoder_model", "embed_tokens"),
    "decoder_model": ("encoder_model", "decoder_with_past_model"),
}

# The names that Optimum, transformers.js and sentence-transformers give to a model's precisions, best first.
PRECISIONS = {
    "fp32": ("model", "model_fp32"),
    "fp16": ("model_fp16", "model_float16"),
    "int8": (
        *("model_int8", "model_quantized", "model_qint8_avx512_vnni", "model_qint8_avx512", "model_qint8_arm64"),
        *("model_quint8_avx2", "model_uint8"),
    ),
    "int8w": ("model_int8w",),
    "int4": ("model_int4", "model_q4", "model_q4f16", "model_bnb4"),
}

# Those that `sparktasks optimize` makes, by an option of the same name.
_MADE = ("int8", "int8w", "int4")

_KEYS_SHOWN = 8
_POSITION_KEYS = ("max_position_embeddings", "max_seq_len")
_N_POSITIONS = frozenset(
    {"gpt2", "gptj", "gpt_bigcode", "codegen", "ctrl", "openai-gpt"}
)  # T5 has the key too, and no such table

# Their position table starts behind the padding id, so that many positions less are usable.
_OFFSET_POSITIONS = frozenset(
    {
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "camembert",
        "mpnet",
        "roberta-prelayernorm",
        "data2vec-text",
        "longformer",
    }
)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model folder that was looked at: ``model`` is the ONNX file, relative to ``folder``.

    ``graphs`` holds the headers of all graphs that make the model, by file; `part` gives the others.
    ``stamp`` tells the state of the `files` when they were looked at (but for the card): names, sizes, change times.
    """

    folder: Path
    model: str
    config: dict[str, Any] = field(repr=False)
    tokenizer_config: dict[str, Any] = field(repr=False)
    graphs: dict[str, Graph] = field(repr=False)
    stamp: str = field(default="", repr=False)

    @property
    def graph(self) -> Graph:
        """The header of the ONNX file."""
        return self.graphs[self.model]

    def part(self, base: str) -> Bundle | None:
        """Return the same bundle seen from another of its graphs, by the start of its name; None where it has none of
        that name."""
        return next((part for part in self.parts if Path(part.model).stem.startswith(base)), None)

    @property
    def parts(self) -> list[Bundle]:
        """The same bundle seen from each of its graphs."""
        same: dict[str, Any] = {
            name: self.__dict__[name] for name in ("files", "hash", "size") if name in self.__dict__
        }  # need not be found again
        parts = [replace(self, model=name) for name in self.graphs]
        for part in parts:
            part.__dict__.update(same)
        return parts

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """What config.json has under ``task_specific_params``, by task."""
        return self.config.get("task_specific_params") or {}

    @property
    def text_config(self) -> dict[str, Any]:
        """What config.json says of the part that writes text, where the model also sees or hears."""
        return self.config.get("text_config") or {}

    @property
    def model_path(self) -> Path:
        """The ONNX file."""
        return self.folder / self.model

    @property
    def tokenizer_path(self) -> Path:
        """The fast tokenizer's file."""
        return self.find("tokenizer.json")

    def find(self, name: str) -> Path:
        """Return the path of a small file: at the folder's root, else beside the graph, where some exporters put all
        files."""
        return _find_small(self.folder, self.model, name)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The files that make this bundle, relative to the folder: the chosen ONNX files, their outside data, every
        small file."""
        chosen = set(self.graphs)
        chosen.update(
            str(Path(model).parent / name) for model, graph in self.graphs.items() for name in graph.external_files
        )
        found = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}
        chosen.update(name for name in found if not _is_foreign(name))
        chosen.update(found.intersection(self._module_weights()))
        return tuple(sorted(chosen))

    def _module_weights(self) -> list[str]:
        """Name the weights of sentence-transformers' modules that stand behind the graph, such as ``2_Dense``."""
        modules = self.read_json("modules.json")
        paths = (
            [module.get("path") for module in modules if isinstance(module, dict)] if isinstance(modules, list) else []
        )
        return [f"{path}/model.safetensors" for path in paths if path]

    @cached_property
    def hash(self) -> str:
        """The sha256 of the names and contents of all `files` but the card and the licence."""
        return self._hashed(file_hash)

    def check_content(self) -> None:
        """Read all files again; `DeliveryError` where they are not those that were hashed."""
        if self._hashed(read_hash) != self.hash:
            raise DeliveryError(
                f"{self.folder} holds other files than when the stage was made; what is run, sent or saved now "
                "would be another model. "
                "Make the stage again"
            )

    def _hashed(self, hash_of: Callable[[Path], str]) -> str:
        total = hashlib.sha256()
        for name in self.files:
            if name not in _CARD:
                total.update(f"{name}\0{hash_of(self.folder / name)}\n".encode())
        return total.hexdigest()

    def sealed(self) -> Bundle:
        """Compute the hash now, while the files are those that were looked at."""
        _ = self.hash
        return self

    @cached_property
    def size(self) -> int:
        """Bytes of all `files`."""
        return sum((self.folder / name).stat().st_size for name in self.files)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The label of each class, by index; `BundleError` where config.json does not number them from 0 on."""
        names = self.config.get("id2label")
        if names is None:
            count = int(self.config.get("num_labels") or self.logits_width or 2)
            return tuple(f"LABEL_{index}" for index in range(count))
        wanted = [str(index) for index in range(len(names))]
        if not isinstance(names, dict) or not wanted or sorted(map(str, names)) != sorted(wanted):
            raise BundleError(
                f"{self.folder}: the keys of id2label in config.json are {listed(list(names)[:_KEYS_SHOWN])}; "
                "they must be "
                f"'0' to '{max(0, len(names) - 1)}', the places of the labels in the logits. Is it label2id, "
                "or does it leave labels out?"
            )
        by_place = {str(key): str(label) for key, label in names.items()}
        return tuple(by_place[key] for key in wanted)

    @property
    def logits(self) -> Port:
        """The output that holds logits: the one of that name, else the first."""
        return next((port for port in self.graph.outputs if port.name == "logits"), self.graph.outputs[0])

    @property
    def logits_width(self) -> int | None:
        """The size of the logits' last axis; None where the graph leaves it open."""
        width = self.logits.shape[-1] if self.logits.shape else None
        return width if isinstance(width, int) else None

    @cached_property
    def max_length(self) -> int | None:
        """The most tokens the model takes in one run, special tokens included; None where nothing limits it."""
        declared = self.tokenizer_config.get("model_max_length", self.tokenizer_config.get("max_len"))
        limits = [declared, self.positions]
        with interpreting(self.find("tokenizer_config.json")):
            known = [int(limit) for limit in limits if limit is not None and 0 < limit < _UNLIMITED]
        return min(known) if known else None

    @property
    def positions(self) -> int | None:
        """The number of positions the model knows; None where neither config.json nor the graph limits them."""
        known = [limit for limit in (self._position_table, self.fixed_length) if limit is not None]
        return min(known, default=None)

    @property
    def _position_table(self) -> int | None:
        positions = next(
            (config[key] for config in (self.config, self.text_config) for key in _POSITION_KEYS if key in config), None
        )
        if positions is None and self.config.get("model_type") in _N_POSITIONS:
            positions = self.config.get("n_positions")
        if positions and self.config.get("model_type") in _OFFSET_POSITIONS:
            return int(positions) - int(self.config.get("pad_token_id", 1)) - 1
        return int(positions) if positions and positions > 0 else None

    @property
    def fixed_rows(self) -> int | None:
        """The number of texts that every run must have; None where it may vary."""
        return self._fixed_axis(0)

    @property
    def fixed_length(self) -> int | None:
        """The number of tokens that every text of a run must have; None where it may vary."""
        length = self._fixed_axis(1)
        return None if length == 1 else length  # the step of a decoder

    def _fixed_axis(self, axis: int) -> int | None:
        shapes = [port.shape for port in self.graph.inputs if port.name == "input_ids"]
        sizes = [shape[axis] for shape in shapes if len(shape) > axis]
        return next((size for size in sizes if isinstance(size, int)), None)

    def read_json(self, name: str) -> Any:
        """Read another JSON file of the folder; None where it is not there."""
        return read_json(self.find(name))

    def current_stamp(self) -> str:
        """Return what `stamp` would be if the folder were looked at now."""
        states = [(name, (self.folder / name).stat()) for name in self.files if name not in _CARD]
        return hashlib.sha256(
            "\n".join(f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in states).encode()
        ).hexdigest()

    def check_unchanged(self) -> None:
        """Raise `DeliveryError` where the folder holds other files than when it was opened."""
        if self.folder.is_dir() and self.current_stamp() != self.stamp:
            self.check_content()

    @property
    def weight_bytes(self) -> int:
        """Bytes of the ONNX file and its outside data."""
        beside = (self.model_path.parent / name for name in self.graph.external_files)
        return sum(path.stat().st_size for path in (self.model_path, *beside))

    @property
    def all_weight_bytes(self) -> int:
        """The same of all graphs together."""
        return sum(part.weight_bytes for part in self.parts)


def _is_foreign(name: str) -> bool:
    """Tell hidden files, and weights in other formats or precisions than the chosen ones."""
    return (
        any(part.startswith(".") for part in Path(name).parts)
        or ".onnx_data" in name
        or ".onnx.data" in name
        or Path(name).suffix in _OTHER_WEIGHTS
    )


def open_bundle(folder: str | Path, model: str | None = None, precision: str = "auto") -> Bundle:
    """Look at a model folder and check what can be checked without loading it; `BundleError` names what is wrong.

    ``model`` names the ONNX file, relative to the folder. Without it ``precision`` chooses: one of `PRECISIONS`, or
    auto: ``model.onnx``, else the only variant there is.
    """
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise BundleError(
            f"{folder} is not a folder. A bundle is a folder with config.json, tokenizer.json and an ONNX file"
        )
    genai = read_json(path / "genai_config.json")
    if model is None and precision == "auto" and genai is not None:
        model = _genai_decoder(path, genai)
    found = _find_model(path, precision) if model is None else model
    if not isinstance(found, str) or not (path / found).is_file():
        raise BundleError(f"{path} has no {found}. ONNX files there: {listed(_onnx_files(path))}")
    inside(path, found, str(path))
    config = read_json(_find_small(path, found, "config.json"))
    if config is None and genai is None:
        raise BundleError(
            f"{path} has no config.json. A bundle is a folder with config.json, tokenizer.json and an ONNX file"
        )
    config = _present(_genai_config(genai) if config is None else config)
    tokenizer_config = _present(read_json(_find_small(path, found, "tokenizer_config.json")) or {})
    graphs = {name: read_graph(path / name) for name in (found, *_companions(path, found))}
    for name, graph in graphs.items():
        for outside in graph.external_files:
            inside(path, str(Path(name).parent / outside), f"{path / name}, as outside data,")
    bundle = Bundle(path, found, config, tokenizer_config, graphs)
    for name in bundle.files:
        check_link(path, path / name)
    return replace(bundle, stamp=bundle.current_stamp())


def graph_files(precision: str) -> list[tuple[list[str], list[str]]]:
    """Return, for each layout of a model in turn, the names its main graph may have, and those of the graphs beside
    it."""
    suffixes = [stem.removeprefix("model") for stem in PRECISIONS.get(precision, ("model",))]
    also = dict.fromkeys([*suffixes, ""])  # beside a decoder of this precision there may be a plain encoder
    return [
        (
            [f"{base}{suffix}.onnx" for suffix in suffixes],
            [f"{other}{suffix}.onnx" for other in _COMPANIONS.get(base, ()) for suffix in also],
        )
        for base in _BASES
    ]


def _genai_decoder(folder: Path, genai: dict[str, Any]) -> str:
    """Return the file of the decoder that genai_config.json names."""
    decoder = genai.get("model", {}).get("decoder")
    name = decoder.get("filename") if isinstance(decoder, dict) else None
    if not isinstance(name, str):
        raise BundleError(
            f"{folder / 'genai_config.json'}: model.decoder.filename is {name!r}; the name of an ONNX file is expected"
        )
    return name


def _genai_config(genai: dict[str, Any]) -> dict[str, Any]:
    """Return what onnxruntime-genai's genai_config.json says, under the names that config.json and
    generation_config.json have for it."""
    model, search = genai["model"], genai.get("search", {})
    named = {key: model.get(key) for key in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    chosen = {
        key: value for key, value in search.items() if key not in ("max_length", "min_length")
    }  # which say how much room there is
    sizes = {
        "max_position_embeddings": model.get("context_length"),
        "head_dim": model.get("decoder", {}).get("head_size"),
    }
    return chosen | named | sizes | {"model_type": model.get("type")}


def _present(content: dict[str, Any]) -> dict[str, Any]:
    """Leave out the fields that are null: they mean what their absence means."""
    return {key: value for key, value in content.items() if value is not None}


def _onnx_files(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.onnx"))]


def _find_model(folder: Path, precision: str) -> str:
    if precision != "auto" and precision not in PRECISIONS:
        raise ParamError(f"precision={precision!r} is not allowed: it takes {listed(('auto', *PRECISIONS))}")
    for names, _ in graph_files(precision):
        for name in (Path(sub) / name for name in names for sub in MODEL_FOLDERS):
            if (folder / name).is_file():
                return str(name)
    found = _onnx_files(folder)
    if precision != "auto":
        hint = f". Make one with: sparktasks optimize {folder} --{precision}" if precision in _MADE else ""
        raise BundleError(f"{folder} has no ONNX file in {precision}. ONNX files there: {listed(found)}{hint}")
    for base in _BASES:
        variants = [name for name in found if Path(name).stem.startswith(f"{base}_")]
        if len(variants) == 1:
            return variants[0]
        if variants:
            break
    if not found:
        raise _lacks_model(folder)
    raise BundleError(
        f"{folder} has no model.onnx, at its root or in onnx/. ONNX files there: {listed(found)}. "
        "Name one with pretrained(..., file=...), or export one with: optimum-cli export onnx --model MODEL FOLDER"
    )


def _lacks_model(folder: Path) -> BundleError:
    """Name all that a folder without any ONNX file lacks, and what it may be instead."""
    other = next((path.name for path in sorted(folder.rglob("*.gguf"))), None)
    kind = f"{folder} holds a GGUF model ({other}), which llama.cpp runs. It" if other else str(folder)
    missing = [name for name in ("config.json",) if not _find_small(folder, "onnx/model.onnx", name).is_file()]
    if (
        not any(folder.rglob("tokenizer*.json"))
        and not any(folder.rglob("*.model"))
        and not any(folder.rglob("vocab.*"))
    ):
        missing.append("tokenizer.json")
    return BundleError(
        f"{kind} has no {', no '.join([*missing, 'model.onnx'])}, at its root or in onnx/, nor another ONNX file. "
        "Export the original model with: optimum-cli export onnx --model MODEL FOLDER"
    )


def _companions(folder: Path, model: str) -> list[str]:
    """Find the graphs that run beside the chosen one: of its precision, else the plain ones."""
    stem, place = Path(model).stem, Path(model).parent
    base = next((base for base in _COMPANIONS if stem.startswith(base)), "")
    choices = [
        [str(place / f"{other}{suffix}.onnx") for suffix in (stem.removeprefix(base), "")]
        for other in _COMPANIONS.get(base, ())
    ]
    found = (next((name for name in names if (folder / name).is_file()), None) for names in choices)
    return [name for name in found if name is not None]


def _find_small(folder: Path, model: str, name: str) -> Path:
    beside = (folder / model).parent / name
    return beside if beside.is_file() and not (folder / name).is_file() else folder / name
