"""The accuracy level of products by weights in blocks: set where a file leaves it open, on the CPU, unless refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sparktasks import cli
from sparktasks.errors import ParamError
from sparktasks.runtime import sharing
from sparktasks.runtime.accuracy import LEVEL_VARIABLE, level_for, with_level
from sparktasks.runtime.bundle import Bundle, open_bundle
from sparktasks.runtime.graph import BlockProduct
from sparktasks.runtime.quantize import quantize
from sparktasks.runtime.session import Session, open_session
from sparktasks.runtime.store import Store

BERT, T5 = "bert-text-classification", "t5-text2text-generation"
FEEDS = {
    "input_ids": np.arange(24).reshape(2, 12) % 30,
    "attention_mask": np.ones((2, 12), np.int64),
    "token_type_ids": np.zeros((2, 12), np.int64),
}
Make = Callable[..., Bundle]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARKTASKS_CACHE", str(tmp_path / "cache"))


def products(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the products by weights in blocks, those inside of branches too."""
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from products(attribute.g)


def set_level(model: onnx.ModelProto, level: int | None) -> onnx.ModelProto:
    """Set the level of all products; None leaves it open."""
    for node in products(model.graph):
        kept = [attribute for attribute in node.attribute if attribute.name != "accuracy_level"]
        del node.attribute[:]
        node.attribute.extend(kept)
        if level is not None:
            node.attribute.append(onnx.helper.make_attribute("accuracy_level", level))
    return model


@pytest.fixture
def int4(bundle: Callable[[str], str], tmp_path: Path) -> Make:
    """Make the int4 form of a bundle, whose products have a level, or leave it open."""

    def make(level: int | None, name: str = BERT, outside: bool = False) -> Bundle:
        folder = tmp_path / f"{name}-{level}-{outside}"
        made = quantize(open_bundle(bundle(name)), folder, "int4")
        for file in made.graphs:
            model = set_level(onnx.load(folder / file), level)
            onnx.save(model, folder / file, save_as_external_data=outside, location=f"{file}.data")
        return open_bundle(folder)

    return make


@pytest.mark.parametrize("level", [None, 0])
@pytest.mark.parametrize("name", [BERT, T5])
def test_each_product_without_a_level_gets_one_and_nothing_else_changes(
    name: str, level: int | None, int4: Make
) -> None:
    for part in int4(level, name).parts:
        assert {product.accuracy_level for product in part.graph.block_products} == {0}
        made = onnx.load_from_string(with_level(part.model_path, 4))
        levels = [attribute.i for node in products(made.graph) for attribute in node.attribute[-1:]]
        assert set(levels) == {4}
        assert len(levels) == len([*products(onnx.load(part.model_path).graph)])
        original = set_level(onnx.load(part.model_path), 4)
        assert made == original


def test_a_level_that_a_file_states_stays(int4: Make) -> None:
    stated = int4(1)
    assert level_for(stated.graph) == 0
    assert onnx.load_from_string(with_level(stated.model_path, 4)) == onnx.load(stated.model_path)


def test_the_header_tells_bits_block_and_level(int4: Make) -> None:
    assert int4(None, T5).graph.block_products == {BlockProduct(4, 32, 0), BlockProduct(8, 32, 0)}
    assert int4(4, T5).graph.block_products == {BlockProduct(4, 32, 4), BlockProduct(8, 32, 4)}


@pytest.mark.parametrize(
    ("level", "asked", "said"),
    [
        (None, "4", "left open, set to 4 on CPUs"),
        (None, "0", "left open"),
        (4, "4", "4"),
        (1, "4", "1"),
    ],
)
def test_inspect_tells_bits_block_and_level(
    level: int | None,
    asked: str,
    said: str,
    int4: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(LEVEL_VARIABLE, asked)
    cli.main(["inspect", str(int4(level).folder)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("weights")]
    assert lines == [f"weights     model_int4.onnx: 4 bits in blocks of 32, accuracy level {said}"]


def logits(session: Session) -> np.ndarray:
    return session.run(["logits"], **{name: values for name, values in FEEDS.items() if name in session.inputs})[0]


@pytest.mark.parametrize("outside", [False, True], ids=["one file", "outside data"])
@pytest.mark.parametrize("threshold", ["1", str(1 << 60)], ids=["packed", "as it is"])
def test_an_open_level_gives_what_level_4_gives(
    threshold: str, outside: bool, int4: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(sharing.THRESHOLD_VARIABLE, threshold)
    expected = logits(Session(int4(4)))
    found = int4(None, outside=outside)
    assert bool(found.graph.external_files) == outside
    np.testing.assert_array_equal(logits(Session(found)), expected)
    monkeypatch.setenv(LEVEL_VARIABLE, "0")
    as_found = logits(Session(found))
    np.testing.assert_array_equal(as_found, logits(Session(int4(1))))
    assert not np.array_equal(as_found, expected), "level 4 changed nothing: this test could not fail"


def test_the_change_is_within_what_int4_lost(int4: Make, bundle: Callable[[str], str]) -> None:
    original = logits(Session(open_bundle(bundle(BERT))))
    as_found, leveled = logits(Session(int4(1))), logits(Session(int4(None)))
    assert np.abs(leveled - as_found).max() < 0.5 * np.abs(as_found - original).max()


def test_packed_copies_of_other_levels_are_kept_apart(int4: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sharing.THRESHOLD_VARIABLE, "1")
    found = int4(None)
    answers = {}
    for level in ("4", "0"):
        monkeypatch.setenv(LEVEL_VARIABLE, level)
        answers[level] = [logits(Session(found)), logits(open_session(found, "cpu"))]
    assert len(Store().keys("graphs")) == 2
    for level, (alone, cached) in answers.items():
        np.testing.assert_array_equal(alone, cached, err_msg=f"level {level}")
    assert not np.array_equal(answers["4"][0], answers["0"][0])


def test_other_models_keep_their_packed_copies(bundle: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sharing.THRESHOLD_VARIABLE, "1")
    plain = open_bundle(bundle(BERT))
    for level in ("4", "0"):
        monkeypatch.setenv(LEVEL_VARIABLE, level)
        Session(plain)
    assert len(Store().keys("graphs")) == 1


def test_a_level_that_does_not_exist_is_named(int4: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEVEL_VARIABLE, "5")
    allowed = r"the variable SPARKTASKS_ACCURACY_LEVEL='5' is not allowed: it takes '0', '1', '2', '3', '4'"
    with pytest.raises(ParamError, match=allowed):
        Session(int4(None))


def test_a_gpu_runs_the_file_as_it_is(int4: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparktasks.runtime import session

    opened: list[dict[str, Any]] = []

    def record(path: Path, providers: Any, **options: Any) -> Any:
        opened.append(options)
        raise RuntimeError

    monkeypatch.setattr(session, "providers_for", lambda device: [("CUDAExecutionProvider", {})])
    monkeypatch.setattr(session, "_session", record)
    with pytest.raises(RuntimeError):
        Session(int4(None))
    assert [options["level"] for options in opened] == [0]
