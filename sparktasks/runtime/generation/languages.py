"""The languages a translation model knows, and how it is told which are wanted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sparktasks.errors import MissingDependency, ParamError, did_you_mean, listed
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.sentencepieces import FRAMED_LANGUAGE, language_tokens
from sparktasks.runtime.tokenizer_files import token_text

NONE, TEXT, TOKENS, TASK = "none", "text", "tokens", "task"
_LOCALE = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")
_MARKED = re.compile(r">>([A-Za-z]{2,}(?:[_@.-]\w+)*)<<")
_TASK = re.compile(r"translation_(\w+)_to_(\w+)")

# ISO 639-1 codes whose model codes are not the same language's in ISO 639-3: of macrolanguages the variety that is
# meant.
_VARIETIES = {
    "ar": "arb",
    "az": "azj",
    "fa": "pes",
    "ku": "kmr",
    "lv": "lvs",
    "mg": "plt",
    "mn": "khk",
    "ms": "zsm",
    "ne": "npi",
    "no": "nob",
    "or": "ory",
    "ps": "pbt",
    "qu": "quy",
    "sq": "als",
    "sw": "swh",
    "uz": "uzn",
    "yi": "ydd",
    "zh": "zho",
}


@dataclass(frozen=True)
class Languages:
    """How a bundle is told languages, and which it knows.

    ``way``: none (one pair only), text (Marian's ``>>xx<<`` before the source), tokens (one beside the source's tokens,
    one forced as the first of the translation), task (T5's ``translation_xx_to_yy``, of which there are ``pairs``).
    ``form`` makes a code a token; ``behind`` says that the source's token follows its end token.
    """

    way: str
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    form: str = "{}"
    behind: bool = False
    pairs: tuple[tuple[str, str], ...] = ()

    def source(self, code: str) -> str:
        """Return the bundle's code of a source language; `ParamError` where it does not know it."""
        return _resolved(code, self.sources, "source")

    def target(self, code: str) -> str:
        """Return the bundle's code of a target language; `ParamError` where it does not know it."""
        return _resolved(code, self.targets, "target")

    def sources_of(self, target: str) -> tuple[str, ...]:
        """Return the languages that are translated into a target language."""
        return tuple(source for source, other in self.pairs if other == target) if self.pairs else self.sources

    def task(self, source: str, target: str) -> str:
        """Return the name of a pair's task; `ParamError` where the model knows both languages, but not this way from
        one to the other."""
        if (source, target) not in self.pairs:
            known = [f"{one} to {other}" for one, other in self.pairs]
            raise ParamError(f"the model does not translate {source!r} to {target!r}. It translates: {listed(known)}")
        return f"translation_{source}_to_{target}"

    def token(self, code: str) -> str:
        """Return the token of a code."""
        return self.form.format(code)


def read_languages(bundle: Bundle) -> Languages:
    """Find out which languages a bundle translates, from its tokenizer's files and config.json."""
    names = _declared_tokens(bundle)
    kind = str(bundle.tokenizer_config.get("tokenizer_class", "")).removesuffix("Fast")
    if framed := _codes(FRAMED_LANGUAGE, names):
        return Languages(TOKENS, framed, framed, "__{}__")
    if marked := _codes(_MARKED, _marian_vocabulary(bundle) if _is_marian(bundle) else names):
        return Languages(TEXT, (), marked, ">>{}<<")
    if locales := tuple(name for name in names if _LOCALE.fullmatch(name)):
        behind = kind == "MBartTokenizer" or bool(bundle.tokenizer_config.get("legacy_behaviour"))
        return Languages(TOKENS, locales, locales, "{}", behind)
    pairs = tuple((found[1], found[2]) for key in bundle.tasks if (found := _TASK.fullmatch(key)))
    if pairs:
        sources, targets = (tuple(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1))
        return Languages(TASK, sources, targets, pairs=pairs)
    return Languages(NONE)


def _declared_tokens(bundle: Bundle) -> list[str]:
    """Return the tokens that a folder adds to its vocabulary and gives no other role, in the order of the files.

    Pieces of the vocabulary itself are parts of words, whatever they look like: those of T5 and BART have runs of
    underscores among them.
    """
    special = (bundle.read_json("special_tokens_map.json") or {}) | bundle.tokenizer_config
    declared: list[str] = language_tokens(bundle.tokenizer_config)
    declared += [token_text(token) for token in special.get("additional_special_tokens") or []]
    declared += [token_text(token) for token in special.get("added_tokens_decoder", {}).values()]
    declared += [token["content"] for token in (bundle.read_json("tokenizer.json") or {}).get("added_tokens", [])]
    declared += list(bundle.read_json("added_tokens.json") or {})
    roles = {token_text(token) for key, token in special.items() if key.endswith("_token") and token is not None}
    return [name for name in dict.fromkeys(declared) if name not in roles]


def _is_marian(bundle: Bundle) -> bool:
    kind = str(bundle.tokenizer_config.get("tokenizer_class", ""))
    return bundle.config.get("model_type") == "marian" or kind.startswith("Marian")


def _marian_vocabulary(bundle: Bundle) -> list[str]:
    """Return all pieces of a Marian model, whose languages are among them."""
    tokenizer = bundle.read_json("tokenizer.json") or {}
    vocabulary = tokenizer.get("model", {}).get("vocab", {}) or bundle.read_json("vocab.json") or {}
    pieces = [str(entry if isinstance(entry, str) else entry[0]) for entry in vocabulary]
    return list(dict.fromkeys([*_declared_tokens(bundle), *pieces]))


def _codes(pattern: re.Pattern[str], names: Iterable[str]) -> tuple[str, ...]:
    return tuple(found[1] for name in names if (found := pattern.fullmatch(name)))


def _resolved(code: str, known: Sequence[str], side: str) -> str:
    if code in known:
        return code
    near = [each for each in known if each.partition("_")[0] == code]
    if len(near) == 1:
        return near[0]
    hint = f" Did you mean one of {listed(near)}?" if near else did_you_mean(code, known)
    raise ParamError(f"the {side} language {code!r} is not one that the model knows.{hint} It knows: {listed(known)}")


def detect_language(text: str, known: Sequence[str]) -> str | None:
    """Return the code, among the known ones, of the language that a text seems to be in; None where it is none of
    them."""
    try:
        import langcodes
        import py3langid
    except ImportError as error:
        raise MissingDependency("py3langid", "srcLang='auto'", "translate") from error
    found = py3langid.classify(text)[0]
    long = _VARIETIES.get(found) or langcodes.Language.get(found).to_alpha3()
    script = langcodes.Language.get(found).maximize().script
    for code in (found, f"{long}_{script}"):
        if code in known:
            return str(code)
    return next((each for code in (found, long) for each in known if each.partition("_")[0] == code), None)
