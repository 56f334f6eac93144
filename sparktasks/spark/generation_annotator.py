"""What the annotators that generate text share: their params, and how those meet the bundle's own settings."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from typing import Any

from sparktasks.errors import BundleError, ParamError, listed
from sparktasks.kernels.generation import GeneratorRef
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.generation.generator import GeneratorOptions, Reading
from sparktasks.runtime.generation.layout import check_generator
from sparktasks.runtime.generation.scheduler import BatchLimits
from sparktasks.runtime.generation.settings import Settings, read_settings, unsupported
from sparktasks.runtime.generation.words import Words
from sparktasks.runtime.tokens import longest
from sparktasks.spark.annotator import ModelAnnotator
from sparktasks.spark.params import P, above, at_least, between, one_of, param

# Of transformers' pipelines (4.57): the last is for text2text-generation, summarization and translation.
_MAX_NEW_TOKENS = 256
_TEXT2TEXT_BEAMS = 4
_GLOBAL_MAX_LENGTH = 20  # of transformers: it stands for no limit given

_OWN = {
    "maxNewTokens": "max_new_tokens",
    "minNewTokens": "min_new_tokens",
    "numBeams": "num_beams",
    "numReturnSequences": "num_return_sequences",
    "lengthPenalty": "length_penalty",
    "earlyStopping": "early_stopping",
    "doSample": "do_sample",
    "temperature": "temperature",
    "topK": "top_k",
    "topP": "top_p",
    "minP": "min_p",
    "typicalP": "typical_p",
    "repetitionPenalty": "repetition_penalty",
    "noRepeatNgramSize": "no_repeat_ngram_size",
    "suppressTokens": "suppress_tokens",
    "eosTokenId": "eos_token_id",
    "forcedBosTokenId": "forced_bos_token_id",
    "forcedEosTokenId": "forced_eos_token_id",
    "stopStrings": "stop_strings",
}


class GenerationAnnotator(ModelAnnotator):
    """A column annotator whose model generates text.

    Params that are None leave the choice to the bundle's generation_config.json.
    """

    maxNewTokens: P[int | None] = param(
        "maximum number of tokens to generate; None asks the bundle, then 256", default=None, check=at_least(0)
    )
    minNewTokens: P[int | None] = param("tokens to generate before a text may end", default=None, check=at_least(0))
    numBeams: P[int | None] = param("number of beams; 1 is greedy search or sampling", default=None, check=at_least(1))
    numReturnSequences: P[int | None] = param(
        "texts for each input, best first; with beams at most numBeams", default=None, check=at_least(1)
    )
    lengthPenalty: P[float | None] = param(
        "with beams: length penalty exponent; scores are divided by the length to this power: above 0 favours "
        "long texts",
        default=None,
    )
    earlyStopping: P[bool | str | None] = param(
        "with beams: True stops when numBeams texts are done, False when better ones are unlikely, 'never' "
        "when there are none",
        default=None,
        check=one_of(True, False, "never"),
    )
    doSample: P[bool | None] = param(
        "sample tokens by their probability instead of taking the most likely", default=None
    )
    temperature: P[float | None] = param(
        "divides scores before sampling; below 1 favours likely tokens", default=None, check=above(0)
    )
    topK: P[int | None] = param(
        "sample among the k most likely tokens; 0 is all of them", default=None, check=at_least(0)
    )
    topP: P[float | None] = param(
        "sample among the most likely tokens whose probabilities add up to this", default=None, check=between(0, 1)
    )
    minP: P[float | None] = param(
        "sample among tokens whose probability is at least this share of the most likely one's",
        default=None,
        check=between(0, 1),
    )
    typicalP: P[float | None] = param(
        "sample among the most typical tokens whose probabilities add up to this", default=None, check=between(0, 1)
    )
    seed: P[int] = param(
        "with doSample: a text depends on seed, prompt and model alone, not on partitions, retries or other rows",
        default=0,
    )
    repetitionPenalty: P[float | None] = param(
        "above 1 makes tokens that were used less likely", default=None, check=above(0)
    )
    noRepeatNgramSize: P[int | None] = param(
        "no sequence of this many tokens appears twice; 0 is off", default=None, check=at_least(0)
    )
    badWords: P[list[str]] = param(
        "words or phrases that must not be generated, in exactly this case; 'can' allows 'scan' and 'candle'",
        default=[],
    )
    logitsBias: P[dict[str, float]] = param(
        "words or phrases, and what is added to the scores of the tokens that complete them", default={}
    )
    suppressTokens: P[list[int] | None] = param("ids of tokens that must not be generated", default=None)
    stopStrings: P[list[str] | None] = param("strings that end a text; they stay in it", default=None)
    eosTokenId: P[list[int] | None] = param("ids of tokens that end a text", default=None)
    forcedBosTokenId: P[int | None] = param(
        "id of the token that an encoder-decoder model must begin with", default=None, check=at_least(0)
    )
    forcedEosTokenId: P[list[int] | None] = param(
        "ids of tokens of which one is forced where maxNewTokens is reached", default=None
    )
    cleanUpTokenizationSpaces: P[bool | None] = param(
        "whether to remove spaces before punctuation (' .', ' n't', ...) from the generated text; not with a "
        "constraint. "
        "None: as the bundle's tokenizer_config.json says, and never of encoder-decoder models",
        default=None,
    )
    maxLength: P[int | None] = param(
        "maximum number of tokens of a prompt; longer ones are cut and flagged. None: what the model has room for",
        default=None,
        check=at_least(1),
    )
    batchTokens: P[int] = param("maximum number of prompt tokens per model run", default=512, check=at_least(1))
    maxSequences: P[int] = param(
        "maximum number of texts (times numBeams) that are generated at once", default=32, check=at_least(1)
    )
    cacheTokens: P[int] = param(
        "maximum number of tokens of prompts and answers in the key-value cache; a row that needs more alone "
        "is an error",
        default=65536,
        check=at_least(1),
    )
    batchInvariant: P[bool] = param(
        "generate each text by itself, so that no bit of its scores depends on the others; slower", default=False
    )

    cut = "left"

    def check_bundle(self, bundle: Bundle) -> None:
        """Require a decoder, and an encoder where config.json speaks of one."""
        check_generator(bundle)
        for key, value in unsupported(generation_config(bundle)).items():
            warnings.warn(
                f"{self.uid}: {bundle.folder} asks for {key}={value!r}, which this engine does not do; it is left out",
                stacklevel=3,
            )

    def settings(self, task: str | None = None) -> Settings:
        """Return the settings to generate with: the bundle's, with the pipelines' defaults; those of its ``task``; this
        stage's params."""
        bundle = self.getBundle()
        defaults, own = _with_pipeline_defaults(generation_config(bundle), is_seq2seq(bundle))
        asked = {theirs: self.getOrDefault(ours) for ours, theirs in _OWN.items()}
        start = {"decoder_start_token_id": bundle.config.get("decoder_start_token_id", own.get("bos_token_id"))}
        settings = read_settings(defaults, start, own, task_params(bundle, task), asked)
        settings = replace(settings, seed=self.getOrDefault(self.seed))
        positions = None if is_seq2seq(bundle) else bundle.positions
        if asked["max_new_tokens"] is None and positions is not None and settings.limit(0) >= positions:
            # Nobody asked for more than there is room for.
            settings = replace(settings, max_new_tokens=positions // 2)
        self._check(settings)
        if is_seq2seq(bundle) and settings.decoder_start_token_id is None:
            raise BundleError(
                f"{self.uid}: {bundle.folder} names no decoder_start_token_id, in config.json or generation_config.json"
            )
        return settings

    def _check(self, settings: Settings) -> None:
        self._check_ids()
        if "" in settings.stop_strings:
            raise ParamError(
                f"{self.uid}: stopStrings={list(settings.stop_strings)!r} must not hold an empty string: it "
                "ends every text"
            )
        count, beams = settings.num_return_sequences, settings.num_beams
        if beams > 1 and count > beams:
            raise ParamError(f"{self.uid}: numReturnSequences={count} is more than numBeams={beams}")
        # Greedy search has one answer.
        if count > 1 and beams == 1 and not settings.do_sample:
            raise ParamError(
                f"{self.uid}: numReturnSequences={count} texts would be the same: set numBeams, or doSample=True"
            )

    def _check_ids(self) -> None:
        """Raise `ParamError` where a token id is asked for that the model has not."""
        width = self.getBundle().logits.shape[-1]
        # Some exports leave the axis of the vocabulary open.
        allowed = between(0, width - 1) if isinstance(width, int) else at_least(0)
        for own in (self.suppressTokens, self.eosTokenId, self.forcedBosTokenId, self.forcedEosTokenId):
            asked = self.getOrDefault(own)
            ids = asked if isinstance(asked, list) else [asked]
            for token_id in ids:
                if token_id is not None and not allowed(token_id):
                    raise ParamError(
                        f"{self.uid}: {own.name}={asked!r}: the model has no token {token_id}. Its ids are {allowed}"
                    )

    def generator_ref(self, settings: Settings) -> GeneratorRef:
        """Return what a kernel carries to generate."""
        alone = self.getOrDefault(self.batchInvariant)
        sequences = settings.num_beams
        if not alone:
            # One prompt with all its beams must fit, whatever maxSequences says.
            sequences = max(sequences, self.getOrDefault(self.maxSequences))
        limits = BatchLimits(
            sequences, self.getOrDefault(self.cacheTokens), self.getOrDefault(self.batchTokens), alone=alone
        )
        options = GeneratorOptions(
            settings=settings,
            reading=self._reading(settings),
            limits=limits,
            words=self._words(),
            device=self.getOrDefault(self.device),
            run_seconds=self.getOrDefault(self.maxRunSeconds),
        )
        return GeneratorRef(self.bundle_ref(), options)

    def _words(self) -> Words:
        bad, bias = self.getOrDefault(self.badWords), self.getOrDefault(self.logitsBias)
        has_numbers = all(isinstance(value, (int, float)) and isfinite(value) for value in bias.values())
        # An empty word would stand before every token.
        if not has_numbers or "" in bias or "" in bad:
            raise ParamError(
                f"{self.uid}: logitsBias={bias!r} takes words and finite numbers, and badWords={bad!r} words; "
                "none may be empty"
            )
        return Words(tuple(bad), tuple(sorted(bias.items())))

    def _reading(self, settings: Settings) -> Reading:
        bundle, asked = self.getBundle(), self.getOrDefault(self.maxLength)
        room = longest(bundle, asked)
        if not is_seq2seq(bundle) and bundle.positions is not None:
            # A decoder's prompt and answer share its positions; an encoder has its own.
            left = bundle.positions - settings.limit(0)
            if left < 1:
                raise ParamError(
                    f"{self.uid}: maxNewTokens={settings.limit(0)} leaves no room for a prompt: "
                    f"the model in {bundle.folder} knows {bundle.positions} positions"
                )
            room = min(left, room or left)
        return Reading(room, self.cut, self._tidies(settings))

    def _tidies(self, settings: Settings) -> bool:
        """Tell whether spaces before punctuation are removed; never where a constraint asks for them."""
        asked = self.getOrDefault(self.cleanUpTokenizationSpaces)
        if settings.grammar and asked:
            raise ParamError(
                f"{self.uid}: cleanUpTokenizationSpaces=True cannot be combined with jsonSchema or regex: "
                "the text would no longer be what they allow"
            )
        if settings.grammar:
            return False
        if asked is not None:
            return bool(asked)
        bundle = self.getBundle()
        # transformers' pipelines for encoder-decoders decode with clean_up_tokenization_spaces=False.
        return not is_seq2seq(bundle) and bool(bundle.tokenizer_config.get("clean_up_tokenization_spaces"))


def seq2seq_only(bundle: Bundle, who: str) -> None:
    """Raise `BundleError` where a model has no encoder."""
    if not is_seq2seq(bundle):
        raise BundleError(
            f"{who}: {bundle.folder} holds no encoder-decoder model ({bundle.model} alone): it continues prompts. "
            "TextGenerator with a promptTemplate is for those"
        )


def is_seq2seq(bundle: Bundle) -> bool:
    """Tell whether a model has an encoder: prompts are read by it, and the text is an answer, not a continuation."""
    return bundle.part("encoder_model") is not None


def generation_config(bundle: Bundle) -> dict[str, Any]:
    """Return a bundle's own generation settings: generation_config.json, or what older folders have of it in
    config.json."""
    config = bundle.read_json("generation_config.json")
    if config is None:
        config = {**bundle.text_config, **bundle.config}
    return {key: value for key, value in config.items() if value is not None}


def _with_pipeline_defaults(own: Mapping[str, Any], seq2seq: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what goes before a bundle's own settings, and these settings as transformers' pipelines take them."""
    defaults = {"max_new_tokens": _MAX_NEW_TOKENS}
    settings = dict(own)
    if seq2seq:
        # The pipelines for these models overwrite what the bundle says of the two.
        settings |= {"max_new_tokens": _MAX_NEW_TOKENS, "num_beams": _TEXT2TEXT_BEAMS}
    has_max_length = settings.get("max_length", _GLOBAL_MAX_LENGTH) != _GLOBAL_MAX_LENGTH
    if has_max_length and settings.get("max_new_tokens", _MAX_NEW_TOKENS) == _MAX_NEW_TOKENS:
        # A max_length of the bundle's own counts, as long as nobody says max_new_tokens.
        defaults = {}
        settings.pop("max_new_tokens", None)
    return defaults, settings


def task_params(bundle: Bundle, task: str | None) -> Mapping[str, Any]:
    """Return config.json's ``task_specific_params`` of a task, its ``prefix`` among them; `ParamError` where the task
    is not there."""
    if task is None:
        return {}
    if task not in bundle.tasks:
        raise ParamError(
            f"task={task!r} is not in {bundle.folder}/config.json. Its task_specific_params have: "
            f"{listed(bundle.tasks)}"
        )
    return bundle.tasks[task]
