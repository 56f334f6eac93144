"""What runs in the process for chat templates: it renders one after the other, within limits.

The process ends by itself when nobody asks it for a while, when its caller is gone, and in the middle of a template
that runs for too long, even if there is no caller left to end it.
"""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

CHARACTERS = 4_000_000
MEMORY = 1024**3  # bytes of address space
TOO_MUCH_MEMORY = f"the chat template takes more than {MEMORY >> 20} MiB"

_HEADER = struct.Struct(">I")
_KEPT_TEMPLATES = 16
_GRACE = 1.0  # seconds that a caller has to end this process before it ends itself


class _TooLong(Exception):
    """A template writes without end."""


# -- messages: a JSON object each, with its length before it


def read_message(pipe: Any, seconds: float) -> dict[str, Any]:
    """Read a message from a file object; `TimeoutError` if it takes longer, `EOFError` if the other side ends
    before."""
    deadline = time.monotonic() + seconds
    (size,) = _HEADER.unpack(_read_exactly(pipe.fileno(), _HEADER.size, deadline))
    message: dict[str, Any] = json.loads(_read_exactly(pipe.fileno(), size, deadline))
    return message


def _read_exactly(descriptor: int, size: int, deadline: float) -> bytes:
    content = bytearray()
    while len(content) < size:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            raise TimeoutError
        part = os.read(descriptor, min(size - len(content), 1 << 20))
        if not part:
            raise EOFError
        content += part
    return bytes(content)


def write_message(pipe: Any, message: Mapping[str, Any]) -> None:
    """Write a message to a file object; `BrokenPipeError` if the other side has ended."""
    content = json.dumps(message).encode()
    rest = memoryview(_HEADER.pack(len(content)) + content)
    while rest:
        rest = rest[os.write(pipe.fileno(), rest) :]


# -- the process


def serve(idle_seconds: float) -> None:
    """Answer requests until there is none for so many seconds, or the caller is gone."""
    import resource  # not on Windows, where the caller's process must be able to import this module all the same

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    # The default action of this signal ends a process whatever it is doing, a single long call of C included.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    compile_template = functools.lru_cache(_KEPT_TEMPLATES)(_environment().from_string)
    write_message(sys.stdout, {"text": "ready"})
    while True:
        try:
            request = read_message(sys.stdin, idle_seconds)
        except (EOFError, TimeoutError):
            return
        signal.setitimer(signal.ITIMER_REAL, request["seconds"] + _GRACE)
        answer = _answer(compile_template, request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        write_message(sys.stdout, answer)


def _answer(compile_template: Callable[[str], Any], request: Mapping[str, Any]) -> dict[str, str]:
    """Return the ``text`` of a template, or an ``error`` and its ``kind``: of the template or of the chat's data."""
    try:
        template = compile_template(request["template"])
    except MemoryError:
        return {"kind": "data", "error": TOO_MUCH_MEMORY}
    except Exception as error:  # jinja2 raises a family of its own
        return {"kind": "template", "error": f"the chat template is not valid: {error}"}
    if "messages" not in request:
        return {"text": ""}
    try:
        return {"text": _render(template, request)}
    except MemoryError:
        return {"kind": "data", "error": TOO_MUCH_MEMORY}
    except _TooLong:
        return {"kind": "data", "error": f"the chat template writes more than {CHARACTERS:,} characters"}
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return {"kind": "data", "error": f"the chat template refuses these messages: {reason}"}


def _render(template: Any, request: Mapping[str, Any]) -> str:
    pieces: list[str] = []
    length = 0
    values = {
        "messages": request["messages"],
        "tools": None,
        "documents": None,
        "add_generation_prompt": request["answer"],
    }
    for piece in template.generate(**values, **request["tokens"]):
        pieces.append(piece)
        length += len(piece)
        if length > CHARACTERS:
            raise _TooLong
    return "".join(pieces)


# -- the language of templates, as transformers has it


def _environment() -> Any:
    """Return jinja2's sandbox with what chat templates expect of it."""
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The tag that marks what the assistant wrote: for training only."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 has it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, loopcontrols],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON without escaping HTML, which jinja2's own ``tojson`` does."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise ValueError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
