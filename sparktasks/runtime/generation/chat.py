"""Chats become prompts: a bundle's chat template, run in a sandbox with limits on time and output."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sparktasks.errors import BundleError, DataError, MissingDependency, listed
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.cache import ProcessCache

Message = Mapping[str, Any]

SECONDS = 5.0
CHARACTERS = 4_000_000
_FILES = ("chat_template.jinja", "chat_template.json")
_CONTINUED = "CONTINUE_FINAL_MESSAGE_TAG "


class ChatTemplate:
    """A chat template: messages in, prompt out. Raises `BundleError` where it is no valid template."""

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        environment = _environment()
        try:
            self._template = environment.from_string(source)
        except Exception as error:  # jinja2 raises a family of its own
            raise BundleError(f"the chat template is not valid: {error}") from error
        self._tokens = dict(tokens)

    def render(self, messages: Sequence[Message]) -> str:
        """Write a chat as a prompt that the assistant answers; one that ends with the assistant's own words is continued.

        Raises `DataError` where the template refuses the messages, runs for more than 5 seconds, or writes more than
        4 million characters.
        """
        continued = bool(messages) and messages[-1].get("role") == "assistant"
        text = self._written(_tagged(messages) if continued else messages, answer=not continued)
        if not continued:
            return text
        place = text.rfind(_CONTINUED.strip())
        if place < 0 or str(messages[-1]["content"]).strip() not in text:
            raise DataError("the chat template leaves out the assistant's last message, so it cannot be continued")
        return text[:place] if text.startswith(_CONTINUED, place) else text[:place].rstrip()

    def _written(self, messages: Sequence[Message], answer: bool) -> str:
        pieces: list[str] = []
        length = 0
        with _limited(SECONDS):
            try:
                for piece in self._template.generate(
                    messages=list(messages), tools=None, documents=None, add_generation_prompt=answer, **self._tokens
                ):
                    pieces.append(piece)
                    length += len(piece)
                    if length > CHARACTERS:
                        raise DataError(f"the chat template writes more than {CHARACTERS:,} characters")
            except DataError:
                raise
            except Exception as error:
                raise DataError(f"the chat template refuses these messages: {type(error).__name__}: {error}") from error
        return "".join(pieces)


def _tagged(messages: Sequence[Message]) -> list[Message]:
    last = dict(messages[-1])
    last["content"] = str(last["content"]) + _CONTINUED
    return [*messages[:-1], last]


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Interrupt what runs for too long; only a process's main thread can be interrupted."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def interrupt(*_: Any) -> None:
        raise DataError(f"the chat template runs for more than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _environment() -> Any:
    try:
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingDependency("jinja2", "a chat template", "chat") from error

    class Generation(Extension):
        """The tag that marks what the assistant wrote: for training only."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 has it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    def refuse(message: str) -> None:
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = _as_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda pattern: datetime.now().strftime(pattern)}
    return environment


def _as_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    """Write JSON without escaping HTML, as chat templates expect of their ``tojson``."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def read_chat_template(bundle: Bundle) -> str:
    """Return a bundle's chat template, of several the default one; `BundleError` where there is none."""
    found = next(filter(None, (_file(bundle, file) for file in _FILES)), None) or bundle.tokenizer_config.get("chat_template")
    if isinstance(found, list):  # of several, each has a name
        named = {entry["name"]: entry["template"] for entry in found}
        if "default" not in named:
            raise BundleError(f"{bundle.folder} has the chat templates {listed(named)}, and none called 'default'")
        return str(named["default"])
    if not found:
        raise BundleError(f"{bundle.folder} has no chat template, in chat_template.jinja or tokenizer_config.json: was it trained for chats?")
    return str(found)


def _file(bundle: Bundle, name: str) -> Any:
    path = bundle.folder / name
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    return json.loads(text).get("chat_template") if name.endswith(".json") else text


_templates: ProcessCache[ChatTemplate] = ProcessCache(limit=16)


def open_chat_template(bundle: Bundle) -> ChatTemplate:
    """Return this process's compiled form of a bundle's chat template."""
    return _templates.get(bundle.hash, lambda: ChatTemplate(read_chat_template(bundle), _special_tokens(bundle)))


def _special_tokens(bundle: Bundle) -> dict[str, str]:
    """Return the special tokens that templates name: ``bos_token``, ``eos_token`` and so on."""
    found = (bundle.read_json("special_tokens_map.json") or {}) | bundle.tokenizer_config
    named = {key: value.get("content") if isinstance(value, dict) else value for key, value in found.items() if key.endswith("_token")}
    return {key: value for key, value in named.items() if isinstance(value, str)}
