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
_TEMPLATE_FILE, _JSON_FILE, _CONFIG_FILE = "chat_template.jinja", "chat_template.json", "tokenizer_config.json"

# transformers' own mark: it shows where the assistant's last message ends in the prompt.
_CONTINUED = "CONTINUE_FINAL_MESSAGE_TAG "


class ChatTemplate:
    """A chat template: messages in, prompt out. Raises `BundleError` if it is not valid."""

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        self._source = source
        self._tokens = dict(tokens)
        chat_process.check(source, SECONDS)

    def render(self, messages: Sequence[Message]) -> str:
        """Turn a chat into a prompt that the assistant answers, or continues if the last message is its own.

        Raises `DataError` if the template refuses the messages, runs for more than 5 seconds, writes more than
        4 million characters, or takes more than 1 GiB of memory.
        """
        if messages and messages[-1].get("role") == "assistant":
            return self._render_continued(messages)
        return self._render(messages, answer=True)

    def _render_continued(self, messages: Sequence[Message]) -> str:
        """Leave out what the template writes behind the last message."""
        content = str(messages[-1]["content"])
        marked = {**messages[-1], "content": content + _CONTINUED}
        text = self._render([*messages[:-1], marked], answer=False)
        end = text.rfind(_CONTINUED.strip())
        if end < 0 or content.strip() not in text:
            raise DataError("the chat template leaves out the assistant's last message, so it cannot be continued")
        if text.startswith(_CONTINUED, end):
            return text[:end]
        return text[:end].rstrip()  # the template trims messages: the mark lost its space

    def _render(self, messages: Sequence[Message], answer: bool) -> str:
        plain = [dict(message) for message in messages]
        text = chat_process.render(self._source, plain, self._tokens, answer, SECONDS)
        try:
            text.encode()
        except UnicodeEncodeError as error:  # no tokenizer reads that
            raise DataError(f"the chat has a lone surrogate, which is half a character: {error}") from error
        return text


def read_chat_template(bundle: Bundle) -> str:
    """Return a bundle's chat template, of several the default one; `BundleError` if there is none."""
    template = _read_file(bundle, _TEMPLATE_FILE)
    if not template:
        template = _read_file(bundle, _JSON_FILE)
    if not template:
        template = bundle.tokenizer_config.get("chat_template")
    if isinstance(template, list):  # several, each with its name
        with interpreting(bundle.folder / _CONFIG_FILE):
            template = {entry["name"]: entry["template"] for entry in template}
    if isinstance(template, dict):
        if "default" not in template:
            raise BundleError(f"{bundle.folder} has the chat templates {listed(template)}, and none called 'default'")
        template = template["default"]
    if not template:
        raise BundleError(
            f"{bundle.folder} has no chat template, in {_TEMPLATE_FILE} or {_CONFIG_FILE}: was it trained for chats?"
        )
    return str(template)


def _read_file(bundle: Bundle, name: str) -> Any:
    """Return the template, or the templates, in a file; None if there is no such file."""
    path = bundle.folder / name
    if not path.is_file():
        return None
    with interpreting(path):
        if name.endswith(".json"):
            return read_json(path).get("chat_template")
        return path.read_text(encoding="utf-8")


_templates: ProcessCache[ChatTemplate] = ProcessCache(limit=16)


def open_chat_template(bundle: Bundle) -> ChatTemplate:
    """Return this process's checked form of a bundle's chat template."""
    return _templates.get(bundle.hash, lambda: ChatTemplate(read_chat_template(bundle), _special_tokens(bundle)))


def _special_tokens(bundle: Bundle) -> dict[str, str]:
    """Return the special tokens that templates name: ``bos_token``, ``eos_token`` and so on."""
    return {role: str(token) for role, token in read_tokenizer_files(bundle).special.items()}
