"""Varied texts: real ones from the shared data folder and synthetic Unicode ones."""

from __future__ import annotations

import csv
import io
import json
import lzma
import os
import random
import re
import tarfile
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest
from tiny_bundles.samples import prompts_from

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "tests" / "data" / "texts.json"
Pair = tuple[str, str]


SHARED = Path(os.environ.get("SPARKTASKS_SHARED", ROOT.parent / "shared"))
"""The folder of larger data, which the repository does not hold."""

HAS_SHARED = (SHARED / "data").is_dir()
needs_shared = pytest.mark.skipif(not HAS_SHARED, reason=f"no data at {SHARED}: set SPARKTASKS_SHARED to their folder")


def snips(shared: Path) -> list[str]:
    """Return voice commands."""
    with tarfile.open(shared / "data/snips/snips_2017_06.tar.xz") as archive:
        names = sorted(name for name in archive.getnames() if Path(name).name.startswith("validate_"))
        files = {name: json.loads(read_member(archive, name)) for name in names}
    rows = [row for content in files.values() for intent in content.values() for row in intent]
    return ["".join(part["text"] for part in row["data"]) for row in rows]


def read_member(archive: tarfile.TarFile, name: str) -> str:
    """Return the text of one file in an archive."""
    member = archive.extractfile(name)
    if member is None:
        raise FileNotFoundError(f"{name} is not a file of the archive")
    return member.read().decode("utf-8", errors="replace")


def clinc(shared: Path) -> list[str]:
    """Return questions to an assistant."""
    with lzma.open(shared / "data/text_classification/clinc150/data_train_val.json.xz", "rt", encoding="utf-8") as file:
        return [text for text, _ in json.load(file)["val"]]


def banking(shared: Path) -> list[str]:
    """Return questions to a bank."""
    content = (shared / "data/text_classification/banking77/train.csv").read_text(encoding="utf-8")
    return [row["text"] for row in csv.DictReader(io.StringIO(content))]


def tweets(shared: Path) -> list[str]:
    """Return WNUT17 sentences with their punctuation moved back to the words."""
    lines = (shared / "data/ner/wnut17/dev.conll").read_text(encoding="utf-8").splitlines()
    sentences = [list(group) for filled, group in groupby(lines, key=lambda line: bool(line.strip())) if filled]
    joined = (" ".join(line.split("\t")[0] for line in sentence) for sentence in sentences)
    return [re.sub(r" (n't|'\w+|[.,:;!?%)])", r"\1", text) for text in joined]


