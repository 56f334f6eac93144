"""A text generator on this machine: tokenizer, decoder and scheduler together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparktasks.errors import DataError
from sparktasks.runtime import threads
from sparktasks.runtime.batching import distinct
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.cache import ProcessCache
from sparktasks.runtime.checks import without_embedding
from sparktasks.runtime.devices import assigned_gpu
from sparktasks.runtime.generation.constraint import Constrain
from sparktasks.runtime.generation.decoder import Decoder
from sparktasks.runtime.generation.processors import Processor, processors_of
from sparktasks.runtime.generation.scheduler import Capacity, Result, Scheduler
from sparktasks.runtime.generation.search import Request, Rules
from sparktasks.runtime.generation.settings import Settings
from sparktasks.runtime.generation.stops import StopStrings
from sparktasks.runtime.generation.token_bytes import open_token_bytes
from sparktasks.runtime.generation.tokenizer import GenerationTokenizer, end_token_id, open_generation_tokenizer
from sparktasks.runtime.generation.words import NO_WORDS, BiasWords, Words
from sparktasks.runtime.session import RUN_SECONDS


@dataclass(frozen=True)
class Reading:
    """How prompts are read: at most ``max_length`` tokens, ``cut`` at the left or right.

    ``tidy`` tells whether spaces before punctuation are taken out of what is generated.
    """

    max_length: int | None = None
    cut: str = "left"
    tidy: bool = False


@dataclass(frozen=True)
class Prompt:
    """The tokens of a prompt, whether some were cut off, and a token that must come first in the answer."""

    ids: tuple[int, ...]
    truncated: bool = False
    first: int | None = None


class Generator:
    """Continues prompts (causal models), or answers them (encoder-decoder models)."""

    def __init__(
        self,
        bundle: Bundle,
        settings: Settings,
        reading: Reading,
        capacity: Capacity,
        words: Words = NO_WORDS,
        device: str = "auto",
        run_seconds: float = RUN_SECONDS,
    ) -> None:
        self.tokenizer: GenerationTokenizer = open_generation_tokenizer(bundle, reading.max_length, reading.cut)
        self.decoder = Decoder(bundle, device, capacity.run_tokens, run_seconds)
        self.settings = settings
        self.end_id = end_token_id(bundle, self.tokenizer)
        stops = StopStrings(settings.stop_strings, self.tokenizer) if settings.stop_strings else None
        rules = Rules(settings, self._processors(bundle, words), stops, stops.tokens if stops else 0)
        self._scheduler = Scheduler(self.decoder, rules, capacity, self.tokenizer.pad_id, bundle.positions)
        self._positions, self._tidy = bundle.positions, reading.tidy

    def _processors(self, bundle: Bundle, words: Words) -> list[Processor]:
        chosen: list[Processor] = []
        if words.values():
            reads_prompt = self.decoder.layout.encoder is None
            chosen.append(BiasWords(words, open_token_bytes(bundle, self.tokenizer), reads_prompt))
        chosen += processors_of(self.settings)
        if self.settings.grammar:
            chosen.append(Constrain(self.settings.grammar, bundle, self.settings.eos_token_id))
        return chosen

    def prompts(self, texts: Sequence[str], special: bool = True) -> list[Prompt]:
        """Turn texts into prompts; ``special`` says whether the tokenizer adds its special tokens."""
        found = self.tokenizer.encode(texts, offsets=False, special=special)
        return [Prompt(tuple(encoding.ids), bool(encoding.overflowing)) for encoding in found]

    def from_start(self, prompt: Prompt) -> Prompt:
        """Let a prompt without tokens be the token that begins a text, where the model has one."""
        return replace(prompt, ids=self.settings.bos_token_id) if not prompt.ids else prompt

    def run(self, prompts: Sequence[Prompt]) -> list[Result]:
        """Generate ``num_return_sequences`` texts for each prompt; equal prompts once.

        An exception stands for what went wrong with a prompt.
        """
        unique, inverse = distinct([(prompt.ids, prompt.first) for prompt in prompts])
        faults = [self._fault(ids, first) for ids, first in unique]
        copies = self.settings.num_return_sequences if self.settings.num_beams == 1 else 1
        requests = []
        for (ids, first), fault in zip(unique, faults, strict=True):
            if fault is None:
                requests += [self._request(ids, first, copy) for copy in range(copies)]
        generated = iter(self._scheduler.run(requests))
        results = [fault or _together([next(generated) for _ in range(copies)]) for fault in faults]
        return [results[place] for place in inverse]

    def _fault(self, ids: tuple[int, ...], first: int | None) -> DataError | None:
        """Return what is wrong with a prompt, or with the first token that its answer must have."""
        if not ids:
            return DataError("the tokenizer makes nothing of this text")
        layout = self.decoder.layout
        if fault := self._without_row(max(ids), layout.source_rows):
            return DataError(f"the text has {fault}")
        if first is not None and (fault := self._without_row(first, layout.target_rows)):
            return DataError(f"the generated text must begin with {fault}")
        return None

    def _without_row(self, token: int, rows: int | None) -> str | None:
        """Describe a token that an embedding of so many rows has none for; None where it has one."""
        if rows is None or token < rows:
            return None
        return without_embedding(self.tokenizer.decode([token], special=True), token, rows)

    def first_logits(self, prompt: Prompt) -> np.ndarray:
        """Return the model's logits of the first new token, ``(vocabulary,)``, float32."""
        request = self._request(prompt.ids, prompt.first, 0)
        source = self.decoder.encode([request.source], self.tokenizer.pad_id) if request.source else []
        found: np.ndarray = self.decoder.start([request.prompt], source)[0][0]
        return found

    def _request(self, ids: tuple[int, ...], first: int | None, copy: int) -> Request:
        settings = self.settings
        key = hashlib.sha256(repr((settings.seed, copy, first, ids)).encode()).digest()
        prompt = ids if self.decoder.layout.encoder is None else (settings.decoder_start_token_id or 0,)
        limit = settings.limit(len(prompt))
        if self._positions is not None:
            limit = min(limit, self._positions - len(prompt))
        forced = settings.forced_bos_token_id if first is None else first
        return Request(prompt, ids if self.decoder.layout.encoder else (), key, forced, limit)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, special ones left out."""
        return self._tidied(self.tokenizer.decode(ids))

    def continuation(self, prompt: Prompt, ids: Sequence[int]) -> str:
        """Return what tokens add to the text of a prompt: some spell differently at the beginning of a text."""
        before, whole = self.tokenizer.decode(prompt.ids), self.tokenizer.decode([*prompt.ids, *ids])
        return self._tidied(whole[len(before) :])

    def _tidied(self, text: str) -> str:
        return tidied(text) if self._tidy else text


def _together(results: Sequence[Result]) -> Result:
    """Join the texts that were generated one by one for a prompt."""
    fault = next((result for result in results if isinstance(result, Exception)), None)
    return fault or [each for result in results if not isinstance(result, Exception) for each in result]


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


def open_generator(
    bundle: Bundle,
    settings: Settings,
    reading: Reading,
    capacity: Capacity,
    words: Words = NO_WORDS,
    device: str = "auto",
    run_seconds: float = RUN_SECONDS,
) -> Generator:
    """Return this process's generator, made at first use: shared beginnings stay read from one window of rows to the
    next."""
    options = (settings, reading, capacity, words, device, run_seconds)
    key = (bundle.hash, bundle.model, options, threads.count(), assigned_gpu())
    return _generators.get(key, lambda: Generator(bundle, *options))
