"""Text generation on the executor: make prompts, generate, write the texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

import numpy as np
import pyarrow as pa

from sparktasks.errors import DataError, ParamError
from sparktasks.kernels.columns import DOCUMENT, Annotation, Annotations, build, kind_of
from sparktasks.kernels.generation import GeneratorRef, generated_document
from sparktasks.kernels.parcels import locate
from sparktasks.kernels.row_kernel import RowKernel, inherited
from sparktasks.runtime.generation.chat import open_chat_template
from sparktasks.runtime.generation.generator import Generator, Prompt
from sparktasks.runtime.generation.search import Generated, Result

_NO_PROMPT = DataError("the prompt is empty, and the model has no token to begin a text with")


@dataclass(frozen=True)
class Completion:
    """A prompt, and the texts that were generated for it, each beside what the generator tells of it."""

    prompt: Prompt
    texts: list[tuple[str, Generated]]


@dataclass(frozen=True, kw_only=True)
class GenerateTexts(RowKernel):
    """documents, or what a template or a chat is made of -> documents."""

    generator: GeneratorRef
    template: str | None
    messages: bool
    chat: bool
    system: str | None
    prefix: str
    returns_prompt: bool

    kind = DOCUMENT
    reads_empty = True

    def source(self, columns: Sequence[pa.Array]) -> Annotations:
        """Return the documents; or one for each row that has a prompt or a chat."""
        if self.template is not None:
            return _documents(fill_template(self.template, columns))
        if self.messages:
            # Only the places matter: `items` reads the chats themselves.
            return _documents(["" if present else None for present in columns[0].is_valid().to_pylist()])
        return Annotations(columns[0])

    def __call__(self, *columns: pa.Array) -> pa.Array:
        # A chat is no annotation column: the base class gets it as a further column, beside documents made here.
        if self.messages:
            return super().__call__(columns[0], *columns)
        return super().__call__(*columns)

    def items(self, source: Annotations, others: Sequence[pa.Array], usable: Sequence[int]) -> list[str | DataError]:
        """Return each prompt as the model reads it."""
        chats = others[0].to_pylist() if self.messages else [None] * len(source.lengths)
        prompts: list[str | DataError] = []
        for index in usable:
            chat = chats[source.rows[index]]
            try:
                prompts.append(self._prompt(str(source.result[index]), chat))
            except DataError as error:
                prompts.append(error)
        return prompts

    def _prompt(self, text: str, chat: Any) -> str:
        """Put the task's prefix before a prompt, and both into the bundle's chat template where one is asked for."""
        if not self.chat:
            return self.prefix + text
        template = open_chat_template(locate(self.generator.bundle))
        return template.render(self._conversation(text, chat))

    def _conversation(self, text: str, chat: Any) -> list[dict[str, str]]:
        """Return the messages of a chat; without one, the prompt as the user's only message."""
        messages = []
        if self.system is not None:
            messages.append({"role": "system", "content": self.system})
        if self.messages:
            messages.extend(_checked(chat))
        else:
            messages.append({"role": "user", "content": self.prefix + text})
        return messages

    def answers(self, items: Sequence[str]) -> list[Completion | Exception]:
        """Generate the texts of each prompt; an exception is what is wrong with it."""
        generator = self.generator.open()
        prompts = []
        # A chat template writes the model's special tokens itself.
        for prompt in generator.prompts(list(items), special=not self.chat):
            prompts.append(generator.from_start(prompt))
        results = iter(generator.run([prompt for prompt in prompts if prompt.ids]))
        answers: list[Completion | Exception] = []
        for prompt in prompts:
            result = next(results) if prompt.ids else _NO_PROMPT
            answers.append(_completion(generator, prompt, result))
        return answers

    def annotations(self, source: Annotations, index: int, item: str, answer: Completion) -> list[Annotation]:
        """Return one document for each generated text."""
        prefix = item if self.returns_prompt else ""
        metadata = inherited(source, index)
        documents = []
        for text, generated in answer.texts:
            documents.append(generated_document(prefix + text, answer.prompt, [generated], metadata))
        return documents


