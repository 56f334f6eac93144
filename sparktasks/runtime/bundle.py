"""A bundle: an unmodified Hugging Face / Optimum ONNX folder, its graphs found, its configs read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from sparktasks.errors import BundleError, listed
from sparktasks.runtime import genai
from sparktasks.runtime.folder_files import check_link, inside, interpreting, read_json, section
from sparktasks.runtime.folders import Folder
from sparktasks.runtime.graph import Graph, Port, fixed_size, read_graph
from sparktasks.runtime.layouts import AUTO, TEXT_ROLES, Precision
from sparktasks.runtime.model_files import bundle_files, find_graphs, find_small, outside_data

_UNLIMITED = 1_000_000

_OF_ALL_FILES = frozenset({"hash", "size"})
_KEYS_SHOWN = 8
_POSITION_KEYS = ("max_position_embeddings", "max_seq_len")

# T5 has the key n_positions too, and no such table.
_N_POSITIONS = frozenset({"gpt2", "gptj", "gpt_bigcode", "codegen", "ctrl", "openai-gpt"})

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
class Bundle(Folder):
    """A model folder that was looked at: ``model`` is the ONNX file, relative to ``folder``.

    ``graphs`` holds the headers of all graphs that make the model, by file; `part` gives the others. ``files`` are the
    chosen ONNX files, their outside data, and every small file.
    """

    model: str
    config: dict[str, Any] = field(repr=False)
    tokenizer_config: dict[str, Any] = field(repr=False)
    graphs: dict[str, Graph] = field(repr=False)

    @property
    def graph(self) -> Graph:
        """The header of the ONNX file."""
        return self.graphs[self.model]

    @property
    def models(self) -> tuple[str, ...]:
        """The ONNX files of all graphs, this one first: what `open_bundle` takes to open the same graphs again."""
        return tuple(dict.fromkeys((self.model, *self.graphs)))

    def part(self, base: str) -> Bundle | None:
        """Return the same bundle seen from another of its graphs, by the start of its name; None where it has none of
        that name."""
        for model in self.graphs:
            if Path(model).name.startswith(base):
                return self._seen_from(model)
        return None

    @property
    def parts(self) -> list[Bundle]:
        """The same bundle seen from each of its graphs."""
        return list(map(self._seen_from, self.graphs))

    def _seen_from(self, model: str) -> Bundle:
        part = replace(self, model=model)
        # What was computed of all files together need not be again for a part.
        for name in _OF_ALL_FILES.intersection(self.__dict__):
            part.__dict__[name] = self.__dict__[name]
        return part

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """What config.json has under ``task_specific_params``, by task."""
        return section(self.config, "task_specific_params")

    @property
    def text_config(self) -> dict[str, Any]:
        """What config.json says of the part that writes text, where the model also sees or hears."""
        return section(self.config, "text_config")

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes that config.json names, such as ``BertForSequenceClassification``."""
        return tuple(map(str, self.config.get("architectures", ())))

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
        return find_small(self.folder, self.model, name)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The label of each class, by index; `BundleError` where config.json does not number them from 0 on."""
        names = self.config.get("id2label")
        if names is None:
            # transformers writes no labels where they are its own; without a number of them, it has two.
            count = self.config.get("num_labels") or self.logits_width or 2
            return tuple(map("LABEL_{}".format, range(int(count))))

        places = list(map(str, range(len(names))))
        by_place = {str(key): str(label) for key, label in names.items()} if isinstance(names, dict) else {}
        if not places or by_place.keys() != set(places):
            raise BundleError(
                f"{self.folder}: the keys of id2label in config.json are {listed(list(names)[:_KEYS_SHOWN])}; "
                f"they must be '0' to '{max(0, len(names) - 1)}', the places of the labels in the logits. "
                "Is it label2id, or does it leave labels out?"
            )
        return tuple(map(by_place.__getitem__, places))

    @property
    def logits(self) -> Port:
        """The output that holds logits: the one of that name, else the first."""
        return self.graph.output("logits") or self.graph.outputs[0]

    @property
    def logits_width(self) -> int | None:
        """The size of the logits' last axis; None where the graph leaves it open."""
        return fixed_size(self.logits.shape[-1:], 0)

    @cached_property
    def max_length(self) -> int | None:
        """The most tokens the model takes in one run, special tokens included; None where nothing limits it."""
        declared = self.tokenizer_config.get("model_max_length", self.tokenizer_config.get("max_len"))
        with interpreting(self.find("tokenizer_config.json")):
            return _smaller(_limit(declared), _limit(self.positions))

    @property
    def positions(self) -> int | None:
        """The number of positions the model knows; None where neither config.json nor the graph limits them."""
        return _smaller(self._position_table, self.fixed_length)

    @property
    def _position_table(self) -> int | None:
        """The number of positions that the model was trained with; None where config.json does not tell."""
        kind = self.config.get("model_type")
        # A number that is not positive stands for positions without a table.
        positions = self._declared_positions(kind)
        if not positions:
            return None
        if kind in _OFFSET_POSITIONS:
            return int(positions) - int(self.config.get("pad_token_id", 1)) - 1
        return int(positions) if positions > 0 else None

    def _declared_positions(self, kind: Any) -> Any:
        """Return what config.json says of positions, under the first key that it has for them."""
        # What is said of the whole model goes before what is said of its part for text.
        for config, key in product((self.config, self.text_config), _POSITION_KEYS):
            if key in config:
                return config[key]
        if kind in _N_POSITIONS:
            return self.config.get("n_positions")
        return None

    @property
    def fixed_rows(self) -> int | None:
        """The number of texts that every run must have; None where it may vary."""
        return self._fixed_axis(0)

    @property
    def fixed_length(self) -> int | None:
        """The number of tokens that every text of a run must have; None where it may vary."""
        length = self._fixed_axis(1)
        # A graph for one token is the step of a decoder, and no limit for texts.
        return None if length == 1 else length

    def _fixed_axis(self, axis: int) -> int | None:
        ids = self.graph.input("input_ids")
        return None if ids is None else fixed_size(ids.shape, axis)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the ONNX file and its outside data."""
        outside = outside_data(self.model, self.graph)
        paths = [self.folder / name for name in (self.model, *outside)]
        return sum(path.stat().st_size for path in paths)

    @property
    def all_weight_bytes(self) -> int:
        """The same of all graphs together."""
        return sum(part.weight_bytes for part in self.parts)


def _limit(tokens: float | None) -> int | None:
    """Return a number of tokens; None where it limits nothing."""
    # Tokenizers are saved with huge numbers where no limit was known.
    if tokens is None or not 0 < tokens < _UNLIMITED:
        return None
    return int(tokens)


def _smaller(one: int | None, other: int | None) -> int | None:
    """Return the smaller of two limits, of which any may be missing."""
    limits = [limit for limit in (one, other) if limit is not None]
    return min(limits, default=None)


def open_bundle(
    folder: str | Path,
    model: str | tuple[str, ...] | None = None,
    precision: Precision = AUTO,
    roles: Collection[str] = TEXT_ROLES,
) -> Bundle:
    """Look at a model folder and check what can be checked without loading it; `BundleError` names what is wrong.

    ``model`` names the main ONNX file, relative to the folder, or all of them, the main one first. Without it
    ``precision`` chooses: one of `PRECISIONS`, one for each graph, or auto: ``model.onnx``, else the only variant there
    is. ``roles`` are those of the graphs beside the main one that are opened, too.
    """
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise BundleError(
            f"{folder} is not a folder. A bundle is a folder with config.json, tokenizer.json and an ONNX file"
        )
    # Nothing below loads a weight: the headers, and the small files.
    models = find_graphs(path, model, precision, roles)
    config = _read_config(path, models[0])
    tokenizer_config = read_json(find_small(path, models[0], "tokenizer_config.json")) or {}
    graphs = {name: _read_graph(path, name) for name in models}
    files = bundle_files(path, graphs)
    for name in files:
        check_link(path, path / name)
    bundle = Bundle(
        path,
        model=models[0],
        config=config,
        tokenizer_config=_present(tokenizer_config),
        graphs=graphs,
        files=files,
    )
    return bundle.stamped()


def _read_config(folder: Path, model: str) -> dict[str, Any]:
    """Read config.json, or what onnxruntime-genai has in its place."""
    config = read_json(find_small(folder, model, "config.json"))
    manifest = read_json(folder / genai.FILE)
    if config is not None:
        return _present(config)
    if manifest is not None:
        return _present(genai.as_config(manifest))
    raise BundleError(
        f"{folder} has no config.json. A bundle is a folder with config.json, tokenizer.json and an ONNX file"
    )


def _present(content: dict[str, Any]) -> dict[str, Any]:
    """Leave out the fields that are null: they mean what their absence means."""
    present = {}
    for key, value in content.items():
        if value is not None:
            present[key] = value
    return present


def _read_graph(folder: Path, model: str) -> Graph:
    """Read the header of a graph; `BundleError` where its outside data are missing or lie outside of the folder."""
    graph = read_graph(folder / model)
    for name in outside_data(model, graph):
        inside(folder, name, f"{folder / model}, as outside data,")
    return graph
