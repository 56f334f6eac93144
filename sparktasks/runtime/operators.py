"""Whether the installed onnxruntime knows what a graph is made of, found out without loading it."""

from __future__ import annotations

from functools import lru_cache

from sparktasks.errors import BundleError, listed
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.protobuf import bytes_field, number_field


def check_operators(bundle: Bundle) -> None:
    """Raise `BundleError` where a graph of a bundle has operators or a version that onnxruntime here does not know.

    Executors may have another onnxruntime than this process, and no check is made where this one has none.
    """
    known = _known_operators()
    for part in bundle.parts:
        graph = part.graph
        fault = _version_fault(graph.ir_version, graph.opset)
        if fault:
            raise BundleError(
                f"{part.model_path} is of opset {graph.opset} and IR version {graph.ir_version}, which "
                f"{_onnxruntime()} does not open: {fault}. Export it with a lower opset, or upgrade onnxruntime"
            )
        unknown = sorted(graph.all_operators - known)
        if known and unknown:
            raise BundleError(
                f"{part.model_path} has operators that {_onnxruntime()} lacks: {listed(unknown)}. "
                "Libraries of custom operators are not loaded, since they can run any code"
            )


def _onnxruntime() -> str:
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


@lru_cache(maxsize=1)
def _known_operators() -> frozenset[str]:
    """Return the operators by name, those of other domains than ONNX's own as ``domain.name``; none where they cannot
    be asked."""
    try:
        from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema
    except ImportError:
        return frozenset()
    return frozenset(f"{schema.domain}.{schema.name}".removeprefix(".") for schema in get_all_operator_schema())


@lru_cache(maxsize=64)
def _version_fault(ir_version: int, opset: int) -> str:
    """Let onnxruntime open a graph of one node in these versions; return what it says against them."""
    try:
        import onnxruntime
    except ImportError:
        return ""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(_smallest(ir_version, opset), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a family of its own, without a common parent
        return str(error).strip().splitlines()[0]
    return ""


def _smallest(ir_version: int, opset: int) -> bytes:
    """Return an ONNX file of one Identity node (field numbers: onnx.proto3)."""
    node = bytes_field(1, b"x") + bytes_field(2, b"y") + bytes_field(4, b"Identity")
    float_scalar = bytes_field(2, bytes_field(1, number_field(1, 1) + bytes_field(2, b"")))
    graph = bytes_field(1, node) + bytes_field(2, b"graph")
    graph += bytes_field(11, bytes_field(1, b"x") + float_scalar)
    graph += bytes_field(12, bytes_field(1, b"y") + float_scalar)
    return number_field(1, ir_version) + bytes_field(7, graph) + bytes_field(8, number_field(2, opset))
