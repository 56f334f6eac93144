"""Summarization by a model on the executor: make prompts, generate; of texts that are too long by windows first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from sparktasks.kernels.columns import DOCUMENT, Annotation, Annotations
from sparktasks.kernels.generation import GeneratorRef, generated_document
from sparktasks.kernels.row_kernel import RowKernel, inherited
from sparktasks.ops.sentences import halves, sentence_spans
from sparktasks.runtime.generation.generator import Generator, Prompt
from sparktasks.runtime.generation.search import Generated, Result


@dataclass
class _Shortened:
    """A text to summarize, as it stands after some rounds of summarizing its windows.

    ``rounds`` holds the number of windows of each round; ``cut`` tells whether a window lost its end.
    """

    text: str
    rounds: list[int] = field(default_factory=list)
    cut: bool = False
    fault: Exception | None = None

    def shortens(self, windows: int) -> bool:
        """Tell whether so many windows are worth a round: several, and fewer than in the last one."""
        return windows > 1 and (not self.rounds or windows < self.rounds[-1])

    def shorten(self, generator: Generator, windows: Sequence[Prompt], results: Sequence[Result]) -> None:
        """Become the summaries of one's windows."""
        self.rounds.append(len(windows))
        self.cut = self.cut or any(prompt.truncated for prompt in windows)
        summaries = []
        for result in results:
            if isinstance(result, Exception):
                self.fault = self.fault or result
                continue
            summaries.append(generator.decode(result[0].ids))
        self.text = " ".join(summaries)


@dataclass(frozen=True)
class Summary:
    """The summaries of a text, best first, each with what the generator tells; ``windows`` is 0 where the text fits."""

    prompt: Prompt
    texts: list[tuple[str, Generated]]
    windows: int


@dataclass(frozen=True, kw_only=True)
class AbstractTexts(RowKernel):
    """documents -> documents, written by a model."""

    generator: GeneratorRef
    prefix: str
    hierarchical: bool

    kind = DOCUMENT

    def answers(self, items: Sequence[str]) -> list[Summary | Exception]:
        """Return each text's summaries; an exception is what is wrong with it."""
        generator = self.generator.open()
        texts = [_Shortened(text) for text in items]
        prompts = list(generator.prompts([self.prefix + text for text in items]))
        if self.hierarchical:
            self._shorten(generator, texts, prompts)
        answers = []
        for text, prompt, result in zip(texts, prompts, generator.run(prompts), strict=True):
            answers.append(_summary(generator, text, prompt, result))
        return answers

    def _shorten(self, generator: Generator, texts: Sequence[_Shortened], prompts: list[Prompt]) -> None:
        """Put the summaries of its windows in the place of each text that is too long, until it is not, or their number
        falls no more."""
        frame = generator.prompts([self.prefix])[0]
        room = (generator.tokenizer.max_length or 0) - len(frame.ids)
        # A model without a limit reads any text whole; a prefix may leave no room for a text.
        if room <= 0:
            return
        changed = list(range(len(texts)))
        while changed:
            truncated = [place for place in changed if prompts[place].truncated]
            windows = self._long_windows(generator, texts, truncated, room)
            flat: list[Prompt] = []
            for text_windows in windows.values():
                flat.extend(text_windows)
            # The windows of all texts run together: the generator batches them.
            results = iter(generator.run(flat))
            for place, text_windows in windows.items():
                text_results = list(islice(results, len(text_windows)))
                texts[place].shorten(generator, text_windows, text_results)
            changed = list(windows)
            shortened = generator.prompts([self.prefix + texts[place].text for place in changed])
            for place, prompt in zip(changed, shortened, strict=True):
                prompts[place] = prompt

    def _long_windows(
        self, generator: Generator, texts: Sequence[_Shortened], places: Sequence[int], room: int
    ) -> dict[int, list[Prompt]]:
        """Return the windows of those texts at these places that another round makes shorter."""
        windows = {}
        for place in places:
            text_windows = self._windows(generator, texts[place].text, room)
            if texts[place].shortens(len(text_windows)):
                windows[place] = text_windows
        return windows

    def _windows(self, generator: Generator, text: str, room: int) -> list[Prompt]:
        """Cut a text between sentences into prompts that the model has room for; only sentences that are too long alone
        are cut."""
        sentences = sentence_spans(text)
        alone = generator.prompts([text[begin:end] for begin, end in sentences], special=False)
        windows = _packed(sentences, [len(prompt.ids) for prompt in alone], room)
        while True:
            prompts = list(generator.prompts([self.prefix + _between(text, window) for window in windows]))
            parts = _cut_truncated(text, windows, prompts)
            if len(parts) == len(windows):
                return prompts
            windows = parts

    def annotations(self, source: Annotations, index: int, item: str, answer: Summary) -> list[Annotation]:
        """Return one document for each summary."""
        metadata = inherited(source, index)
        if answer.windows:
            metadata["windows"] = str(answer.windows)
        return [generated_document(text, answer.prompt, [generated], metadata) for text, generated in answer.texts]


def _summary(generator: Generator, text: _Shortened, prompt: Prompt, result: Result) -> Summary | Exception:
    """Decode the summaries of one text."""
    if text.fault is not None:
        return text.fault
    if isinstance(result, Exception):
        return result
    summaries = [(generator.decode(generated.ids), generated) for generated in result]
    # The prompt is made of summaries, and may be whole where the text was not read to its end.
    truncated = prompt.truncated or text.cut
    windows = text.rounds[0] if text.rounds else 0
    return Summary(replace(prompt, truncated=truncated), summaries, windows)


# -- windows

_Span = tuple[int, int]


def _between(text: str, window: Sequence[_Span]) -> str:
    """Return a window's text, from its first sentence to its last one."""
    begin, _ = window[0]
    _, end = window[-1]
    return text[begin:end]


def _packed(sentences: Sequence[_Span], lengths: Sequence[int], room: int) -> list[list[_Span]]:
    """Join sentences to windows, from the first on, as long as their tokens have room together."""
    windows: list[list[_Span]] = []
    used = 0
    for sentence, length in zip(sentences, lengths, strict=True):
        if not windows or used + length > room:
            windows.append([])
            used = 0
        windows[-1].append(sentence)
        used += length
    return windows


def _cut_truncated(text: str, windows: list[list[_Span]], prompts: Sequence[Prompt]) -> list[list[_Span]]:
    """Cut the windows whose prompts are too long: one may have more tokens than its sentences have, each for itself."""
    parts = []
    for window, prompt in zip(windows, prompts, strict=True):
        if prompt.truncated:
            parts.extend(_split(text, window))
        else:
            parts.append(window)
    return parts


def _split(text: str, window: list[_Span]) -> list[list[_Span]]:
    """Cut a window in two: between sentences, or a sentence between words."""
    middle = len(window) // 2
    if middle:
        return [window[:middle], window[middle:]]
    begin, end = window[0]
    # A single character that is too long stays: it is cut by the tokenizer.
    if end - begin <= 1:
        return [window]
    return [[part] for part in halves(text, begin, end)]
