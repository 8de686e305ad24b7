"""docs/your-environment.md does what it says, and runs keep their variant through all programs."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from support import ROOT, Programs, children_of, eventually

PAGE = (ROOT / "docs" / "your-environment.md").read_text()
FILES = re.findall(r"`(\w+\.py)`[^`]*?```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE)
BRIEF = ("--total-frames", "800", "--batch-size", "4", "--envs-per-actor", "4")


@pytest.fixture
def folder(programs: Programs) -> Path:
    """A folder with the files of the page."""
    assert [name for name, _ in FILES] == ["maze.py", "shaping.py"]
    for name, source in FILES:
        (programs.folder / name).write_text(source)
    return programs.folder


def result(folder: Path) -> dict[str, Any]:
    """The result of a run."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def test_the_pages_environment_is_learned_and_evaluated(programs: Programs, folder: Path) -> None:
    # when its first commands are typed
    train, evaluate = COMMANDS[:2]
    program = programs.shell(train)
    assert program.code(240) == 0, program.output
    played = programs.shell(evaluate)
    assert played.code() == 0, played.output

    # then the middle is found from anywhere: in 5.5 steps, each worth 0.9, if one goes straight
    records = (folder / "runs/maze/metrics.jsonl").read_text().splitlines()
    reaches = [json.loads(line).get("episode_info:reach") for line in records]
    found = re.search(r"return: mean (-?[\d.]+)", played.output)
    assert found is not None and float(found[1]) > 4.0, played.output

    # and the curriculum went from near to far
    told = [reach for reach in reaches if reach is not None]
    assert told[-1] > 4.0 > told[0]


@pytest.mark.parametrize("command", COMMANDS[2:])
def test_every_other_command_of_the_page_runs(
    programs: Programs, folder: Path, command: str
) -> None:
    brief = command.replace("--total-frames 20000", "--total-frames 800 --envs-per-actor 4")
    assert brief != command
    program = programs.shell(brief)
    assert program.code() == 0, program.output
    assert result(next((folder / "runs").iterdir()))["status"] == "finished"


def test_a_variant_goes_through_all_programs(programs: Programs, folder: Path) -> None:
    # given a run with all of it, whose files lie in a folder of their own
    apart = folder / "apart"
    apart.mkdir()
    for name, _ in FILES:
        (folder / name).rename(apart / name)
    variant = (
        *("--env", "apart/maze.py:Maze-v0", "--env-kwargs", "size=2"),
        *("--wrapper", "apart/shaping.py:Bonus", "--max-episode-steps", "9"),
        *("--env-processes", "2", "--frame-stack", "2"),
    )
    code, output = programs.run("impala-train", "--run-dir", "one", *variant, *BRIEF)
    assert code == 0, output
    assert "--env-module apart/maze.py --env-module apart/shaping.py" in output

    # then it goes on from another folder, though not with other arguments
    more = ("--resume", "--run-dir", str(folder / "one"))
    code, output = programs.run(
        "impala-train", *more, "--total-frames", "1600", cwd=apart, timeout_s=120
    )
    assert code == 0, output
    code, output = programs.run("impala-train", *more, "--env-kwargs", "size=3", cwd=apart)
    assert code != 0
    assert "env_kwargs is" in output

    # and nobody imports a wrapper that he has not named
    evaluate = ("impala-eval", "--checkpoint", "one", "--episodes", "3", "--json")
    trusted = ("--env-module", "apart/maze.py")
    code, output = programs.run(*evaluate, *trusted)
    assert code == 2
    assert "the run's wrapper shaping:Bonus is made by the module 'shaping'" in output
    assert "add --env-module shaping" in output
    code, output = programs.run(*evaluate, *trusted, "--env-module", "apart/shaping.py")
    assert code == 0, output
    report = json.loads(output.splitlines()[-1])
    assert report["mean_length"] <= 9


def test_an_actor_replaces_processes_that_are_killed_and_leaves_none_behind(
    programs: Programs, folder: Path, redis_url: str, run_name: str
) -> None:
    # given an actor by hand with its own number of processes
    there = ("--redis-url", redis_url, "--run", run_name)
    learner = programs.start(
        *("impala-learner", *there, "--env", "maze:Maze-v0", "--run-dir", "one"),
        *("--env-processes", "1", "--envs-per-actor", "4"),
    )
    learner.says("ready on")
    actor = programs.start("impala-actor", *there, "--env-module", "maze", "--env-processes", "3")
    actor.says("joined")
    first = eventually(lambda: children_of(actor.pid))
    assert len(first) == 3

    # when one is killed
    os.kill(first[0], signal.SIGKILL)

    # then the environments are made anew
    actor.says("failed in step: one of its processes was ended by the signal SIGKILL")
    second = eventually(lambda: sorted(set(children_of(actor.pid)) - set(first)))
    actor.send(signal.SIGINT)
    assert actor.code() == 0, actor.output
    assert "Traceback" not in actor.output
    assert not any(Path(f"/proc/{pid}").exists() for pid in [*first, *second])
    learner.send(signal.SIGTERM)
    assert learner.code() == 130


@pytest.mark.parametrize("option", ["--env-processes 2", "--mask-from info"])
def test_a_vector_form_alone_is_refused_at_the_opening(programs: Programs, option: str) -> None:
    # given
    (programs.folder / "whole.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv\n"
        "gymnasium.register('Whole-v0', None, vector_entry_point=CartPoleVectorEnv)\n"
    )

    # when
    code, output = programs.run("impala-train", "--env", "whole:Whole-v0", *option.split())

    # then
    assert code == 3, output
    assert f"has a vector form alone, and {option.removesuffix(' 2')} takes single ones" in output


def test_train_trusts_a_file_in_typed_arguments_and_an_evaluation_is_told_to(
    programs: Programs,
) -> None:
    pytest.importorskip("mujoco")
    # given a run whose user has typed a file
    typed = ("--env", "HalfCheetah-v5", "--env-kwargs", "xml_file=half_cheetah.xml")
    code, output = programs.run("impala-train", "--run-dir", "one", *typed, *BRIEF)
    assert code == 0, output
    assert "impala-eval --checkpoint one --env-module HalfCheetah-v5\n" in output

    # when it is evaluated, then a run alone does not choose the file
    evaluate = ("impala-eval", "--checkpoint", "one", "--episodes", "1", "--max-steps", "9")
    code, output = programs.run(*evaluate)
    assert code == 2
    assert "'xml_file'" in output and "add --env-module HalfCheetah-v5" in output
    code, output = programs.run(*evaluate, "--env-module", "HalfCheetah-v5")
    assert code == 0, output
