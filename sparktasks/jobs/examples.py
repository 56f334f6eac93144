"""Example job files and settings, which come with the package."""

from __future__ import annotations

import shutil
from pathlib import Path

from sparktasks.errors import JobError

EXAMPLES = Path(__file__).parent.parent / "examples"


def write_examples(folder: str) -> list[str]:
    """Copy the examples into a folder, and say what was written; `JobError` where one of the files is there already."""
    sources = sorted(path for path in EXAMPLES.rglob("*") if path.suffix in (".yaml", ".conf"))
    targets = {source: Path(folder) / source.relative_to(EXAMPLES) for source in sources}
    for target in targets.values():
        if target.exists():
            raise JobError(f"{target} already exists: name another folder, as in `sparktasks init FOLDER`")
    for source, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return [*map(str, targets.values()), f"{len(targets)} files: edit one, then run it with: sparktasks run FILE"]
