"""What a folder's tokenizer files say together, reconciled as transformers' AutoTokenizer does (version 4.57.6).

Up to five files speak of one tokenizer, and they contradict each other: tokenizer.json, tokenizer_config.json,
special_tokens_map.json, added_tokens.json, and config.json's ``tokenizer_class`` or ``model_type``. What they leave
open, the class decides (`FAMILIES`). This is the only place that reads them for their rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tokenizers import AddedToken

from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.folder_files import interpreting, section
from sparktasks.runtime.tokenizer_families import FAMILIES, GENERIC, MODEL_FAMILIES, Family

Token: TypeAlias = "str | AddedToken"

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_ADDITIONAL = "additional_special_tokens"
_ADDED = "added_tokens_decoder"
_EXTRA = "extra_special_tokens"
_SENTINEL = "<extra_id_"
_TOKEN_FIELDS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class TokenizerFiles:
    """The rules of a folder's tokenizer.

    ``special`` holds the special tokens by role, such as ``eos_token``; ``additional`` those without a role;
    ``added`` the tokens that tokenizer_config.json or added_tokens.json add, by id and in the order of their ids.
    ``truncation`` and ``padding`` are those blocks of tokenizer.json.
    """

    config: Mapping[str, Any]
    family: Family
    special: Mapping[str, Token]
    additional: tuple[Token, ...]
    added: Mapping[int, AddedToken]
    truncation: Mapping[str, Any]
    padding: Mapping[str, Any]

    def token(self, role: str) -> str | None:
        """Return the special token of a role, such as ``eos_token``; None where there is none."""
        token = self.special.get(role)
        if token is None:
            return None
        return str(token)

    @property
    def special_texts(self) -> list[str]:
        """The texts of all special tokens, those with a role first."""
        return list(dict.fromkeys(map(str, (*self.special.values(), *self.additional))))

    @property
    def pads_left(self) -> bool:
        """Tell on which side transformers pads."""
        default = "left" if self.family.pads_left else "right"
        written = self.padding.get("direction", default).lower()
        return bool(self.config.get("padding_side", written) == "left")

    @property
    def cuts_left(self) -> bool:
        """Tell on which side a text that is too long loses tokens."""
        written = self.truncation.get("direction", "right").lower()
        return bool(self.config.get("truncation_side", written) == "left")

    @property
    def has_type_ids(self) -> bool:
        """Tell whether the model is given token types; else they are all 0."""
        names = self.config.get("model_input_names")
        if names is None:
            return self.family.type_ids
        return "token_type_ids" in names


def read_tokenizer_files(bundle: Bundle) -> TokenizerFiles:
    """Reconcile the files of a folder; `BundleError` where one of them is not what it should be."""
    with interpreting(bundle.find("tokenizer_config.json")):
        config = bundle.read_object("tokenizer_config.json")
        content = bundle.read_object("tokenizer.json")
        family = _family(bundle, config)
        if _ADDED in config:
            named = config
            tokens_by_id = section(config, _ADDED)
            added = {int(index): _added_token(token) for index, token in tokens_by_id.items()}
        else:
            # Folders of before 2023: special_tokens_map.json goes first, and added_tokens.json counts.
            named = _merged(config, bundle.read_object("special_tokens_map.json"))
            added = _legacy_added(bundle, named, content)
        padding = section(content, "padding")
        # Null means what absence means, but for the role of a special token.
        present = {key: value for key, value in config.items() if value is not None}
        return TokenizerFiles(
            config=present,
            family=family,
            special=_special_tokens(named, family, padding, added),
            additional=_additional_tokens(named, family),
            added=dict(sorted(added.items())),
            truncation=section(content, "truncation"),
            padding=padding,
        )


def _family(bundle: Bundle, config: Mapping[str, Any]) -> Family:
    """Find the rules of the tokenizer's class: the one that is named, else the one of the model's type."""
    # transformers looks at config.json's class before it goes by the model's type.
    name = config.get("tokenizer_class") or bundle.config.get("tokenizer_class")
    if name is None:
        name = MODEL_FAMILIES.get(str(bundle.config.get("model_type")), "")
    family = str(name).removesuffix("Fast").removesuffix("Tokenizer")
    return FAMILIES.get(family, GENERIC)


def _merged(config: Mapping[str, Any], special_map: Mapping[str, Any]) -> dict[str, Any]:
    """Return tokenizer_config.json with what special_tokens_map.json says in its place."""
    named = dict(config)
    for role, token in special_map.items():
        named[role] = token | {"special": True} if isinstance(token, dict) else token

    # Lists are joined, where every other entry replaces the one of tokenizer_config.json.
    additional = special_map.get(_ADDITIONAL)
    if isinstance(additional, list):
        joined = list(config.get(_ADDITIONAL) or ())
        known_texts = set(map(token_text, joined))
        for token in additional:
            if token_text(token) not in known_texts:
                joined.append(token)
        named[_ADDITIONAL] = joined
    return named


def _legacy_added(bundle: Bundle, named: Mapping[str, Any], content: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Return the tokens of added_tokens.json and of tokenizer.json, by id."""
    roles = filter(None, map(named.get, ROLES))
    additional = named.get(_ADDITIONAL) or ()
    special_texts = set(map(token_text, (*roles, *additional)))
    added = {}
    with interpreting(bundle.find("added_tokens.json")):
        for text, index in bundle.read_object("added_tokens.json").items():
            is_special = text in special_texts
            added[int(index)] = AddedToken(text, normalized=not is_special, special=is_special)
    with interpreting(bundle.tokenizer_path):
        for token in content.get("added_tokens") or ():
            added[int(token["id"])] = _added_token(token)
    return added


