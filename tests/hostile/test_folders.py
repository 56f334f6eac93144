"""Model folders: nothing from outside of them, nothing that hangs, no two models taken for one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparktasks.runtime.bundle import open_bundle
from tests.graphs import MEAN_OF_MASKED, write_bundle
from tests.hostile.limited import attempt

EMBEDDER = Path(__file__).parents[1] / "bundles" / "bert-embedding-mean"
OPEN = "attempt(lambda: open_bundle(sys.argv[1]))"
MAKE = """
from sparktasks import TextClassifier
attempt(lambda: TextClassifier.pretrained(sys.argv[1]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "model", MEAN_OF_MASKED)


# -- outside data, wherever a graph names it


def outside(name: str, location: str, rows: int = 1) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[rows], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def constant(location: str) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["hidden"], value=outside("hidden", location))


def branch(*nodes: onnx.NodeProto, initializers: list[TensorProto] | None = None) -> onnx.GraphProto:
    values = [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, None)]
    return helper.make_graph(list(nodes), "branch", [], values, initializers or [])


def sparse(location: str) -> onnx.SparseTensorProto:
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "indices")
    return onnx.SparseTensorProto(values=outside("sparse", location), indices=indices, dims=[4])


def in_a_constant(model: onnx.ModelProto, location: str) -> None:
    model.graph.node.insert(0, constant(location))


def in_a_branch(model: onnx.ModelProto, location: str) -> None:
    weights = branch(helper.make_node("Identity", ["weights"], ["hidden"]), initializers=[outside("weights", location)])
    node = helper.make_node("If", ["flag"], ["either"], then_branch=weights, else_branch=branch(constant("beside.bin")))
    model.graph.node.append(node)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "flag"))


def in_a_branch_of_a_branch(model: onnx.ModelProto, location: str) -> None:
    inner = branch(constant(location))
    deep = branch(helper.make_node("If", ["flag"], ["hidden"], then_branch=inner, else_branch=inner))
    model.graph.node.append(helper.make_node("If", ["flag"], ["either"], then_branch=deep, else_branch=deep))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "flag"))


def in_a_sparse_initializer(model: onnx.ModelProto, location: str) -> None:
    model.graph.sparse_initializer.append(sparse(location))


def in_a_sparse_constant(model: onnx.ModelProto, location: str) -> None:
    model.graph.node.insert(0, helper.make_node("Constant", [], ["hidden"], sparse_value=sparse(location)))


def in_a_list_of_tensors(model: onnx.ModelProto, location: str) -> None:
    node = helper.make_node("Constant", [], ["hidden"])
    attribute = onnx.AttributeProto(name="tensors", type=onnx.AttributeProto.TENSORS, tensors=[outside("w", location)])
    node.attribute.append(attribute)
    model.graph.node.insert(0, node)


def in_a_function(model: onnx.ModelProto, location: str) -> None:
    function = helper.make_function("own", "F", [], ["hidden"], [constant(location)], [helper.make_opsetid("", 17)])
    model.functions.append(function)


PLACES = [
    in_a_constant,
    in_a_branch,
    in_a_branch_of_a_branch,
    in_a_sparse_initializer,
    in_a_sparse_constant,
    in_a_list_of_tensors,
    in_a_function,
]


def change(folder: Path, place: Callable[[onnx.ModelProto, str], None], location: str) -> None:
    model = onnx.load(folder / "model.onnx")
    place(model, location)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


