"""Words that must not, or should, be generated: rules on the text, whatever its tokens are."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from sparktasks.runtime.bundle import Bundle, open_bundle
from sparktasks.runtime.generation.batch import History
from sparktasks.runtime.generation.generator import Generator, GeneratorOptions, Reading
from sparktasks.runtime.generation.processors import Progress
from sparktasks.runtime.generation.scheduler import BatchLimits
from sparktasks.runtime.generation.settings import read_settings
from sparktasks.runtime.generation.token_bytes import TokenBytes, read_token_bytes
from sparktasks.runtime.generation.words import NO_WORDS, BiasWords, Words
from sparktasks.runtime.sentencepieces import SentencePieceTokenizer

ROOT = Path(__file__).resolve().parents[3]
CORPUS = ROOT / "tests" / "data" / "corpus.txt"
ROOM = BatchLimits(16, 1 << 16, 512)
PROMPTS = ["The king", "so th", "my lor", 'He said:\n"', "wa", "and the ca", "O, C", "What say y"]


# -- what completes a word

PIECES = [b"", b" can", b"can", b" c", b"an", b"ada", b"s", b"an't", b"anada", b" New", b" York", b" Yorkers", b"\n"]
PIECES += [
    b"\xc3",
    b"\xa9",
    b"t\xc3\xa9s",
    "\u4e2d".encode(),
    "\u6587\u5b57".encode(),
    b"x can",
    b"scan",
    b"can\xc3\xa9",
]
NAMES = {piece: token for token, piece in enumerate(PIECES)}


def forbidden(word: str, text: list[bytes], prompt: int = 0) -> set[bytes]:
    """Return the pieces that may not follow a text whose first ``prompt`` pieces are the prompt."""
    rows = [[NAMES[piece] for piece in text]] if text else [[0]]
    history = History.of(rows)
    new = np.array([len(rows[0]) - prompt])
    progress = Progress(history, new, np.array([99]), np.array([-1]), [()])
    scores = np.zeros((1, len(PIECES)), np.float32)
    BiasWords(Words(bad=(word,)), TokenBytes(PIECES), reads_prompt=True)(progress, scores)
    return {piece for piece, score in zip(PIECES, scores[0], strict=True) if score == -np.inf}


@pytest.mark.parametrize(
    ("word", "text", "wanted"),
    [
        ("can", [], {b" can", b"can", b"x can"}),
        ("can", [b"\n"], {b" can", b"can", b"x can"}),
        ("can", [b"s"], {b" can", b"x can"}),
        ("can", [b" c"], {b" can", b"x can", b"an", b"an't"}),
        ("can", [b"s", b"can"], {b" can", b"x can"}),
        ("can't", [b" c"], {b"an't"}),
        ("New York", [b" New"], {b" York"}),
        ("New York", [b"s"], set()),
        ("t\u00e9", [], set()),
        ("\u00e9", [b"\xc3"], {b"\xa9"}),
        ("\u00e9", [b"s", b"\xc3"], set()),
        ("\u4e2d", [b"s"], {"\u4e2d".encode()}),
        ("\u5b57", [b"s"], {"\u6587\u5b57".encode()}),
        ("\n", [b"s"], {b"\n"}),
        ("Can", [], set()),
    ],
)
def test_tokens_that_complete_a_word_are_forbidden_and_no_others(
    word: str, text: list[bytes], wanted: set[bytes]
) -> None:
    assert forbidden(word, text) == wanted


def test_a_word_may_begin_in_the_prompt_but_not_before_its_special_tokens() -> None:
    assert b"an" in forbidden("can", [b" c"], prompt=1)
    assert b"an" not in forbidden("can", [b" c", b""], prompt=2)
    assert b"can" in forbidden("can", [b"s", b""], prompt=2)
    assert b"an" in forbidden("can", [b"\n", b" c", b""], prompt=1), "special tokens are left out of the new text"


def test_what_words_add_to_scores_adds_up() -> None:
    words = Words(bias=(("can", 2.0), ("an", 0.5), ("New York", 3.0)))
    progress = Progress(
        History.of([[NAMES[b"\n"]], [NAMES[b" New"]]]), np.ones(2, int), np.full(2, 99), np.full(2, -1), [()] * 2
    )
    scores = np.zeros((2, len(PIECES)), np.float32)
    BiasWords(words, TokenBytes(PIECES), reads_prompt=False)(progress, scores)
    assert {PIECES[token]: scores[0, token] for token in np.flatnonzero(scores[0])} == {
        b" can": 2,
        b"can": 2,
        b"x can": 2,
        b"an": 0.5,
        b"an't": 0.5,
    }
    assert {PIECES[token]: scores[1, token] for token in np.flatnonzero(scores[1])} == {
        b" can": 2,
        b"x can": 2,
        b" York": 3,
    }


def test_scores_of_fewer_tokens_than_the_vocabulary_has_are_enough() -> None:
    scores = np.zeros((1, 5), np.float32)
    progress = Progress(History.of([[0]]), np.ones(1, int), np.full(1, 9), np.full(1, -1), [()])
    BiasWords(Words(bad=("scan", "can")), TokenBytes(PIECES), reads_prompt=False)(progress, scores)
    assert np.flatnonzero(np.isinf(scores[0])).tolist() == [1, 2]


# -- what tokens spell


class Core:
    """A tokenizer, as far as the bytes of its tokens go."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.core = Tokenizer.from_str(json.dumps(content))