def contexts(shared: Path) -> list[str]:
    """Return encyclopedia paragraphs, most of them longer than the tiny models' windows."""
    with lzma.open(shared / "data/qa/xquad.en.first24articles.json.xz", "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    return [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]


def treebank(shared: Path) -> list[str]:
    """Return web sentences as they were written."""
    with lzma.open(shared / "data/ud_english_ewt/en_ewt-ud-dev.conllu.xz", "rt", encoding="utf-8") as file:
        return [line.removeprefix("# text = ").rstrip("\n") for line in file if line.startswith("# text = ")]


def novel(shared: Path) -> list[str]:
    """Return passages of a novel with their line breaks."""
    lines = (shared / "models/tokenizers/botchan.txt").read_text(encoding="utf-8").splitlines()
    return ["\n".join(lines[start : start + 1 + start % 7]) for start in range(0, len(lines), 7)]


def verse(shared: Path) -> list[str]:
    """Return speeches of Shakespeare with their line breaks."""
    content = (shared / "data/plain_text/tinyshakespeare.txt").read_text(encoding="utf-8")
    return content.split("\n\n")


SOURCES: dict[Callable[[Path], list[str]], int] = {
    snips: 130,
    clinc: 100,
    banking: 100,
    tweets: 150,
    contexts: 60,
    treebank: 150,
    novel: 60,
    verse: 60,
}
SYNTHETIC = 250

WHITE = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2009", "\u2028", "\u3000", "\u200b", "\x0b", "\x0c", "\x85"]
PIECES: dict[str, list[str]] = {
    "white": WHITE,
    "emoji": [
        "😀",
        "👍🏽",
        "👩\u200d👩\u200d👧",
        "🇵🇹",
        "❤\ufe0f",
        "🏴\U000e0067\U000e0062\U000e007f",
        "🎉🎉",
        "©",
        "1\ufe0f\u20e3",
    ],
    "right-to-left": ["القاهرة", "مصر،", "שלום", "יִשְׂרָאֵל", "\u200f", "\u202b", "\u202c", "١٢٣", "مُحَمَّد", "ﷺ"],
    "marks": [
        "e\u0301",
        "a\u0300\u0323",
        "Z\u0351\u036b\u0343",
        "ñ",
        "n\u0303",
        "i\u0307",
        "İ",
        "ẞ",
        "ß",
        "ǆ",
        "ΐ",
        "각",
        "ᄀ\u1161",
    ],
    "east": [
        "北京",
        "東京都",
        "서울",
        "ｶﾞ",
        "ガ",
        "か\u3099",
        "ＡＢＣ",
        "１２",
        "，",
        "。",
        "𠮷",
        "กรุงเทพ",
        "दिल्ली",
        "ខ្មែរ",
    ],
    "joined": ["\u200d", "\u200c", "\u2060", "\ufeff", "\u00ad", "\u180e", "\u034f", "नम\u200dस्ते", "a\u200db"],
    "markup": [
        "<p>",
        "</p>",
        "&amp;",
        "&#x41;",
        "<br/>",
        '<a href="x">',
        "{{x}}",
        "```",
        "``",
        "''",
        "<|endoftext|>",
        "%20",
        "\\n",
    ],
    "special": [
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[PAD]",
        "[UNK]",
        "<s>",
        "</s>",
        "<mask>",
        "<pad>",
        "<unk>",
        "▁",
        "##ing",
        "Ġ",
        "<sep>",
    ],
    "words": [
        "Lisbon",
        "the",
        "and/or",
        "U.S.A.",
        "O'Neill",
        "co-op",
        "don't",
        "Maria",
        "N.Y.",
        "e.g.",
        "1,000.50",
        "$5",
        "50%",
        "@home",
    ],
    "signs": [
        ".",
        ",",
        "!?",
        "...",
        "—",
        "“",
        "”",
        "(",
        ")",
        "/",
        "\\",
        "_",
        "~",
        "^",
        "`",
        "|",
        "€",
        "№",
        "½",
        "²",
        "™",
        "…",
    ],
    "controls": ["\x01", "\x07", "\x1b[0m", "\x1f", "\x7f", "\x9f", "\ue000", "\U0010fffd", "\ufffd", "\u0378"],
    "letters": list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"),
}


def synthetic(count: int, seed: int) -> list[str]:
    """Return strings drawn from Unicode's corners: blank ones, single pieces, mixtures and very long words."""
    draw = random.Random(seed)
    blanks = ["".join(draw.choices(WHITE, k=draw.randint(1, 6))) for _ in range(count // 20)]
    words = ["".join(draw.choices(PIECES["letters"], k=draw.randint(60, 400))) for _ in range(count // 20)]
    return [*blanks, *words, *(mixture(draw) for _ in range(count - len(blanks) - len(words)))]


def mixture(draw: random.Random) -> str:
    """Return up to 60 pieces of a few kinds, some of them glued together."""
    kinds = draw.sample(sorted(PIECES), k=draw.randint(1, 4))
    pieces = [draw.choice(PIECES[draw.choice(kinds)]) for _ in range(draw.choice((1, 2, 5, 10, 20, 60)))]
    gaps = draw.choices(["", " ", *WHITE[1:5]], weights=[3, 8, 1, 1, 1, 1], k=len(pieces))
    return "".join(gap + piece for gap, piece in zip(gaps, pieces, strict=True))


def sample_texts() -> list[str]:
    """Return the texts of the suite, never empty, always the same: with the larger data more than a thousand."""
    draw = random.Random(20)
    texts = list(json.loads(COMMITTED.read_text(encoding="utf-8"))["texts"].values())
    if HAS_SHARED:
        for read, count in SOURCES.items():
            texts += draw.sample(read(SHARED), count)
    else:
        texts += (ROOT / "tests/data/corpus.txt").read_text(encoding="utf-8").splitlines()
    texts += synthetic(SYNTHETIC, seed=21)
    return [text for text in texts if text]


def sample_pairs(count: int) -> list[Pair]:
    """Return text pairs: committed ones, and neighbours of all kinds and lengths."""
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))["pairs"].values()
    texts = sample_texts()
    random.Random(22).shuffle(texts)
    drawn = zip(texts[::2], texts[1::2], strict=False)
    return [*((first, second) for first, second in committed), *drawn][:count]


def generation_prompts(count: int) -> list[str]:
    """Return prompts of 1 to about 60 tokens: words, cut texts of all kinds, one shared beginning, some of them
    twice."""
    return prompts_from(sample_texts(), count)