@pytest.mark.parametrize("place", PLACES)
def test_outside_data_is_a_part_of_the_bundle_wherever_it_is_named(
    place: Callable[[onnx.ModelProto, str], None], folder: Path
) -> None:
    (folder / "beside.bin").write_bytes(np.ones(4, np.float32).tobytes())
    plain = open_bundle(folder).hash
    change(folder, place, "beside.bin")
    before = open_bundle(folder)
    assert "beside.bin" in before.files
    assert plain != before.hash
    (folder / "beside.bin").write_bytes(np.zeros(4, np.float32).tobytes())
    assert open_bundle(folder).hash != before.hash


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "sub/../../secret.bin", "link.bin", "absent.bin"])
@pytest.mark.parametrize("place", [in_a_constant, in_a_branch_of_a_branch, in_a_sparse_initializer])
def test_outside_data_that_leaves_the_folder_is_refused(
    place: Callable[[onnx.ModelProto, str], None], location: str, folder: Path
) -> None:
    (folder.parent / "secret.bin").write_bytes(b"secret")
    (folder / "beside.bin").write_bytes(b"    ")
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    change(folder, place, location)
    assert attempt(OPEN, folder)[1].startswith("BundleError: ")


# -- small files


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "1_Pooling/config.json", "onnx/config.json"])
def test_links_that_leave_the_folder_are_refused(name: str, folder: Path) -> None:
    secret = folder.parent / "credentials"
    secret.write_text('{"model": {}}')
    (folder / name).unlink(missing_ok=True)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(secret)
    assert "a link that leaves the bundle is refused" in attempt(OPEN, folder)[1]


@pytest.mark.parametrize("name", ["../../other/model.onnx", "/etc/passwd", "link.onnx"])
def test_a_graph_outside_of_the_folder_is_refused(name: str, folder: Path) -> None:
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    (folder / "link.onnx").symlink_to(other / "model.onnx")
    (folder / "genai_config.json").write_text(json.dumps({"model": {"decoder": {"filename": name}}}))
    assert attempt(OPEN, folder)[1].startswith("BundleError: ")
    _, answer = attempt("attempt(lambda: open_bundle(sys.argv[1], sys.argv[2]))", folder, name)
    assert answer.startswith("BundleError: ")


DEEP = "[" * 200_000 + "]" * 200_000
FORMS: list[tuple[str, Any]] = [
    *(("config.json", content) for content in ([], "text", 5, None, True, [["a"]])),
    *(("config.json", {"id2label": content}) for content in ([], "a", 5, {"x": {}}, {"0": None, "2": 1})),
    ("config.json", {"architectures": 5}),
    ("config.json", {"architectures": "BertModel"}),
    ("config.json", {"max_position_embeddings": "many"}),
    ("config.json", {"max_position_embeddings": 1e400}),
    ("config.json", {"pad_token_id": [1]}),
    ("config.json", {"text_config": "none"}),
    ("config.json", {"num_labels": {}}),
    ("tokenizer_config.json", []),
    ("tokenizer_config.json", {"added_tokens_decoder": []}),
    ("tokenizer_config.json", {"added_tokens_decoder": {"x": 5}}),
    ("tokenizer_config.json", {"added_tokens_decoder": {"5": {"special": True}}}),
    ("tokenizer_config.json", {"additional_special_tokens": "<x>"}),
    ("tokenizer_config.json", {"additional_special_tokens": [5, {"a": 1}]}),
    ("tokenizer_config.json", {"pad_token": 7}),
    ("tokenizer_config.json", {"model_max_length": "long"}),
    ("tokenizer_config.json", {"model_input_names": "input_ids"}),
    ("tokenizer_config.json", {"truncation_side": 3}),
    ("special_tokens_map.json", ["<s>"]),
    ("special_tokens_map.json", {"pad_token": ["<s>"]}),
    ("added_tokens.json", {"<x>": "five"}),
    ("tokenizer.json", []),
    ("tokenizer.json", {"model": [], "added_tokens": []}),
    ("tokenizer.json", {"model": {"vocab": 5}}),
    ("tokenizer.json", {"model": {"vocab": {"a": "b"}}}),
    ("tokenizer.json", {"model": {}, "added_tokens": [5]}),
    ("modules.json", {}),
    ("modules.json", [5]),
]
RUN = """
from sparktasks import DocumentAssembler, LocalPipeline, TextClassifier, TextEmbedder
def run():
    LocalPipeline([DocumentAssembler(), TextClassifier.pretrained(sys.argv[1])]).annotate("w1 w2")
attempt(run)
"""


