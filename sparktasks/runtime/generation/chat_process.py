"""The process that runs chat templates: they come with models, so that they are somebody else's programs.

jinja2's sandbox keeps a template from files and from Python's inside, but not from hanging (``9**(9**9)`` is one call
of C that no signal interrupts) nor from taking all memory. So templates run in a process of their own, which can be
ended, with a limit on its memory. It is started at first use, kept for the next chats, and ends with the process that
began it.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, BinaryIO

from sparktasks.errors import BundleError, DataError, MissingDependency

CHARACTERS = 4_000_000
MEMORY = 1024**3  # bytes of address space
_STARTING = 60.0  # seconds that a busy machine may need to start Python
_HEADER = struct.Struct(">I")
_CODE = "from sparktasks.runtime.generation.chat_process import serve; serve()"

Request = Mapping[str, Any]


class TemplateProcess:
    """A running process; chats of several threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, request: Request, seconds: float) -> str:
        """Let the process answer within some seconds; returns the text that a template writes.

        Raises `BundleError` where the template is not valid, `DataError` where it refuses the chat, takes longer,
        writes more than 4 million characters, or takes more than 1 GiB.
        """
        with self._lock:
            answer = self._answer(json.dumps(request).encode(), seconds)
        if "text" in answer:
            return str(answer["text"])
        raise (BundleError if answer["kind"] == "template" else DataError)(answer["error"])

    def _answer(self, request: bytes, seconds: float) -> dict[str, Any]:
        process = self._running()
        try:
            assert process.stdin is not None
            process.stdin.write(_HEADER.pack(len(request)) + request)
            process.stdin.flush()
            found: dict[str, Any] = json.loads(self._read(process, time.monotonic() + seconds))
            return found
        except TimeoutError:
            self._end()
            return {"kind": "data", "error": f"the chat template runs for more than {seconds:g} seconds"}
        except (OSError, EOFError):
            self._end()
            return {"kind": "data", "error": f"the chat template takes more than {MEMORY >> 20} MiB"}

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the process, started anew where it ended, or where this process was forked from the one that began
        it."""
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
            self._owner = os.getpid()
            try:
                self._read(self._process, time.monotonic() + _STARTING)
            except (EOFError, TimeoutError) as error:
                self._end()
                raise DataError(
                    f"the process for chat templates does not start: {sys.executable} ended or hangs"
                ) from error
        return self._process

    def _read(self, process: subprocess.Popen[bytes], deadline: float) -> bytes:
        assert process.stdout is not None
        size = _HEADER.unpack(_exactly(process.stdout, _HEADER.size, deadline))[0]
        return _exactly(process.stdout, size, deadline)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()


def _exactly(stream: Any, size: int, deadline: float) -> bytes:
    """Read so many bytes; `TimeoutError` where they do not come in time, `EOFError` where the stream ends before."""
    parts = bytearray()
    while len(parts) < size:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([stream], [], [], left)[0]:
            raise TimeoutError
        part = os.read(stream.fileno(), min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


_process = TemplateProcess()
atexit.register(_process.close)


def render(template: str, messages: Any, tokens: Mapping[str, str], answer: bool, seconds: float) -> str:
    """Write a chat as a template has it; ``answer`` says whether the assistant's turn is begun."""
    if _missing():
        raise MissingDependency("jinja2", "a chat template", "chat")
    return _process.ask({"template": template, "messages": messages, "tokens": dict(tokens), "answer": answer}, seconds)


def check(template: str, seconds: float) -> None:
    """Raise `BundleError` where a template is not valid."""
    if _missing():
        raise MissingDependency("jinja2", "a chat template", "chat")
    _process.ask({"template": template}, seconds)


def _missing() -> bool:
    import importlib.util

    return importlib.util.find_spec("jinja2") is None


# -- in the process


def serve() -> None:
    """Answer requests until there are no more: each a JSON object with its length before it, as the answers are."""
    _limit_memory()
    templates: dict[str, Any] = {}
    environment = _environment()
    _write(sys.stdout.buffer, {"text": "ready"})
    while header := sys.stdin.buffer.read(_HEADER.size):
        request = json.loads(sys.stdin.buffer.read(_HEADER.unpack(header)[0]))
        try:
            answer = _served(environment, templates, request)
        except MemoryError:
            answer = {"kind": "data", "error": f"the chat template takes more than {MEMORY >> 20} MiB"}
        _write(sys.stdout.buffer, answer)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _write(stream: BinaryIO, answer: Mapping[str, str]) -> None:
    content = json.dumps(answer).encode()
    stream.write(_HEADER.pack(len(content)) + content)
    stream.flush()


def _served(environment: Any, templates: dict[str, Any], request: Request) -> dict[str, str]:
    source = str(request["template"])
    try:
        if source not in templates:
            templates[source] = environment.from_string(source)
    except Exception as error:  # jinja2 raises a family of its own
        return {"kind": "template", "error": f"the chat template is not valid: {error}"}
    if "messages" not in request:
        return {"text": ""}
    try:
        return {"text": _generated(templates[source], request)}
    except MemoryError:
        raise
    except Exception as error:
        return {"kind": "data", "error": str(error) if isinstance(error, _TooLong) else _refusal(error)}


def _refusal(error: Exception) -> str:
    return f"the chat template refuses these messages: {type(error).__name__}: {error}"


class _TooLong(Exception):
    """A template writes without end."""


def _generated(template: Any, request: Request) -> str:
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
            raise _TooLong(f"the chat template writes more than {CHARACTERS:,} characters")
    return "".join(pieces)


def _environment() -> Any:
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The tag that marks what the assistant wrote: for training only."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 has it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    def refuse(message: str) -> None:
        raise ValueError(message)

    extensions = [Generation, loopcontrols]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = _as_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda pattern: datetime.now().strftime(pattern)}
    return environment


def _as_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Write JSON without escaping HTML, as chat templates expect of their ``tojson``."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