def _special_tokens(
    named: Mapping[str, Any],
    family: Family,
    padding: Mapping[str, Any],
    added: Mapping[int, AddedToken],
) -> dict[str, Token]:
    """Return the special tokens by role: those that the files name, else those of the class."""
    defaults = dict(family.special)
    if padding.get("pad_token"):
        # A class that has a padding token of its own keeps it.
        defaults.setdefault("pad_token", padding["pad_token"])
    by_text = {str(token): token for token in added.values()}
    special: dict[str, Token] = {}
    for role in ROLES:
        # A null in the file means that there is none, whatever the class has.
        token = named.get(role, defaults.get(role))
        if token is not None:
            special[role] = by_text.get(token_text(token), _token(token))
    # Tokens with roles of their own. transformers 5 lists tokens without a role there.
    extra: Any = section(named, _EXTRA)
    if isinstance(extra, Mapping):
        for role, token in extra.items():
            special[role] = _token(token)
    return special


def _additional_tokens(named: Mapping[str, Any], family: Family) -> tuple[Token, ...]:
    """Return the special tokens without a role."""
    listed = named.get(_ADDITIONAL)
    additional = [_token(token) for token in listed or ()]
    if listed is None or _lacks_sentinels(listed, family):
        additional.extend(family.additional)
    extra: Any = section(named, _EXTRA)
    if not isinstance(extra, Mapping):
        additional.extend(map(_token, extra))
    return tuple(additional)


def _lacks_sentinels(listed: list[Any], family: Family) -> bool:
    """Tell whether T5's sentinels are to be added to other additional tokens; those of other classes give way."""
    if _SENTINEL not in "".join(family.additional):
        return False
    return _SENTINEL not in "".join(map(token_text, listed))


def token_text(token: Any) -> str:
    """Return the text of a token as the JSON files have it: plain, or an object with more about it."""
    return str(token.get("content") if isinstance(token, dict) else token)


def _token(token: Any) -> Token:
    return token if isinstance(token, str) else _added_token(token)


def _added_token(token: Mapping[str, Any]) -> AddedToken:
    """Return the token that an object of a JSON file describes; `ValueError` where it describes none."""
    content = token.get("content") if isinstance(token, Mapping) else None
    if not isinstance(content, str):
        raise ValueError(f"{token!r} is no token: a string is expected, or an object with a content")
    # Files hold other fields, too, such as a token's id.
    options = {}
    for key in _TOKEN_FIELDS:
        if key in token:
            options[key] = token[key]
    return AddedToken(**options)