@pytest.mark.parametrize("depth", ["config.json", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"])
def test_json_that_is_nested_too_deep_is_refused(depth: str, folder: Path) -> None:
    (folder / depth).write_text(DEEP)
    seconds, answer = attempt(RUN, folder)
    assert answer.startswith("BundleError: ")
    assert depth in answer
    assert seconds < 10


def test_json_of_other_forms_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    """All forms in one process: what is at stake is an error of ours, not time."""
    folders = []
    for number, (name, content) in enumerate(FORMS):
        source = EMBEDDER if name == "modules.json" else folder
        made = Path(shutil.copytree(source, tmp_path / "forms" / str(number)))
        (made / name).chmod(0o644) if (made / name).exists() else None
        (made / name).write_text(json.dumps(content))
        folders.append(f"{made}|{name}")
    code = """
from sparktasks import DocumentAssembler, LocalPipeline, TextClassifier, TextEmbedder
def run(folder, name):
    stage = TextEmbedder if name == "modules.json" else TextClassifier
    LocalPipeline([DocumentAssembler(), stage.pretrained(folder)]).annotate("w1 w2")
bad = []
for entry in sys.argv[1:]:
    folder, name = entry.split("|")
    try:
        run(folder, name)
        bad.append(f"{name} of {folder}: accepted")
    except SparkTasksError as error:
        if name not in str(error): bad.append(f"{name}: does not name the file: {error}")
    except Exception as error:
        bad.append(f"{name} {open(folder + '/' + name).read()[:60]}: {type(error).__name__}: {error}")
def tell():
    if bad: raise SystemExit("\\n".join(bad))
attempt(tell)
"""
    assert attempt(code, *folders)[1] == "accepted"


# -- graphs


def loop_forever(model: onnx.ModelProto) -> None:
    bools, numbers = TensorProto.BOOL, TensorProto.FLOAT
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["x"], ["x_next"])]
    ins = [info("step", TensorProto.INT64, []), info("go", bools, []), info("x", numbers, None)]
    body = helper.make_graph(nodes, "body", ins, [info("on", bools, []), info("x_next", numbers, None)])
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Loop", ["", "always", "before"], ["logits"], body=body))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))


def test_a_run_that_never_ends_is_ended(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    loop_forever(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    code = """
from sparktasks import DocumentAssembler, LocalPipeline, TextClassifier
def run():
    stage = TextClassifier.pretrained(sys.argv[1], maxRunSeconds=1)
    found = LocalPipeline([DocumentAssembler(), stage]).fullAnnotate(["w1 w2", "w3"])
    errors = [row["category"][0].metadata["error"] for row in found]
    assert all("ran for more than 1 seconds (maxRunSeconds) and was ended" in error for error in errors), errors
attempt(run)
"""
    seconds, answer = attempt(code, folder)
    assert answer == "accepted"
    assert seconds < 15


def test_a_file_of_ones_is_refused_at_once(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"\xff" * 4_000_000)
    seconds, answer = attempt(OPEN, folder)
    assert answer.startswith("BundleError: ")
    assert seconds < 5


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            helper.make_node("Steal", ["table"], ["stolen"], domain="com.evil"),
            "operators that onnxruntime .* lacks: 'com.evil.Steal'",
        ),
        (helper.make_node("NoSuchOperator", ["table"], ["nothing"]), "lacks: 'NoSuchOperator'"),
    ],
)
def test_operators_that_onnxruntime_lacks_are_found_before_a_job(
    node: onnx.NodeProto, message: str, folder: Path
) -> None:
    model = onnx.load(folder / "model.onnx")
    model.graph.node.append(node)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    _, answer = attempt(MAKE, folder)
    assert re.search(message, answer), answer


def test_an_opset_of_the_future_is_found_before_a_job(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    model.opset_import[0].version = 99
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    assert "is of opset 99" in attempt(MAKE, folder)[1]
