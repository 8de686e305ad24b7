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
PURE = ("vtrace", "loss/impala", "networks/tanh_layer", "networks/network", "learning/optimizers", "acting/numpy_policy")
# Their command must answer before torch would have been imported.
LIGHT = [
    name
    for name in ("actor", "evaluator", "learner", "report", "status", "train")
    if name in PROGRAMS
]

# Modules that run what they read, or exist to be run.
EXECUTES = {
    *("pickle", "cPickle", "_pickle", "pickletools", "cloudpickle", "dill", "joblib", "jsonpickle"),
    *(
        "marshal",
        "shelve",
        "copyreg",
        "msgpack_numpy",
        "runpy",
        "code",
        "codeop",
    ),
    *("torch.hub", "torch.package", "torch.multiprocessing", "numpy.lib.format", "xmlrpc"),
}
EXECUTING_CALLS = {
    *("torch.load", "torch.jit.load", "torch.export.load", "torch.serialization.load"),
    *("np.load", "numpy.load", "numpy.core.records.fromfile", "pandas.read_pickle"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load"),
    *("yaml.unsafe_load_all", "yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader"),
    *("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("logging.config.listen", "logging.config.fileConfig", "logging.config.dictConfig"),
}
# What these arguments may be; any other value opens a way in.
HARMLESS = {"shell": False, "allow_pickle": False, "weights_only": True}


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
    imported = set(imported_by(tree))
    found = {name for name in imported if any(_is_in(name, banned) for banned in EXECUTES)}
    found |= imported & EXECUTING_CALLS
    meanings = _meanings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            name = ast.unparse(node)
            first, dot, rest = name.partition(".")
            names = {name, meanings.get(first, first) + dot + rest}
            found |= names & EXECUTING_CALLS
            found |= {n for n in names for banned in EXECUTES if "." in n and _is_in(n, banned)}
        elif isinstance(node, ast.keyword) and node.arg in HARMLESS:
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            if value is not HARMLESS[node.arg]:
                found.add(f"{node.arg}={ast.unparse(node.value)}")
    return found


def _is_in(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def _meanings(tree: ast.AST) -> dict[str, str]:
    """What the names that a file imports stand for: np is numpy, load may be torch.load."""
    meanings = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            meanings |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            meanings |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return meanings


def test_the_rooms_are_where_the_walls_are_looked_for() -> None:
    assert {path.stem for path in sources("common")} >= {"wire", "connection"}
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
def test_only_connection_resp_and_functions_import_redis(path: Path) -> None:
    allowed = path.stem in ("connection", "resp", "functions")
    assert allowed or packages(path).isdisjoint({"redis", "valkey"})


@by_file("common", "workers")
def test_only_wire_imports_msgpack(path: Path) -> None:
    assert path == ROOT / "common/blocks/wire.py" or "msgpack" not in packages(path)


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


@pytest.mark.parametrize("program", ["status", "train"])
def test_a_program_that_neither_plays_nor_learns_starts_without_numpy(program: str) -> None:
    # when
    code = f"import sys, workers.{program}; print('numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30
    )

    # then
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


@pytest.mark.parametrize("program", LIGHT)
def test_a_program_starts_without_torch(program: str) -> None:
    # when
    code = f"import sys, workers.{program}; print(*sorted({{'torch'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30
    )

    # then
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


@by_file("common", "workers")
def test_programs_are_started_by_a_command_line_never_by_pickled_functions(path: Path) -> None:
    assert packages(path).isdisjoint({"multiprocessing", "concurrent"})


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
        ("import torch as t\nt.load(path)", "torch.load"),
        ("from numpy import load as read\nread(path)", "numpy.load"),
        ("import torch\ntorch.jit.load(path)", "torch.jit.load"),
        ("import torch\ntorch.hub.load(path)", "torch.hub.load"),
        ("from torch import package", "torch.package"),
        ("import msgpack_numpy", "msgpack_numpy"),
        ("yaml.full_load(text)", "yaml.full_load"),
        ("yaml.safe_load_all\nyaml.unsafe_load(text)", "yaml.unsafe_load"),
        ("import builtins\nbuiltins.eval(text)", "builtins.eval"),
        ("compile(text, 'x', 'exec')", "compile"),
        ("__import__(name)", "__import__"),
        ("os.system(line)", "os.system"),
        ("from os import popen", "os.popen"),
        ("subprocess.run(line, shell=True)", "shell=True"),
        ("subprocess.run(line, shell=maybe)", "shell=maybe"),
        ("read(file, allow_pickle=True)", "allow_pickle=True"),
        ("read(file, weights_only=False)", "weights_only=False"),
    ],
)
def test_what_could_execute_is_found(code: str, found: str) -> None:
    assert found in executing(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "json.load(file)",
        "safetensors.numpy.load(data)",
        "policy.load(1, w)",
        "re.compile(text)",
        "torch.compile(model)",
        "yaml.safe_load(text)",
        "subprocess.run([name], shell=False)",
        "code = 5",
        "error.code",
    ],
)
def test_what_only_sounds_alike_is_not_found(code: str) -> None:
    assert executing(ast.parse(code)) == set()