def fallback_content(size: int = 600) -> dict[str, Any]:
    """Return a tokenizer as Llama 2 has it: marks for spaces, and bytes for what has no piece."""
    words = [word for word, _ in Counter(re.findall(r"[A-Za-z]+", CORPUS.read_text(encoding="utf-8"))).most_common(400)]
    parts = [part for word in words for part in (f"\u2581{word}", word[:2], word[2:], f"\u2581{word[:3]}")]
    names = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "\u2581",
        *"abcdefghijklmnopqrstuvwxyzABC.,'\"",
        *parts,
    ]
    vocabulary = {name: index for index, name in enumerate([name for name in dict.fromkeys(names) if name][:size])}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    decoders = [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]
    normalizers = [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    ]
    model = {
        "type": "BPE",
        "vocab": vocabulary,
        "merges": [],
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
    }
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": index, "content": name, **flags} for index, name in enumerate(["<unk>", "<s>", "</s>"])
        ],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": model,
    }


def contents(bundle: Callable[[str], str]) -> dict[str, dict[str, Any]]:
    """Return tokenizers of every kind."""
    names = {
        "byte-level": "gpt2-text-generation",
        "metaspace": "t5-text2text-generation",
        "wordpiece": "bert-text-classification",
    }
    kinds = {kind: json.loads((Path(bundle(name)) / "tokenizer.json").read_text()) for kind, name in names.items()}
    suffix = {
        "type": "BPE",
        "vocab": {"can</w>": 0, "a": 1, "da</w>": 2, "c": 3, ".</w>": 4},
        "merges": [],
        "end_of_word_suffix": "</w>",
    }
    plain = {"type": "WordLevel", "vocab": {"can": 0, "the": 1, ".": 2, "\u4e2d": 3}, "unk_token": "the"}
    kinds["bytes"] = fallback_content()
    kinds["suffix"] = {
        "version": "1.0",
        "added_tokens": [],
        "decoder": {"type": "BPEDecoder", "suffix": "</w>"},
        "model": suffix,
    }
    kinds["no decoder"] = {"version": "1.0", "added_tokens": [], "decoder": None, "model": plain}
    return kinds


@pytest.mark.parametrize("kind", ["byte-level", "metaspace", "wordpiece", "bytes", "suffix", "no decoder"])
def test_the_bytes_of_tokens_are_those_of_the_text_they_make(kind: str, bundle: Callable[[str], str]) -> None:
    tokenizer: Any = Core(contents(bundle)[kind])
    core, tokens = tokenizer.core, read_token_bytes(tokenizer)
    draw = np.random.default_rng(4)
    special = [index for index, token in core.get_added_tokens_decoder().items() if token.special]
    starts = [
        index
        for index in range(core.get_vocab_size())
        if core.decode([index]).isalpha() and core.decode([index]).isascii()
    ]
    for _ in range(200):
        ids = [int(draw.choice(starts)), *draw.integers(core.get_vocab_size(), size=6).tolist()]
        spelled = tokens.last(ids, 1000)
        try:
            spelled.decode()
        except UnicodeDecodeError:
            continue  # decoders have ways of their own with what is no text
        assert core.decode(ids).strip() == spelled.decode().strip(), ids
    assert tokens.last(special, 1000) == b""


