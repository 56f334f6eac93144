"""A bundle of more than 2 GiB: a tiny classifier whose scores hang on the last bytes of a large file of outside
data."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 1024  # float32 values a row


def make_large(bundle: Path, target: Path, size: int) -> Path:
    """Copy a bundle, and multiply its logits with ones that stand at the end of so many bytes of outside data."""
    shutil.copytree(bundle, target)
    rows = size // (4 * WIDTH)
    model = onnx.load(target / "model.onnx")
    graph = model.graph
    output = graph.output[0].name
    producer = next(node for node in graph.node if output in node.output)
    producer.output[list(producer.output).index(output)] = "plain"
    table = TensorProto(
        name="table", data_type=TensorProto.FLOAT, dims=[rows, WIDTH], data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": "model.onnx_data", "offset": "0", "length": str(rows * WIDTH * 4)}.items():
        table.external_data.add(key=key, value=value)
    graph.initializer.extend([table, numpy_helper.from_array(np.array(rows - 1, np.int64), "last")])
    graph.node.extend(
        [
            helper.make_node("Gather", ["table", "last"], ["row"], axis=0),
            helper.make_node("ReduceMax", ["row"], ["one"], keepdims=0),
            helper.make_node("Mul", ["plain", "one"], [output]),
        ]
    )
    onnx.save_model(model, target / "model.onnx")
    with open(target / "model.onnx_data", "wb") as file:
        file.truncate((rows - 1) * WIDTH * 4)
        file.seek(0, os.SEEK_END)
        file.write(np.ones(WIDTH, np.float32).tobytes())
    return target
