"""What impala-train forks: the learner and the first actors, which are programs of their own."""

import os
import signal
import sys
from pathlib import Path

import pytest

from impala_redis.common.errors import EXIT_LEARNER_KILLED
from support import Program, Programs, eventually, is_running

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="programs are forked on Linux only"),
]

ENDLESS = ("--preset", "cartpole", "--total-frames", "500_000_000", "--stop-at-return", "none")


def family(train: Program) -> dict[str, int]:
    """The process numbers of what a train has started, by the names that top shows."""
    children = Path(f"/proc/{train.pid}/task/{train.pid}/children").read_text().split()
    return {Path(f"/proc/{pid}/comm").read_text().strip(): int(pid) for pid in children}


def command_line(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")


def pipes(pid: int) -> set[str]:
    files = [file for file in Path(f"/proc/{pid}/fd").iterdir() if os.path.lexists(file)]
    return {path for path in map(os.readlink, files) if path.startswith("pipe:")}


def test_they_are_shown_by_their_names_and_share_no_more_than_a_pipe(programs: Programs) -> None:
    # given
    train = programs.start("impala-train", *ENDLESS, "--run-dir", "run", cold=True)
    train.says("frames")
    started = family(train)

    # then ps tells them from each other, and from the train
    assert {"impala-learner", "impala-actor"} < started.keys()
    learner, actor = started["impala-learner"], started["impala-actor"]
    assert command_line(learner)[:3] == ["impala-learner", "--run", "cartpole"]
    assert command_line(actor)[:3] == ["impala-actor", "--run", "cartpole"]

    # and they hold nothing of what the train has open but the end of a pipe each
    assert len(pipes(train.pid) & pipes(learner)) == 1
    assert len(pipes(train.pid) & pipes(actor)) == 1
    assert not pipes(learner) & pipes(actor)

    # and what replaces one is started by an interpreter of its own: there are threads by now
    os.kill(actor, signal.SIGKILL)
    train.says("actor-0.1 takes its place")

    def replacement() -> bool:
        pids = family(train).values()
        return any("impala_redis.workers.actor" in command_line(pid) for pid in pids)

    eventually(replacement, what="another actor")


def test_a_learner_that_is_killed_ends_the_train_with_a_code_of_its_own(programs: Programs) -> None:
    train = programs.start("impala-train", *ENDLESS, "--run-dir", "run")
    train.says("frames")
    started = list(family(train).values())
    os.kill(family(train)["impala-learner"], signal.SIGKILL)
    assert train.code() == EXIT_LEARNER_KILLED
    assert "the learner was killed; continue with --resume --run-dir run\n" in train.output
    assert not [pid for pid in started if is_running(pid)]


CROWDED = """
import atexit, logging, multiprocessing, os, random, sys, threading

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv


def answer(pipe):
    pipe.send("by a process")


class Crowded(CartPoleEnv):
    def __init__(self, **options):
        super().__init__(**options)
        if "actor" not in sys.argv[0]:
            return
        for method in ("fork", "spawn"):
            context = multiprocessing.get_context(method)
            ours, theirs = context.Pipe()
            worker = context.Process(target=answer, args=(theirs,), daemon=True)
            worker.start()
            print(method, ours.recv())
            worker.join()
        thread = threading.Thread(target=lambda: threading.main_thread().join())
        thread.start()
        print("beside", sorted(t.name for t in threading.enumerate() if t is not thread))
        print("from", sys.path[0])
        logging.getLogger("mine").error("a line in the log")
        print("drawn", random.random(), np.random.random())
        atexit.register(print, "at the end")


gymnasium.register("Crowded-v0", entry_point=Crowded, max_episode_steps=20)
"""


def test_an_environment_finds_a_process_of_its_own_in_a_forked_actor(programs: Programs) -> None:
    # given an environment that starts threads and processes, and looks about it
    (programs.folder / "crowded.py").write_text(CROWDED)
    options = ("--env", "crowded:Crowded-v0", "--envs-per-actor", "1", "--num-actors", "2")

    # when
    train = programs.start(
        *("impala-train", *options, "--total-frames", "2000", "--run-dir", "run"),
        PYTHONPATH=str(programs.folder),
    )

    # then all of it works, and nothing of impala-train is in the way
    assert train.code() == 0, train.output
    assert train.output.count(": a line in the log\n") == 1  # for all actors
    logs = [(programs.folder / "run/logs" / f"actor-{i}.log").read_text() for i in (0, 1)]
    for name, log in zip(("actor-0", "actor-1"), logs, strict=True):
        assert "fork by a process\nspawn by a process\n" in log
        assert "beside ['MainThread', " in log  # of this process, and not of impala-train's
        assert f"from {programs.folder}\n" in log
        assert log.count("a line in the log") == 1
        assert f" {name}: a line in the log" in log
        assert log.endswith("at the end\n")

    # and no actor draws the numbers of another
    drawn = [line.split()[1:] for log in logs for line in log.splitlines() if "drawn" in line]
    assert len(drawn) == 2
    assert not set(drawn[0]) & set(drawn[1])
