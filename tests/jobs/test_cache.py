"""`sparktasks cache`: what is kept on a machine, and looking after it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparktasks import cli
from sparktasks.runtime.store import Store


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SPARKTASKS_CACHE", str(tmp_path))
    return Store()


def put(store: Store, key: str) -> None:
    store.open("bundles", key, lambda folder: (folder / "model.onnx").write_text("weights") and None)


def printed(what: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    cli.main(["cache", what])
    return capsys.readouterr().out.splitlines()


def test_an_empty_cache(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed("list", capsys) == [f"{store.root}: 0.0 MB of at most 34,360 MB"]
    assert printed("verify", capsys) == printed("clear", capsys) == [f"{store.root}: 0 left"]


def test_entries_are_listed_and_cleared(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    put(store, "a")
    held = store.open("bundles", "b", lambda folder: (folder / "model.onnx").write_text("weights") and None)
    assert [line.split()[-1] for line in printed("list", capsys)[1:]] == ["bundles/a", "bundles/b"]
    assert printed("clear", capsys) == [f"{store.root}: 1 left", "bundles/a: removed", "bundles/b: in use, kept"]
    assert held.content.is_dir()


def test_damaged_entries_are_found_and_removed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    put(store, "a")
    put(store, "b")
    file = store.root / "bundles" / "a" / "content" / "model.onnx"
    state = file.stat()
    file.write_text("harmful")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(SystemExit) as ended:
        cli.main(["cache", "verify"])
    assert ended.value.code == cli.FAILED
    assert capsys.readouterr().out.splitlines() == [f"{store.root}: 1 left", "bundles/a: removed"]
