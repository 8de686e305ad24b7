"""A user's files that have the names of folders of ours: they harm no program, and stay hers."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from source import imports, sources

from support import ROOT, Programs

HOSTILE = "raise SystemExit('a file of the user took the place of ours')\n"

# An environment beside a module that has the name of a folder of ours.
ENVIRONMENT = """
import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

import common
import workers

assert common.MINE and workers.MINE
gymnasium.register("Mine-v0", CartPoleEnv, max_episode_steps=50)
"""
PROGRAMS = ("actor", "eval", "learner", "report", "status", "train")
SHORT = ("--preset", "cartpole", "--total-frames", "2000", "--stop-at-return", "none")


def hostile_folder(folder: Path, *, as_folders: bool) -> Path:
    """A folder in which importing `common` or `workers` ends a program."""
    folder.mkdir()
    for name in ("common", "workers"):
        if as_folders:
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text(HOSTILE)
        else:
            (folder / f"{name}.py").write_text(HOSTILE)
    return folder


def test_ours_are_imported_under_the_package_alone() -> None:
    names = {"common", "workers"}
    for path in sources("common", "workers", "scripts", "tests"):
        found = {name.partition(".")[0] for name in imports(path, stripped=False)}
        assert found.isdisjoint(names), path


def test_v_trace_is_still_found_by_its_old_name_in_the_checkout() -> None:
    # when
    code = "from common import vtrace; print(vtrace.from_importance_weights.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    # then
    assert (done.stdout, done.stderr) == ("from_importance_weights\n", "")


def test_an_installation_puts_one_name_of_ours_on_the_path() -> None:
    # given what pip has installed: a path (in an editable installation) or the package's files
    files = metadata.files("impala-redis")
    assert files
    paths = [str(file.locate()) for file in files if file.suffix == ".pth"]

    # then
    for path in paths:
        (folder,) = Path(path).read_text().split()
        modules = [p.name for p in Path(folder).iterdir() if (p / "__init__.py").exists()]
        assert modules == ["impala_redis"]
    tops = {file.parts[0] for file in files}
    assert tops.isdisjoint({"common", "workers", "tests", "scripts"})


@pytest.mark.processes
@pytest.mark.parametrize("as_folders", [False, True], ids=["files", "folders"])
def test_no_program_imports_a_user_s_common_or_workers(
    programs: Programs, tmp_path: Path, as_folders: bool
) -> None:
    # given such files in the working directory, and on PYTHONPATH, which comes before all else
    folder = hostile_folder(tmp_path / "hers", as_folders=as_folders)
    here = {"PYTHONPATH": str(folder)}

    # when every program starts there
    started = [
        programs.start(f"impala-{p}", "--help", cwd=folder, cold=True, **here) for p in PROGRAMS
    ]
    train = programs.start(
        "impala-train", *SHORT, "--run-dir", "run", cwd=folder, cold=True, **here
    )

    # then each of them works, and so do those that impala-train starts
    for program in started:
        assert program.code() == 0, program.output
    assert train.code() == 0, train.output
    assert json.loads((folder / "run" / "result.json").read_text())["status"] == "finished"


@pytest.mark.processes
@pytest.mark.parametrize("on_path", [False, True], ids=["cwd", "PYTHONPATH"])
def test_what_lies_beside_a_user_s_environment_is_hers(
    programs: Programs, tmp_path: Path, on_path: bool
) -> None:
    # given an environment whose module imports a `common` and a `workers` of its own
    folder = tmp_path / "hers"
    folder.mkdir()
    (folder / "mine.py").write_text(ENVIRONMENT)
    (folder / "common.py").write_text("MINE = True\n")
    (folder / "workers.py").write_text("MINE = True\n")

    # when it is learned in her folder, with no installation
    variables = {"PYTHONPATH": str(folder)} if on_path else {}
    code, output = programs.run(
        *("impala-train", "--env", "mine:Mine-v0", *SHORT, "--run-dir", "run"),
        cwd=folder,
        **variables,
    )

    # then
    assert code == 0, output


@pytest.mark.processes
def test_a_foreign_common_before_hers_is_named_in_one_sentence_with_its_path(
    programs: Programs, tmp_path: Path
) -> None:
    # given a package `common` of somebody else where installed packages lie, and one of hers
    folder, foreign = tmp_path / "hers", tmp_path / "installed" / "common"
    folder.mkdir()
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").write_text("")
    (folder / "mine.py").write_text("from common import helper\n")
    (folder / "common.py").write_text("def helper(): ...\n")

    # when
    code, output = programs.run(
        *("impala-train", "--env", "mine:Mine-v0", "--run-dir", "run"),
        cwd=folder,
        cold=True,
        PYTHONPATH=str(foreign.parent),
    )

    # then
    assert code == 3, output
    (sentence,) = [line for line in output.splitlines() if "error:" in line]
    assert f"common.py beside it is hidden by {foreign / '__init__.py'}; rename it" in sentence
