"""What the header reader says of the committed models, against onnxruntime itself."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from sparktasks.runtime.bundle import open_bundle

FOLDERS = sorted((Path(__file__).parents[1] / "bundles").iterdir()) + sorted(
    (Path(__file__).parents[2] / "sparktasks" / "starter").iterdir()
)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_header_agrees_with_onnxruntime(folder: Path) -> None:
    whole = open_bundle(folder)
    bundle = whole.part("encoder_model") or whole
    session = onnxruntime.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
    for ours, theirs in [(bundle.graph.inputs, session.get_inputs()), (bundle.graph.outputs, session.get_outputs())]:
        assert [port.name for port in ours] == [port.name for port in theirs]
        assert [len(port.shape) for port in ours] == [len(port.shape) for port in theirs]
        for port, other in zip(ours, theirs, strict=True):
            assert [size for size in port.shape if isinstance(size, int)] == [
                size for size in other.shape if isinstance(size, int)
            ]
    assert bundle.graph.opset > 0
    assert bundle.graph.embedding_rows == bundle.config["vocab_size"]


def test_hash_follows_contents_not_places(tmp_path: Path) -> None:
    copies = [tmp_path / name for name in ("one", "two")]
    for copy in copies:
        copy.mkdir()
        for path in FOLDERS[0].rglob("*"):
            if path.is_file():
                target = copy / path.relative_to(FOLDERS[0])
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(path.read_bytes())
    first = open_bundle(copies[0]).hash
    assert first == open_bundle(copies[1]).hash
    (copies[1] / "README.md").write_text("a card")
    assert first == open_bundle(copies[1]).hash
    config = copies[1] / "config.json"
    config.write_text(config.read_text() + "\n")
    assert first != open_bundle(copies[1]).hash
