"""The walls between the rooms, read from the source: who may import whom, and what nobody may."""

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import common

ROOT = Path(__file__).parents[1]

# The programs are the installed commands; the other files of their room are what they share.
_setup = configparser.ConfigParser()
_setup.read(ROOT / "setup.cfg")
_COMMANDS = _setup["options.entry_points"]["console_scripts"]
_FILES = {path.stem for path in (ROOT / "workers").glob("*.py")}
PROGRAMS = sorted(_FILES & set(re.findall(r"= workers\.(\w+):", _COMMANDS)))
SHARED_BY_PROGRAMS = sorted(_FILES - set(PROGRAMS))
PURE = ("vtrace", "losses", "models", "optimizers", "policy")
# Their command must answer before torch would have been imported.
LIGHT = [name for name in ("actor", "evaluator", "learner", "status", "train") if name in PROGRAMS]

EXECUTES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
EXECUTING_CALLS = {"torch.load", "np.load", "numpy.load", "yaml.load", "eval", "exec"}


def sources(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def by_file(*rooms: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "path", sources(*rooms), ids=lambda path: str(path.relative_to(ROOT))
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


def imports(path: Path) -> set[str]:
    return set(imported_by(ast.parse(path.read_text(encoding="utf-8"))))


def packages(path: Path) -> set[str]:
    """The first part of what is imported: "redis" for "redis.retry"."""
    return {name.partition(".")[0] for name in imports(path)}


def reached_from(path: Path) -> set[Path]:
    """The file and every file of common that it imports, directly or not."""
    reached, left = set(), [path]
    while left:
        here = left.pop()
        reached.add(here)
        files = {ROOT / (name.replace(".", "/") + ".py") for name in imports(here)}
        left += [file for file in files if file.exists() and file not in reached]
    return reached


def executing(tree: ast.AST) -> set[str]:
    """What in the tree could run code that somebody else wrote."""
    found = {name for name in imported_by(tree) if name.partition(".")[0] in EXECUTES}
    found |= {name for name in imported_by(tree) if name in EXECUTING_CALLS}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in EXECUTING_CALLS:
            found.add(ast.unparse(node))
    return found


def test_the_rooms_are_where_the_walls_are_looked_for() -> None:
    assert {path.stem for path in sources("common")} >= {"wire", "transport", "connection", *PURE}
    assert {"actor", "learner"} <= set(PROGRAMS)
    assert {"runtime", "options"} <= set(SHARED_BY_PROGRAMS)


def test_the_library_is_the_one_beside_these_tests_or_the_installed_one() -> None:
    # given
    assert common.__file__ is not None
    here = Path(common.__file__).resolve()
    installed = [
        Path(str(file.locate())).resolve() for file in metadata.files("impala-redis") or []
    ]

    # then
    assert here == ROOT / "common" / "__init__.py" or here in installed


@by_file("common")
def test_the_library_never_imports_the_programs_nor_what_talks_to_people(path: Path) -> None:
    assert packages(path).isdisjoint({"workers", "click", "rich"})


@by_file("common", "workers")
def test_only_connection_and_transport_import_redis(path: Path) -> None:
    allowed = path in (ROOT / "common/connection.py", ROOT / "common/transport.py")
    assert allowed or packages(path).isdisjoint({"redis", "valkey"})


@by_file("common", "workers")
def test_only_wire_imports_msgpack(path: Path) -> None:
    assert path == ROOT / "common/wire.py" or "msgpack" not in packages(path)


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_never_import_each_other(program: str) -> None:
    # given
    others = {f"workers.{other}" for other in PROGRAMS if other != program}

    # when / then
    assert imports(ROOT / "workers" / f"{program}.py").isdisjoint(others)


@pytest.mark.parametrize("shared", SHARED_BY_PROGRAMS)
def test_what_programs_share_imports_no_program(shared: str) -> None:
    found = imports(ROOT / "workers" / f"{shared}.py")
    assert found.isdisjoint({f"workers.{program}" for program in PROGRAMS})


@pytest.mark.parametrize("name", PURE)
def test_the_mathematics_reaches_no_network_no_terminal_and_no_system(name: str) -> None:
    # when
    reached = reached_from(ROOT / "common" / f"{name}.py")

    # then
    outside = {"socket", "redis", "click", "os", "subprocess", "threading", "time", "signal"}
    for path in reached:
        assert packages(path).isdisjoint(outside), path.name


@pytest.mark.parametrize("program", LIGHT)
def test_a_program_starts_without_torch(program: str) -> None:
    # when
    code = f"import sys, workers.{program}; print(*sorted({{'torch'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30
    )

    # then
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


@by_file("common", "workers", "scripts")
def test_nothing_that_is_read_can_be_executed(path: Path) -> None:
    assert executing(ast.parse(path.read_text(encoding="utf-8"))) == set()


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import pickle", "pickle"),
        ("def f():\n    from cloudpickle import loads", "cloudpickle.loads"),
        ("import marshal as m", "marshal"),
        ("x = torch.load(path)", "torch.load"),
        ("load = numpy.load", "numpy.load"),
        ("np.load(path, allow_pickle=False)", "np.load"),
        ("from torch import load", "torch.load"),
        ("yaml.load(text)", "yaml.load"),
        ("eval(text)", "eval"),
        ("run = exec", "exec"),
    ],
)
def test_what_could_execute_is_found(code: str, found: str) -> None:
    assert found in executing(ast.parse(code))


@pytest.mark.parametrize(
    "code", ["model.eval()", "json.load(file)", "safetensors.numpy.load(data)", "policy.load(1, w)"]
)
def test_what_only_sounds_alike_is_not_found(code: str) -> None:
    assert executing(ast.parse(code)) == set()
