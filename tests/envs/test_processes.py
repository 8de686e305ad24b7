"""Environments in processes: the same as in one, and whatever happens there is told and ended."""

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import EnvironmentFailed, UnsupportedEnvironment
from impala_redis.common.settings.variant import Variant
from support import children_of, eventually, is_running

MODULE = """
import os

import gymnasium
import numpy as np
from gymnasium import spaces


class Walk(gymnasium.Env):
    observation_space = spaces.Dict(
        {"place": spaces.Box(-1, 1, (3,), np.float32), "kind": spaces.Discrete(4)}
    )
    action_space = spaces.Discrete(2)

    def __init__(self, fails=""):
        self.fails, self.share = fails, -1.0
        if fails == "made":
            os._exit(5)

    def observation(self):
        place = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return {"place": place, "kind": int(self.np_random.integers(4))}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.length = 0, 3 + int(self.np_random.integers(4))
        return self.observation(), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 2 and self.fails == "raises":
            class Local(Exception):
                pass
            raise Local("no luck")
        if self.steps == 2 and self.fails == "exits":
            os._exit(7)
        numbers = {"share": self.share, "pid": os.getpid()}
        over = self.steps == self.length
        info = {"episode_info": numbers, "goal": {"won": float(action)}} if over else {}
        return self.observation(), float(self.np_random.normal()), over, False, info

    def set_progress(self, share):
        if share == 0.75 and self.fails == "told":
            raise ValueError("not so far")
        self.share = share

    def close(self):
        if self.fails == "closes":
            raise ValueError("not yet")


class Shy(Walk):
    @property
    def set_progress(self):
        raise KeyError("set_progress")


gymnasium.register("Shy-v0", Shy)
gymnasium.register("Walk-v0", Walk)
gymnasium.register("Whole-v0", None, vector_entry_point=Walk)
"""


@pytest.fixture
def module(own_folder: Path) -> str:
    """A module of environments in the working directory."""
    name = f"walks_{os.getpid()}"
    (own_folder / f"{name}.py").write_text(MODULE)
    return name


def made(module: str, num_processes: int, num_envs: int = 5, fails: str = "") -> VectorEnvironment:
    """Walks of 3 to 6 steps, cut after 4, in so many processes."""
    return VectorEnvironment(
        f"{module}:Walk-v0",
        num_envs,
        info_keys=("goal.won",),
        variant=Variant(env_kwargs=f'{{"fails": "{fails}"}}', max_episode_steps=4),
        num_processes=num_processes,
    )


def played(environment: VectorEnvironment) -> tuple[list[Any], list[Any], set[float]]:
    """All arrays of a few episodes, the infos without the processes, and these."""
    environment.set_progress(0.5)
    random = np.random.default_rng(0)
    arrays = [np.array(environment.reset(7))]
    infos, pids = [], set()
    for _ in range(25):
        step = environment.step(random.integers(0, 2, environment.num_envs))
        arrays += [np.array(step.observations), step.rewards, step.over]
        arrays += [step.terminated, step.truncated]
        pids |= {info["pid"] for info in step.infos.values()}
        infos.append({i: (info["share"], info["goal.won"]) for i, info in step.infos.items()})
    environment.close()
    return arrays, infos, pids


def test_the_same_seed_plays_the_same_episodes_in_any_number_of_processes(module: str) -> None:
    # given one process, and an environment that was told of the training's progress
    arrays, infos, pids = played(made(module, 0))
    assert pids == {os.getpid()}
    assert {share for found in infos for share, _ in found.values()} == {0.5}
    assert any(array.any() for array in arrays[5::5])  # some episodes were cut

    # then two of them, and one for each of more than there are, play the same
    for num_processes, used in ((2, 2), (9, 5)):
        others, told, theirs = played(made(module, num_processes))
        assert len(theirs - pids) == used
        assert told == infos
        for one, other in zip(arrays, others, strict=True):
            np.testing.assert_array_equal(one, other)
        assert not any(is_running(int(pid)) for pid in theirs)


