"""Real texts for the benchmarks, sampled so that a run can be repeated."""

from __future__ import annotations

import bisect
import json
import lzma
import math
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

SHORTEST, LONGEST = 15, 1200


def mixed_texts(data: Path, count: int, seed: int = 0) -> list[str]:
    """Return distinct whole texts of 15 to 1,200 characters, as many of each doubling of the length as of every
    other."""
    rng = random.Random(seed)
    pool = sorted({text for text in _texts(data) if SHORTEST <= len(text) <= LONGEST})
    if count > len(pool):
        raise SystemExit(
            f"{data} gives {len(pool)} texts of {SHORTEST} to {LONGEST} characters; {count} were asked for"
        )
    rng.shuffle(pool)
    pool.sort(key=len)
    lengths = [len(text) for text in pool]
    chosen = []
    for _ in range(count):
        wanted = math.exp(rng.uniform(math.log(SHORTEST), math.log(LONGEST)))
        place = min(bisect.bisect(lengths, wanted), len(pool) - 1)
        chosen.append(pool.pop(place))
        del lengths[place]
    rng.shuffle(chosen)
    return chosen


def short_passages(data: Path, count: int, words: int) -> list[str]:
    """Return distinct passages of so many words, cut from the running text."""
    flow = " ".join(text for text in _texts(data) if len(text) >= SHORTEST).split()
    passages = dict.fromkeys(" ".join(flow[start : start + words]) for start in range(0, len(flow) - words, words))
    if count > len(passages):
        raise SystemExit(f"{data} gives {len(passages)} passages of {words} words; {count} were asked for")
    return list(passages)[:count]


def _texts(data: Path) -> Iterator[str]:
    yield from _speeches(data / "plain_text" / "tinyshakespeare.txt")
    yield from _contexts(data / "qa")
    yield from _sentences(data / "ud_english_ewt" / "en_ewt-ud-train.conllu.xz")
    yield from _queries(data / "snips" / "snips_2017_06.tar.xz")


def _speeches(path: Path) -> Iterator[str]:
    for speech in path.read_text(encoding="utf-8").split("\n\n"):
        yield " ".join(speech.partition("\n")[2].split())


def _contexts(folder: Path) -> Iterator[str]:
    articles = json.loads(lzma.decompress((folder / "xquad.en.first24articles.json.xz").read_bytes()))["data"]
    yield from (paragraph["context"] for article in articles for paragraph in article["paragraphs"])
    lines = lzma.decompress((folder / "qed-dev.jsonlines.xz").read_bytes()).decode("utf-8").splitlines()
    yield from (json.loads(line)["paragraph_text"] for line in lines)


def _sentences(path: Path) -> Iterator[str]:
    mark = "# text = "
    lines = lzma.decompress(path.read_bytes()).decode("utf-8").splitlines()
    yield from (line.removeprefix(mark) for line in lines if line.startswith(mark))


def _queries(path: Path) -> Iterator[str]:
    with tarfile.open(path) as archive:
        for name in sorted(name for name in archive.getnames() if name.endswith("_full.json") and "/train_" in name):
            queries = next(iter(json.loads(archive.extractfile(name).read().decode("utf-8", "replace")).values()))
            yield from ("".join(part["text"] for part in query["data"]).strip() for query in queries)
