"""What a folder's tokenizer files say together, reconciled as transformers' AutoTokenizer does (version 4.57.6).

Up to five files speak of one tokenizer, and they contradict each other: tokenizer.json, tokenizer_config.json,
special_tokens_map.json, added_tokens.json, and config.json's ``tokenizer_class`` or ``model_type``. What they leave
open, the class decides (`FAMILIES`). This is the only place that reads them for their rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tokenizers import AddedToken, Tokenizer, processors

from sparktasks.errors import BundleError
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.folder_files import interpreting
from sparktasks.runtime.tokenizer_families import FAMILIES, GENERIC, LANGUAGE_BEFORE, MODEL_FAMILIES, Family

Token: TypeAlias = "str | AddedToken"

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_ADDITIONAL = "additional_special_tokens"
_TOKEN_FIELDS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class TokenizerFiles:
    """The rules of a folder's tokenizer.

    ``special`` holds the special tokens by role, such as ``eos_token``; ``additional`` those without a role;
    ``added`` the tokens that tokenizer_config.json or added_tokens.json add, in the order of their ids.
    ``truncation`` and ``padding`` are those blocks of tokenizer.json.
    """

    config: Mapping[str, Any]
    family: Family
    special: Mapping[str, Token]
    additional: tuple[Token, ...]
    added: tuple[AddedToken, ...]
    truncation: Mapping[str, Any]
    padding: Mapping[str, Any]

    def token(self, role: str) -> str | None:
        """Return the special token of a role, such as ``eos_token``; None where there is none."""
        found = self.special.get(role)
        return None if found is None else str(found)

    @property
    def pads_left(self) -> bool:
        """Tell on which side transformers pads."""
        default = "left" if self.family.pads_left else "right"
        return bool(self.config.get("padding_side", self.padding.get("direction", default).lower()) == "left")

    @property
    def cuts_left(self) -> bool:
        """Tell on which side a text that is too long loses tokens."""
        return bool(self.config.get("truncation_side", self.truncation.get("direction", "right").lower()) == "left")

    @property
    def has_type_ids(self) -> bool:
        """Tell whether the model is given token types; else they are all 0."""
        names = self.config.get("model_input_names")
        return self.family.type_ids if names is None else "token_type_ids" in names


def read_tokenizer_files(bundle: Bundle) -> TokenizerFiles:
    """Reconcile the files of a folder; `BundleError` where one of them is not what it should be."""
    with interpreting(bundle.find("tokenizer_config.json")):
        return _reconciled(bundle)


def _reconciled(bundle: Bundle) -> TokenizerFiles:
    written = bundle.read_json("tokenizer_config.json") or {}
    content = bundle.read_json("tokenizer.json") or {}
    family = _family(bundle, written)
    named: dict[str, Any] = dict(written)
    if "added_tokens_decoder" in written:
        added = {int(index): _added(token) for index, token in (written["added_tokens_decoder"] or {}).items()}
    else:  # folders of before 2023: special_tokens_map.json goes first, and added_tokens.json counts
        _merge_special_map(named, bundle.read_json("special_tokens_map.json") or {})
        added = _legacy_added(bundle, named, content)
    by_content = {str(token): token for token in added.values()}
    padding = content.get("padding") or {}
    defaults = dict(family.special)
    if padding.get("pad_token"):  # a class that has a padding token of its own keeps it
        defaults.setdefault("pad_token", padding["pad_token"])
    special: dict[str, Token] = {}
    for role in ROLES:
        token = named[role] if role in named else defaults.get(role)
        if token is not None:  # a null in the file means that there is none, whatever the class has
            special[role] = by_content.get(token_text(token), _token(token))
    extra = written.get("extra_special_tokens") or {}
    named_extra = extra if isinstance(extra, Mapping) else {}
    special.update({role: _token(token) for role, token in named_extra.items()})
    listed = named.get(_ADDITIONAL)
    additional = [_token(token) for token in (listed or ())]
    if listed is None or not _has_own(listed, family):
        additional.extend(family.additional)
    if not isinstance(extra, Mapping):  # as transformers 5 writes it
        additional.extend(_token(token) for token in extra)
    return TokenizerFiles(
        config={key: value for key, value in written.items() if value is not None},
        family=family,
        special=special,
        additional=tuple(additional),
        added=tuple(token for _, token in sorted(added.items())),
        truncation=content.get("truncation") or {},
        padding=padding,
    )


def _has_own(listed: Sequence[Any], family: Family) -> bool:
    """Tell whether additional tokens replace the family's: T5's sentinels are added to any that lack them."""
    sentinels = [token for token in family.additional if token.startswith("<extra_id_")]
    return not sentinels or any("<extra_id_" in token_text(token) for token in listed)


def _family(bundle: Bundle, config: Mapping[str, Any]) -> Family:
    """Find the rules of the tokenizer's class: the one that is named, else the one of the model's type."""
    name = config.get("tokenizer_class") or bundle.config.get("tokenizer_class")
    if name is None:
        name = MODEL_FAMILIES.get(str(bundle.config.get("model_type")), "")
    return FAMILIES.get(str(name).removesuffix("Fast").removesuffix("Tokenizer"), GENERIC)


def _merge_special_map(named: dict[str, Any], special_map: Mapping[str, Any]) -> None:
    for role, token in special_map.items():
        if role == _ADDITIONAL and isinstance(token, list):
            before = list(named.get(role) or [])
            known = {token_text(each) for each in before}
            named[role] = before + [each for each in token if token_text(each) not in known]
        else:
            named[role] = token | {"special": True} if isinstance(token, dict) else token


def _legacy_added(bundle: Bundle, named: Mapping[str, Any], content: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Return the tokens of added_tokens.json and of tokenizer.json, by id."""
    special = {token_text(named[role]) for role in ROLES if named.get(role) is not None}
    special.update(token_text(token) for token in named.get(_ADDITIONAL) or ())
    added = {}
    with interpreting(bundle.find("added_tokens.json")):
        for token, index in (bundle.read_json("added_tokens.json") or {}).items():
            is_special = token in special
            added[int(index)] = AddedToken(token, normalized=not is_special, special=is_special)
    with interpreting(bundle.tokenizer_path):
        for token in content.get("added_tokens") or ():
            added[int(token["id"])] = _added(token)
    return added


