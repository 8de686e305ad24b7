"""The project's source as tests read it: its files, and who imports whom."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support import ROOT

PACKAGE = "impala_redis."


def sources(*folders: str) -> list[Path]:
    """Every Python file below these folders of the project."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def by_file(*folders: str) -> pytest.MarkDecorator:
    """A test for each file, named by its path."""
    return pytest.mark.parametrize(
        "path", sources(*folders), ids=lambda path: str(path.relative_to(ROOT))
    )


def imported_by(tree: ast.AST) -> Iterator[str]:
    """Every module imported anywhere in the tree; `from a import b` may mean `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imports(path: Path, *, stripped: bool = True) -> frozenset[str]:
    """What a file imports, ours without the package's name if `stripped`: "common.run.spec"."""
    names = imported_by(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(name.removeprefix(PACKAGE) for name in names) if stripped else frozenset(names)


def packages(path: Path) -> set[str]:
    """The first part of what a file imports: "redis" for "redis.retry"."""
    return {name.partition(".")[0] for name in imports(path)}


@cache
def files_imported_by(path: Path) -> frozenset[Path]:
    """The files of ours that a file imports itself."""
    files = {ROOT / (name.replace(".", "/") + ".py") for name in imports(path)}
    return frozenset(file for file in files if file.exists())


def reached_from(path: Path) -> set[Path]:
    """The file and every file of ours that it imports, directly or not."""
    reached: set[Path] = set()
    left = {path}
    while left:
        here = left.pop()
        reached.add(here)
        left |= files_imported_by(here) - reached
    return reached
