"""The walls between the rooms, read from the source: who may import whom, and what nobody may."""

import ast
import configparser
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from source import by_file, files_imported_by, imports, packages, reached_from, sources

import impala_redis
from support import ROOT

# The floors of common/, the lowest first. A room imports what lies on the floors below its own.
# Acting and learning never meet, so that actors and learner share nothing but what travels; playing
# is what a user does with a trained policy, and what evaluations do.
FLOORS = (
    {"errors", "files", "vtrace"},
    {"settings"},
    {"tasks"},
    {"run", "server", "user_code"},
    {"presets"},
    {"encoding", "local"},
    {"transport", "blocks", "games", "networks", "loss", "mlp", "records", "devices"},
    {"envs", "feeding"},
    {"normalizing"},
    {"acting", "learning", "population"},
    {"grouping"},
    {"playing"},
)
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}

# What is imported in one place alone, or nowhere: the package, and where it may be.
ONLY_IN = {
    "redis": "common/server/",
    "msgpack": "common/blocks/wire.py",
    "gymnasium": "common/envs/ common/games/ common/encoding/ common/user_code/",
    "ale_py": "common/games/atari.py",
    "envpool": "common/games/envpool_vector.py",
    "safetensors": "common/records/checkpoint.py",
    "tensorboard": "common/records/tensorboard_file.py",
    "torch": "common/vtrace.py common/networks/ common/loss/ common/devices/ common/learning/ "
    "common/acting/torch_policy.py common/acting/device_policy.py common/grouping/",
    "click": "workers/",
    "rich": "workers/",
    "matplotlib": "workers/reporting/",
    "jinja2": "workers/reporting/",
    # Programs are started by a command line, never by pickled functions.
    "multiprocessing": "",
    "concurrent": "",
    "valkey": "",
}
# These rooms compute: no file, no socket, no clock, no thread.
PURE = (
    "vtrace.py",
    "loss",
    "mlp",
    # Beside these, networks/network.py makes a user's module, whose code may do anything.
    *(
        f"networks/{name}.py"
        for name in ("lstm", "own_buffers", "own_input", "tanh_layer", "torsos")
    ),
    "normalizing",
    "learning/torch_optimizer.py",
    "acting/policy.py",
    "acting/numpy_policy.py",
    *(f"grouping/{name}.py" for name in ("meeting", "rendezvous", "seat")),
    *(f"population/{name}.py" for name in ("choosing", "member")),
)
IMPURE = {
    *("socket", "redis", "click", "os", "subprocess", "threading", "time", "signal"),
    *("asyncio", "datetime", "io", "pathlib", "shutil", "tempfile"),
}

MOST_FILES, MOST_LINES, MOST_LINES_OF_A_FUNCTION = 12, 300, 50

# The programs are the installed commands; the other files of their room are what they share.
_setup = configparser.ConfigParser()
_setup.read(ROOT / "setup.cfg")
_COMMANDS = _setup["options.entry_points"]["console_scripts"]
PROGRAMS = sorted(re.findall(r"workers\.(\w+):", _COMMANDS))


def room_of(path: Path) -> str:
    """The room of common/ in which a file lies: "run", or "vtrace" for a file beside the rooms."""
    return path.relative_to(ROOT / "common").parts[0].removesuffix(".py")


