"""Chats become prompts: a bundle's chat template, run in a process of its own with limits on time, memory and
output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparktasks.errors import BundleError, DataError, listed
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.cache import ProcessCache
from sparktasks.runtime.folder_files import interpreting, read_json
from sparktasks.runtime.generation import chat_process
from sparktasks.runtime.tokenizer_files import read_tokenizer_files

Message = Mapping[str, Any]

SECONDS = 5.0
_FILES = ("chat_template.jinja", "chat_template.json")
_CONTINUED = "CONTINUE_FINAL_MESSAGE_TAG "


class ChatTemplate:
    """A chat template: messages in, prompt out. Raises `BundleError` where it is no valid template."""

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        self._source, self._tokens = source, dict(tokens)
        chat_process.check(source, SECONDS)

    def render(self, messages: Sequence[Message]) -> str:
        """Write a chat as a prompt that the assistant answers; one that ends with the assistant's own words is
        continued.

        Raises `DataError` where the template refuses the messages, runs for more than 5 seconds, writes more than
        4 million characters, or takes more than 1 GiB of memory.
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
        text = chat_process.render(self._source, [dict(message) for message in messages], self._tokens, answer, SECONDS)
        try:
            text.encode()
        except UnicodeEncodeError as error:  # no tokenizer reads that
            raise DataError(f"the chat has a lone surrogate, which is half a character: {error}") from error
        return text


def _tagged(messages: Sequence[Message]) -> list[Message]:
    last = dict(messages[-1])
    last["content"] = str(last["content"]) + _CONTINUED
    return [*messages[:-1], last]


def read_chat_template(bundle: Bundle) -> str:
    """Return a bundle's chat template, of several the default one; `BundleError` where there is none."""
    found = next(filter(None, (_file(bundle, file) for file in _FILES)), None) or bundle.tokenizer_config.get(
        "chat_template"
    )
    if isinstance(found, list):  # of several, each has a name
        with interpreting(bundle.folder / "tokenizer_config.json"):
            found = {entry["name"]: entry["template"] for entry in found}
    if isinstance(found, dict):
        if "default" not in found:
            raise BundleError(f"{bundle.folder} has the chat templates {listed(found)}, and none called 'default'")
        found = found["default"]
    if not found:
        raise BundleError(
            f"{bundle.folder} has no chat template, in chat_template.jinja or tokenizer_config.json: was it "
            "trained for chats?"
        )
    return str(found)


def _file(bundle: Bundle, name: str) -> Any:
    path = bundle.folder / name
    if not path.is_file():
        return None
    with interpreting(path):
        return read_json(path).get("chat_template") if name.endswith(".json") else path.read_text(encoding="utf-8")


_templates: ProcessCache[ChatTemplate] = ProcessCache(limit=16)


def open_chat_template(bundle: Bundle) -> ChatTemplate:
    """Return this process's checked form of a bundle's chat template."""
    return _templates.get(bundle.hash, lambda: ChatTemplate(read_chat_template(bundle), _special_tokens(bundle)))


def _special_tokens(bundle: Bundle) -> dict[str, str]:
    """Return the special tokens that templates name: ``bos_token``, ``eos_token`` and so on."""
    return {role: str(token) for role, token in read_tokenizer_files(bundle).special.items()}
