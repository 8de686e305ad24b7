"""Texts reach a terminal by one module, which makes them harmless: no other one prints."""

import ast
from pathlib import Path

import pytest
from source import sources

from support import ROOT

# What else writes to a descriptor, and why that may be.
WRITERS = {
    "workers/credentials.py": "an address, into a pipe",
    "workers/probing.py": "spaces as JSON, into a pipe",
    "workers/process.py": "the report of impala-eval, which saying has made",
    "workers/saying.py": "the door itself",
    "workers/stopping.py": "a sign of the terminal's and the end of a line",
    "workers/voice.py": "JSON, into a pipe",
    "common/user_code/failures.py": "an error's words, in a process that an environment forked",
}
PRINTING = {
    *("print", "click.echo", "click.secho", "click.prompt", "click.confirm", "click.pause"),
    *("click.echo_via_pager", "sys.stdout.write", "sys.stderr.write", "sys.stdout.writelines"),
    *("sys.__stdout__.write", "sys.__stderr__.write", "traceback.print_exc", "warnings.warn"),
    *("traceback.print_exception", "traceback.print_stack", "logging.lastResort"),
}


def printing(tree: ast.AST) -> set[str]:
    """The calls in the tree that write to a terminal."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in PRINTING or name.endswith((".print", ".log_locals", ".print_json")):
                found.add(name)
    return found


def writing(tree: ast.AST) -> bool:
    """Whether anything in the tree writes to a descriptor by its number."""
    return any(
        isinstance(n, ast.Attribute) and ast.unparse(n) == "os.write" for n in ast.walk(tree)
    )


def trees() -> dict[str, ast.AST]:
    """Every file of common and workers."""
    return {
        _name(path): ast.parse(path.read_text("utf-8")) for path in sources("common", "workers")
    }


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_only_one_module_prints() -> None:
    found = {name for name, tree in trees().items() if printing(tree)}
    assert found == {"workers/saying.py"}


def test_what_writes_to_descriptors_is_known() -> None:
    assert {name for name, tree in trees().items() if writing(tree)} == set(WRITERS)


@pytest.mark.parametrize(
    "line",
    [
        "print(x)",
        "click.echo(x)",
        "click.secho(x)",
        "console.print(x)",
        "sys.stdout.write(x)",
        "self._live.console.print(x)",
        "traceback.print_exc()",
    ],
)
def test_another_door_is_found(line: str) -> None:
    assert printing(ast.parse(line))
