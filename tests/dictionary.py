"""An annotator with a dictionary: a folder without a model, which is delivered, kept and saved as models are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sparktasks.kernels.columns import CHUNK, DOCUMENT, Annotations
from sparktasks.kernels.parcels import FolderRef, locate_folder
from sparktasks.kernels.writers import map_words
from sparktasks.spark.annotator import FolderAnnotator


def write_dictionary(folder: Path, words: dict[str, str]) -> Path:
    """Write a dictionary as two files, one of them in a folder of its own."""
    (folder / "more").mkdir(parents=True)
    lines = [f"{word}\t{meaning}" for word, meaning in words.items()]
    (folder / "words.tsv").write_text("\n".join(lines[::2]), encoding="utf-8")
    (folder / "more" / "words.tsv").write_text("\n".join(lines[1::2]), encoding="utf-8")
    return folder


@dataclass(frozen=True)
class LookUp:
    """documents -> their meanings."""

    dictionary: FolderRef

    def __call__(self, *columns: pa.Array) -> pa.Array:
        folder = locate_folder(self.dictionary)
        meanings: dict[str, str] = {}
        for name in folder.files:
            for line in folder.find(name).read_text(encoding="utf-8").splitlines():
                word, meaning = line.split("\t")
                meanings[word] = meaning
        return map_words(CHUNK, Annotations(columns[0]), meanings.get)


class Dictionary(FolderAnnotator):
    """Looks documents up."""

    reads = (DOCUMENT,)
    writes = CHUNK

    def kernel(self) -> LookUp:
        return LookUp(self.folder_ref())
