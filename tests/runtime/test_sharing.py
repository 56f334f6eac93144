"""Packed graphs: the same results from weights that all processes map."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparktasks.errors import DeliveryError, ParamError
from sparktasks.runtime import session, sharing
from sparktasks.runtime.bundle import Bundle, open_bundle
from sparktasks.runtime.session import Session
from sparktasks.runtime.store import Store

NAMES = ["bert-text-classification", "bert-token-classification"]
FEEDS = {
    "input_ids": np.arange(24).reshape(2, 12) % 30,
    "attention_mask": np.ones((2, 12), np.int64),
    "token_type_ids": np.zeros((2, 12), np.int64),
}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARKTASKS_CACHE", str(tmp_path))
    monkeypatch.setenv(sharing.THRESHOLD_VARIABLE, "1")
    return tmp_path


@pytest.fixture
def model(bundle: Callable[[str], str]) -> Bundle:
    return open_bundle(bundle("bert-text-classification"))


def logits(opened: Session) -> np.ndarray:
    feeds = {name: values for name, values in FEEDS.items() if name in opened.inputs}
    return opened.run([opened.outputs[0]], **feeds)[0]


def plain(model: Bundle, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    with monkeypatch.context() as patch:
        patch.setenv(sharing.THRESHOLD_VARIABLE, str(1 << 60))
        return logits(Session(model))


@pytest.mark.parametrize("name", NAMES)
def test_packed_weights_give_equal_results(
    name: str, bundle: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_bundle(bundle(name))
    made = logits(Session(model))
    entry = sharing.shared_graph(model)
    assert entry is not None
    assert {path.name for path in entry.content.iterdir()} == {"model.onnx", "model.onnx.data"}
    np.testing.assert_array_equal(made, plain(model, monkeypatch))


def test_a_graph_is_packed_once(model: Bundle) -> None:
    Session(model)
    manifest = next(Store().root.glob("graphs/*/manifest.json"))
    before = manifest.stat().st_ino
    Session(model)
    assert [path.stat().st_ino for path in Store().root.glob("graphs/*/manifest.json")] == [before]


def test_small_models_are_not_packed(model: Bundle, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.delenv(sharing.THRESHOLD_VARIABLE)
    Session(model)
    assert not list(root.iterdir())


def _no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_CHILD", "import sys; print('no memory', file=sys.stderr); sys.exit(9)")


def _no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "free", lambda store: 10)


def _no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARKTASKS_CACHE", "/proc/none")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (_no_child, "status 9: no memory"),
        (_no_room, "10 MB free|0 MB free"),
        (_no_root, "cannot keep models in /proc/none"),
    ],
)
def test_where_packing_fails_the_plain_graph_runs_and_the_log_says_so(
    harm: Callable[[pytest.MonkeyPatch], None],
    reason: str,
    model: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wanted = plain(model, monkeypatch)
    harm(monkeypatch)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(logits(Session(model)), wanted)
    assert caplog.records[-1].levelno == logging.WARNING
    assert re.search(reason, caplog.text)


def test_a_packed_graph_that_does_not_open_is_not_used(
    model: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = plain(model, monkeypatch)
    original = session._session

    def broken(path: Path, *arguments: Any, **options: Any) -> Any:
        return original(path.parent / "absent.onnx" if options.get("packed") else path, *arguments, **options)

    monkeypatch.setattr(session, "_session", broken)
    np.testing.assert_array_equal(logits(Session(model)), wanted)
    assert "is of no use" in caplog.text


def test_what_failed_is_not_tried_again_at_once(
    model: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        _no_child(patch)
        Session(model)
    assert sharing.shared_graph(model) is None
    assert "failed less than 10 minutes ago" in caplog.text
    next((Store().root / "locks").glob("*.failed")).unlink()
    assert sharing.shared_graph(model) is not None


def test_a_file_that_is_replaced_while_it_is_packed_is_not_kept(model: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model.folder, tmp_path / "model"))
    opened = open_bundle(folder).sealed()
    other = (folder / "model.onnx").read_bytes()
    changed = bytearray(other)
    changed[len(changed) // 2] ^= 1  # somewhere in the weights
    (folder / "model.onnx").write_bytes(changed)
    with pytest.raises(DeliveryError, match="would be another model"):
        sharing.shared_graph(opened)
    assert Store().keys("graphs") == []
    (folder / "model.onnx").write_bytes(other)
    assert sharing.shared_graph(open_bundle(folder).sealed()) is not None


def test_settings_that_are_no_numbers_are_named(model: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sharing.THRESHOLD_VARIABLE, "32m")
    with pytest.raises(ParamError, match="SPARKTASKS_SHARE_BYTES='32m' is not allowed: it takes a number of bytes"):
        Session(model)
