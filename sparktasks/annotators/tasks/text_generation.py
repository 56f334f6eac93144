"""TextGenerator: continues prompts, answers chats, or turns texts into texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DateType,
    NumericType,
    StringType,
    StructField,
    StructType,
)

from sparktasks.errors import ColumnError, DataError, ParamError, listed
from sparktasks.runtime.generation.chat import open_chat_template, read_chat_template
from sparktasks.runtime.generation.constraint import json_grammar, regex_grammar
from sparktasks.runtime.generation.generator import Generator, Prompt
from sparktasks.runtime.generation.search import Generated
from sparktasks.runtime.generation.settings import Settings
from sparktasks.spark.annotations import DOCUMENT, Annotation, Annotations, build, is_annotations
from sparktasks.spark.annotator import annotate_each, failed, inherited
from sparktasks.spark.delivery import locate
from sparktasks.spark.fusion import Chain, Visible
from sparktasks.spark.generation_annotator import (
    GenerationAnnotator,
    GenerationRunner,
    described,
    is_seq2seq,
    task_params,
)
from sparktasks.spark.json_types import ReadJson, spark_type
from sparktasks.spark.params import P, one_of, param

if TYPE_CHECKING:
    from typing_extensions import Self


class TextGenerator(GenerationAnnotator):
    """Writes text with a language model, as transformers' ``text-generation`` and ``text2text-generation`` pipelines
    do.

    Each document is a prompt. Instead, ``promptTemplate`` makes one prompt a row from any columns, and ``messagesCol``
    reads a chat a row; ``chat`` puts prompts into the bundle's chat template.

    Writes document annotations: ``result`` is the new text (with ``returnFullText`` the prompt before it), ``score``
    the mean log-probability of its tokens; several for a prompt with ``numReturnSequences``. Metadata: ``sentence``,
    ``finish_reason`` (eos, stop or length), ``prompt_tokens``, ``new_tokens`` (the end token included), and
    ``truncated`` = "true" where a part of the prompt was cut off.

    Without settings of the bundle's own, texts are greedy and at most 256 tokens long; encoder-decoder models search
    with 4 beams, as their pipelines do.
    """

    reads = (DOCUMENT,)
    writes = DOCUMENT
    starter = "shakespeare-llama"

    outputCol: P[str] = param("name of the column to write", default="generation")
    promptTemplate: P[str | None] = param(
        (
            "one prompt a row: text with names of columns in braces, as in 'Summarize for {audience}: "
            "{document}'; inputCols is not read then"
        ),
        default=None,
    )
    messagesCol: P[str | None] = param(
        "column of chats, array<struct<role: string, content: string>>, to read instead of inputCols", default=None
    )
    chat: P[bool] = param(
        "whether each prompt is a user's message, to be put into the bundle's chat template", default=False
    )
    systemPrompt: P[str | None] = param(
        "a system message before each chat; makes prompts user's messages, as chat does", default=None
    )
    jsonSchema: P[dict[str, Any] | None] = param(
        "JSON schema (or pydantic model) that each text must follow; as much as maxNewTokens allows", default=None
    )
    parsedCol: P[str | None] = param(
        (
            "name of a column for each row's first text as a value of jsonSchema's type, such as a struct; null "
            "where the text is no whole JSON"
        ),
        default=None,
    )
    regex: P[str | None] = param(
        "regular expression that each text must match as a whole; as much as maxNewTokens allows", default=None
    )
    returnFullText: P[bool] = param("whether the prompt is part of the result", default=False)
    truncationSide: P[str] = param(
        "where a prompt that is too long loses its tokens", default="left", check=one_of("left", "right")
    )
    task: P[str | None] = param(
        "entry of config.json's task_specific_params whose prefix and settings are used", default=None
    )

    @property
    def cut(self) -> str:  # type: ignore[override]
        """The side that long prompts are cut at."""
        return str(self.getOrDefault("truncationSide"))

    def extend(self, chain: Chain) -> Chain:
        parsed, written = self.getOrDefault("parsedCol"), self.getOrDefault("outputCol")
        if parsed is None:
            return super().extend(chain)
        dtype = self.getJsonType()
        self.check_distinct([written, parsed])
        chain = super().extend(chain)
        return chain.add(ReadJson(dtype), [chain.find(written, self.uid)], StructField(parsed, dtype), self.uid)

    def kernel(self) -> GenerateTexts:
        """Return the executor half."""
        bundle, task = self.getBundle(), self.getOrDefault("task")
        chats = self._has_chats()
        if chats:
            read_chat_template(bundle)
            if self.getOrDefault("returnFullText"):
                raise ParamError(
                    f"{self.uid}: returnFullText=True is for prompts; a chat's result is the assistant's message"
                )
        if self.getOrDefault("returnFullText") and is_seq2seq(bundle):
            raise ParamError(
                f"{self.uid}: returnFullText=True is for models that continue prompts; {bundle.folder} holds "
                "one that answers them"
            )
        return GenerateTexts(
            runner=self.runner(self._constrained(self.settings(task))),
            template=self.getOrDefault("promptTemplate"),
            messages=self.getOrDefault("messagesCol") is not None,
            chat=chats,
            system=self.getOrDefault("systemPrompt"),
            prefix=str(task_params(bundle, task).get("prefix", "")),
            full=self.getOrDefault("returnFullText"),
            fails=self.fails(),
        )

    def _constrained(self, settings: Settings) -> Settings:
        """Add the grammar; a bundle's own rule against repetition, which was not made for JSON, is left out then."""
        grammar = self._grammar()
        if not grammar:
            return settings
        size = settings.no_repeat_ngram_size if self.getOrDefault("noRepeatNgramSize") is not None else 0
        return replace(settings, grammar=grammar, no_repeat_ngram_size=size, encoder_no_repeat_ngram_size=0)

    def _set(self, **kwargs: Any) -> Self:
        of_model = getattr(kwargs.get("jsonSchema"), "model_json_schema", None)  # pydantic's
        if of_model is not None:
            kwargs["jsonSchema"] = of_model()
        return super()._set(**kwargs)

    def getJsonType(self) -> DataType:
        """Return jsonSchema as a Spark type: parsedCol's, or for ``from_json``."""
        schema = self.getOrDefault("jsonSchema")
        if schema is None:
            raise ParamError(f"{self.uid}: jsonSchema is not set, so its texts have no type")
        return spark_type(schema)

    def _grammar(self) -> str:
        schema, regex = self.getOrDefault("jsonSchema"), self.getOrDefault("regex")
        if schema is not None and regex is not None:
            raise ParamError(f"{self.uid}: jsonSchema and regex={regex!r} cannot be combined")
        try:
            return json_grammar(schema) if schema is not None else regex_grammar(regex) if regex is not None else ""
        except ParamError as error:
            raise ParamError(f"{self.uid}: {error}") from None

    def _has_chats(self) -> bool:
        return any(
            (
                self.getOrDefault("chat"),
                self.getOrDefault("systemPrompt") is not None,
                self.getOrDefault("messagesCol") is not None,
            )
        )

    def _arranged(self, chain: Chain) -> list[Visible]:
        template, messages = self.getOrDefault("promptTemplate"), self.getOrDefault("messagesCol")
        if template is not None and messages is not None:
            raise ParamError(f"{self.uid}: promptTemplate and messagesCol={messages!r} cannot be combined")
        if template is not None:
            return [self._printable(chain, name) for name in fields_of(template, self.uid)]
        if messages is None:
            return super()._arranged(chain)
        column = chain.find(messages, self.uid)
        if column.dataType is not None and not _is_chat(column.dataType):
            fitting = [other.name for other in chain.visible if other.dataType is not None and _is_chat(other.dataType)]
            raise ColumnError(
                f"{self.uid}: the column {messages!r} is {column.dataType.simpleString()}, but "
                f"array<struct<role:string,content:string>> is expected. Columns that would fit: {listed(fitting)}"
            )
        return [column]

    def _printable(self, chain: Chain, name: str) -> Visible:
        column = chain.find(name, self.uid)
        if column.dataType is not None and not _is_printable(column.dataType):
            raise ColumnError(
                f"{self.uid}: promptTemplate names the column {name!r}, which is "
                f"{column.dataType.simpleString()}. It takes strings, numbers, "
                "booleans, dates, arrays of strings, and annotations: cast others to string, take one of "
                "their fields, or use to_json"
            )
        return column


