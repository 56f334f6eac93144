"""One run at a time for an output: a file beside it says who writes there, and a heartbeat that the writer lives.

    PARENT/_NAME.sparktasks.lock    {"host": ..., "pid": ..., "since": ..., "beat": ..., ...}

Two writers of one folder share its `_temporary`, and the committers of Hadoop sweep it as a whole: whoever commits
first takes or destroys what the other has under way. The file stands beside the folder because `mode: overwrite`
deletes the folder with all that is in it, and `mode: error` needs it absent.

A run that was killed leaves its file. On the machine that it ran on, the next run sees at once that the process is
gone. From another machine nothing is known but the heartbeat: the next run watches for `STALE_SECONDS`, by its own
clock alone, so that clocks which differ do no harm.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.sql import SparkSession

from sparktasks.errors import JobError, OutputError
from sparktasks.jobs.files import Place
from sparktasks.jobs.owner import Owner, jvm_pid, machine, read, started_at, written
from sparktasks.jobs.progress import say

BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
# How long the JVM of a driver that was killed may take to notice; until then it may still commit.
ENDING_SECONDS = 30.0
# Object stores know no exclusive creation: of two writers that saw no file, the later one has overwritten it by then.
SETTLE_SECONDS = 1.0
_LOOK_SECONDS = 1.0
_LOOKS = 5


class NoLock:
    """What a run has in a lock's place where none can be had: a note that says so, or none where nothing is shared."""

    def __init__(self, note: str = "") -> None:
        self.note = note

    def check(self) -> None:
        """Find nothing."""

    def release(self) -> None:
        """Do nothing."""


