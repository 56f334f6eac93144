"""The languages that a translation model knows, and how a model is asked for one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sparktasks.errors import MissingDependency, ParamError, did_you_mean, listed
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.sentencepieces import FRAMED_LANGUAGE, language_tokens
from sparktasks.runtime.tokenizer_files import read_tokenizer_files, token_text

NONE, TEXT, TOKENS, TASK = "none", "text", "tokens", "task"
_LOCALE = re.compile(r"([a-z]{2,3}_[A-Z][A-Za-z]{1,3})")
_MARKED = re.compile(r">>([A-Za-z]{2,}(?:[_@.-]\w+)*)<<")
_TASK = re.compile(r"translation_(\w+)_to_(\w+)")

# Languages by ISO 639-1 that are several ones by ISO 639-3 (macrolanguages), and the one that models have.
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
    """How a bundle is asked for languages, and which it knows.

    ``way``: none (one pair only), text (Marian's ``>>xx<<`` before the source), tokens (one beside the source's tokens,
    one forced as the first of the translation), task (T5's ``translation_xx_to_yy``, for each of the ``pairs``).
    ``form`` turns a code into a token; ``behind`` says that the source's token follows its end token.
    """

    way: str
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    form: str = "{}"
    behind: bool = False
    pairs: tuple[tuple[str, str], ...] = ()

    def source(self, code: str) -> str:
        """Return the bundle's code of a source language; `ParamError` if it does not know the language."""
        return _resolved(code, self.sources, "source")

    def target(self, code: str) -> str:
        """Return the bundle's code of a target language; `ParamError` if it does not know the language."""
        return _resolved(code, self.targets, "target")

    def sources_of(self, target: str) -> tuple[str, ...]:
        """Return the languages that the model translates into a target language."""
        if not self.pairs:
            return self.sources
        return tuple(source for source, other in self.pairs if other == target)

    def task(self, source: str, target: str) -> str:
        """Return the name of a pair's task; `ParamError` if the model knows both languages, but not this pair."""
        if (source, target) not in self.pairs:
            known = [f"{one} to {other}" for one, other in self.pairs]
            raise ParamError(f"the model does not translate {source!r} to {target!r}. It translates: {listed(known)}")
        return f"translation_{source}_to_{target}"

    def token(self, code: str) -> str:
        """Return the token of a code."""
        return self.form.format(code)


def read_languages(bundle: Bundle) -> Languages:
    """Find out which languages a bundle translates, from its tokenizer's files and config.json."""
    declared = _declared_tokens(bundle)
    tokenizer_class = str(bundle.tokenizer_config.get("tokenizer_class", ""))

    # M2M100 and its relatives: __fr__
    framed = _codes(FRAMED_LANGUAGE, declared)
    if framed:
        return Languages(TOKENS, sources=framed, targets=framed, form="__{}__")

    # Marian: >>fra<<, which is a piece of the vocabulary like any other
    candidates = declared
    if bundle.config.get("model_type") == "marian" or tokenizer_class.startswith("Marian"):
        candidates = declared + _vocabulary(bundle)
    marked = _codes(_MARKED, candidates)
    if marked:
        return Languages(TEXT, targets=marked, form=">>{}<<")

    # NLLB and mBART: fra_Latn, fr_XX
    locales = _codes(_LOCALE, declared)
    if locales:
        is_mbart = tokenizer_class.removesuffix("Fast") == "MBartTokenizer"
        return Languages(
            TOKENS,
            sources=locales,
            targets=locales,
            behind=is_mbart or bool(bundle.tokenizer_config.get("legacy_behaviour")),
        )

    # T5: tasks that config.json names
    return _task_languages(bundle)


def _task_languages(bundle: Bundle) -> Languages:
    """Return the languages of config.json's translation tasks; none if there are no such tasks."""
    pairs: list[tuple[str, str]] = []
    for name in bundle.tasks:
        match = _TASK.fullmatch(name)
        if match:
            pairs.append((match[1], match[2]))
    if not pairs:
        return Languages(NONE)
    sources, targets = zip(*pairs, strict=True)
    return Languages(
        TASK,
        sources=tuple(dict.fromkeys(sources)),
        targets=tuple(dict.fromkeys(targets)),
        pairs=tuple(pairs),
    )


def _declared_tokens(bundle: Bundle) -> list[str]:
    """Return the tokens that a folder adds to its vocabulary without another role, in the order of the files.

    Pieces of the vocabulary itself are parts of words, whatever they look like: those of T5 and BART have runs of
    underscores among them.
    """
    files = read_tokenizer_files(bundle)
    added = bundle.read_object("tokenizer.json").get("added_tokens") or ()
    tokens = [
        *language_tokens(bundle.tokenizer_config),
        *files.additional,
        *files.added.values(),
        *map(token_text, added),
        *bundle.read_object("added_tokens.json"),
    ]
    names = dict.fromkeys(str(token) for token in tokens)
    for token in files.special.values():
        names.pop(str(token), None)
    return list(names)


def _vocabulary(bundle: Bundle) -> list[str]:
    """Return the pieces of a model's vocabulary."""
    model = bundle.read_object("tokenizer.json").get("model", {})
    vocabulary = model.get("vocab") or bundle.read_object("vocab.json")
    if isinstance(vocabulary, list):
        # Of a Unigram model: pieces with their scores.
        return [str(entry[0]) for entry in vocabulary]
    return list(vocabulary)


def _codes(pattern: re.Pattern[str], names: Iterable[str]) -> tuple[str, ...]:
    """Return the language codes of the tokens that have a form, each once."""
    codes: dict[str, None] = {}
    for name in names:
        match = pattern.fullmatch(name)
        if match:
            codes[match[1]] = None
    return tuple(codes)


def _resolved(code: str, known: Sequence[str], side: str) -> str:
    """Return the code itself, or the only known one that adds a country or a script to it."""
    if code in known:
        return code
    near = _varieties(code, known)
    if len(near) == 1:
        return near[0]
    hint = did_you_mean(code, known)
    if near:
        hint = f" Did you mean one of {listed(near)}?"
    raise ParamError(f"the {side} language {code!r} is not one that the model knows.{hint} It knows: {listed(known)}")


def _varieties(language: str, known: Sequence[str]) -> list[str]:
    """Return the known codes of a language, in any country or script."""
    return [code for code in known if code.partition("_")[0] == language]


def detect_language(text: str, known: Sequence[str]) -> str | None:
    """Return the code, among the known ones, of the language that a text seems to be in; None if it is none of
    them."""
    try:
        import langcodes
        import py3langid
    except ImportError as error:
        raise MissingDependency("py3langid", "srcLang='auto'", "translate") from error
    short = str(py3langid.classify(text)[0])
    language = langcodes.Language.get(short)
    long = _VARIETIES.get(short) or language.to_alpha3()
    with_script = f"{long}_{language.maximize().script}"
    for code in (short, with_script):
        if code in known:
            return code
    candidates = _varieties(short, known) + _varieties(long, known)
    return next(iter(candidates), None)
