"""Summarization by a model on the executor: make prompts, generate; of texts that are too long by windows first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

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
            else:
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
        answers: list[Summary | Exception] = []
        for text, prompt, result in zip(texts, prompts, generator.run(prompts), strict=True):
            if text.fault is not None:
                answers.append(text.fault)
            elif isinstance(result, Exception):
                answers.append(result)
            else:
                summaries = [(generator.decode(generated.ids), generated) for generated in result]
                whole = replace(prompt, truncated=prompt.truncated or text.cut)
                answers.append(Summary(whole, summaries, text.rounds[0] if text.rounds else 0))
        return answers

    def _shorten(self, generator: Generator, texts: Sequence[_Shortened], prompts: list[Prompt]) -> None:
        """Put the summaries of its windows in the place of each text that is too long, until it is not, or their number
        falls no more."""
        room = (generator.tokenizer.max_length or 0) - len(generator.prompts([self.prefix])[0].ids)
        changed = list(range(len(texts))) if room > 0 else []
        while changed:
            windows: dict[int, list[Prompt]] = {}
            flat: list[Prompt] = []
            for place in changed:
                if prompts[place].truncated:
                    text_windows = self._windows(generator, texts[place].text, room)
                    if texts[place].shortens(len(text_windows)):
                        windows[place] = text_windows
                        flat.extend(text_windows)
            # The windows of all texts run together: the generator batches them.
            results = iter(generator.run(flat))
            for place, text_windows in windows.items():
                texts[place].shorten(generator, text_windows, [next(results) for _ in text_windows])
            changed = list(windows)
            again = generator.prompts([self.prefix + texts[place].text for place in changed])
            for place, prompt in zip(changed, again, strict=True):
                prompts[place] = prompt

    def _windows(self, generator: Generator, text: str, room: int) -> list[Prompt]:
        """Cut a text between sentences into prompts that the model has room for; only sentences that are too long alone
        are cut."""
        sentences = sentence_spans(text)
        lengths = []
        for prompt in generator.prompts([text[begin:end] for begin, end in sentences], special=False):
            lengths.append(len(prompt.ids))
        windows = _packed(sentences, lengths, room)
        while True:
            prompts = generator.prompts([self.prefix + text[window[0][0] : window[-1][1]] for window in windows])
            # A window may have more tokens than its sentences have, each for itself.
            parts: list[list[_Span]] = []
            for window, prompt in zip(windows, prompts, strict=True):
                parts.extend(_split(text, window) if prompt.truncated else [window])
            if len(parts) == len(windows):
                return list(prompts)
            windows = parts

    def annotations(self, source: Annotations, index: int, item: str, answer: Summary) -> list[Annotation]:
        """Return one document for each summary."""
        metadata = inherited(source, index)
        if answer.windows:
            metadata["windows"] = str(answer.windows)
        return [generated_document(text, answer.prompt, [generated], metadata) for text, generated in answer.texts]


_Span = tuple[int, int]


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


def _split(text: str, window: list[_Span]) -> list[list[_Span]]:
    """Cut a window in two: between sentences, or a sentence between words."""
    if len(window) > 1:
        return [window[: len(window) // 2], window[len(window) // 2 :]]
    begin, end = window[0]
    return [[part] for part in halves(text, begin, end)] if end - begin > 1 else [window]
