"""A folder known by its content: which files make it, their hash, and whether they are still what they were.

Models, dictionaries, tries, trained tables and a lone tokenizer.json are such folders: they are sent to executors, kept
in the machine's store, locked and saved in one way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparktasks.errors import BundleError, DeliveryError
from sparktasks.runtime.folder_files import check_link, check_name, inside, read_json
from sparktasks.runtime.hashes import file_hash, read_hash

if TYPE_CHECKING:
    from typing_extensions import Self

CARD = ("README.md", "LICENSE", "LICENSE.txt", "NOTICE")
"""Files that are sent and saved with the others, but change nothing that is computed."""


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder that was looked at: ``files`` make it, named relative to ``folder``.

    ``stamp`` tells the state of the files when they were looked at (but for the card): names, sizes, change times.
    """

    folder: Path
    files: tuple[str, ...] = field(default=(), repr=False, kw_only=True)
    stamp: str = field(default="", repr=False, kw_only=True)

    def find(self, name: str) -> Path:
        """Return the path of a small file, which may be missing."""
        return self.folder / name

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the folder; None where it is not there."""
        check_name(name, str(self.folder))
        path = self.find(name)
        if path.is_file():
            check_link(self.folder, path)
        return read_json(path)

    def read_object(self, name: str) -> dict[str, Any]:
        """Read a JSON object of the folder; an empty one where the file is not there."""
        content: dict[str, Any] = self.read_json(name) or {}
        return content

    @cached_property
    def hash(self) -> str:
        """The sha256 of the names and contents of all `files` but the card and the licence."""
        return self._hashed(file_hash)

    @cached_property
    def size(self) -> int:
        """Bytes of all `files`."""
        return sum(path.stat().st_size for path in map(self.folder.joinpath, self.files))

    def sealed(self) -> Self:
        """Compute the hash now, while the files are those that were looked at."""
        _ = self.hash
        return self

    def with_hash(self, known: str) -> Self:
        """Take a hash that was computed before of the same files: what has not changed need not be read again."""
        self.__dict__["hash"] = known
        return self

    def current_stamp(self) -> str:
        """Return what `stamp` would be if the folder were looked at now."""
        lines = []
        for name in self._counted():
            state = (self.folder / name).stat()
            lines.append(f"{name} {state.st_size} {state.st_mtime_ns}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def stamped(self) -> Self:
        """Return the same folder with the stamp of this moment."""
        return replace(self, stamp=self.current_stamp())

    def check_unchanged(self) -> None:
        """Raise `DeliveryError` where the folder holds other files than when it was opened."""
        # A folder that is gone is no other model: whoever needs a file says that it is missing.
        if self.folder.is_dir() and self.current_stamp() != self.stamp:
            self.check_content()

    def check_content(self) -> None:
        """Read all files again; `DeliveryError` where they are not those that were hashed."""
        if self._hashed(read_hash) != self.hash:
            raise DeliveryError(
                f"{self.folder} holds other files than when the stage was made; what is run, sent or saved now "
                "would be another model. Make the stage again"
            )

    def _hashed(self, hash_of: Callable[[Path], str]) -> str:
        total = hashlib.sha256()
        for name in self._counted():
            total.update(f"{name}\0{hash_of(self.folder / name)}\n".encode())
        return total.hexdigest()

    def _counted(self) -> list[str]:
        """Return the files that tell one folder from another."""
        counted = []
        for name in self.files:
            if name not in CARD:
                counted.append(name)
        return counted


def open_folder(source: str | Path, files: Iterable[str] | None = None) -> Folder:
    """Look at a folder, or at one file alone, whatever it holds.

    ``files`` names those that make the folder, relative to it; None takes all that are not hidden. Raises
    `BundleError` where there is none, where one is missing, and where one is a link to somewhere else.
    """
    path = Path(source).expanduser()
    # Only the folder is resolved, never the file: in the hub's cache, it is a link to a name without meaning.
    if path.is_file():
        return open_folder(path.parent, (path.name,))
    if not path.is_dir():
        raise BundleError(f"{source} is neither a folder nor a file")
    folder = path.resolve()
    names = visible_files(folder) if files is None else sorted(set(files))
    # A hash of nothing would be that of every empty folder.
    if not names:
        raise BundleError(f"{folder} has no files in it")
    for name in names:
        inside(folder, name, str(folder))
    return Folder(folder, files=tuple(names)).stamped()


def visible_files(folder: Path) -> list[str]:
    """Return the files of a folder and of the folders in it, without hidden ones, by name."""
    names = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        # A file in a hidden folder is hidden, too.
        is_hidden = "/." in f"/{name.as_posix()}"
        if path.is_file() and not is_hidden:
            names.append(str(name))
    return sorted(names)
