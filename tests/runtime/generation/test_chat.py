"""Chat templates: what they write, what they must not do."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sparktasks.errors import BundleError, DataError
from sparktasks.runtime.generation import chat
from sparktasks.runtime.generation.chat import ChatTemplate

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
USER = {"role": "user", "content": "Hello"}


def test_a_chat_becomes_a_prompt() -> None:
    prompt = ChatTemplate("{{ bos_token }}" + CHATML, {"bos_token": "<s>"}).render(
        [{"role": "system", "content": " Be kind. "}, USER]
    )
    assert (
        prompt
        == "<s><|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_assistants_last_words_are_continued() -> None:
    prompt = ChatTemplate(CHATML, {}).render([USER, {"role": "assistant", "content": "Hi, I"}])
    assert prompt.endswith("<|im_start|>assistant\nHi, I")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('only users may speak') }}", "only users may speak"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{% for i in range(10000000) %}x{% endfor %}", "Range too big"),
        ("{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}", "writes more than 4,000,000 characters"),
        ("{{ nothing.there }}", "UndefinedError"),
    ],
)
def test_a_template_that_fails_is_a_fault_of_the_row(source: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ChatTemplate(source, {}).render([USER])


def test_a_template_that_does_not_end_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "SECONDS", 0.2)
    started = time.perf_counter()
    with pytest.raises(DataError, match=r"runs for more than 0\.2 seconds"):
        ChatTemplate("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", {}).render(
            [USER]
        )
    assert time.perf_counter() - started < 5


def test_a_template_that_is_not_valid_is_a_fault_of_the_bundle() -> None:
    with pytest.raises(BundleError, match="the chat template is not valid"):
        ChatTemplate("{% for %}", {})


class Folder:
    """A bundle's files, as far as chat templates go."""

    def __init__(self, folder: Any, config: dict[str, Any]) -> None:
        self.folder, self.tokenizer_config = folder, config


def test_templates_are_found_where_folders_have_them(tmp_path: Any) -> None:
    with pytest.raises(BundleError, match="has no chat template"):
        chat.read_chat_template(Folder(tmp_path, {}))  # type: ignore[arg-type]
    named = {"chat_template": [{"name": "default", "template": "a"}, {"name": "tools", "template": "b"}]}
    assert chat.read_chat_template(Folder(tmp_path, named)) == "a"  # type: ignore[arg-type]
    assert chat.read_chat_template(Folder(tmp_path, {"chat_template": "c"})) == "c"  # type: ignore[arg-type]
    (tmp_path / "chat_template.jinja").write_text("d")
    assert chat.read_chat_template(Folder(tmp_path, {"chat_template": "c"})) == "d"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ 9**(9**9) }}", r"runs for more than 1 seconds"),  # one call of C, which no signal interrupts
        (
            "{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
            "more than 1024 MiB|runs for",
        ),
    ],
)
def test_a_template_cannot_take_the_process_with_it(source: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "SECONDS", 1.0)
    with pytest.raises(DataError, match=message):
        ChatTemplate(source, {}).render([USER])
    assert ChatTemplate(CHATML, {}).render([USER]).endswith("assistant\n"), "the next chat is written"


def test_the_limit_holds_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "SECONDS", 1.0)
    endless = ChatTemplate("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", {})
    sound = ChatTemplate(CHATML, {})
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(endless.render, [USER]) for _ in range(2)]
        quick = [pool.submit(sound.render, [{"role": "user", "content": str(number)}]) for number in range(20)]
        assert [f"{number}<|im_end|>" in chat.result() for number, chat in enumerate(quick)] == [True] * 20
        assert all(isinstance(chat.exception(), DataError) for chat in slow)


def test_a_lone_surrogate_is_a_fault_of_its_row() -> None:
    with pytest.raises(DataError, match="lone surrogate"):
        ChatTemplate(CHATML, {}).render([{"role": "user", "content": "a\ud800b"}])
