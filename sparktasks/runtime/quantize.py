"""Making an int8 bundle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sparktasks.errors import BundleError, MissingDependency, listed
from sparktasks.runtime.agreement import Agreement
from sparktasks.runtime.bundle import Bundle, check_tokenizer, open_bundle
from sparktasks.runtime.generation.layout import check_generator, generates

_LARGE = 1_500_000_000  # protobuf ends at 2 GiB
_CARDS = ("README.md",)
_QUANTIZED = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "MatMulNBits", "QLinearMatMul"})


def quantize(bundle: Bundle, target: Path) -> Bundle:
    """Write an int8 form of a bundle into a new folder: weights of 8 bits a channel, activations quantised as they come.

    Of models with several graphs all are quantised. Raises `BundleError` where the folder is there already or a graph
    cannot be quantised.
    """
    try:
        import onnx  # noqa: F401
        from onnxruntime.quantization import quantize_dynamic  # noqa: F401
    except ImportError as error:
        raise MissingDependency("onnx", "quantising a model", "optimize") from error
    if target.exists():
        raise BundleError(f"{target} is there already: name another folder for the int8 bundle")
    for part in bundle.parts:
        _check_plain(part)
    check_generator(bundle) if generates(bundle) else check_tokenizer(bundle)
    try:
        _copy_small(bundle, target)
        for part in bundle.parts:
            _quantize_graph(part, target)
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        if not isinstance(error, Exception):
            raise
        raise BundleError(f"{bundle.model_path} cannot be quantised: {type(error).__name__}: {error}") from error
    return open_bundle(target, _int8_name(bundle.model))


def _int8_name(model: str) -> str:
    return str(Path(model).with_name(f"{Path(model).stem}_int8.onnx"))


def _check_plain(bundle: Bundle) -> None:
    import onnx

    graph = onnx.load(bundle.model_path, load_external_data=False).graph
    if found := _operators(graph) & _QUANTIZED:
        raise BundleError(f"{bundle.model_path} is quantised already: it has {listed(sorted(found))}")
    if any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in graph.initializer):
        raise BundleError(f"{bundle.model_path} has float16 weights, which cannot be quantised: take the file in float32")


def _operators(graph: Any) -> set[str]:
    """Return the types of a graph's nodes, those inside of branches too."""
    inner = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return {node.op_type for node in graph.node}.union(*map(_operators, inner))


def _copy_small(bundle: Bundle, target: Path) -> None:
    """Copy all files of a bundle but for weights and its card."""
    weights = {str(Path(model).parent / file) for model, graph in bundle.graphs.items() for file in graph.external_files}
    for name in bundle.files:
        if name not in weights and name not in bundle.graphs and name not in _CARDS:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.folder / name, target / name)


def _quantize_graph(bundle: Bundle, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = target / _int8_name(bundle.model)
    model.parent.mkdir(parents=True, exist_ok=True)
    quantize_dynamic(
        bundle.model_path,
        model,
        per_channel=True,
        reduce_range=False,  # VNNI and ARM dot products do not overflow
        weight_type=QuantType.QInt8,
        use_external_data_format=bundle.weight_bytes > _LARGE,
        extra_options={"EnableSubgraph": True},  # a merged decoder is two branches
    )


def _named(bundle: Bundle) -> str:
    return ", ".join(f"`{name}`" for name in bundle.graphs)


def write_card(made: Bundle, original: Bundle, found: Agreement | None) -> None:
    """Write the README.md of an int8 bundle: what it was made from, how, and what was measured; the original's card follows."""
    measured = [f"- {line}" for line in found.lines()] if found else ["- nothing: no texts were given"]
    card = original.folder / "README.md"
    lines = [
        f"# {original.folder.name}, int8",
        "",
        f"{_named(made)}: made from {_named(original)} of the bundle with sha256 `{original.hash}` by `sparktasks optimize --int8`: ",
        "dynamic quantisation of onnxruntime, weights in int8 by channel, activations quantised by the range of each run.",
        "A text's result therefore depends a little on the texts it runs with; `batchInvariant=True` runs each by itself.",
        "",
        f"Size: {original.all_weight_bytes / 1e6:,.1f} MB before, {made.all_weight_bytes / 1e6:,.1f} MB now. Measured against the original:",
        "",
        *measured,
        *(["", "---", "", card.read_text(encoding="utf-8")] if card.is_file() else []),
    ]
    (made.folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
