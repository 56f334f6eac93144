"""Folders by content: any files, a hash of names and contents, and links that lead elsewhere refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sparktasks.errors import BundleError, DeliveryError
from sparktasks.runtime import folders
from sparktasks.runtime.bundle import Bundle, open_bundle
from sparktasks.runtime.folders import Folder, open_folder
from sparktasks.runtime.sentence_files import read_sentence_files
from sparktasks.runtime.store import Store


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    folder = tmp_path / "dictionary"
    (folder / "tables").mkdir(parents=True)
    (folder / "words.txt").write_text("one\ntwo\n")
    (folder / "tables" / "counts.bin").write_bytes(bytes(range(256)))
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("not a part")
    (folder / "README.md").write_text("a card")
    return folder


def test_a_folder_is_its_visible_files(dictionary: Path) -> None:
    opened = open_folder(dictionary)
    assert opened.files == ("README.md", "tables/counts.bin", "words.txt")
    assert opened.size == len("one\ntwo\n") + 256 + len("a card")
    assert opened.folder == dictionary.resolve()


def test_the_hash_follows_names_and_contents_not_places_nor_the_card(dictionary: Path, tmp_path: Path) -> None:
    first = open_folder(dictionary).hash
    copy = Path(shutil.copytree(dictionary, tmp_path / "copy"))
    (copy / "README.md").write_text("another card")
    assert open_folder(copy).hash == first
    (copy / "words.txt").rename(copy / "words")
    assert open_folder(copy).hash != first
    (copy / "words").rename(copy / "words.txt")
    assert open_folder(copy).hash == first
    (copy / "words.txt").write_text("one\ntwa\n")
    assert open_folder(copy).hash != first


def test_a_bundle_and_a_folder_of_its_files_have_one_hash(bundle: Callable[[str], str]) -> None:
    opened = open_bundle(bundle("bert-text-classification"))
    assert isinstance(opened, Folder)
    assert open_folder(opened.folder, opened.files).hash == opened.hash
    assert open_folder(opened.folder, opened.files).stamp == opened.stamp


def test_a_file_alone_is_a_folder_of_one(bundle: Callable[[str], str]) -> None:
    source = Path(bundle("bert-text-classification"))
    lone = open_folder(source / "tokenizer.json")
    assert lone.files == ("tokenizer.json",)
    assert lone.folder == source.resolve()
    assert lone.read_json("tokenizer.json")["model"]
    assert lone.read_json("absent.json") is None
    assert lone.hash == open_folder(source, ["tokenizer.json"]).hash != open_folder(source, ["config.json"]).hash


def test_what_changed_since_it_was_opened_is_refused(dictionary: Path) -> None:
    opened = open_folder(dictionary).sealed()
    os.utime(dictionary / "words.txt", (0, 0))
    opened.check_unchanged()  # other times alone are no change
    (dictionary / "README.md").write_text("a new card is no new dictionary")
    opened.check_unchanged()
    (dictionary / "words.txt").write_text("one\nten\n")
    with pytest.raises(DeliveryError, match="holds other files than when the stage was made"):
        opened.check_unchanged()
    assert open_folder(dictionary).stamp != opened.stamp


@pytest.mark.parametrize("is_model", [False, True])
def test_a_folder_pickles_with_its_hash(
    is_model: bool, dictionary: Path, bundle: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_bundle(bundle("bert-text-classification")) if is_model else open_folder(dictionary)
    copy = pickle.loads(pickle.dumps(opened.sealed()))
    monkeypatch.setattr(folders, "file_hash", None)
    assert type(copy) is type(opened)
    assert (copy.folder, copy.files, copy.stamp, copy.hash) == (opened.folder, opened.files, opened.stamp, opened.hash)


def test_a_known_hash_is_not_computed_again(dictionary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "file_hash", None)
    assert open_folder(dictionary).with_hash("abc").hash == "abc"


def test_parts_keep_what_was_computed_of_all_files(
    bundle: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_bundle(bundle("t5-text2text-generation")).sealed()
    monkeypatch.setattr(folders, "file_hash", None)
    assert {part.hash for part in opened.parts} == {opened.hash}
    assert [part.models[0] for part in opened.parts] == list(opened.graphs)
    assert {frozenset(part.models) for part in opened.parts} == {frozenset(opened.graphs)}


def test_the_store_keeps_any_folder(dictionary: Path, tmp_path: Path) -> None:
    opened = open_folder(dictionary)

    def write(folder: Path) -> None:
        for name in opened.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(opened.folder / name, folder / name)

    store = Store(tmp_path / "cache")
    entry = store.open("folders", opened.hash, write)
    kept = open_folder(entry.content, opened.files)
    assert kept.hash == opened.hash
    assert kept.folder != opened.folder
    assert store.damaged() == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["absent.txt"], "wants the file 'absent.txt', which is not there"),
        (["../secret"], "a path that leaves the bundle is refused"),
        (["/etc/passwd"], "a path that leaves the bundle is refused"),
        (["link"], "a link that leaves the bundle is refused"),
        ([], "has no files in it"),
        (None, "a link that leaves the bundle is refused"),
    ],
)
def test_files_from_elsewhere_are_refused(files: list[str] | None, message: str, dictionary: Path) -> None:
    (dictionary.parent / "secret").write_text("secret")
    (dictionary / "link").symlink_to(dictionary.parent / "secret")
    with pytest.raises(BundleError, match=message):
        open_folder(dictionary, files)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent is neither a folder nor a file"):
        open_folder(tmp_path / "absent")
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="a link that leaves the bundle is refused"):
        open_folder(tmp_path / "link")


def test_a_snapshot_of_the_hub_is_read_through_its_links(dictionary: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "snapshots" / "abc"
    blobs = tmp_path / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    shutil.copyfile(dictionary / "words.txt", blobs / "1234")
    (snapshot / "words.txt").symlink_to("../../blobs/1234")
    assert open_folder(snapshot).files == ("words.txt",)
    assert open_folder(snapshot).hash == open_folder(dictionary, ["words.txt"]).hash
    assert open_folder(snapshot / "words.txt").hash == open_folder(snapshot).hash


@pytest.mark.parametrize("path", ["../other", "link", "/etc"])
def test_files_that_a_file_names_are_read_inside_the_folder_only(
    path: str, bundle: Callable[[str], str], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle("bert-embedding-mean"), tmp_path / "model"))
    shutil.copytree(folder / "1_Pooling", tmp_path / "other")
    (folder / "link").symlink_to(tmp_path / "other")
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        if module["type"].endswith("Pooling"):
            module["path"] = path
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(BundleError, match="that leaves the bundle is refused"):
        read_sentence_files(open_bundle(folder))


def test_a_bundle_opens_again_from_its_graphs(bundle: Callable[[str], str]) -> None:
    for opened in (open_bundle(bundle("t5-text2text-generation")), open_bundle(bundle("bert-embedding-mean"))):
        again = open_bundle(opened.folder, opened.models)
        assert isinstance(again, Bundle)
        assert (again.hash, again.stamp, again.models) == (opened.hash, opened.stamp, opened.models)