def _completion(generator: Generator, prompt: Prompt, result: Result) -> Completion | Exception:
    """Decode what was generated for one prompt."""
    if isinstance(result, Exception):
        return result
    texts = [(_new_text(generator, prompt, generated), generated) for generated in result]
    return Completion(prompt, texts)


def _new_text(generator: Generator, prompt: Prompt, generated: Generated) -> str:
    """Decode new tokens; a decoder's text continues the prompt, on which a space at the border depends."""
    if generator.decoder.layout.encoder:
        return generator.decode(generated.ids)
    return generator.continuation(prompt, generated.ids)


def _documents(prompts: Sequence[str | None]) -> Annotations:
    """Make one document of each prompt; a row without a prompt has none."""
    rows = []
    for prompt in prompts:
        row = []
        if prompt is not None:
            row.append(Annotation(DOCUMENT, 0, len(prompt) - 1, prompt, {"sentence": "0"}))
        rows.append(row)
    return Annotations(build(rows))


# -- templates


def template_fields(template: str, who: str = "promptTemplate") -> list[str]:
    """Return the names of the columns in a template, each once; `ParamError` where its braces are not paired.

    >>> template_fields("Translate into {language}: {document}")
    ['language', 'document']
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ParamError(
            f"{who}: promptTemplate={template!r} is not valid: {error}. Write {{{{ and }}}} for braces"
        ) from None
    fields = [part for part in parts if part[1] is not None]
    names = [str(name) for _, name, _, _ in fields]
    formats = {(spec, conversion) for _, _, spec, conversion in fields}
    # A template without any field has no format either.
    if formats != {_NO_FORMAT} or "" in names:
        raise ParamError(
            f"{who}: promptTemplate={template!r} must have names of columns in braces, and nothing else there"
        )
    return list(dict.fromkeys(names))


# How `Formatter` reads ``{name}``: neither ``:spec`` nor ``!conversion``.
_NO_FORMAT = ("", None)


def fill_template(template: str, columns: Sequence[pa.Array]) -> list[str | None]:
    """Fill a template with each row's values; a row that lacks one has no prompt."""
    # Not `str.format`, to which a dot or a bracket in the name of a column has a meaning.
    parts = [(literal, name) for literal, name, _, _ in Formatter().parse(template)]
    names = template_fields(template)
    printed_columns = [printed(column) for column in columns]
    prompts: list[str | None] = []
    for texts in zip(*printed_columns, strict=True):
        prompts.append(_filled(parts, dict(zip(names, texts, strict=True))))
    return prompts


def _filled(parts: Sequence[tuple[str, str | None]], texts: Mapping[str, str | None]) -> str | None:
    if None in texts.values():
        return None
    prompt = ""
    for literal, name in parts:
        prompt += literal
        # What follows the last field is a literal alone.
        if name is not None:
            prompt += str(texts[name])
    return prompt


def printed(column: pa.Array) -> list[str | None]:
    """Return each row's value as text; of annotations their results, one a line."""
    if kind_of(column.type) is not None:
        return [_lines(row) for row in Annotations(column).by_row()]
    as_text = _PRINTERS.get(column.type, str)
    texts = []
    for value in column.to_pylist():
        # pandas has no null beside NaN, which is the one value that differs from itself.
        is_missing = value is None or value != value
        texts.append(None if is_missing else as_text(value))
    return texts


# As a Python float, the 32-bit number 0.1 would print as 0.10000000149011612.
_PRINTERS: dict[pa.DataType, Callable[[Any], str]] = {pa.float32(): lambda value: str(np.float32(value))}


def _lines(annotations: Sequence[Annotation]) -> str | None:
    if not annotations:
        return None
    return "\n".join(annotation.result for annotation in annotations if annotation.result is not None)


def _checked(chat: Any) -> list[dict[str, str]]:
    """Return a chat's messages; `DataError` where one lacks its role or its content."""
    messages = []
    for message in chat:
        if message is not None:
            messages.append({"role": message.get("role"), "content": message.get("content")})
    complete = [message for message in messages if None not in message.values()]
    if not complete or len(complete) < len(messages):
        raise DataError("a chat needs messages, each with a role and a content")
    return messages
