"""Making forms of a bundle with smaller weights: int8, int8w, int4."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparktasks.errors import BundleError, MissingDependency, ParamError, listed
from sparktasks.runtime.agreement import Agreement
from sparktasks.runtime.blockwise import BLOCK, LARGE, quantize_weights
from sparktasks.runtime.bundle import Bundle, open_bundle
from sparktasks.runtime.checks import check_tokenizer
from sparktasks.runtime.generation.layout import check_generator, generates

_CARDS = ("README.md",)

# Models that generate choose among tens of thousands of tokens, often between near ties. Blocks of 16 kept 97 % of
# SmolLM2's next tokens and blocks of 32 kept 92.5 % (docs/bench/int8.md); a product takes 3 to 19 % longer with them.
# For encoders blocks of 32 are near enough.
GENERATOR_BLOCK = 16

_QUANTIZED = frozenset(
    {
        *("DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearMatMul"),
        *("GatherBlockQuantized", "MatMulBnb4", "MatMulNBits"),
    }
)


@dataclass(frozen=True)
class Form:
    """A precision that `quantize` makes: the bits of its weights, what was done in words, and what to know of it."""

    bits: int
    how: str
    notes: tuple[str, ...]


_BY_BLOCK = (
    "Activations stay float32 between the products. A text's result does not depend on the texts it runs with.",
    "onnxruntime 1.23 or newer runs this form; older versions have no embeddings in 8 bits.",
)

FORMS = {
    "int8": Form(
        8,
        "dynamic quantisation of onnxruntime: weights in int8 by channel, activations by the range of each run",
        ("A text's result depends a little on the texts it runs with; `batchInvariant=True` runs each by itself.",),
    ),
    "int8w": Form(
        8,
        "weights only, those of products (MatMulNBits) and embeddings in 8 bits, "
        f"by blocks of {BLOCK}, or of {GENERATOR_BLOCK} in models that generate",
        _BY_BLOCK,
    ),
    "int4": Form(
        4,
        f"weights only, those of products in 4 bits, those of embeddings and the head in 8, by blocks of {BLOCK}",
        _BY_BLOCK,
    ),
}

LOSES_TOKENS = "Dynamic int8 usually changes many next tokens of a model that generates. int8w keeps more of them."


def quantize(bundle: Bundle, target: Path, precision: str = "int8") -> Bundle:
    """Write a form of a bundle into a new folder, in one of `FORMS`: int8, int8w or int4.

    Of models with several graphs all are quantised. Raises `ParamError` where the precision is none of them, and
    `BundleError` where the folder already exists or a graph cannot be quantised.
    """
    if precision not in FORMS:
        raise ParamError(f"precision={precision!r} cannot be made: it takes {listed(FORMS)}")
    try:
        import onnx  # noqa: F401
        from onnxruntime.quantization import quantize_dynamic  # noqa: F401
    except ImportError as error:
        raise MissingDependency("onnx", "quantising a model", "optimize") from error
    if target.exists():
        raise BundleError(f"{target} already exists: name another folder for the {precision} bundle")
    for part in bundle.parts:
        _check_plain(part)
    check_generator(bundle) if generates(bundle) else check_tokenizer(bundle)
    try:
        _copy_small(bundle, target)
        for part in bundle.parts:
            _quantize_graph(part, target, precision)
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        if not isinstance(error, Exception):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise BundleError(f"{bundle.model_path} cannot be quantised to {precision}: {reason}") from error
    return open_bundle(target, _file_name(bundle.model, precision))


def _file_name(model: str, precision: str) -> str:
    return str(Path(model).with_name(f"{Path(model).stem}_{precision}.onnx"))


def _check_plain(bundle: Bundle) -> None:
    import onnx

    graph = onnx.load(bundle.model_path, load_external_data=False).graph
    if quantized := _operators(graph) & _QUANTIZED:
        raise BundleError(f"{bundle.model_path} is already quantised: it has {listed(sorted(quantized))}")
    if any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in graph.initializer):
        raise BundleError(f"{bundle.model_path} has float16 weights, which cannot be quantised: take float32 ones")


def _operators(graph: Any) -> set[str]:
    """Return the types of a graph's nodes, those inside of branches too."""
    inner = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return {node.op_type for node in graph.node}.union(*map(_operators, inner))


def _copy_small(bundle: Bundle, target: Path) -> None:
    """Copy all files of a bundle but for weights and its card."""
    weights: set[str] = set()
    for model, graph in bundle.graphs.items():
        weights.update(str(Path(model).parent / file) for file in graph.external_files)
    for name in bundle.files:
        if name not in weights and name not in bundle.graphs and name not in _CARDS:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.folder / name, target / name)


def _quantize_graph(bundle: Bundle, target: Path, precision: str) -> None:
    model = target / _file_name(bundle.model, precision)
    model.parent.mkdir(parents=True, exist_ok=True)
    if precision == "int8":
        _quantize_dynamically(bundle, model)
    else:
        block = GENERATOR_BLOCK if precision == "int8w" and generates(bundle) else BLOCK
        quantize_weights(bundle.model_path, model, FORMS[precision].bits, block)


def _quantize_dynamically(bundle: Bundle, model: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        bundle.model_path,
        model,
        per_channel=True,
        reduce_range=False,  # VNNI and ARM dot products do not overflow
        weight_type=QuantType.QInt8,
        use_external_data_format=bundle.weight_bytes > LARGE,
        extra_options={"EnableSubgraph": True},  # a merged decoder is two branches
    )


def _listed_graphs(bundle: Bundle) -> str:
    return ", ".join(f"`{name}`" for name in bundle.graphs)


def write_card(quantized: Bundle, original: Bundle, precision: str, result: Agreement | None, advice: str = "") -> None:
    """Write the README.md of a quantised bundle: what it was made from, how, and what was measured.

    ``advice`` is the recommendation that came of it. The card of the original follows.
    """
    form = FORMS[precision]
    warnings = [LOSES_TOKENS] if precision == "int8" and generates(original) else []
    measured = [f"- {line}" for line in result.lines()] if result else ["- nothing: no texts were given"]
    recommended = ["", advice] if advice else []
    lines = [
        f"# {original.folder.name}, {precision}",
        "",
        f"{_listed_graphs(quantized)}: made from {_listed_graphs(original)} of the bundle with sha256 `{original.hash}`"
        f" by `sparktasks optimize --{precision}`:",
        f"{form.how}.",
        *form.notes,
        *warnings,
        "",
        f"Size: {original.all_weight_bytes / 1e6:,.1f} MB before, {quantized.all_weight_bytes / 1e6:,.1f} MB now.",
        "Measured against the original:",
        "",
        *measured,
        *recommended,
        *_card_of(original),
    ]
    (quantized.folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _card_of(original: Bundle) -> Sequence[str]:
    card = original.folder / "README.md"
    return ["", "---", "", card.read_text(encoding="utf-8")] if card.is_file() else []