def test_sentencepiece_files_spell_their_pieces(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    lines = CORPUS.read_text(encoding="utf-8").splitlines()[::2]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(tmp_path / "m"),
        vocab_size=900,
        character_coverage=0.98,
        byte_fallback=True,
        minloglevel=2,
    )
    (tmp_path / "m.model").rename(tmp_path / "source.spm")
    shutil.copy(tmp_path / "source.spm", tmp_path / "target.spm")
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "source.spm"))
    names = ["</s>", "<unk>", *[model.id_to_piece(index) for index in range(3, len(model))], "<pad>"]
    (tmp_path / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MarianTokenizer"}))
    tokenizer = SentencePieceTokenizer(Bundle(tmp_path, "model.onnx", {}, {}, {}))
    tokens = read_token_bytes(tokenizer)
    for text in ["The king and my lord, who can say", "caf\u00e9 \u2603", "a  b"]:
        ids = tokenizer.encode([text])[0].ids
        assert tokens.last(ids, 1000).decode().strip() == tokenizer.decode(ids)


# -- texts

MODES: dict[str, dict[str, Any]] = {
    "greedy": {"max_new_tokens": 24},
    "sampled": {"max_new_tokens": 24, "do_sample": True, "top_k": 0, "num_return_sequences": 3},
    "beams": {"max_new_tokens": 16, "num_beams": 3, "num_return_sequences": 2},
}


@pytest.fixture
def folders(bundle: Callable[[str], str], tmp_path: Path) -> dict[str, Path]:
    """Return models with byte-level, SentencePiece and byte-fallback vocabularies."""
    fallback = Path(shutil.copytree(bundle("gpt2-text-generation"), tmp_path / "fallback"))
    (fallback / "tokenizer.json").write_text(json.dumps(fallback_content()))
    (fallback / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    )
    return {
        "trained byte-level": ROOT / "sparktasks" / "starter" / "shakespeare-llama",
        "byte-level": Path(bundle("gpt2-text-generation")),
        "byte-fallback": fallback,
        "sentencepiece": Path(bundle("t5-text2text-generation")),
    }


def texts(folder: Path, mode: str, words: Words = NO_WORDS) -> list[tuple[str, str]]:
    """Return each prompt that is continued, with what was generated."""
    bundle = open_bundle(folder)
    start = {"decoder_start_token_id": bundle.config.get("decoder_start_token_id")}
    settings = read_settings(start, json.loads((folder / "generation_config.json").read_text()), MODES[mode])
    generator = Generator(bundle, GeneratorOptions(settings, Reading(), ROOM, words))
    prompts = generator.prompts(PROMPTS)
    pairs = []
    for prompt, result in zip(prompts, generator.run(prompts), strict=True):
        assert not isinstance(result, Exception)
        for generated in result:
            if generator.decoder.layout.encoder:
                pairs.append(("", generator.decode(generated.ids)))
            else:
                pairs.append((generator.tokenizer.decode(prompt.ids), generator.continuation(prompt, generated.ids)))
    return pairs


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["trained byte-level", "byte-level", "byte-fallback", "sentencepiece"])
def test_words_that_are_bad_never_appear(kind: str, mode: str, folders: dict[str, Path]) -> None:
    plain = texts(folders[kind], mode)
    common = Counter(word for _, text in plain for word in re.findall(r"\w+", text))
    words = [*[word for word, _ in common.most_common(30)], "my lord", "the king"]
    for prompt, text in texts(folders[kind], mode, Words(bad=tuple(words))):
        whole = prompt + text
        ends = {
            word: [match.end() for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", whole)] for word in words
        }
        assert not {word for word, places in ends.items() if places and places[-1] > len(prompt)}, whole
    assert len(common) > 10


def test_words_that_are_favoured_appear(folders: dict[str, Path]) -> None:
    for kind, word in (("trained byte-level", "lord"), ("sentencepiece", "know")):
        plain, liked = (
            " ".join(text for _, text in texts(folders[kind], "greedy", words))
            for words in (NO_WORDS, Words(bias=((word, 50.0),)))
        )
        assert len(re.findall(rf"\b{word}\b", liked)) > 10 + len(re.findall(rf"\b{word}\b", plain))
