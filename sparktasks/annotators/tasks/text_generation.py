"""TextGenerator: continues prompts, answers chats, or turns texts into texts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pyspark.sql.types import DataType, StructField

from sparktasks.errors import ParamError
from sparktasks.kernels.columns import DOCUMENT
from sparktasks.kernels.json_values import ReadJson
from sparktasks.kernels.text_generation import GenerateTexts, template_fields
from sparktasks.runtime.generation.chat import read_chat_template
from sparktasks.runtime.generation.constraint import json_grammar, regex_grammar
from sparktasks.runtime.generation.settings import Settings
from sparktasks.spark.fusion import Chain
from sparktasks.spark.generation_annotator import GenerationAnnotator, is_seq2seq, task_params
from sparktasks.spark.inputs import CHATS, PRINTABLE, Visible
from sparktasks.spark.json_types import json_type
from sparktasks.spark.params import P, one_of, param
from sparktasks.spark.types import arrow_type

if TYPE_CHECKING:
    from typing_extensions import Self


class TextGenerator(GenerationAnnotator):
    """Generates text with a language model, as transformers' ``text-generation`` and ``text2text-generation`` pipelines
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
        return str(self.getOrDefault(self.truncationSide))

    def extend(self, chain: Chain) -> Chain:
        parsed, written = self.getOrDefault(self.parsedCol), self.getOrDefault(self.outputCol)
        if parsed is None:
            return super().extend(chain)
        dtype = self.getJsonType()
        # The parsed column is made of the written one by a kernel of its own, in the same run.
        self.check_distinct([written, parsed])
        chain = super().extend(chain)
        return chain.add(
            ReadJson(arrow_type(dtype)), [chain.find(written, self.uid)], StructField(parsed, dtype), self.uid
        )

    def kernel(self) -> GenerateTexts:
        """Return the executor half."""
        bundle, task = self.getBundle(), self.getOrDefault(self.task)
        chats = self._has_chats()
        if chats:
            # A template that is missing or broken is to be said now, and not by each row.
            read_chat_template(bundle)
            if self.getOrDefault(self.returnFullText):
                raise ParamError(
                    f"{self.uid}: returnFullText=True is for prompts; a chat's result is the assistant's message"
                )
        if self.getOrDefault(self.returnFullText) and is_seq2seq(bundle):
            raise ParamError(
                f"{self.uid}: returnFullText=True is for models that continue prompts; {bundle.folder} holds "
                "one that answers them"
            )
        return GenerateTexts(
            generator=self.generator_ref(self._constrained(self.settings(task))),
            template=self.getOrDefault(self.promptTemplate),
            messages=self.getOrDefault(self.messagesCol) is not None,
            chat=chats,
            system=self.getOrDefault(self.systemPrompt),
            prefix=str(task_params(bundle, task).get("prefix", "")),
            returns_prompt=self.getOrDefault(self.returnFullText),
            fails=self.fails(),
        )

    def _constrained(self, settings: Settings) -> Settings:
        """Add the grammar; a bundle's own rule against repetition, which was not made for JSON, is left out then."""
        grammar = self._grammar()
        if not grammar:
            return settings
        # The user's own wish counts.
        size = 0
        if self.getOrDefault(self.noRepeatNgramSize) is not None:
            size = settings.no_repeat_ngram_size
        return replace(settings, grammar=grammar, no_repeat_ngram_size=size, encoder_no_repeat_ngram_size=0)

    def _set(self, **kwargs: Any) -> Self:
        # A pydantic model tells its schema; pydantic itself need not be installed.
        model_schema = getattr(kwargs.get("jsonSchema"), "model_json_schema", None)
        if model_schema is not None:
            kwargs["jsonSchema"] = model_schema()
        return super()._set(**kwargs)

    def getJsonType(self) -> DataType:
        """Return jsonSchema as a Spark type: parsedCol's, or for ``from_json``."""
        schema = self.getOrDefault(self.jsonSchema)
        if schema is None:
            raise ParamError(f"{self.uid}: jsonSchema is not set, so its texts have no type")
        return json_type(schema)

    def _grammar(self) -> str:
        schema, regex = self.getOrDefault(self.jsonSchema), self.getOrDefault(self.regex)
        if schema is not None and regex is not None:
            raise ParamError(f"{self.uid}: jsonSchema and regex={regex!r} cannot be combined")
        try:
            if schema is not None:
                return json_grammar(schema)
            return "" if regex is None else regex_grammar(regex)
        except ParamError as error:
            raise ParamError(f"{self.uid}: {error}") from None

    def _has_chats(self) -> bool:
        """Tell whether prompts are put into the bundle's chat template."""
        has_system = self.getOrDefault(self.systemPrompt) is not None
        has_messages = self.getOrDefault(self.messagesCol) is not None
        return bool(self.getOrDefault(self.chat)) or has_system or has_messages

    def columns(self, chain: Chain) -> list[Visible]:
        template, messages = self.getOrDefault(self.promptTemplate), self.getOrDefault(self.messagesCol)
        if template is not None and messages is not None:
            raise ParamError(f"{self.uid}: promptTemplate and messagesCol={messages!r} cannot be combined")
        if template is not None:
            return [chain.find(name, self.uid, PRINTABLE) for name in template_fields(template, self.uid)]
        if messages is not None:
            return [chain.find(messages, self.uid, CHATS)]
        return super().columns(chain)
