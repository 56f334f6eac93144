"""Loading tokenizer.json, changed by a folder's other files as transformers' AutoTokenizer does (version 4.57.6)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors

from sparktasks.errors import BundleError
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.tokenizer_families import LANGUAGE_BEFORE
from sparktasks.runtime.tokenizer_files import Token, TokenizerFiles

_MODULES: dict[str, Any] = {
    "normalizer": normalizers,
    "pre_tokenizer": pre_tokenizers,
    "post_processor": processors,
}

# The fields of a post-processor that are pairs of text and id, which JSON has as lists.
_PAIRS = frozenset({"sep", "cls"})


def load_tokenizer(bundle: Bundle, files: TokenizerFiles) -> Tokenizer:
    """Load tokenizer.json and change it as transformers would; it neither pads nor cuts."""
    try:
        tokenizer = Tokenizer.from_file(str(bundle.tokenizer_path))
    except Exception as error:  # the library raises bare Exception
        raise BundleError(
            f"{bundle.tokenizer_path} is not a tokenizer file that the tokenizers library reads: {error}"
        ) from error
    # What is baked into the file holds for one use of it; texts are cut and filled up elsewhere.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = bool(files.config.get("split_special_tokens", False))
    _add_tokens(tokenizer, files)
    _overwrite_states(tokenizer, files)
    if files.family.affixes:
        tokenizer.post_processor = _affixes(bundle, tokenizer, files)
    if files.family.language:
        _frame_with_language(tokenizer, files)
    return tokenizer


def _add_tokens(tokenizer: Tokenizer, files: TokenizerFiles) -> None:
    """Add the tokens that tokenizer.json lacks, or has with other flags: they are found in texts, and special ones left
    out."""
    present = tokenizer.get_added_tokens_decoder().values()
    # Their flags are compared, too, which are all in the representation of a token.
    known = set(map(repr, present))
    missing: list[Token] = []
    for token in files.added.values():
        if repr(token) not in known:
            missing.append(token)
    texts = set(map(str, (*present, *missing)))

    # Of special tokens with one text the first counts.
    special: dict[str, Token] = {}
    for token in (*files.special.values(), *files.additional):
        special.setdefault(str(token), token)
    for token in special.values():
        # A plain text says nothing of flags, so that a token which is there stays as it is.
        is_there = isinstance(token, str) and token in texts
        if not is_there:
            missing.append(token)
    tokenizer.add_tokens([_flagged(token, special) for token in missing])


def _flagged(token: Token, special: Mapping[str, Token]) -> AddedToken:
    """Return a token that is marked as special where it is among them."""
    if isinstance(token, str):
        return AddedToken(token, special=token in special)
    token.special = token.special or str(token) in special
    return token


def _overwrite_states(tokenizer: Tokenizer, files: TokenizerFiles) -> None:
    """Let the flags of tokenizer_config.json, and the class's defaults, overwrite what tokenizer.json says."""
    config, family = files.config, files.family
    normalizer = {}
    for name, (flag, default) in family.normalizer.items():
        normalizer[name] = config.get(flag, default)
    set_state(tokenizer, "normalizer", normalizer, kind="BertNormalizer")
    prefix_space = config.get("add_prefix_space", family.prefix_space)
    if family.prefix_space is not None:
        set_state(tokenizer, "pre_tokenizer", {"add_prefix_space": prefix_space})
    if family.trims_offsets:
        trims = config.get("trim_offsets", True)
        set_state(tokenizer, "post_processor", {"add_prefix_space": prefix_space, "trim_offsets": trims})


def set_state(tokenizer: Tokenizer, part: str, fields: Mapping[str, Any], kind: str | None = None) -> None:
    """Overwrite the fields of a top-level normalizer, pre-tokenizer or post-processor that has them.

    ``kind`` is the type that it must be of; None takes any.
    """
    current = getattr(tokenizer, part)
    if current is None:
        return
    state = json.loads(current.__getstate__())
    name = state.pop("type")
    if kind not in (None, name):
        return
    changed = {}
    for key, value in fields.items():
        if key in state and state[key] != value:
            changed[key] = value
    if not changed:
        return

    # The library's objects cannot be changed in all fields, so that a new one takes the old one's place.
    state.update(changed)
    for key in _PAIRS & state.keys():
        state[key] = tuple(state[key])
    replacement = getattr(_MODULES[part], name)(**state)
    setattr(tokenizer, part, replacement)


def _affixes(bundle: Bundle, tokenizer: Tokenizer, files: TokenizerFiles) -> Any:
    """Put the first and the end token around texts as ``add_bos_token`` and ``add_eos_token`` say."""
    before = _affix(bundle, files, "bos_token", files.family.adds_bos)
    after = _affix(bundle, files, "eos_token", False)
    # The number behind a token is its type: 0 in the first text, 1 in the second of a pair.
    first = [f"{token}:0" for token in (*before, "$A", *after)]
    second = [f"{token}:1" for token in (*before, "$B", *after)]
    affixes = dict.fromkeys([*before, *after])
    return processors.TemplateProcessing(
        single=first,
        pair=[*first, *second],
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in affixes],
    )


def _affix(bundle: Bundle, files: TokenizerFiles, role: str, default: bool) -> list[str]:
    if not files.config.get(f"add_{role}", default):
        return []
    token = files.token(role)
    if token is None:
        raise BundleError(f"{bundle.folder}: tokenizer_config.json says add_{role}, but no file names a {role}")
    return [token]


def _frame_with_language(tokenizer: Tokenizer, files: TokenizerFiles) -> None:
    """Put the source language's token and the end token around texts, where the vocabulary has both."""
    language = str(files.config.get("src_lang") or files.family.language)
    end = files.token("eos_token")
    if end is None:
        return
    ids = {token: tokenizer.token_to_id(token) for token in (language, end)}
    if None in ids.values():
        return

    prefix, suffix = [], [end, language]
    # NLLB's first tokenizers put the language behind, and folders can ask for that still.
    is_before = files.family.language_side == LANGUAGE_BEFORE
    if is_before and not files.config.get("legacy_behaviour"):
        prefix, suffix = [language], [end]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*prefix, "$A", *suffix],
        pair=[*prefix, "$A", "$B", *suffix],
        special_tokens=list(ids.items()),
    )
