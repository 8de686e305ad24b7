"""Where a user's environment is found, by its module or its file, and what of that travels."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest

from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import ConfigError, SpecMismatch, UnsupportedEnvironment
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec, make_spec
from impala_redis.common.settings.env_id import travelling
from impala_redis.common.user_code.modules import absolute, as_typed, check_trusted
from impala_redis.workers.plan import make_plan

MODULE = """
import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
gymnasium.register("FoundHere-v0", CartPoleEnv)
"""

TOP = """
import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
class Top(CartPoleEnv):
    pass
gymnasium.register("Top-v0", Top)
"""
LATE = "import gymnasium; gymnasium.register('Late-v0', 'nowhere_to_be_found:Late')"


@pytest.fixture
def here(own_folder: Path) -> Iterator[Path]:
    """A working directory; what is imported and registered in it is forgotten."""
    yield own_folder
    for name in ("FoundHere-v0", "Late-v0"):  # made by others' modules
        gymnasium.registry.pop(name, None)


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("grid_a.py", "grid_a:FoundHere-v0"),
        ("grid_b.py", "./grid_b.py:FoundHere-v0"),
        ("grid_c.py", "grid_c.py:FoundHere-v0"),
        ("my envs/deep/grid_d.py", "my envs/deep/grid_d.py:FoundHere-v0"),
        ("my envs/grid_e.py", "/HERE/my envs/grid_e.py:FoundHere-v0"),
        ("grid_f/__init__.py", "./grid_f:FoundHere-v0"),
        ("grid-g.py", "./grid-g.py:FoundHere-v0"),
    ],
)
def test_an_environment_is_found_by_its_module_or_file(here: Path, file: str, named: str) -> None:
    # given
    (here / file).parent.mkdir(parents=True, exist_ok=True)
    (here / file).write_text(MODULE)

    # when / then
    environment = VectorEnvironment(named.replace("/HERE", str(here)), 2)
    assert environment.observation == ObservationSpec((4,), "float32")
    environment.close()


def test_a_path_may_begin_with_the_home_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given: a shell leaves the ~ of --env=~/grid_j.py:FoundHere-v0 as it is
    (here / "home").mkdir()
    (here / "home" / "grid_j.py").write_text(MODULE)
    monkeypatch.setenv("HOME", str(here / "home"))

    # when / then
    VectorEnvironment("~/grid_j.py:FoundHere-v0", 1).close()
    assert absolute("~/grid_j.py:X-v0") == f"{here}/home/grid_j.py:X-v0"


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("./nowhere.py:X-v0", r"^there is no file nowhere\.py; name the one"),
        ("./json.py:X-v0", r"^json\.py cannot be imported: it is hidden by .*json.*; rename it$"),
        ("./a.b.py:X-v0", r"^a\.b\.py cannot be imported: its name cannot be .*; rename it$"),
        (
            "./bare/:X-v0",
            r"^bare cannot be imported: .* without __init__\.py; name the file in it$",
        ),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused(here: Path, named: str, why: str) -> None:
    (here / "json.py").write_text(MODULE)
    (here / "a.b.py").write_text(MODULE)
    (here / "bare").mkdir()
    with pytest.raises(UnsupportedEnvironment, match=why):
        VectorEnvironment(named, 1)


@pytest.mark.parametrize(
    ("typed", "way_on"),
    [
        ("grid_h:FoundHere-v0", "it is in envs/grid_h.py: give --env envs/grid_h.py:FoundHere-v0"),
        ("FoundHere-v0", "envs/grid_h.py names it: give --env envs/grid_h.py:FoundHere-v0"),
        ("grid_w:Wide-v0", "give --env 'my envs/grid_w.py:Wide-v0'"),
        ("Top-v0", "top.py names it: give --env top:Top-v0"),
        ("elsewhere:X-v0", "or name the file: --env PATH/elsewhere.py:X-v0 (to impala-actor"),
        ("json:X-v0", "json is imported and does not register it with Gymnasium"),
        ("random:X-v0", "; random.py is hidden by another module of its name: rename it"),
        ("top:Topp-v0", "; top registers Top-v0: give --env top:Top-v0"),
        ("top:CartPoleEnv", "; top registers Top-v0: give --env top:Top-v0"),
        ("Top", "top.py names it: give --env top:Top-v0"),
        ("top", "top.py names it: give --env top:Top-v0"),
        ("./top.py", "top.py names it: give --env top:Top-v0"),
        ("lacks:X-v0", "; install nowhere_to_be_found, or name the folder that holds it in"),
        ("late:Late-v0", "; install nowhere_to_be_found, or name the folder that holds it in"),
        ("envs/part.py:X-v0", "; part is a part of a package: name it from the folder that holds"),
        ("Nobody-v0", "one of the old package gym must be wrapped"),
    ],
)
def test_what_is_not_found_leads_to_the_command_that_works(
    here: Path, typed: str, way_on: str
) -> None:
    # given
    (here / "envs").mkdir()
    (here / "envs" / "grid_h.py").write_text(MODULE)
    (here / "my envs").mkdir()
    (here / "my envs" / "grid_w.py").write_text(MODULE.replace("FoundHere", "Wide"))
    (here / "top.py").write_text(TOP)
    (here / "random.py").touch()
    (here / "lacks.py").write_text("import nowhere_to_be_found.inside")
    (here / "late.py").write_text(LATE)
    (here / "envs" / "part.py").write_text("from . import other")

    # when / then
    with pytest.raises(UnsupportedEnvironment) as refused:
        VectorEnvironment(typed, 1)
    assert way_on in str(refused.value)
    if "give --env" in way_on:
        VectorEnvironment(shlex.split(way_on.partition("--env ")[2])[0], 1).close()


# What travels.


def test_a_file_is_absolute_in_the_settings_and_travels_as_its_module(here: Path) -> None:
    # when
    plan = make_plan(
        run=None,
        run_dir=None,
        preset_name=None,
        config_file=None,
        resume=False,
        overrides={"env": "./envs/my_grid.py:ns/Grid-v0"},
    )

    # then
    assert plan.config.environment.env == f"{here}/envs/my_grid.py:ns/Grid-v0"
    assert plan.run == "my_grid-ns-grid-v0"
    spec = make_spec(plan.run, plan.config, ObservationSpec((4,), "float32"), discrete(2))
    assert spec.env == "my_grid:ns/Grid-v0"


@pytest.mark.parametrize("named", ["CartPole-v1", "my_envs.grids:Grid-v0", "ALE/Pong-v5"])
def test_what_is_no_file_stays_as_it_is(named: str) -> None:
    assert absolute(named) == travelling(named) == named
    spec = make_spec(
        "x", Config().replace({"env": named}), ObservationSpec((4,), "float32"), discrete(2)
    )
    assert spec.env == named


@pytest.mark.parametrize("trusted", ["grid_i", "./grid_i.py", "/HERE/grid_i.py"])
def test_a_module_of_a_run_is_trusted_by_its_name_or_file(here: Path, trusted: str) -> None:
    (here / "grid_i.py").write_text(MODULE)
    trusting = ["other", trusted.replace("/HERE", str(here))]
    check_trusted("grid_i:FoundHere-v0", trusting, "environment", "--env-module")
    VectorEnvironment("grid_i:FoundHere-v0", 1).close()


@pytest.mark.parametrize(
    ("of_run", "trusted", "why"),
    [
        ("grid:X-v0", [], "nobody here has named; if you trust it, add --env-module grid$"),
        ("grid:X-v0", ["grid.sub", "gri", "./other.py"], "nobody here has named"),
        ("/tmp/evil.py:X-v0", ["/tmp/evil.py"], "names a file, and only modules are taken"),
        ("./grid.py:X-v0", ["grid"], "names a file, and only modules are taken"),
    ],
)
def test_what_a_run_names_is_not_imported_unasked(
    here: Path, of_run: str, trusted: list[str], why: str
) -> None:
    (here / "other.py").write_text(MODULE)
    with pytest.raises(ConfigError, match=why):
        check_trusted(of_run, trusted, "environment", "--env-module")


@pytest.mark.parametrize(
    ("module", "typed"),
    [
        ("my_grid", "my_grid"),
        ("/HERE/my_grid.py", "my_grid.py"),
        ("/HERE/my envs/grid.py", "'my envs/grid.py'"),
        ("/elsewhere/grid.py", "/elsewhere/grid.py"),
        ("on_path", "lib/on_path.py"),
        ("my_package.grids", "my_package.grids"),
    ],
)
def test_the_next_command_names_the_module_so_that_it_is_found(
    here: Path, monkeypatch: pytest.MonkeyPatch, module: str, typed: str
) -> None:
    (here / "lib").mkdir()
    (here / "lib" / "on_path.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", f"{here}:{here / 'lib'}")
    assert as_typed(module.replace("/HERE", str(here))) == typed


NO_MODULES = [
    "x; touch pwned #:Foo-v0",
    "$(touch pwned):Foo-v0",
    "`touch pwned`:Foo-v0",
    "a b:Foo-v0",
    "-rf:Foo-v0",
    "'a':Foo-v0",
    ".relative:Foo-v0",
    "a..b:Foo-v0",
    "a:b:Foo-v0",
    ":Foo-v0",
    "\x1b]0;pwned\x07:Foo-v0",
]
NO_IDS = [
    "Foo-v0; touch pwned",
    "module:Foo-v0\n",
    "module:",
    "[red]Foo-v0[/red]",
    "\u202eFoo-v0",
    "a/b/Foo-v0",
    "-Foo-v0",
    "",
]


@pytest.mark.parametrize("name", NO_MODULES)
def test_what_cannot_name_a_module_is_refused_where_it_is_typed(here: Path, name: str) -> None:
    with pytest.raises(UnsupportedEnvironment, match="its name must be Id or module:Id") as refused:
        VectorEnvironment(name, 1)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", NO_MODULES + NO_IDS)
def test_what_cannot_name_an_environment_is_refused_in_a_run(name: str) -> None:
    spec = make_spec("x", Config(), ObservationSpec((4,), "float32"), discrete(2))
    text = json.dumps(json.loads(spec.to_json()) | {"env": name})
    with pytest.raises(SpecMismatch, match="not Id or module:Id"):
        RunSpec.from_json(text)


@pytest.mark.parametrize(
    "name",
    [
        "CartPole-v1",
        "ALE/Pong-v5",
        "my_envs.grids:Grid-v0",
        "my-env:Grid-v0",
        "3d:ns/My.Grid_2-v10",
        "\u00fcbung:Gr\u00fc\u00df-v0",
    ],
)
def test_names_of_the_field_are_names(name: str) -> None:
    spec = make_spec(
        "x", Config().replace({"env": name}), ObservationSpec((4,), "float32"), discrete(2)
    )
    assert RunSpec.from_json(spec.to_json()).env == name


def test_a_module_that_is_to_be_typed_is_quoted(here: Path) -> None:
    module = "x; touch pwned #"
    assert as_typed(module) == f"'{module}'"
    with pytest.raises(ConfigError, match=r"add --env-module 'x; touch pwned #'$"):
        check_trusted(f"{module}:Foo-v0", [], "environment", "--env-module")
