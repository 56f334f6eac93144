"""Imports run one way, and the front door is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sparktasks

PACKAGE = Path(sparktasks.__file__).parent
ROOMS = ["errors", "ops", "runtime", "kernels", "spark", "annotators", "jobs", "export", "cli", "__main__"]
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(module: str) -> int | None:
    """Return the place of a sparktasks module's room; None for what is not ours, and for the front door."""
    parts = module.split(".")
    return ROOMS.index(parts[1]) if parts[0] == "sparktasks" and len(parts) > 1 else None


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    here = room_of(module)
    assert here is not None
    for name in imported(path):
        there = room_of(name)
        assert there is None or there <= here, f"{module} imports {name}"


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "annotators" / "tasks").glob("[a-z]*.py")), ids=lambda path: path.stem
)
def test_tasks_import_no_other_task(path: Path) -> None:
    assert not [name for name in imported(path) if name.startswith("sparktasks.annotators.tasks.")]


def fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("room", ["ops", "runtime", "kernels"])
def test_the_lower_rooms_do_not_load_spark(room: str) -> None:
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in MODULES
        if path.relative_to(PACKAGE).parts[0] == room
    ]
    assert modules
    assert fresh(f"import sys\nfor m in {modules!r}: __import__(m)\nprint('pyspark' in sys.modules)") == "False"


def test_the_front_door_loads_neither_onnxruntime_nor_pyspark() -> None:
    assert (
        fresh("import sys, sparktasks\nprint('onnxruntime' in sys.modules, 'pyspark' in sys.modules)") == "False False"
    )
    assert fresh("import sys\nfrom sparktasks import *\nprint('onnxruntime' in sys.modules)") == "False"


def test_without_pyspark_an_annotator_says_what_to_install() -> None:
    code = "import sys\nsys.modules['pyspark'] = None\nimport sparktasks\n"
    code += "try: sparktasks.TextClassifier\nexcept sparktasks.errors.MissingDependency as error: print(error)"
    assert fresh(code).endswith("Run: pip install 'sparktasks[local]'")


def test_the_front_door_is_sorted_and_complete() -> None:
    assert sparktasks.__all__ == sorted(sparktasks.__all__)
    assert dir(sparktasks) == sparktasks.__all__
    for task, name in sparktasks.TASKS.items():
        assert getattr(sparktasks, name).__module__.endswith(f"tasks.{task.replace('-', '_')}")
    assert list(sparktasks.TASKS) == sorted(sparktasks.TASKS)
    with pytest.raises(AttributeError, match="Did you mean 'TextClassifier'"):
        sparktasks.TextClasifier  # noqa: B018


def test_nothing_in_the_package_reads_conf() -> None:
    assert not [path for path in MODULES if "conf/" in path.read_text(encoding="utf-8")]
