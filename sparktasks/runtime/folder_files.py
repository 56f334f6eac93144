"""Reading files of a folder that somebody else wrote: names stay inside of it, and JSON has the form that is expected.

Whatever is wrong with such a file is a `BundleError` that names it, never an error of Python's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparktasks.errors import BundleError, SparkTasksError

_OBJECT, _LIST, _TEXT, _NUMBER, _FLAG = (dict,), (list,), (str,), (int, float), (bool,)
_IDS = (int, float, list)  # one token id, or several
_TOKEN = (str, dict)

_WORDS: dict[type, str] = {dict: "an object", list: "a list", str: "a string", int: "a number", bool: "true or false"}

Fields = Mapping[str, tuple[type, ...]]

_CONFIG: Fields = {
    **dict.fromkeys(("text_config", "task_specific_params", "label2id"), _OBJECT),
    "id2label": (dict, list),
    "architectures": _LIST,
    **dict.fromkeys(("model_type", "problem_type", "tokenizer_class"), _TEXT),
    **dict.fromkeys(("max_position_embeddings", "max_seq_len", "n_positions", "pad_token_id", "vocab_size"), _NUMBER),
    **dict.fromkeys(("num_labels", "head_dim", "decoder_start_token_id"), _NUMBER),
    **dict.fromkeys(("eos_token_id", "bos_token_id"), _IDS),
    "is_encoder_decoder": _FLAG,
}
_SPECIAL_TOKENS: Fields = {
    **dict.fromkeys(
        ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"), _TOKEN
    ),
    "additional_special_tokens": _LIST,
}
_TOKENIZER_CONFIG: Fields = {
    **_SPECIAL_TOKENS,
    "added_tokens_decoder": _OBJECT,
    "extra_special_tokens": (dict, list),
    "model_input_names": _LIST,
    "chat_template": (str, list, dict),
    **dict.fromkeys(("tokenizer_class", "padding_side", "truncation_side", "src_lang"), _TEXT),
    **dict.fromkeys(("do_lower_case", "add_prefix_space", "split_special_tokens", "trim_offsets"), _FLAG),
    **dict.fromkeys(("add_bos_token", "add_eos_token", "clean_up_tokenization_spaces"), _FLAG),
}

# The model types in the names of sentence-transformers' files.
TRANSFORMERS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
_TRANSFORMER: Fields = {
    "max_seq_length": _NUMBER,
    "do_lower_case": _FLAG,
    "transformer_task": _TEXT,
    **dict.fromkeys(("modality_config", "processing_kwargs"), _OBJECT),
}

FORMS: dict[str, tuple[tuple[type, ...], Fields]] = {
    "config.json": (_OBJECT, _CONFIG),
    "tokenizer_config.json": (_OBJECT, _TOKENIZER_CONFIG),
    "special_tokens_map.json": (_OBJECT, _SPECIAL_TOKENS),
    "added_tokens.json": (_OBJECT, {}),
    "tokenizer.json": (_OBJECT, {"model": _OBJECT, "added_tokens": _LIST, "truncation": _OBJECT, "padding": _OBJECT}),
    "generation_config.json": (
        _OBJECT,
        {**dict.fromkeys(("eos_token_id", "bos_token_id", "forced_eos_token_id"), _IDS)},
    ),
    "genai_config.json": (_OBJECT, {"model": _OBJECT, "search": _OBJECT}),
    "export.json": (_OBJECT, {"components": _OBJECT}),
    "modules.json": (_LIST, {}),
    "config_sentence_transformers.json": (
        _OBJECT,
        {"prompts": _OBJECT, "default_prompt_name": _TEXT, "truncate_dim": _NUMBER},
    ),
    **{f"sentence_{name}_config.json": (_OBJECT, _TRANSFORMER) for name in TRANSFORMERS},
    "vocab.json": (_OBJECT, {}),
    "target_vocab.json": (_OBJECT, {}),
}
"""What the JSON files of a folder hold, by name: the whole, and the fields that are read. Null is always allowed."""


def read_json(path: Path) -> Any:
    """Read a JSON file; None where it is not there. `BundleError` where it is no JSON, or has another form than `FORMS`
    says."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise BundleError(f"{path} is nested too deep") from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise BundleError(f"{path} is not valid JSON: {error}") from error
    _check_form(path, content)
    return content


def section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object inside of another; an empty one where it is missing or null."""
    return content.get(name) or {}


@contextmanager
def interpreting(path: Path, kind: type[SparkTasksError] = BundleError) -> Iterator[None]:
    """Make what goes wrong with the content of a file, in a place that `FORMS` does not reach, an error of a kind of
    ours that names the file; errors of ours stay."""
    try:
        yield
    except SparkTasksError:
        raise
    except (AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise kind(f"{path} has another form than is expected: {type(error).__name__}: {error}") from error


def _check_form(path: Path, content: Any) -> None:
    kinds, fields = FORMS.get(path.name, ((dict, list), {}))
    if not isinstance(content, kinds):
        raise BundleError(f"{path} holds {_shown(content)}; {_either(kinds)} is expected")
    if not isinstance(content, dict):
        return
    for name, allowed in fields.items():
        value = content.get(name)
        if value is not None and not _fits(value, allowed):
            raise BundleError(f"{path}: {name} is {_shown(value)}; {_either(allowed)} is expected")


def _fits(value: Any, allowed: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in allowed
    return isinstance(value, allowed) and (not isinstance(value, float) or math.isfinite(value))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _either(kinds: tuple[type, ...]) -> str:
    return " or ".join(_WORDS[kind] for kind in kinds if kind is not float)


def inside(folder: Path, name: str, who: str) -> Path:
    """Return the path of a file that another file names, relative to ``folder``, which is resolved.

    Raises `BundleError` where it is no file, or lies outside of the folder: an absolute path, one with ``..``, a link.
    ``who`` says in the message which file wants it.
    """
    check_name(name, who)
    path = folder / name
    if not path.is_file():
        raise BundleError(f"{who} wants the file {name!r}, which is not there")
    check_link(folder, path)
    return path


def check_name(name: str, who: str) -> None:
    """Raise `BundleError` where the name of a file leads out of the folder that it is relative to."""
    path = Path(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise BundleError(f"{who} wants the file {name!r}: a path that leaves the bundle is refused")


def check_link(folder: Path, path: Path) -> None:
    """Raise `BundleError` where a file of a folder is a link to somewhere else; the links of a hub snapshot are its
    own."""
    target = path.resolve()
    if folder not in target.parents and target.parent != _blobs(folder):
        raise BundleError(f"{path} is a link to {target}: a link that leaves the bundle is refused")


def _blobs(snapshot: Path) -> Path | None:
    """Return the folder that the links of a hub snapshot lead to; None for any other folder."""
    return snapshot.parent.parent / "blobs" if snapshot.parent.name == "snapshots" else None
