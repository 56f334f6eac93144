"""Imports run one way, and the front door is light."""

from __future__ import annotations

import ast
import contextlib
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


def modules_imported(path: Path) -> set[str]:
    """Return the sparktasks modules that a file imports when it is imported itself, names of packages resolved."""
    return imports_of(ast.parse(path.read_text(encoding="utf-8")))


def imports_of(tree: ast.Module) -> set[str]:
    """Return the sparktasks modules that code imports, those included that code in its strings imports: ``-c CODE``."""
    names = set()
    typing_only = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    skipped = {id(inner) for node in typing_only for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sparktasks"):
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names if alias.name.startswith("sparktasks."))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "from sparktasks" in node.value:
            with contextlib.suppress(SyntaxError):
                names |= imports_of(ast.parse(node.value.strip()))
    return names


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in MODULES}
    imports = {name: modules_imported(path) & set(known) - {name} for name, path in known.items()}
    # Take away, again and again, what imports nothing that is left: what stays stands in a circle.
    while free := [name for name, needed in imports.items() if not needed & set(imports)]:
        for name in free:
            del imports[name]
    assert imports == {}


def test_no_module_is_imported_by_a_string_of_its_name() -> None:
    """An import that no tool sees is a circle that no test finds; code that is run elsewhere names what it runs."""
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__"))
            if is_call and "sparktasks." in ast.unparse(node):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert found == []


def test_the_kernels_room_names_nothing_of_spark() -> None:
    for path in (PACKAGE / "kernels").rglob("*.py"):
        assert not [name for name in imported(path) if name.split(".")[0] in ("pyspark", "pandas", "py4j")] or (
            path.name in ("flat.py", "worker.py")  # what a pandas_udf hands over is made of pandas
        ), path