def token_text(token: Any) -> str:
    """Return the text of a token as the JSON files have it: plain, or an object with more about it."""
    return str(token.get("content") if isinstance(token, dict) else token)


def _token(token: Any) -> Token:
    return token if isinstance(token, str) else _added(token)


def _added(token: Mapping[str, Any]) -> AddedToken:
    if not isinstance(token, Mapping) or not isinstance(token.get("content"), str):
        raise ValueError(f"{token!r} is no token: a string is expected, or an object with a content")
    return AddedToken(**{key: token[key] for key in _TOKEN_FIELDS if key in token})


def load_tokenizer(bundle: Bundle, files: TokenizerFiles) -> Tokenizer:
    """Load tokenizer.json and change it as transformers would; it neither pads nor cuts."""
    try:
        tokenizer = Tokenizer.from_file(str(bundle.tokenizer_path))
    except Exception as error:  # the library raises bare Exception
        raise BundleError(
            f"{bundle.tokenizer_path} is not a tokenizer file that the tokenizers library reads: {error}"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = bool(files.config.get("split_special_tokens", False))
    _add_tokens(tokenizer, files)
    normalizer = {name: files.config.get(flag, default) for name, (flag, default) in files.family.normalizer.items()}
    set_state(tokenizer, "normalizer", normalizer, kind="BertNormalizer")
    prefix_space = files.config.get("add_prefix_space", files.family.prefix_space)
    if files.family.prefix_space is not None:
        set_state(tokenizer, "pre_tokenizer", {"add_prefix_space": prefix_space})
    if files.family.trims_offsets:
        trims = files.config.get("trim_offsets", True)
        set_state(tokenizer, "post_processor", {"add_prefix_space": prefix_space, "trim_offsets": trims})
    if files.family.affixes:
        tokenizer.post_processor = _affixes(bundle, tokenizer, files)
    if files.family.language:
        _frame_with_language(tokenizer, files)
    return tokenizer


def _add_tokens(tokenizer: Tokenizer, files: TokenizerFiles) -> None:
    """Add the tokens that tokenizer.json lacks, or has with other flags: they are found in texts, and special ones left
    out."""
    known = {repr(token) for token in tokenizer.get_added_tokens_decoder().values()}
    texts = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokens: list[Token] = [token for token in files.added if repr(token) not in known]
    texts.update(str(token) for token in tokens)
    special = {str(token): token for token in reversed([*files.special.values(), *files.additional])}
    for token in reversed(special.values()):  # of tokens with one text the first counts
        if not isinstance(token, str) or token not in texts:
            tokens.append(token)
    tokenizer.add_tokens([_flagged(token, set(special)) for token in tokens])


def _flagged(token: Token, special: set[str]) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=token in special)
    token.special = token.special or str(token) in special
    return token


