"""Run a resumed job two or three times at once, kill some of the runs, and count what is in the output.

python -m tests.jobs.overlap FOLDER [TRIES]

The suite tries the same in fewer processes; these tries, of five to eight each, take ten minutes.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.jobs.processes import ROWS, ids, start, write_slow_job


@dataclass
class Outcome:
    """How the runs of a try ended, and what was in the output when they had, and after one more run."""

    codes: list[int] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    completed: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def faults(self) -> list[str]:
        """Say what went wrong: a run that is neither done nor refused by name, or a row that is missing or there
        twice."""
        wrong = []
        for code, message in zip(self.codes, self.messages, strict=True):
            refused = code == 2 and "another run is writing to" in message and "process " in message
            if code not in (0, -signal.SIGKILL) and not refused:
                wrong.append(f"exit {code}: {message[-300:]}")
        if max(Counter(self.after).values(), default=0) > 1:
            wrong.append("rows twice after the runs")
        if -signal.SIGKILL not in self.codes and sorted(self.after) != list(range(ROWS)):
            wrong.append(f"done, but {len(set(self.after))} of {ROWS} rows are there")
        if sorted(self.completed) != list(range(ROWS)):
            wrong.append(f"{len(self.completed)} rows, {len(set(self.completed))} of {ROWS} ids after one more run")
        return wrong


def attempt(folder: Path, seed: int) -> Outcome:
    """Make one try: runs that start within some seconds, one of which is killed in every other try."""
    chance, began, outcome = random.Random(seed), time.monotonic(), Outcome()
    job, runs = write_slow_job(folder, seconds=0.5), []
    for _ in range(2 + seed % 2):
        runs.append(start(job))
        time.sleep(chance.uniform(0, 4))
    if seed % 4 < 2:
        time.sleep(chance.uniform(2, 8))
        os.kill(chance.choice(runs).pid, signal.SIGKILL)
    for run in runs:
        outcome.messages.append(run.communicate(timeout=300)[1])
        outcome.codes.append(run.returncode)
    if -signal.SIGKILL not in outcome.codes:  # the JVM of a killed run may still commit
        outcome.after = ids(folder / "out")
    last = start(job)
    message = last.communicate(timeout=300)[1]
    outcome.completed = ids(folder / "out") if last.returncode == 0 else []
    if last.returncode:
        outcome.messages.append(message)
        outcome.codes.append(last.returncode)
    outcome.seconds = time.monotonic() - began
    return outcome


def main(folder: Path, tries: int) -> None:
    """Make the tries one after the other and report each."""
    bad = 0
    for seed in range(tries):
        outcome = attempt(folder / str(seed), seed)
        faults = outcome.faults()
        bad += bool(faults)
        print(
            f"try {seed}: exits {outcome.codes}, {len(outcome.completed)} rows, {outcome.seconds:.0f} s, "
            f"{faults or 'fine'}",
            flush=True,
        )
    print(f"{tries - bad} of {tries} tries were fine")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20)