def rooms_imported_by(path: Path) -> set[str]:
    """Rooms of common/ that a file imports, without its own."""
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("common.")}
    return (rooms & set(FLOOR_OF)) - {room_of(path)}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of imports; empty if there is none."""
    done: set[str] = set()

    def search(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        found = next(filter(None, (search(n, [*way, name]) for n in sorted(graph[name]))), [])
        done.add(name)
        return found

    return next(filter(None, (search(name, []) for name in sorted(graph))), [])


def test_the_rooms_are_those_of_the_floors() -> None:
    assert {room_of(path) for path in sources("common")} - {"__init__"} == set(FLOOR_OF)
    assert set(PROGRAMS) == {"actor", "evaluator", "learner", "report", "status", "train"}


def test_the_library_is_the_one_beside_these_tests_or_the_installed_one() -> None:
    # given
    assert impala_redis.__file__ is not None
    here = Path(impala_redis.__file__).resolve()
    installed = [
        Path(str(file.locate())).resolve() for file in metadata.files("impala-redis") or []
    ]

    # then
    assert here == ROOT / "src" / "impala_redis" / "__init__.py" or here in installed


@by_file("common")
def test_imports_run_down_the_floors(path: Path) -> None:
    if path == ROOT / "common" / "__init__.py":
        assert imports(path) == set()
        return
    floor = FLOOR_OF[room_of(path)]
    assert {room for room in rooms_imported_by(path) if FLOOR_OF[room] >= floor} == set()
    assert "workers" not in packages(path)


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_only_where_it_belongs(package: str) -> None:
    allowed = ONLY_IN[package].split()
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sources("common", "workers")
        if package in packages(path)
    ]
    assert [path for path in found if not path.startswith(tuple(allowed))] == []
    unused = [place for place in allowed if not any(path.startswith(place) for path in found)]
    assert unused == []


def test_torch_distributed_is_imported_in_one_place_alone() -> None:
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sources("common", "workers")
        if any(name.startswith("torch.distributed") for name in imports(path))
    ]
    assert found == ["common/grouping/group.py"]


def test_no_wait_with_a_time_out_is_that_of_a_simple_queue() -> None:
    # up to Python 3.12 a signal that is handled after the time is over makes it endless
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sources("common", "workers", "scripts")
        if re.search(r"SimpleQueue[(\[]", text := path.read_text(encoding="utf-8"))
        and re.search(r"\.get\([^)]*timeout", text)
    ]
    assert found == []


def test_no_files_and_no_rooms_import_each_other_in_a_circle() -> None:
    paths = sources("common", "workers")
    files = {str(path): set(map(str, files_imported_by(path))) for path in paths}
    rooms: dict[str, set[str]] = {room: set() for room in FLOOR_OF}
    for path in sources(*(f"common/{room}" for room in FLOOR_OF)):
        rooms[room_of(path)] |= rooms_imported_by(path)
    assert circle(files) == []
    assert circle(rooms) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("room", sorted(FLOOR_OF.keys() - {"errors", "files", "vtrace"}))
def test_a_room_is_small_and_its_door_is_a_docstring(room: str) -> None:
    # given
    files = sorted((ROOT / "common" / room).rglob("*"))
    door = ast.parse((ROOT / "common" / room / "__init__.py").read_text(encoding="utf-8"))

    # then
    assert len([file for file in files if file.suffix in (".py", ".lua")]) - 1 <= MOST_FILES
    assert ast.get_docstring(door)
    assert len(door.body) == 1


@by_file("common", "workers", "scripts", "src")
def test_a_file_holds_one_idea_and_a_function_fits_on_a_screen(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MOST_LINES_OF_A_FUNCTION, node.name


@by_file("common", "workers")
def test_nobody_imports_a_program_nor_names_one_as_a_text(path: Path) -> None:
    assert imports(path).isdisjoint({f"workers.{program}" for program in PROGRAMS})
    if path.is_relative_to(ROOT / "common"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        assert not [text for text in texts if str(text).startswith("impala_redis.workers")]


@by_file("common", "workers", "scripts")
def test_a_room_is_named_where_it_is_imported(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "impala_redis":
            assert [alias.name for alias in node.names] == ["__version__"]


@pytest.mark.parametrize("place", PURE)
def test_the_mathematics_reaches_no_network_no_terminal_and_no_system(place: str) -> None:
    start = ROOT / "common" / place
    for file in sources(f"common/{place}") or [start]:
        for path in reached_from(file):
            assert packages(path).isdisjoint(IMPURE), path.name
            names = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            assert "open" not in {node.id for node in names if isinstance(node, ast.Name)}


@pytest.mark.parametrize(
    "file",
    [
        "learning/numpy_engine.py",
        *(f"grouping/{name}.py" for name in ("meeting", "rendezvous", "seat")),
    ],
)
def test_what_starts_without_torch_reaches_nothing_that_imports_it(file: str) -> None:
    for path in reached_from(ROOT / "common" / file):
        assert "torch" not in packages(path), path


@pytest.mark.parametrize(
    ("program", "package"),
    [
        *((program, "torch") for program in PROGRAMS),
        ("status", "numpy"),
        ("train", "numpy"),
        ("train", "rich"),
    ],
)
def test_a_program_starts_without_what_takes_long_to_import(program: str, package: str) -> None:
    # when
    code = f"import sys, impala_redis.workers.{program}; print({package!r} in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30
    )

    # then
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