def _affixes(bundle: Bundle, tokenizer: Tokenizer, files: TokenizerFiles) -> Any:
    """Put the first and the end token around texts as ``add_bos_token`` and ``add_eos_token`` say."""
    before = _affix(bundle, files, "bos_token", files.family.adds_bos)
    after = _affix(bundle, files, "eos_token", False)
    first = [*(f"{token}:0" for token in before), "$A:0", *(f"{token}:0" for token in after)]
    second = [*(f"{token}:1" for token in before), "$B:1", *(f"{token}:1" for token in after)]
    ids = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys([*before, *after])]
    return processors.TemplateProcessing(single=first, pair=[*first, *second], special_tokens=ids)


def _affix(bundle: Bundle, files: TokenizerFiles, role: str, default: bool) -> list[str]:
    if not files.config.get(f"add_{role}", default):
        return []
    token = files.token(role)
    if token is None:
        raise BundleError(f"{bundle.folder}: tokenizer_config.json says add_{role}, but no file names a {role}")
    return [token]


def _frame_with_language(tokenizer: Tokenizer, files: TokenizerFiles) -> None:
    """Put the source language's token and the end token around texts, where the vocabulary has both."""
    language, end = str(files.config.get("src_lang") or files.family.language), files.token("eos_token")
    ids = [(token, tokenizer.token_to_id(token)) for token in (language, end) if token is not None]
    if len(ids) < 2 or any(index is None for _, index in ids):
        return
    before = files.family.language_side == LANGUAGE_BEFORE and not files.config.get("legacy_behaviour")
    prefix, suffix = ([language], [end]) if before else ([], [end, language])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*prefix, "$A", *suffix], pair=[*prefix, "$A", "$B", *suffix], special_tokens=ids
    )


def set_state(tokenizer: Tokenizer, part: str, wanted: Mapping[str, Any], kind: str | None = None) -> None:
    """Overwrite the fields of a top-level normalizer, pre-tokenizer or post-processor that has them.

    ``kind`` is the type that it must be of; None takes any.
    """
    current = getattr(tokenizer, part)
    state = json.loads(current.__getstate__()) if current is not None else {}
    changed = {key: value for key, value in wanted.items() if key in state and state[key] != value}
    if not changed or kind not in (None, state["type"]):
        return
    name = state.pop("type")
    pairs = {key: tuple(value) for key, value in state.items() if key in ("sep", "cls")}
    module = processors if part == "post_processor" else __import__(f"tokenizers.{part}s", fromlist=[name])
    setattr(tokenizer, part, getattr(module, name)(**(state | pairs | changed)))
