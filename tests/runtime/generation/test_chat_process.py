"""The process that runs chat templates: never more than one, and gone when nobody needs it any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sparktasks.errors import DataError
from sparktasks.runtime.generation import chat_process
from sparktasks.runtime.generation.chat_process import TemplateProcess

PLAIN = {"template": "{{ messages[0].content }}", "tokens": {}, "answer": False}
ENDLESS = "{{ 9**(9**9) }}"  # one call of C
WAIT = 20.0


def ask(process: TemplateProcess, content: str = "Hello", template: str = PLAIN["template"], seconds: float = 5) -> str:
    return process.ask(PLAIN | {"template": template, "messages": [{"content": content}]}, seconds)


@pytest.fixture
def process() -> Iterator[TemplateProcess]:
    process = TemplateProcess()
    yield process
    process.close()


def children(parent: int) -> set[int]:
    """Return the processes that a process started and that still run."""
    running = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if int(ppid) == parent and state != "Z":
            running.add(int(path.parent.name))
    return running


def helpers(parent: int) -> set[int]:
    """Return the processes for chat templates that a process started."""
    return {child for child in children(parent) if b"chat_server" in command(child)}


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def runs(pid: int) -> bool:
    return b"chat_server" in command(pid)


def wait_until(condition: Callable[[], bool], message: str) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, message
        time.sleep(0.05)


def test_threads_share_one_process(process: TemplateProcess) -> None:
    before = helpers(os.getpid())
    seen: set[int] = set()

    def render(number: int) -> str:
        text = ask(process, str(number))
        seen.update(helpers(os.getpid()) - before)
        return text

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(render, range(64))) == [str(number) for number in range(64)]
    assert len(seen) == 1


def test_a_process_that_was_ended_is_replaced_not_joined_by_another(process: TemplateProcess) -> None:
    before = helpers(os.getpid())
    for _ in range(3):
        with pytest.raises(DataError, match=r"runs for more than 0\.2 seconds"):
            ask(process, template=ENDLESS, seconds=0.2)
        assert helpers(os.getpid()) == before
        assert ask(process, "again") == "again"
        assert len(helpers(os.getpid()) - before) == 1


def test_an_idle_process_ends_and_the_next_chat_starts_another(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_process, "IDLE_SECONDS", 0.3)
    before = helpers(os.getpid())
    assert ask(process) == "Hello"
    (first,) = helpers(os.getpid()) - before
    wait_until(lambda: not runs(first), "the idle process goes on")
    assert ask(process, "again") == "again"
    assert first not in helpers(os.getpid())


def test_a_chat_that_comes_just_when_the_process_ends_is_answered(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(chat_process, "IDLE_SECONDS", 0.0)
        ended = process._running()
        assert ended.wait(WAIT) == 0
    monkeypatch.setattr(ended, "poll", lambda: None)  # it ends right after it was looked at
    assert ask(process) == "Hello"
    assert process._process is not ended


def test_an_interrupted_chat_leaves_no_answer_for_the_next_one(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(process, "first") == "first"

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(chat_process, "read_message", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ask(process, "second")
    assert ask(process, "third") == "third"


# -- parents that are killed

PARENT = """
import os, sys, time
from sparktasks.runtime.generation import chat_process
chat_process.render("{{ messages[0].content }}", [{"content": "a"}], {}, False, 30)
print(chat_process._process._process.pid, flush=True)
"""
SLEEP = "time.sleep(600)"
FORK = """
child = os.fork()
if child == 0:
    time.sleep(600)
print(child, flush=True)
time.sleep(600)
"""
HANG = f"chat_process.render({ENDLESS!r}, [], {{}}, False, 1.0)"


@pytest.mark.parametrize("then", [SLEEP, FORK, HANG], ids=["idle", "forked", "in a template without end"])
def test_the_process_ends_when_its_parent_is_killed(then: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT + then], stdout=subprocess.PIPE, text=True)
    fork = None
    assert parent.stdout is not None
    try:
        helper = int(parent.stdout.readline())
        if then == FORK:
            fork = int(parent.stdout.readline())
        if then == HANG:
            time.sleep(0.3)
        assert runs(helper)
        parent.kill()
        parent.wait()
        wait_until(lambda: not runs(helper), "the process outlives its parent")
        assert fork is None or Path(f"/proc/{fork}").exists(), "the fork is still there, and does not keep it"
    finally:
        parent.kill()
        if fork is not None:
            os.kill(fork, signal.SIGKILL)
        parent.communicate()


# -- forks

FORKED = """
import os, threading
from sparktasks.runtime.generation import chat_process
def render(content):
    return chat_process.render("{{ messages[0].content }}", [{"content": content}], {}, False, 30)
assert render("a") == "a"
own = chat_process._process._process.pid
held = threading.Event()
done = threading.Event()
def hold():
    with chat_process._process._lock:
        held.set()
        done.wait(30)
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    assert chat_process._process._process is None
    ok = render("b") == "b" and chat_process._process._process.pid != own
    os._exit(0 if ok else 1)
_, status = os.waitpid(child, 0)
done.set()
assert status == 0
assert render("c") == "c" and chat_process._process._process.pid == own
"""


def test_a_fork_has_a_process_of_its_own_and_leaves_its_parents_alone() -> None:
    """Also where another thread is in the middle of a chat when the process is forked."""
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_process_ends_itself_where_nobody_is_left_to_end_it() -> None:
    """A template without end takes its process no further than its time, although its parent does not ask."""
    code = chat_process._CODE.format(idle_seconds=60)
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as helper:
        try:
            assert chat_process.read_message(helper.stdout, WAIT) == {"text": "ready"}
            request = {"template": ENDLESS, "messages": [], "tokens": {}, "answer": False, "seconds": 0.2}
            chat_process.write_message(helper.stdin, request)
            assert helper.wait(WAIT) == -signal.SIGALRM
        finally:
            helper.kill()