def _is_printable(dtype: DataType) -> bool:
    if isinstance(dtype, ArrayType):
        return is_annotations(dtype) or isinstance(dtype.elementType, StringType)
    return isinstance(dtype, (StringType, NumericType, BooleanType, DateType))


def _is_chat(dtype: Any) -> bool:
    element = dtype.elementType if isinstance(dtype, ArrayType) else None
    return isinstance(element, StructType) and all(
        isinstance(element[name].dataType, StringType) if name in element.names else False
        for name in ("role", "content")
    )


def fields_of(template: str, who: str = "promptTemplate") -> list[str]:
    """Return the names of the columns in a template, each once; `ParamError` where its braces are not paired.

    >>> fields_of("Translate into {language}: {document}")
    ['language', 'document']
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ParamError(
            f"{who}: promptTemplate={template!r} is not valid: {error}. Write {{{{ and }}}} for braces"
        ) from None
    names = list(dict.fromkeys(name for _, name, _, _ in parts if name is not None))
    if not names or "" in names or any(spec or conversion for _, _, spec, conversion in parts):
        raise ParamError(
            f"{who}: promptTemplate={template!r} must have names of columns in braces, and nothing else there"
        )
    return names


@dataclass(frozen=True)
class GenerateTexts:
    """documents, or what a template or a chat is made of -> documents."""

    runner: GenerationRunner
    template: str | None
    messages: bool
    chat: bool
    system: str | None
    prefix: str
    full: bool
    fails: bool

    def __call__(self, *columns: pa.Array) -> pa.Array:
        if self.template is not None:
            return self._annotated(Annotations(build([_row(prompt) for prompt in _filled(self.template, columns)])))
        if self.messages:
            chats = columns[0].to_pylist()
            return self._annotated(Annotations(build([_row(None if chat is None else "") for chat in chats])), chats)
        return self._annotated(Annotations(columns[0]))

    def _annotated(self, source: Annotations, chats: Sequence[Any] | None = None) -> pa.Array:
        def compute(usable: list[int]) -> list[list[Annotation]]:
            made: dict[int, list[Annotation]] = {}
            texts: dict[int, str] = {}
            for index in usable:
                try:
                    texts[index] = self._prompt(
                        source.result[index], None if chats is None else chats[source.rows[index]]
                    )
                except DataError as error:
                    made[index] = [failed(DOCUMENT, source, index, error)]
            made |= dict(zip(texts, self._written(source, texts), strict=True)) if texts else {}
            return [made[index] for index in usable]

        return annotate_each(DOCUMENT, source, compute, self.fails, empty=True)

    def _prompt(self, text: str | None, chat: Any) -> str:
        """Write a prompt, or the chat that it is part of, as the model wants it."""
        if not self.chat:
            return self.prefix + str(text)
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        messages = _checked(chat) if self.messages else [{"role": "user", "content": self.prefix + str(text)}]
        return open_chat_template(locate(self.runner.bundle)).render([*system, *messages])

    def _written(self, source: Annotations, texts: dict[int, str]) -> list[list[Annotation]]:
        generator = self.runner.open()
        prompts = [
            generator.from_start(prompt) for prompt in generator.prompts(list(texts.values()), special=not self.chat)
        ]
        results = generator.run([prompt for prompt in prompts if prompt.ids])
        found = iter(results)
        made = []
        for (index, text), prompt in zip(texts.items(), prompts, strict=True):
            result = (
                next(found)
                if prompt.ids
                else DataError("the prompt is empty, and the model has no token to begin a text with")
            )
            if isinstance(result, Exception):
                made.append([failed(DOCUMENT, source, index, result)])
            else:
                made.append([self._annotation(generator, source, index, text, prompt, each) for each in result])
        return made

    def _annotation(
        self, generator: Generator, source: Annotations, index: int, text: str, prompt: Prompt, made: Generated
    ) -> Annotation:
        written = (
            generator.decode(made.ids) if generator.decoder.layout.encoder else generator.continuation(prompt, made.ids)
        )
        return described((text if self.full else "") + written, prompt, [made], inherited(source, index))


def _row(prompt: str | None) -> list[Annotation]:
    return [] if prompt is None else [Annotation(DOCUMENT, 0, len(prompt) - 1, prompt, {"sentence": "0"})]


def _filled(template: str, columns: Sequence[pa.Array]) -> list[str | None]:
    """Fill a template with each row's values; a row that lacks one has no prompt."""
    parts = [(literal, name) for literal, name, _, _ in Formatter().parse(template)]
    values = dict(zip(fields_of(template), map(_texts, columns), strict=True))
    rows = [{name: texts[row] for name, texts in values.items()} for row in range(len(columns[0]))]
    return [
        None
        if None in row.values()
        else "".join(literal + (row[name or ""] or "" if name else "") for literal, name in parts)
        for row in rows
    ]


def _texts(column: pa.Array) -> list[str | None]:
    """Return each row's value as text; of annotations their results, one a line."""
    if (
        pa.types.is_list(column.type)
        and pa.types.is_struct(column.type.value_type)
        and "result" in [field.name for field in column.type.value_type]
    ):
        rows = Annotations(column).by_row()
        return ["\n".join(each.result for each in row if each.result is not None) if row else None for row in rows]
    values = column.to_pylist()
    if pa.types.is_float32(column.type):
        values = [None if value is None else np.float32(value) for value in values]  # 0.1 is 0.1 then
    return [
        None if value is None or value != value else str(value) for value in values
    ]  # pandas has no NaN beside null


def _checked(chat: Any) -> list[dict[str, str]]:
    messages = [{key: message.get(key) for key in ("role", "content")} for message in chat if message is not None]
    if not messages or not all(isinstance(value, str) for message in messages for value in message.values()):
        raise DataError("a chat needs messages, each with a role and a content")
    return messages