@pytest.mark.parametrize(
    ("fails", "why"),
    [
        ("raises", r"failed in step: Local: no luck \(walks_\d+.py, line \d+, in step\)"),
        ("exits", "failed in step: its code ended one of its processes with the exit code 7"),
        ("told", r"failed in set_progress: ValueError: not so far \(walks_\d+.py, line"),
    ],
)
def test_what_goes_wrong_in_a_process_is_told_as_in_one(module: str, fails: str, why: str) -> None:
    # given
    environment = made(module, 2, fails=fails)
    processes: Any = environment._processes
    pids = [process.pid for process in processes._env.processes]

    # when
    with pytest.raises(EnvironmentFailed, match=why) as caught:
        environment.reset(0)
        environment.set_progress(0.75)
        for _ in range(3):
            environment.step(np.zeros(5, np.int64))
    environment.close()

    # then the frames are those of the user's file, and no process is left
    assert ("in step" in caught.value.frames) == (fails == "raises")
    assert not any(is_running(pid) for pid in pids)


def test_a_process_that_is_killed_is_an_error_of_the_environment(module: str) -> None:
    # given
    environment = made(module, 2)
    environment.reset(0)
    processes: Any = environment._processes
    victim, other = (process.pid for process in processes._env.processes)

    # when
    os.kill(victim, signal.SIGKILL)

    # then
    with pytest.raises(EnvironmentFailed, match="was ended by the signal SIGKILL"):
        environment.step(np.zeros(5, np.int64))
    assert not is_running(other)


def test_processes_end_with_the_actor_even_by_kill_9(module: str) -> None:
    # given an actor's process, forked, with processes of its own that a step keeps busy
    reads, writes = os.pipe()
    actor = os.fork()
    if not actor:
        environment = made(module, 2)
        processes: Any = environment._processes
        os.write(writes, b" ".join(b"%d" % p.pid for p in processes._env.processes))
        time.sleep(60)
        os._exit(0)
    pids = [int(pid) for pid in os.read(reads, 100).split()]
    assert all(is_running(pid) for pid in pids)

    # when
    os.kill(actor, signal.SIGKILL)
    os.waitpid(actor, 0)

    # then
    eventually(lambda: not any(is_running(pid) for pid in pids))


def test_what_cannot_be_stepped_one_by_one_says_so(
    module: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UnsupportedEnvironment, match="has a vector form alone"):
        VectorEnvironment(f"{module}:Whole-v0", 2, num_processes=2)

    # and CartPole's vector form is given up, which the log says
    environment = VectorEnvironment("CartPole-v1", 3, num_processes=2)
    assert environment.reset(0).shape == (3, 4)
    environment.close()
    assert "CartPole-v1 is stepped one by one in 2 processes" in caplog.text


def test_the_closed_sample_is_not_told_and_its_error_is_only_logged(module: str) -> None:
    # given environments whose close raises
    environment = made(module, 2, fails="closes")

    # then those in the processes are told, and the one that showed its spaces is not
    assert environment.listens
    assert environment._listeners == environment._singles == []
    environment.set_progress(0.75)
    environment.close()


@pytest.mark.parametrize("num_processes", [0, 2])
def test_an_error_of_an_attribute_is_a_sentence(module: str, num_processes: int) -> None:
    why = r"Shy-v0 cannot be asked for its method set_progress: KeyError: 'set_progress'"
    before = children_of(os.getpid())
    with pytest.raises(UnsupportedEnvironment, match=why):
        VectorEnvironment(f"{module}:Shy-v0", 2, num_processes=num_processes)
    assert set(children_of(os.getpid())) <= set(before)


def test_processes_that_cannot_be_started_are_a_sentence_and_leave_none(module: str) -> None:
    # given room for the files of some processes, and not for those of all
    pid = os.getpid()
    before = children_of(pid)
    made(module, 2).close()  # imports what is imported once
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 24, limits[1]))

    # when
    try:
        with pytest.raises(UnsupportedEnvironment, match=r"cannot be started.*lower --env-proc"):
            made(module, 64, num_envs=64)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    # then
    assert set(children_of(pid)) <= set(before)
