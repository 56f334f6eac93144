"""The process that runs chat templates: they come with models, so they are somebody else's programs.

jinja2's sandbox keeps a template from files and from Python's inside, but not from hanging (``9**(9**9)`` is one call
of C that no signal handler interrupts) nor from taking all memory. So templates run in a process of their own, which
can be ended, with a limit on its memory. Each process has at most one of them, for all of its threads: it is started
at first use, kept for the next chats, and ends when it has been idle for a minute, or with the process that started
it. A fork does not inherit it.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from sparktasks.errors import BundleError, DataError, MissingDependency
from sparktasks.runtime.generation.chat_server import TOO_MUCH_MEMORY, read_message, write_message

IDLE_SECONDS = 60.0
_STARTING = 60.0  # seconds that a busy machine may need to start Python
_CODE = "from sparktasks.runtime.generation.chat_server import serve; serve({idle_seconds})"


class TemplateProcess:
    """A process that is started when it is needed; chats of several threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: Mapping[str, Any], seconds: float) -> str:
        """Let the process answer within some seconds; returns the text that a template writes.

        Raises `BundleError` if the template is not valid, `DataError` if it refuses the chat, takes longer, writes
        more than 4 million characters, or takes more than 1 GiB.
        """
        with self._lock:
            answer = self._answer({**request, "seconds": seconds}, seconds)
        if "text" in answer:
            return str(answer["text"])
        raise (BundleError if answer["kind"] == "template" else DataError)(answer["error"])

    def _answer(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        too_long = f"the chat template runs for more than {seconds:g} seconds"
        while True:
            process = self._running()
            try:
                write_message(process.stdin, request)
                return read_message(process.stdout, seconds)
            except TimeoutError:
                self._end()
                return {"kind": "data", "error": too_long}
            except (OSError, EOFError):
                status = self._end()
                if status == -signal.SIGALRM:
                    return {"kind": "data", "error": too_long}
                if status != 0:
                    return {"kind": "data", "error": TOO_MUCH_MEMORY}
                # Its idle time was over just when it was asked: a new one answers.
            except BaseException:
                self._end()  # its answer to this request must not be taken for the next one's
                raise

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the process, started anew if it has ended."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        if importlib.util.find_spec("jinja2") is None:
            raise MissingDependency("jinja2", "a chat template", "chat")
        self._end()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE.format(idle_seconds=IDLE_SECONDS)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        try:
            read_message(self._process.stdout, _STARTING)
        except (EOFError, TimeoutError) as error:
            self._end()
            raise DataError(
                f"the process for chat templates does not start: {sys.executable} ended or hangs"
            ) from error
        except BaseException:
            self._end()
            raise
        return self._process

    def _end(self) -> int | None:
        """End the process; returns its exit status, which is its own if it has ended by itself."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        process.communicate()  # waits for it, and closes the pipes
        return process.returncode

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def forget(self) -> None:
        """Leave the process to the one that this process was forked from."""
        self._lock = threading.Lock()  # the old one may be held by a thread that was not forked
        process, self._process = self._process, None
        if process is not None:
            # It ends when all copies of its pipe are closed, so this one must not stay open.
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
            process.returncode = 0  # it is no child of this process: nobody here can wait for it


_process = TemplateProcess()
atexit.register(_process.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.forget)


def render(
    template: str,
    messages: Any,
    tokens: Mapping[str, str],
    answer: bool,
    seconds: float,
) -> str:
    """Turn a chat into a prompt as a template has it; ``answer`` says whether the assistant's turn begins at its
    end."""
    request = {"template": template, "messages": messages, "tokens": dict(tokens), "answer": answer}
    return _process.ask(request, seconds)


def check(template: str, seconds: float) -> None:
    """Raise `BundleError` if a template is not valid."""
    _process.ask({"template": template}, seconds)
