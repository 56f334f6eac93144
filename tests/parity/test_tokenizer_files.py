"""Our tokenizer against AutoTokenizer, on folders whose files contradict each other or leave things out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from tiny_bundles.published_tokenizers import TOKENIZERS
from tiny_bundles.samples import corpus

from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.tokens import Lengths, TextTokenizer

CONFIG, MAP, TOKENIZER, ADDED = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "added_tokens.json",
)
ABSENT = object()
TAGS = {
    "content": "<tag>",
    "lstrip": False,
    "normalized": True,
    "rstrip": False,
    "single_word": False,
    "special": False,
}
STRIPPING = {"lstrip": True, "rstrip": True, "normalized": False, "single_word": False, "special": True}
LEFT = {"direction": "Left", "max_length": 12, "strategy": "LongestFirst", "stride": 0}
FILLED = {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None, "pad_id": 2, "pad_type_id": 1}
PIECES = "Play <tag> Music[MASK] é naïve 東京 <s> a </s>b <mask> <extra_id_3> <|endoftext|> <image>x [SEP] <unk>"


@dataclass(frozen=True)
class Case:
    """A folder: whose tokenizer it holds, and what is changed in its files; `ABSENT` takes a key, or a whole file,
    out."""

    base: str
    model_type: str
    files: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    "bert: the model's type tells the class": Case(
        "bert", "bert", {CONFIG: {"tokenizer_class": ABSENT, "do_lower_case": False}}
    ),
    "bert: config.json tells the class": Case(
        "bert",
        "gpt2",
        {CONFIG: {"tokenizer_class": ABSENT, "do_lower_case": False}},
        {"tokenizer_class": "BertTokenizer"},
    ),
    "bert: no tokenizer_config.json": Case("bert", "bert", {CONFIG: ABSENT}),
    "bert: no file but tokenizer.json": Case("bert", "bert", {CONFIG: ABSENT, MAP: ABSENT}),
    "bert: accents are kept, signs are not parted": Case(
        "bert", "bert", {CONFIG: {"strip_accents": False, "tokenize_chinese_chars": False}}
    ),
    "bert: tokenizer.json has no special tokens": Case("bert", "bert", {TOKENIZER: {"added_tokens": []}}),
    "bert: special tokens are named nowhere": Case(
        "bert",
        "bert",
        {
            TOKENIZER: {"added_tokens": []},
            MAP: ABSENT,
            CONFIG: {"tokenizer_class": "BertTokenizer", "added_tokens_decoder": ABSENT},
        },
    ),
    "bert: no unknown token": Case("bert", "bert", {CONFIG: {"unk_token": None, "pad_token": None}}),
    "bert: a generic class heeds no flags": Case(
        "bert", "bert", {CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}}
    ),
    "bert: the model gets no token types": Case(
        "bert", "bert", {CONFIG: {"model_input_names": ["input_ids", "attention_mask"]}}
    ),
    "distilbert: the class has no token types": Case("distilbert", "distilbert"),
    "electra: the map names another unknown token": Case(
        "electra", "electra", {MAP: {"unk_token": "[MASK]"}, CONFIG: {"added_tokens_decoder": ABSENT}}
    ),
    "mpnet": Case("mpnet", "mpnet", {CONFIG: {"added_tokens_decoder": ABSENT}}),
    "roberta: added_tokens.json": Case(
        "roberta", "roberta", {ADDED: {"<tag>": 600}, CONFIG: {"added_tokens_decoder": ABSENT}}
    ),
    "roberta: added_tokens.json is not read beside added_tokens_decoder": Case(
        "roberta", "roberta", {ADDED: {"<tag>": 600}}
    ),
    "roberta: a token of added_tokens_decoder only": Case(
        "roberta", "roberta", {CONFIG: {"added_tokens_decoder": {"600": TAGS, "601": {**TAGS, "content": "Music"}}}}
    ),
    "roberta: additional special tokens": Case(
        "roberta", "roberta", {CONFIG: {"additional_special_tokens": ["<tag>", "Music"]}}
    ),
    "roberta: additional special tokens of the map": Case(
        "roberta", "roberta", {MAP: {"additional_special_tokens": ["<tag>"]}, CONFIG: {"added_tokens_decoder": ABSENT}}
    ),
    "roberta: named extra tokens": Case(
        "roberta", "roberta", {CONFIG: {"extra_special_tokens": {"image_token": "<image>"}}}
    ),
    "roberta: other flags": Case(
        "roberta",
        "roberta",
        {
            CONFIG: {
                "added_tokens_decoder": {"0": {"content": "<s>", **STRIPPING}, "4": {"content": "<mask>", **STRIPPING}}
            }
        },
    ),
    "roberta: special tokens in texts are split": Case("roberta", "roberta", {CONFIG: {"split_special_tokens": True}}),
    "roberta: a space before the first word": Case(
        "roberta", "roberta", {CONFIG: {"add_prefix_space": True, "trim_offsets": False}}
    ),
    "roberta: the map contradicts": Case(
        "roberta", "roberta", {MAP: {"pad_token": "<mask>"}, CONFIG: {"added_tokens_decoder": ABSENT}}
    ),
    "roberta: the map is not read beside added_tokens_decoder": Case(
        "roberta", "roberta", {MAP: {"pad_token": "<mask>"}}
    ),
    "roberta: texts are cut at the left": Case("roberta", "roberta", {TOKENIZER: {"truncation": LEFT}}),
    "roberta: padding of tokenizer.json": Case(
        "roberta", "roberta", {TOKENIZER: {"padding": {**FILLED, "pad_token": "</s>"}}, CONFIG: {"pad_token": ABSENT}}
    ),
    "gpt2: padding of tokenizer.json": Case(
        "gpt2", "gpt2", {TOKENIZER: {"padding": {**FILLED, "pad_token": "the"}}, CONFIG: {"pad_token": ABSENT}}
    ),
    "gpt2: add_bos_token changes nothing": Case(
        "gpt2", "gpt2", {CONFIG: {"add_bos_token": True, "padding_side": "left"}}
    ),
    "gpt_neox: the class decides the affixes": Case(
        "opt", "gpt_neox", {CONFIG: {"tokenizer_class": "GPTNeoXTokenizer"}}
    ),
    "llama: the first token, which tokenizer.json lacks": Case(
        "llama", "llama", {TOKENIZER: {"post_processor": None}, CONFIG: {"add_prefix_space": ABSENT}}
    ),
    "llama: the end token too": Case("llama", "llama", {CONFIG: {"add_eos_token": True, "add_prefix_space": ABSENT}}),
    "llama: neither": Case("llama", "llama", {CONFIG: {"add_bos_token": False, "add_prefix_space": ABSENT}}),
    "llama: a generic class": Case(
        "llama",
        "llama",
        {CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "add_prefix_space": ABSENT}},
    ),
    "gemma": Case("gemma", "gemma", {TOKENIZER: {"post_processor": None}, CONFIG: {"add_eos_token": True}}),
    "qwen2: only the model's type": Case("qwen2", "qwen3", {CONFIG: {"tokenizer_class": ABSENT, "pad_token": ABSENT}}),
    "t5: sentinels come from the class": Case(
        "t5", "t5", {CONFIG: {"additional_special_tokens": ABSENT, "extra_ids": ABSENT}}
    ),
    "t5: sentinels beside other tokens": Case(
        "t5", "t5", {CONFIG: {"additional_special_tokens": ["<tag>"], "extra_ids": ABSENT}}
    ),
    "bloom: a space before the first word": Case("bloom", "bloom", {CONFIG: {"add_prefix_space": True}}),
    "mbart50: the language before the text": Case("mbart", "mbart", {CONFIG: {"src_lang": "fr_XX"}}),
    "nllb: the language behind the text": Case(
        "nllb", "m2m_100", {CONFIG: {"src_lang": "fra_Latn", "legacy_behaviour": True}}
    ),
    "xlnet: types of padding": Case("xlnet", "xlnet", {CONFIG: {"tokenizer_class": ABSENT, "padding_side": ABSENT}}),
    "deberta": Case("deberta", "deberta", {CONFIG: {"added_tokens_decoder": ABSENT}, MAP: {"mask_token": "[MASK]"}}),
    "albert: the mask is in no file": Case(
        "albert",
        "albert",
        {CONFIG: {"mask_token": ABSENT, "added_tokens_decoder": ABSENT}, MAP: {"mask_token": ABSENT}},
    ),
}


def write_folder(case: Case, folder: Path) -> Path:
    """Save the base's tokenizer, and change the files."""
    TOKENIZERS[case.base](corpus()).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": case.model_type, **case.config}))
    for name in ("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "tokenizer.model"):
        (folder / name).unlink(missing_ok=True)
    for name, changes in case.files.items():
        path = folder / name
        if changes is ABSENT:
            path.unlink(missing_ok=True)
            continue
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        content.update(changes)
        kept = {key: value for key, value in content.items() if value is not ABSENT}
        path.write_text(json.dumps(kept), encoding="utf-8")
    return folder


def open_ours(folder: Path, max_length: int | None = None) -> TextTokenizer:
    """Open a folder that has a tokenizer and no graph."""

    class Tokenizers(Bundle):
        graph = type("NoGraph", (), {"embedding_rows": None})()

    read = {
        name: json.loads((folder / name).read_text()) for name in ("config.json", CONFIG) if (folder / name).exists()
    }
    bundle = Tokenizers(folder, "model.onnx", read["config.json"], read.get(CONFIG, {}), {})
    return TextTokenizer(bundle, Lengths(max_length))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_tokenizer_reads_what_auto_tokenizer_reads(case: Case, tmp_path: Path, texts: list[str]) -> None:
    folder = write_folder(case, tmp_path)
    theirs, ours = hf.AutoTokenizer.from_pretrained(folder), open_ours(folder)
    assert theirs.is_fast
    some = [PIECES, PIECES.lower(), *texts[::9]]
    expected = theirs(some, return_offsets_mapping=True)
    found = ours.encode(some)
    assert [encoding.ids for encoding in found] == expected["input_ids"]
    assert [encoding.offsets for encoding in found] == expected["offset_mapping"]
    decoded = [
        theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for ids in expected["input_ids"]
    ]
    assert [ours.decode(ids) for ids in expected["input_ids"]] == decoded


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_tokenizer_frames_and_pads_as_auto_tokenizer_does(case: Case, tmp_path: Path, texts: list[str]) -> None:
    folder = write_folder(case, tmp_path)
    theirs, ours = hf.AutoTokenizer.from_pretrained(folder), open_ours(folder)
    first, second = texts[::40], texts[1::40][: len(texts[::40])]
    expected = theirs(first, second)
    found = ours.encode(first, second)
    assert [encoding.ids for encoding in found] == expected["input_ids"]
    assert ours.files.has_type_ids == ("token_type_ids" in theirs.model_input_names)
    if "token_type_ids" in expected:
        assert [encoding.type_ids for encoding in found] == expected["token_type_ids"]
    assert ours.files.pads_left == (theirs.padding_side == "left")
    assert ours.files.cuts_left == (theirs.truncation_side == "left")
    assert ours.files.family.pad_type_id == theirs.pad_token_type_id
    assert (ours.unk_id, ours.files.token("pad_token")) == (theirs.unk_token_id, theirs.pad_token)
    cut = [encoding.ids for encoding in open_ours(folder, 12).encode(texts[::40])]
    assert cut == theirs(texts[::40], truncation=True, max_length=12)["input_ids"]


def test_there_are_many_folders() -> None:
    assert len(CASES) >= 40
