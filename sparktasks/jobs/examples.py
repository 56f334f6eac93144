"""Example job files and settings, which come with the package."""

from __future__ import annotations

import shutil
from pathlib import Path

from sparktasks.errors import JobError

EXAMPLES = Path(__file__).parent.parent / "examples"


def write_examples(folder: str) -> list[str]:
    """Copy the examples into a folder and return the lines that say so; `JobError` where a file already exists."""
    sources = [*EXAMPLES.rglob("*.yaml"), *EXAMPLES.rglob("*.conf")]
    targets = {}
    # All are looked at before the first is written, so that a refusal leaves nothing behind.
    for source in sorted(sources):
        target = Path(folder) / source.relative_to(EXAMPLES)
        if target.exists():
            raise JobError(f"{target} already exists: name another folder, as in `sparktasks init FOLDER`")
        targets[source] = target
    for source, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    names = [str(target) for target in targets.values()]
    return [*names, f"{len(names)} files: edit one, then run it with: sparktasks run FILE"]
