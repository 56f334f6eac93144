"""One run at a time for an output: a file beside it says who writes there, and a heartbeat that the writer lives.

    PARENT/_NAME.sparktasks.lock    {"host": ..., "pid": ..., "since": ..., "beat": ..., ...}

Two writers of one folder share its `_temporary`, and the committers of Hadoop sweep it as a whole: whoever commits
first takes or destroys what the other has under way. The file stands beside the folder because `mode: overwrite`
deletes the folder with everything in it, and `mode: error` needs it absent.

A run that was killed leaves its file. On the machine that it ran on, the next run sees at once that the process is
gone. From another machine nothing is known but the heartbeat: the next run watches for `STALE_SECONDS`, by its own
clock alone, so that clocks which differ do no harm.
"""

from __future__ import annotations

import dataclasses
import os
import posixpath
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone

from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.sql import SparkSession

from sparktasks.errors import JobError, OutputError
from sparktasks.jobs.files import Place
from sparktasks.jobs.owner import Owner, jvm_pid, machine, owner_in, started_at
from sparktasks.jobs.progress import say

BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
# How long the JVM of a driver that was killed may take to notice; until then it may still commit.
ENDING_SECONDS = 30.0
# Object stores know no exclusive creation: of two writers that saw no file, the later one has overwritten it by then.
SETTLE_SECONDS = 1.0
_LOOK_SECONDS = 1.0
_LOOKS = 5


@dataclass(frozen=True)
class NoLock:
    """Takes a lock's place where none can be had, with a note that says so, or where nothing is shared."""

    note: str = ""

    def check(self) -> None:
        """Nobody can have taken it."""

    def release(self) -> None:
        """There is nothing to let go of."""


class OutputLock:
    """The right to write to a place, from `take` to `release`."""

    note = ""

    def __init__(self, place: Place, job: str, spark: SparkSession) -> None:
        output_name = posixpath.basename(place.path.rstrip("/"))
        pid = os.getpid()
        jvm = jvm_pid(spark)
        now = datetime.now(timezone.utc).astimezone()
        self._files = place.files
        self._folder = place.parent
        self._output = place.path
        self._path = place.beside(f"_{output_name}.sparktasks.lock")
        self._job = job
        self._me = Owner(
            token=uuid.uuid4().hex,
            job=job,
            host=socket.gethostname(),
            machine=machine(),
            pid=pid,
            started=started_at(pid),
            jvm=jvm,
            jvm_started=started_at(jvm),
            since=now.isoformat(" ", "seconds"),
        )
        self._ended = threading.Event()
        self._renewing = threading.Lock()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def take(self) -> None:
        """Take the lock; `JobError` where another run has it."""
        watch = _Watch()
        while not self._create():
            text, owner = self._look()
            if text is not None:
                self._wait_or_refuse(watch, text, owner)
        self._thread.start()

    def release(self) -> None:
        """Let go."""
        self._ended.set()
        self._thread.join()
        if self._is_mine():
            self._files.remove(self._path)

    def check(self) -> None:
        """Raise `OutputError` where another run took the lock, for instance while this process was suspended."""
        if self._is_mine():
            return
        _, holder = self._look()
        raise OutputError(
            f"{self._job}: this run gave no sign of life for {STALE_SECONDS:.0f} seconds, and {holder} has taken over "
            f"{self._output}. What this run has committed stays; run the job again when the other has ended"
        )

    def _create(self) -> bool:
        with self._files.guarded(self._folder):
            was_created = self._files.create(self._path, self._me.to_json())
        if not was_created:
            return False
        if not self._files.is_local:
            time.sleep(SETTLE_SECONDS)
        return self._is_mine()

    def _wait_or_refuse(self, watch: _Watch, text: str, owner: Owner) -> None:
        """Decide about a lock file that is there: watch it for a while, take it over, or give up."""
        watch.texts.append(text)
        is_first_look = len(watch.texts) == 1
        # A heartbeat, or a third run that was faster.
        has_changed = len(set(watch.texts)) > 1
        seconds = time.monotonic() - watch.began
        state = owner.state()
        patience = {"ending": ENDING_SECONDS, "elsewhere": STALE_SECONDS}.get(state, 0.0)
        if seconds < patience and not has_changed:
            if is_first_look:
                how_long = f"{patience:.0f} s"
                say(f"{self._job}: {self._output} is locked by {owner}; waiting up to {how_long} for it to end")
            time.sleep(_LOOK_SECONDS)
            return
        if state in ("gone", "elsewhere") and not has_changed:
            say(f"{self._job}: took over {self._output} from a run that has ended: {owner}")
            self._evict(text)
            return
        hint = ""
        if state == "ending":
            hint = f". Its JVM, process {owner.jvm}, still runs: end it with kill {owner.jvm}"
        raise JobError(
            f"{self._job}: another run is writing to {self._output}: {owner}. Wait until it has ended, or stop it, "
            f"then run the job again (its lock is {self._path}){hint}"
        )

    def _evict(self, text: str) -> None:
        """Remove a stale file, and no other: one that a faster run has put in its place goes back."""
        aside = f"{self._path}.{self._me.token}"
        with self._files.guarded(self._folder):
            is_stale = self._files.read(self._path) == text
            if not is_stale or not self._files.rename(self._path, aside):
                return
            taken = self._files.read(aside)
            if taken not in (None, text):
                self._files.create(self._path, str(taken))
            self._files.remove(aside)

    def _look(self) -> tuple[str | None, Owner]:
        """Return the lock file's text, and the owner it names; None where there is no file."""
        text, owner = None, Owner()
        # On some file systems a heartbeat empties the file for a moment.
        for _ in range(_LOOKS):
            text = self._files.read(self._path)
            owner = owner_in(text)
            if text is None or owner.token:
                break
            time.sleep(_LOOK_SECONDS / _LOOKS)
        return text, owner

    def _is_mine(self) -> bool:
        with self._renewing:
            _, owner = self._look()
        return owner.token == self._me.token

    def _beat(self) -> None:
        """Renew the file until the run ends, or finds that the lock is another's."""
        number = 0
        while not self._ended.wait(BEAT_SECONDS):
            number += 1
            try:
                if not self._is_mine():
                    return
                renewed = dataclasses.replace(self._me, beat=number)
                with self._renewing:
                    self._files.replace(self._path, renewed.to_json())
            except Exception as error:  # a file system that stumbles once; the next beat tries again
                problem = type(error).__name__
                say(f"{self._job}: the lock {self._path} could not be renewed: {problem}")


@dataclass
class _Watch:
    """What was read of another run's file, and since when."""

    texts: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)


@contextmanager
def locked(
    place: Place | None,
    name: str | None,
    job: str,
    spark: SparkSession,
) -> Iterator[OutputLock | NoLock]:
    """Hold the lock of an output while the block runs; `JobError` where another run has it.

    ``name`` is the output's for messages, None where the format writes to no folder: noop, jdbc, ...
    """
    lock = _take_lock(place, name, job, spark)
    try:
        yield lock
    finally:
        lock.release()


def _take_lock(
    place: Place | None,
    name: str | None,
    job: str,
    spark: SparkSession,
) -> OutputLock | NoLock:
    if name is None:
        return NoLock()
    if place is None:
        reason = "this process cannot look there"
    elif not place.parent:
        reason = "there is no folder above it that could hold a lock"
    else:
        try:
            lock = OutputLock(place, job, spark)
            lock.take()
            return lock
        except (OSError, Py4JError) as error:
            reason = f"no lock can be kept beside it ({type(error).__name__})"
    return NoLock(f"{name} was not locked: {reason}. Let no other run write there at the same time")
