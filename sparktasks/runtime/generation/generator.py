"""A text generator on this machine: tokenizer, decoder and scheduler together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparktasks.errors import DataError
from sparktasks.runtime import threads
from sparktasks.runtime.attention import longest_text, too_long
from sparktasks.runtime.batching import distinct
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.cache import ProcessCache
from sparktasks.runtime.checks import without_embedding
from sparktasks.runtime.devices import assigned_gpu
from sparktasks.runtime.generation.constraint import Constrain
from sparktasks.runtime.generation.decoder import Decoder
from sparktasks.runtime.generation.processors import Processor, processors_of
from sparktasks.runtime.generation.scheduler import BatchLimits, Scheduler
from sparktasks.runtime.generation.search import Generated, Request, Result, Rules
from sparktasks.runtime.generation.settings import Settings
from sparktasks.runtime.generation.stops import StopStrings
from sparktasks.runtime.generation.token_bytes import open_token_bytes
from sparktasks.runtime.generation.tokenizer import GenerationTokenizer, end_token_id, open_generation_tokenizer
from sparktasks.runtime.generation.words import NO_WORDS, BiasWords, Words
from sparktasks.runtime.session import RUN_SECONDS


@dataclass(frozen=True)
class Reading:
    """How prompts are read: at most ``max_length`` tokens, ``cut`` at the left or right.

    ``tidy`` says whether spaces before punctuation are removed from the generated text.
    """

    max_length: int | None = None
    cut: str = "left"
    tidy: bool = False


@dataclass(frozen=True)
class GeneratorOptions:
    """How a generator works, whatever its bundle: what it reads, how it searches, how much runs at once and where.

    ``run_seconds`` is the most that one run of a graph may take.
    """

    settings: Settings
    reading: Reading
    limits: BatchLimits
    words: Words = NO_WORDS
    device: str = "auto"
    run_seconds: float = RUN_SECONDS


@dataclass(frozen=True)
class Prompt:
    """The tokens of a prompt, whether some were cut off, and a token that must come first in the answer."""

    ids: tuple[int, ...]
    truncated: bool = False
    forced_first: int | None = None


class Generator:
    """Continues prompts (causal models), or answers them (encoder-decoder models)."""

    def __init__(self, bundle: Bundle, options: GeneratorOptions) -> None:
        reading = options.reading
        settings = options.settings
        self.settings = settings
        self.tokenizer: GenerationTokenizer = open_generation_tokenizer(bundle, reading.max_length, reading.cut)
        self.decoder = Decoder(
            bundle,
            options.device,
            piece=options.limits.run_tokens,
            run_seconds=options.run_seconds,
        )
        self.end_id = end_token_id(bundle, self.tokenizer)
        self._positions = bundle.positions
        self._longest = longest_text(bundle)
        self._tidies = reading.tidy
        rules = Rules(settings, self._processors(bundle, options.words), None)
        if settings.stop_strings:
            stops = StopStrings(settings.stop_strings, self.tokenizer)
            rules = replace(rules, stops=stops, stop_tokens=stops.tokens)
        self._scheduler = Scheduler(
            self.decoder,
            rules,
            options.limits,
            pad_id=self.tokenizer.pad_id,
            positions=bundle.positions,
        )

    def _processors(self, bundle: Bundle, words: Words) -> list[Processor]:
        """Choose the processors that words, settings and grammar ask for."""
        processors: list[Processor] = []
        if words.values():
            reads_prompt = self.decoder.layout.encoder is None
            processors.append(BiasWords(words, open_token_bytes(bundle, self.tokenizer), reads_prompt))
        processors += processors_of(self.settings)
        if self.settings.grammar:
            # The last one: no other processor can make a token likely again that the grammar forbids.
            processors.append(Constrain(self.settings.grammar, bundle, self.settings.eos_token_id))
        return processors

    def prompts(self, texts: Sequence[str], special: bool = True) -> list[Prompt]:
        """Turn texts into prompts; ``special`` says whether the tokenizer adds its special tokens."""
        prompts = []
        for encoding in self.tokenizer.encode(texts, offsets=False, special=special):
            prompts.append(Prompt(tuple(encoding.ids), truncated=bool(encoding.overflowing)))
        return prompts

    def from_start(self, prompt: Prompt) -> Prompt:
        """Turn a prompt without tokens into the token that begins a text, if the model has one."""
        if prompt.ids:
            return prompt
        return replace(prompt, ids=self.settings.bos_token_id)

    def run(self, prompts: Sequence[Prompt]) -> list[Result]:
        """Generate ``num_return_sequences`` texts for each prompt; equal prompts once.

        If a prompt fails, its result is the exception.
        """
        unique, places = distinct([(prompt.ids, prompt.forced_first) for prompt in prompts])
        copies = 1  # beams give several texts for one request
        if self.settings.num_beams == 1:
            copies = self.settings.num_return_sequences
        faults: list[DataError | None] = []
        requests: list[Request] = []
        for ids, forced_first in unique:
            fault = self._fault(ids, forced_first)
            faults.append(fault)
            if fault is None:
                requests += [self._request(ids, forced_first, copy) for copy in range(copies)]

        generated = iter(self._scheduler.run(requests))
        results: list[Result] = []
        for fault in faults:
            if fault is not None:
                results.append(fault)
            else:
                results.append(_joined([next(generated) for _ in range(copies)]))
        return [results[place] for place in places]

    def _fault(self, ids: tuple[int, ...], forced_first: int | None) -> DataError | None:
        """Return what is wrong with a prompt, or with the first token that its answer must have."""
        if not ids:
            return DataError("the tokenizer makes nothing of this text")
        layout = self.decoder.layout
        if layout.encoder is not None and self._longest is not None and len(ids) > self._longest:
            return too_long(len(ids), self._longest)
        fault = self._without_embedding(max(ids), layout.source_rows)
        if fault is not None:
            return DataError(f"the text has {fault}")
        if forced_first is not None:
            fault = self._without_embedding(forced_first, layout.target_rows)
            if fault is not None:
                return DataError(f"the generated text must begin with {fault}")
        return None

    def _without_embedding(self, token: int, rows: int | None) -> str | None:
        """Describe a token for which an embedding of so many rows has none; None if it has one."""
        if rows is None or token < rows:
            return None
        return without_embedding(self.tokenizer.decode([token], special=True), token, rows)

    def first_logits(self, prompt: Prompt) -> np.ndarray:
        """Return the model's logits of the first new token, ``(vocabulary,)``, float32."""
        request = self._request(prompt.ids, prompt.forced_first, 0)
        source = []
        if request.source:
            source = self.decoder.encode([request.source], self.tokenizer.pad_id)
        logits, _ = self.decoder.start([request.prompt], source)
        first_row: np.ndarray = logits[0]
        return first_row

    def _request(self, ids: tuple[int, ...], forced_first: int | None, copy: int) -> Request:
        """Return what the scheduler is asked for: a copy of the text that follows a prompt, or answers it."""
        settings = self.settings
        prompt = ids
        source: tuple[int, ...] = ()
        if self.decoder.layout.encoder is not None:
            prompt = (settings.decoder_start_token_id or 0,)
            source = ids
        limit = settings.limit(len(prompt))
        if self._positions is not None:
            limit = min(limit, self._positions - len(prompt))
        # What is sampled depends on this alone, so that a text is the same in whatever company it is generated.
        identity = repr((settings.seed, copy, forced_first, ids))
        key = hashlib.sha256(identity.encode()).digest()
        if forced_first is None:
            forced_first = settings.forced_bos_token_id
        return Request(
            prompt=prompt,
            source=source,
            key=key,
            forced_first=forced_first,
            limit=limit,
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        return self._cleaned(self.tokenizer.decode(ids))

    def continuation(self, prompt: Prompt, ids: Sequence[int]) -> str:
        """Return what tokens add to the text of a prompt: some spell differently at the beginning of a text."""
        before = self.tokenizer.decode(prompt.ids)
        whole = self.tokenizer.decode([*prompt.ids, *ids])
        return self._cleaned(whole[len(before) :])

    def _cleaned(self, text: str) -> str:
        if self._tidies:
            return tidied(text)
        return text


def _joined(results: Sequence[Result]) -> Result:
    """Join the texts that were generated one by one for a prompt; an error of one is an error of all."""
    texts: list[Generated] = []
    for result in results:
        if isinstance(result, Exception):
            return result
        texts += result
    return texts


_TIDY = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


def tidied(text: str) -> str:
    """Take out the spaces that word-wise tokenizers leave before punctuation, as transformers'
    clean_up_tokenization_spaces does.

    >>> tidied("It was n't me , it 's you .")
    "It wasn't me, it's you."
    """
    for spaced, tidy in _TIDY:
        text = text.replace(spaced, tidy)
    return text


_generators: ProcessCache[Generator] = ProcessCache(limit=16)


def open_generator(bundle: Bundle, options: GeneratorOptions) -> Generator:
    """Return this process's generator, made at first use: shared prefixes stay read from one window of rows to the
    next."""
    key = (bundle.hash, bundle.model, options, threads.count(), assigned_gpu())
    return _generators.get(key, lambda: Generator(bundle, options))
