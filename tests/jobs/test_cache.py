"""`sparktasks cache`: what is kept on a machine, and looking after it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from sparktasks import cli
from sparktasks.runtime.store import Store
from sparktasks.spark.sources import find_folder
from sparktasks.spark.storage import fetch_folder, hold_files


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SPARKTASKS_CACHE", str(tmp_path))
    return Store()


class Owner:
    """Stands for a stage's bundle."""


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


def test_models_fetched_by_uri_are_entries_like_others(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that is published anew each day: old copies go when nobody uses them, within the limit and with clear."""
    source = tmp_path / "published"
    monkeypatch.setenv("SPARKTASKS_CACHE_BYTES", "1000")
    store = Store()
    folders = []
    for version in range(3):
        (source / "sub").mkdir(parents=True, exist_ok=True)
        (source / "sub" / "weights.bin").write_bytes(bytes([version]) * 600)
        os.utime(source / "sub" / "weights.bin", (version, version))
        folders.append(fetch_folder(f"file://{source}"))
        assert (folders[-1] / "sub" / "weights.bin").read_bytes() == bytes([version]) * 600
        owner = Owner() if version < 2 else Owner
        hold_files(folders[-1].resolve(), ["sub/weights.bin"], owner)
        del owner
    assert [folder.is_dir() for folder in folders] == [False, False, True]
    assert [folder.parent.name for folder in store.folders()] == ["fetched"]
    assert "fetched/" in printed("list", capsys)[1]
    assert printed("clear", capsys)[1].endswith("in use, kept")


def test_fetched_model_is_kept_while_its_owner_lives(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "published"
    source.mkdir()
    (source / "weights.bin").write_bytes(b"x")
    owner = Owner()
    folder = fetch_folder(f"file://{source}")
    hold_files(folder.resolve(), ["weights.bin"], owner)
    assert fetch_folder(f"file://{source}") == folder
    hold_files(folder.resolve(), ["weights.bin"], second := Owner())
    del owner
    assert printed("clear", capsys)[1].endswith("in use, kept")
    del second
    assert printed("clear", capsys)[1].endswith("removed")
    assert not folder.exists()


def test_uri_with_one_slash_is_a_uri(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a model").mkdir()
    (tmp_path / "a model" / "weights.bin").write_bytes(b"x")
    assert (find_folder(f"file:{tmp_path}/a model", None, "test") / "weights.bin").read_bytes() == b"x"
