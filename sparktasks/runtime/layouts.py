"""How exported models are laid out in files: a main graph, the graphs beside it by role, the suffixes of precisions.

Names are those of Optimum, transformers.js and sentence-transformers. A file is called by the graph, the suffix of its
precision, and ``.onnx``: ``encoder_model_fp16.onnx``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TypeAlias

from sparktasks.errors import ParamError, did_you_mean, listed

MODEL_FOLDERS = ("onnx", "")
"""Where a folder has its graphs."""

ENCODER, STEP, EMBED, MERGE, VISION, AUDIO = "encoder", "step", "embed", "merge", "vision", "audio"
TEXT_ROLES = (ENCODER, STEP, EMBED)
"""The roles of graphs that text alone needs."""

LAYOUTS: dict[str, dict[str, str]] = {
    # One graph, but for some models that see: Phi-3-V.
    "model": {
        VISION: "vision_encoder",
        MERGE: "prepare_inputs_embeds",
    },
    # Decoders and encoder-decoders with and without a cache in one graph. Those that see or hear take vectors.
    "decoder_model_merged": {
        ENCODER: "encoder_model",
        EMBED: "embed_tokens",
        VISION: "vision_encoder",
        AUDIO: "audio_encoder",
    },
    # The same in two graphs, as Optimum wrote them before it merged them.
    "decoder_model": {
        ENCODER: "encoder_model",
        STEP: "decoder_with_past_model",
    },
    # Two towers: CLIP, CLAP.
    "text_model": {
        VISION: "vision_model",
        AUDIO: "audio_model",
    },
}
"""The graphs that run beside a main graph, by role. Of several main graphs in a folder the first here is taken."""

PRECISIONS: dict[str, tuple[str, ...]] = {
    "fp32": ("", "_fp32"),
    "fp16": ("_fp16", "_float16"),
    "bf16": ("_bf16", "_bfloat16"),
    "int8": (
        "_int8",
        "_quantized",
        "_qint8_avx512_vnni",
        "_qint8_avx512",
        "_qint8_arm64",
        "_quint8_avx2",
        "_uint8",
    ),
    "int8w": ("_int8w",),
    "int4": ("_int4", "_q4", "_q4f16", "_bnb4"),
}
"""The suffixes of a precision's files, best first."""

AUTO = "auto"

Precision: TypeAlias = str | Mapping[str, str]
"""The precision of all graphs, or one for each graph by name; graphs that are not named are chosen as ``auto``."""


def check_precision(precision: Precision) -> None:
    """Raise `ParamError` where a precision, or a graph that one is given for, is unknown."""
    if not isinstance(precision, Mapping):
        _check_name(precision, f"precision={precision!r}")
        return
    graphs = graph_names()
    for graph, name in precision.items():
        if graph not in graphs:
            raise ParamError(
                f"precision={dict(precision)!r}: there is no graph {graph!r}.{did_you_mean(str(graph), graphs)} "
                f"It takes precisions for {listed(graphs)}"
            )
        _check_name(name, f"precision={dict(precision)!r}")
    if not any(layouts_for(precision)):
        together = [" + ".join((main, *companions.values())) for main, companions in LAYOUTS.items()]
        raise ParamError(
            f"precision={dict(precision)!r}: these graphs never run together. Those that do: {listed(together)}"
        )


def _check_name(name: object, who: str) -> None:
    if name not in (AUTO, *PRECISIONS):
        raise ParamError(f"{who} is not allowed: it takes {listed((AUTO, *PRECISIONS))}")


def graph_names() -> list[str]:
    """Return the names that graphs have in any layout."""
    names = dict.fromkeys(LAYOUTS)
    for companions in LAYOUTS.values():
        names.update(dict.fromkeys(companions.values()))
    return list(names)


def precision_of(precision: Precision, graph: str) -> str:
    """Return the precision of one graph."""
    return precision if isinstance(precision, str) else precision.get(graph, AUTO)


def suffixes(precision: str) -> tuple[str, ...]:
    """Return the suffixes that a precision's files may have; of ``auto`` those of a plain file."""
    return PRECISIONS.get(precision, ("",))


def layouts_for(precision: Precision, roles: Collection[str] = TEXT_ROLES) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the layouts that have all graphs which a precision names: the main graph, and those beside it by role."""
    named = set() if isinstance(precision, str) else set(precision)
    for main, companions in LAYOUTS.items():
        if named <= {main, *companions.values()}:
            wanted = {role: graph for role, graph in companions.items() if role in roles or graph in named}
            yield main, wanted


def graph_files(precision: Precision) -> list[tuple[list[str], list[str]]]:
    """Return, for each layout in turn, the names its main graph may have, and those of the graphs beside it."""
    files = []
    for main, companions in layouts_for(precision):
        main_suffixes = suffixes(precision_of(precision, main))
        beside = []
        for graph in companions.values():
            beside += _file_names(graph, companion_suffixes(precision, graph, main_suffixes))
        files.append((_file_names(main, main_suffixes), beside))
    return files


def companion_suffixes(precision: Precision, graph: str, main_suffixes: Collection[str]) -> tuple[str, ...]:
    """Return the suffixes that a graph beside the main one may have, best first.

    Beside a decoder of one precision there may be a plain encoder, unless another is asked for.
    """
    if is_named(precision, graph):
        return suffixes(precision_of(precision, graph))
    return tuple(dict.fromkeys((*main_suffixes, "")))


def is_named(precision: Precision, graph: str) -> bool:
    """Tell whether a precision is asked for this graph by name."""
    return not isinstance(precision, str) and precision.get(graph, AUTO) != AUTO


def _file_names(graph: str, endings: Collection[str]) -> list[str]:
    return [f"{graph}{ending}.onnx" for ending in endings]
