"""Folders with SentencePiece files and no tokenizer.json: ids and texts as transformers' slow tokenizers have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from transformers import M2M100Tokenizer, MarianTokenizer

from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.sentencepieces import SentencePieceTokenizer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
CORPUS = Path(__file__).resolve().parents[1] / "data" / "corpus.txt"
SPECIAL = ["</s>", "<unk>", "<pad>"]


def opened(folder: Path, **options: Any) -> SentencePieceTokenizer:
    """Open the tokenizer of a folder without a graph."""
    return SentencePieceTokenizer(Bundle(folder, "model.onnx", {}, {}, {}), **options)


def spm(target: Path, size: int, seed: int) -> list[str]:
    """Train a model on a part of the corpus; returns its pieces."""
    lines = CORPUS.read_text(encoding="utf-8").splitlines()[seed::2]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(target.with_suffix("")),
        vocab_size=size,
        character_coverage=0.98,
        minloglevel=2,
    )
    target.with_suffix(".model").rename(target)
    model = sentencepiece.SentencePieceProcessor(model_file=str(target))
    return [model.id_to_piece(index) for index in range(3, len(model))]


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> MarianTokenizer:
    folder = tmp_path_factory.mktemp("marian")
    pieces = [
        piece for number, name in enumerate(("source.spm", "target.spm")) for piece in spm(folder / name, 400, number)
    ]
    names = list(dict.fromkeys([*SPECIAL[:2], *pieces, ">>fra<<", ">>deu<<", "<pad>"]))
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    return MarianTokenizer(str(folder / "source.spm"), str(folder / "target.spm"), str(folder / "vocab.json"))


@pytest.fixture(scope="module")
def m2m100(tmp_path_factory: pytest.TempPathFactory) -> M2M100Tokenizer:
    folder = tmp_path_factory.mktemp("m2m100")
    pieces = spm(folder / "sentencepiece.bpe.model", 500, 0)
    names = ["<s>", "<pad>", "</s>", "<unk>", *pieces]
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    return M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model"))


@pytest.fixture(scope="module", params=["marian", "m2m100"])
def oracle(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def ours(oracle: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SentencePieceTokenizer]:
    folder = tmp_path_factory.mktemp("saved")
    oracle.save_pretrained(folder)
    return lambda **options: opened(folder, **options)


EXTRA = [
    "",
    " ",
    "a  b",
    "word</s>word",
    "<pad> x",
    ">>fra<< Hello there",
    ">>deu<<x",
    "\u2581x",
    "日本語 text",
    "tab\tand\nline",
]


def test_ids_equal_transformers(oracle: Any, ours: Callable[..., SentencePieceTokenizer], texts: list[str]) -> None:
    tokenizer, own = ours(), [*texts, *EXTRA]
    found = [pieces.ids for pieces in tokenizer.encode(own, special=False)]
    wanted = [oracle(text, add_special_tokens=False)["input_ids"] for text in own]
    assert [text for text, left, right in zip(own, found, wanted, strict=True) if left != right] == []
    assert len({len(ids) for ids in found}) > 20


def test_flags_of_the_tokenizer_are_no_tokens(m2m100: M2M100Tokenizer, tmp_path: Path) -> None:
    m2m100.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(config | {"add_eos_token": True, "add_bos_token": False})
    )
    (pieces,) = opened(tmp_path).encode(["It is True or False"], special=False)
    assert pieces.ids == m2m100("It is True or False", add_special_tokens=False)["input_ids"]


def test_texts_equal_transformers(oracle: Any, ours: Callable[..., SentencePieceTokenizer], texts: list[str]) -> None:
    tokenizer = ours()
    for number, text in enumerate([*texts[::3], *EXTRA]):
        ids = [(index * 7 + number) % len(oracle) for index in tokenizer.encode([text])[0].ids]
        assert tokenizer.decode(ids) == oracle.decode(ids, skip_special_tokens=True), ids


def test_long_texts_are_cut_as_transformers_cuts_them(
    oracle: Any, ours: Callable[..., SentencePieceTokenizer], texts: list[str]
) -> None:
    tokenizer, end = ours(max_length=12), [oracle.eos_token_id]
    for text in texts[::5]:
        (found,) = tokenizer.encode([text])
        whole = oracle(text, add_special_tokens=False)["input_ids"]
        assert found.ids == whole[:11] + end
        assert bool(found.overflowing) == (len(whole) > 11)


def test_languages_have_the_ids_that_transformers_gives_them(m2m100: M2M100Tokenizer, tmp_path: Path) -> None:
    m2m100.save_pretrained(tmp_path)
    tokenizer = opened(tmp_path)
    for code in ("en", "fr", "zu"):
        assert tokenizer.token_id(f"__{code}__") == m2m100.get_lang_id(code)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(config | {"added_tokens_decoder": {}})
    )  # as older folders have it
    (tmp_path / "added_tokens.json").unlink(missing_ok=True)
    assert opened(tmp_path).token_id("__zu__") == m2m100.get_lang_id("zu")
