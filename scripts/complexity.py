"""How dense the code of ``sparktasks/`` is: the figures that CONTRIBUTING.md sets limits to, in a table.

    python scripts/complexity.py            the table; exit 1 where a limit is passed
    python scripts/complexity.py --worst    the functions and the files that count most, too

Complexity is the sum of the functions' cyclomatic complexity as radon counts it. Code lines are those without blank
lines, comments and docstrings.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from radon.complexity import cc_visit
from radon.raw import analyze
from radon.visitors import Function

PACKAGE = Path(__file__).parents[1] / "sparktasks"
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
MOST_COMPLEXITY = 280  # per 1,000 code lines
MOST_NESTED = 2  # comprehensions inside a comprehension, per 1,000 code lines
LEAST_COMMENTS = 4  # percent of code lines
LONGEST_LINE = 120


@dataclass(frozen=True)
class Figures:
    """What one file, or all of them together, counts."""

    code: int = 0
    comments: int = 0
    complexity: int = 0
    nested: int = 0
    longest: int = 0

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            self.code + other.code,
            self.comments + other.comments,
            self.complexity + other.complexity,
            self.nested + other.nested,
            max(self.longest, other.longest),
        )


def measure(source: str) -> Figures:
    """Count one file's source."""
    raw = analyze(source)
    return Figures(
        code=raw.sloc,
        comments=raw.comments,
        complexity=sum(function.complexity for function in functions(source)),
        nested=sum(1 for _ in nested_comprehensions(ast.parse(source))),
        longest=max((len(line) for line in source.splitlines()), default=0),
    )


def functions(source: str) -> Iterator[Function]:
    """Yield the functions and methods of a file; radon counts what stands inside one as a part of it."""
    for block in cc_visit(source):
        if isinstance(block, Function) and not block.is_method:
            yield block
        elif not isinstance(block, Function):
            yield from block.methods


def nested_comprehensions(tree: ast.AST) -> Iterator[int]:
    """Yield the line of each comprehension that stands inside another one."""
    for node in ast.walk(tree):
        if not isinstance(node, COMPREHENSIONS):
            continue
        for inner in ast.walk(node):
            if inner is not node and isinstance(inner, COMPREHENSIONS):
                yield inner.lineno


def main() -> int:
    """Print the table; return 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--worst", action="store_true", help="print the densest functions and files, too")
    arguments = parser.parse_args()
    sources = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
    figures = {path: measure(source) for path, source in sources.items()}
    total = sum(figures.values(), Figures())
    thousands = total.code / 1000
    rows = [
        ("complexity per 1,000 code lines", total.complexity / thousands, f"<= {MOST_COMPLEXITY}"),
        ("nested comprehensions per 1,000 code lines", total.nested / thousands, f"<= {MOST_NESTED}"),
        ("comment lines per 100 code lines", 100 * total.comments / total.code, f">= {LEAST_COMMENTS}"),
        ("longest line", total.longest, f"<= {LONGEST_LINE}"),
    ]
    print(f"{len(sources)} files, {total.code:,} code lines")
    for name, value, limit in rows:
        print(f"{name:45} {value:8.1f}   {limit}")
    if arguments.worst:
        print_worst(sources, figures)
    return int(
        total.complexity > MOST_COMPLEXITY * thousands
        or total.nested > MOST_NESTED * thousands
        or 100 * total.comments < LEAST_COMMENTS * total.code
        or total.longest > LONGEST_LINE
    )


def print_worst(sources: dict[Path, str], figures: dict[Path, Figures]) -> None:
    """Print the 25 most complex functions, the 25 densest files, and every nested comprehension."""
    blocks = [(block, path) for path, source in sources.items() for block in functions(source)]
    for block, path in sorted(blocks, key=lambda pair: -pair[0].complexity)[:25]:
        print(f"{block.complexity:4}  {path.relative_to(PACKAGE)}:{block.lineno} {block.name}")
    for path, found in sorted(figures.items(), key=lambda pair: -pair[1].complexity / max(1, pair[1].code))[:25]:
        print(f"{1000 * found.complexity / max(1, found.code):6.0f}  {found.code:5}  {path.relative_to(PACKAGE)}")
    for path, source in sources.items():
        for line in nested_comprehensions(ast.parse(source)):
            print(f"nested comprehension  {path.relative_to(PACKAGE)}:{line}")


if __name__ == "__main__":
    sys.exit(main())