class OutputLock:
    """The right to write to a place, from `take` to `release`."""

    note = ""

    def __init__(self, place: Place, job: str, spark: SparkSession) -> None:
        jvm = jvm_pid(spark)
        self._files = place.files
        self._folder = place.parent
        self._output = place.path
        self._path = place.beside(f"_{place.path.rstrip('/').rpartition('/')[2]}.sparktasks.lock")
        self._me = Owner(
            token=uuid.uuid4().hex,
            job=job,
            host=socket.gethostname(),
            machine=machine(),
            pid=os.getpid(),
            started=started_at(os.getpid()),
            jvm=jvm,
            jvm_started=started_at(jvm),
            since=datetime.now(timezone.utc).astimezone().isoformat(" ", "seconds"),
        )
        self._ended = threading.Event()
        self._renewing = threading.Lock()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def take(self) -> None:
        """Take the lock; `JobError` where another run has it."""
        watch = _Watch()
        while not self._create():
            self._wait_or_refuse(watch)
        self._thread.start()

    def release(self) -> None:
        """Let go."""
        self._ended.set()
        self._thread.join()
        if self._is_mine():
            self._files.remove(self._path)

    def check(self) -> None:
        """Raise `OutputError` where another run took the lock, for instance while this process was suspended."""
        if not self._is_mine():
            raise OutputError(
                f"{self._me.job}: this run gave no sign of life for {STALE_SECONDS:.0f} seconds, and "
                f"{self._holder()} has "
                f"taken over {self._output}. What this run has committed stays; run the job again when the "
                "other has ended"
            )

    def _create(self) -> bool:
        with self._files.guarded(self._folder):
            if not self._files.create(self._path, written(self._me)):
                return False
        if not self._files.is_local:
            time.sleep(SETTLE_SECONDS)
        return self._is_mine()

    def _wait_or_refuse(self, watch: _Watch) -> None:
        text, owner = self._look()
        if text is None:
            return
        state = owner.state() if owner else "elsewhere"
        seconds = watch.seconds_unchanged(text)
        if state == "alive" or watch.has_changed:
            raise JobError(self._refusal(owner))
        if state == "gone" or (state == "elsewhere" and seconds >= STALE_SECONDS):
            say(f"{self._me.job}: took over {self._output} from a run that has ended: {owner or 'unknown'}")
            self._evict(text)
        elif state == "ending" and seconds >= ENDING_SECONDS:
            assert owner is not None
            raise JobError(
                f"{self._refusal(owner)}. Its JVM, process {owner.jvm}, still runs: end it with kill {owner.jvm}"
            )
        else:
            self._say_waiting(watch, owner, state)
            time.sleep(_LOOK_SECONDS)

    def _say_waiting(self, watch: _Watch, owner: Owner | None, state: str) -> None:
        if not watch.was_said:
            limit = ENDING_SECONDS if state == "ending" else STALE_SECONDS
            say(
                f"{self._me.job}: {self._output} is locked by {owner or 'an unknown run'}; watching for up to "
                f"{limit:.0f} s whether it lives"
            )
            watch.was_said = True

    def _refusal(self, owner: Owner | None) -> str:
        return (
            f"{self._me.job}: another run is writing to {self._output}: {owner or 'unknown'}. "
            f"Wait until it has ended, or stop it, then run the job again (its lock is {self._path})"
        )

    def _evict(self, text: str) -> None:
        """Remove a stale file, and no other: one that a faster run has put in its place goes back."""
        aside = f"{self._path}.{self._me.token}"
        with self._files.guarded(self._folder):
            if self._files.read(self._path) != text or not self._files.rename(self._path, aside):
                return
            taken = self._files.read(aside)
            if taken != text and taken is not None:
                self._files.create(self._path, taken)
            self._files.remove(aside)

    def _look(self) -> tuple[str | None, Owner | None]:
        """Return the lock file's text and the owner it names; on some file systems a heartbeat empties it for a
        moment."""
        text, owner = None, None
        for _ in range(_LOOKS):
            text = self._files.read(self._path)
            owner = read(text) if text else None
            if text is None or owner is not None:
                break
            time.sleep(_LOOK_SECONDS / _LOOKS)
        return text, owner

    def _holder(self) -> str:
        _, owner = self._look()
        return str(owner or "another run")

    def _is_mine(self) -> bool:
        with self._renewing:
            _, owner = self._look()
        return owner is not None and owner.token == self._me.token

    def _beat(self) -> None:
        number = 0
        while not self._ended.wait(BEAT_SECONDS):
            number += 1
            try:
                if not self._is_mine():
                    return
                with self._renewing:
                    self._files.replace(self._path, written(dataclasses.replace(self._me, beat=number)))
            except Exception as error:  # a file system that stumbles once; the next beat tries again
                say(f"{self._me.job}: the lock {self._path} could not be renewed: {type(error).__name__}")


@contextmanager
def locked(place: Place | None, location: str | None, job: str, spark: SparkSession) -> Iterator[OutputLock | NoLock]:
    """Hold the lock of an output while the block runs; `JobError` where another run has it."""
    lock = _taken(place, location, job, spark)
    try:
        yield lock
    finally:
        lock.release()


def _taken(place: Place | None, location: str | None, job: str, spark: SparkSession) -> OutputLock | NoLock:
    if location is None:  # written to no folder: noop, jdbc, ...
        return NoLock()
    reason = "this process cannot look there"
    if place is not None and not place.parent:
        reason = "there is no folder above it that could hold a lock"
    elif place is not None:
        lock = OutputLock(place, job, spark)
        try:
            lock.take()
            return lock
        except (OSError, Py4JError) as error:
            reason = f"no lock can be kept beside it ({type(error).__name__})"
    return NoLock(f"{location} was not locked: {reason}. Let no other run write there at the same time")


class _Watch:
    """How long a text has been the same."""

    def __init__(self) -> None:
        self.has_changed = False
        self.was_said = False
        self._text: str | None = None
        self._since = time.monotonic()

    def seconds_unchanged(self, text: str) -> float:
        """Look at the text once more."""
        if self._text is not None and text != self._text:
            self.has_changed = True
        self._text = text
        return time.monotonic() - self._since
