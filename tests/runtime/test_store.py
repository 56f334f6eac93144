"""The machine's store: made once, whole or not at all, evicted only when nobody uses it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sparktasks.errors import DeliveryError
from sparktasks.runtime.store import Store


class Maker:
    """Writes an entry and counts how often it was asked to."""

    def __init__(self, text: str = "weights") -> None:
        self.text, self.calls = text, 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "sub").mkdir()
        (folder / "sub" / "model.onnx").write_text(self.text)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", limit=1000)


def file_of(store: Store, key: str) -> Path:
    return store.root / "bundles" / key / "content" / "sub" / "model.onnx"


def test_an_entry_is_made_once_and_private(store: Store) -> None:
    maker = Maker()
    first, second = store.open("bundles", "a", maker), Store(store.root.parent).open("bundles", "a", maker)
    assert maker.calls == 1
    assert first.content == second.content
    assert (first.content / "sub" / "model.onnx").read_text() == "weights"
    assert store.root.stat().st_mode & 0o777 == 0o700
    assert not list((store.root / "scratch").iterdir())


def _rewrite(path: Path) -> None:
    path.write_text("harmful")


def _shorten(path: Path) -> None:
    os.truncate(path, 3)


def _link(path: Path) -> None:
    target = path.parent.parent.parent / "outside"
    target.write_text("weights")
    path.unlink()
    path.symlink_to(target)


def _add(path: Path) -> None:
    (path.parent / "extra.json").write_text("{}")


def _unlist(path: Path) -> None:
    path.parents[2].joinpath("manifest.json").write_text("{")


@pytest.mark.parametrize("harm", [_rewrite, _shorten, _link, _add, _unlist, Path.unlink])
def test_a_changed_entry_is_made_again(store: Store, harm: Callable[[Path], None]) -> None:
    maker = Maker()
    inuse = store.open("bundles", "a", maker)
    time.sleep(0.01)
    harm(file_of(store, "a"))
    again = store.open("bundles", "a", maker)
    assert maker.calls == 2
    assert (again.content / "sub" / "model.onnx").read_text() == "weights"
    assert inuse.content == again.content


def test_a_change_that_keeps_size_and_time_is_found_by_reading(store: Store) -> None:
    store.open("bundles", "a", Maker())
    path = file_of(store, "a")
    state = path.stat()
    path.write_text("WEIGHTS")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert store.damaged() == [store.root / "bundles" / "a"]


def test_the_least_recently_used_goes_first_and_never_what_is_in_use(store: Store) -> None:
    held = store.open("bundles", "old", Maker("x" * 400))
    for number, key in enumerate(["middle", "young"]):
        store.open("bundles", key, Maker("y" * 400))
        os.utime(store.root / "bundles" / key / "manifest.json", (number + 1, number + 1))
    assert store.keys("bundles") == ["old", "young"]
    os.utime(store.root / "bundles" / "old" / "manifest.json", (0, 0))
    store.open("bundles", "new", Maker("z" * 400))
    assert store.keys("bundles") == ["new", "old"]
    assert (held.content / "sub" / "model.onnx").read_text() == "x" * 400


def test_an_entry_in_use_is_not_removed(store: Store) -> None:
    entry = store.open("bundles", "a", Maker())
    assert not store.remove(entry.folder)
    folder = entry.folder
    entry.lock.close()
    assert store.remove(folder)
    assert store.keys("bundles") == []


_SLOW = """
import sys, time
from pathlib import Path
from sparktasks.runtime.store import Store

def make(folder):
    (folder / "half").write_text("half")
    print("making", flush=True)
    time.sleep(float(sys.argv[2]))
    (folder / "whole").write_text(str(time.time_ns()))

print(Store(Path(sys.argv[1])).open("bundles", "a", make).content.joinpath("whole").read_text(), flush=True)
"""


def process(root: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _SLOW, str(root), str(seconds)], stdout=subprocess.PIPE, text=True)


def test_one_of_many_processes_makes_an_entry(tmp_path: Path) -> None:
    crew = [process(tmp_path, 0.3) for _ in range(4)]
    printed = [each.communicate(timeout=60)[0].split() for each in crew]
    assert sorted(map(len, printed)) == [1, 1, 1, 2]
    assert len({lines[-1] for lines in printed}) == 1


def test_a_killed_maker_leaves_nothing_behind(tmp_path: Path) -> None:
    killed = process(tmp_path, 60)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "making\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    store = Store(tmp_path)
    assert len(list((store.root / "scratch").iterdir())) == 1
    maker = Maker()
    entry = store.open("bundles", "a", maker)
    assert maker.calls == 1
    assert not (entry.content / "half").exists()
    assert not list((store.root / "scratch").iterdir())


def test_a_full_disk_is_named(store: Store) -> None:
    def fail(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        DeliveryError, match=r"No space left on device \([\d,]+ MB free\)\. Set the variable SPARKTASKS_CACHE"
    ) as caught:
        store.open("bundles", "a", fail)
    assert str(store.root) in str(caught.value)
    assert store.keys("bundles") == []
    assert not list((store.root / "scratch").iterdir())


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeliveryError, match=r"Not a directory.*SPARKTASKS_CACHE"):
        Store(tmp_path / "file" / "below").open("bundles", "a", Maker())


def test_a_root_that_others_may_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / str(os.getuid())
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(DeliveryError, match="may write there"):
        Store(tmp_path).open("bundles", "a", Maker())
