"""Where models run: devices by name, and the onnxruntime execution providers behind them."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

from sparktasks.errors import MissingDependency, ParamError, listed

CPU = "CPUExecutionProvider"
PROVIDERS = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
_PACKAGES = {"cuda": "onnxruntime-gpu", "tensorrt": "onnxruntime-gpu"}
_NUMBERED = ("cuda", "tensorrt", "rocm", "migraphx", "directml")
ALLOWED = ("auto", *PROVIDERS)
_NAME = re.compile(r"([a-z]+)(?::(\d+))?")

_gpu: int | None = None


def use_gpu(address: int | None) -> None:
    """Run models on this GPU from now on where a device is chosen without a number: the one that Spark gave the
    task."""
    global _gpu
    _gpu = address


def assigned_gpu() -> int | None:
    """Return the GPU that Spark gave the task, if it gave one."""
    return _gpu


def is_device(name: str) -> bool:
    """Tell whether there is a device of that name: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...

    >>> [is_device(name) for name in ("auto", "cuda:1", "cpu:1", "gpu")]
    [True, True, False, False]
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        return False
    kind, number = parts.groups()
    return kind in (ALLOWED if number is None else _NUMBERED)


def providers_for(device: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the execution providers of a device, best first; the CPU stands behind every other.

    ``auto`` is CUDA where this onnxruntime has it and there is a GPU, else the CPU. Raises `MissingDependency` or
    `ParamError` where this build of onnxruntime lacks the device.
    """
    import onnxruntime  # here, because params check names of devices where it is not installed

    kind, _, number = device.partition(":")
    available = onnxruntime.get_available_providers()
    if kind == "auto":
        kind = "cuda" if PROVIDERS["cuda"] in available and _has_gpu() else "cpu"
    provider = PROVIDERS[kind]
    if provider not in available:
        if kind in _PACKAGES:
            raise MissingDependency(
                _PACKAGES[kind],
                f"device={device!r} (this is onnxruntime {onnxruntime.__version__} with {listed(available)})",
                "gpu",
            )
        raise ParamError(
            f"device={device!r}: onnxruntime {onnxruntime.__version__} on {socket.gethostname()} lacks "
            f"{provider}; it has {listed(available)}"
        )
    if provider == CPU:
        return [(CPU, {})]
    options = {}
    if kind in _NUMBERED:
        options["device_id"] = int(number or _gpu or 0)
    # onnxruntime gives the CPU those nodes that a provider does not implement.
    return [(provider, options), (CPU, {})]


def _has_gpu() -> bool:
    # /dev/dxg is how Windows shares its GPU with WSL.
    return _gpu is not None or any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
