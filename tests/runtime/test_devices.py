"""Devices by name, and what is said where one is not to be had."""

from __future__ import annotations

import onnxruntime
import pytest

from sparktasks import TextClassifier
from sparktasks.errors import MissingDependency, ParamError
from sparktasks.runtime import devices


def test_the_cpu_is_always_there() -> None:
    assert devices.providers_for("cpu") == [("CPUExecutionProvider", {})]


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime has CUDA"
)
def test_a_build_without_cuda_says_what_to_install() -> None:
    assert devices.providers_for("auto") == devices.providers_for("cpu")
    with pytest.raises(
        MissingDependency, match=r"device='cuda:1'.*CPUExecutionProvider.*pip install 'sparktasks\[gpu\]'"
    ):
        devices.providers_for("cuda:1")


def test_a_build_without_another_device_says_what_it_has() -> None:
    with pytest.raises(
        ParamError, match=r"device='coreml': onnxruntime .* lacks CoreMLExecutionProvider; it has .*CPU"
    ):
        devices.providers_for("coreml")


@pytest.mark.parametrize(
    ("device", "assigned", "number"), [("cuda", None, 0), ("cuda", 3, 3), ("cuda:1", 3, 1), ("auto", 2, 2)]
)
def test_the_gpu_is_the_one_asked_for_or_the_one_spark_gave(
    device: str, assigned: int | None, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(devices, "_gpu", assigned)
    assert devices.providers_for(device) == [
        ("CUDAExecutionProvider", {"device_id": number}),
        ("CPUExecutionProvider", {}),
    ]


def test_an_unknown_device_is_refused_when_it_is_set() -> None:
    with pytest.raises(ParamError, match=r"device='gpu' is not allowed.*'cuda'"):
        TextClassifier(device="gpu")
