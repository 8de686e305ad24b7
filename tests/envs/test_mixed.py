"""Environments of several tasks in one vector: each plays as alone, also beside bad ones."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from impala_redis.common.blocks.wire import pack_block, unpack_block
from impala_redis.common.envs.mixed import MixedEnvironment
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import EnvironmentFailed
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec, make_spec
from impala_redis.common.settings.variant import Variant
from impala_redis.workers.outfit import Outfit
from support import children_of

MODULE = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Draws(gymnasium.Env):
    observation_space = spaces.Box(0, 1, (4,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, pays=0.0, fails=False, meets=None):
        self.pays, self.fails, self.meets, self.share = float(pays), fails, meets, -1.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.random(4, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.fails and self.steps == 2:
            raise ValueError("no luck")
        if self.meets:  # each of the two waits until the other one opens it
            open(self.meets[1:], self.meets[0]).close()
        over = self.steps == 3
        info = {"episode_info": {"share": self.share, "pays": self.pays}}
        return self.np_random.random(4, np.float32), self.pays, over, False, info

    def set_progress(self, share):
        self.share = share


gymnasium.register("Draws-v0", Draws)
"""

Maker = Callable[[int], VectorEnvironment]


@pytest.fixture
def module(own_folder: Path) -> str:
    """A module of environments in the working directory."""
    name = f"draws_{os.getpid()}"
    (own_folder / f"{name}.py").write_text(MODULE)
    return name


def draws(module: str, num_processes: int = 0, **kwargs: Any) -> Maker:
    variant = Variant(env_kwargs=json.dumps(kwargs))
    env_id = f"{module}:Draws-v0"
    return partial(VectorEnvironment, env_id, variant=variant, num_processes=num_processes)


def cartpole(**kwargs: Any) -> Maker:
    return partial(VectorEnvironment, "CartPole-v1", variant=Variant(json.dumps(kwargs)))


def numbers(*tasks: int) -> Any:
    return np.array(tasks, np.int16)


def test_each_column_plays_its_task_as_a_vector_of_that_task_alone(module: str) -> None:
    # given two kinds of carts, one that draws in two processes, and a task that nobody plays
    def not_made(num_envs: int) -> VectorEnvironment:
        raise AssertionError(num_envs)

    makers = [cartpole(), draws(module, 2, pays=5), cartpole(sutton_barto_reward=True), not_made]
    tasks = numbers(0, 2, 1, 0, 1, 2, 2)
    mixed = MixedEnvironment(makers, tasks)
    columns = [np.flatnonzero(tasks == number) for number in range(3)]
    alone = [make(len(mine)) for make, mine in zip(makers, columns, strict=False)]
    assert mixed.observation == alone[0].observation
    assert mixed.listens
    mixed.set_progress(0.25)
    alone[1].set_progress(0.25)

    # when all begin with seeds that follow each other
    first = np.array(mixed.reset(7))
    seeds = np.cumsum([7, *map(len, columns)])
    for environment, mine, seed in zip(alone, columns, seeds, strict=False):
        assert np.array_equal(first[mine], environment.reset(int(seed)))
    assert mixed.seed == 7
    assert len(np.unique(first, axis=0)) == len(tasks)

    # then every step brings each of them what it brings alone
    rng, infos = np.random.default_rng(0), 0
    for _ in range(40):
        actions = rng.integers(0, 2, len(tasks)).astype(np.int32)
        found = mixed.step(actions)
        for environment, mine in zip(alone, columns, strict=True):
            expected = environment.step(actions[mine])
            for one, other in zip(found[:5], expected[:5], strict=True):
                assert np.array_equal(one[mine], other)
            assert [found.infos.get(int(i)) for i in mine] == [
                expected.infos.get(k) for k in range(len(mine))
            ]
        infos += len(found.infos)
    assert found.rewards.dtype == np.float32
    assert infos == 2 * 10  # of episodes of three steps, each with the step that resets
    for one in (mixed, *alone):
        one.close()


def test_the_processes_of_all_tasks_step_at_the_same_time(module: str, own_folder: Path) -> None:
    # given two tasks, each in a process, of which neither ends its step without the other
    meeting = str(own_folder / "meeting")
    os.mkfifo(meeting)
    makers = [draws(module, 1, meets=f"{mode}{meeting}") for mode in "rw"]
    mixed = MixedEnvironment(makers, numbers(1, 0))
    mixed.reset(0)

    # then steps end
    for _ in range(5):
        mixed.step(np.zeros(2, np.int32))
    mixed.close()


@pytest.mark.parametrize("num_processes", [0, 1])
def test_a_task_that_fails_is_named_and_all_can_be_closed(module: str, num_processes: int) -> None:
    # given a task beside one that fails, whose step is under way when the other's error is met
    before = children_of(os.getpid())
    makers = [draws(module, num_processes, fails=True), draws(module, 1), cartpole()]
    mixed = MixedEnvironment(makers, numbers(2, 1, 0))
    mixed.reset(0)
    mixed.step(np.zeros(3, np.int32))

    # when
    with pytest.raises(EnvironmentFailed, match=r"Draws-v0 failed in step: ValueError: no luck"):
        mixed.step(np.zeros(3, np.int32))
    mixed.close()

    # then no process is left
    assert set(children_of(os.getpid())) <= set(before)


def test_a_task_that_cannot_be_made_leaves_nothing_of_the_others(module: str) -> None:
    before = children_of(os.getpid())
    with pytest.raises(Exception, match="takes no argument 'size'"):
        MixedEnvironment([draws(module, 2), draws(module, size=3)], numbers(0, 1, 0))
    assert set(children_of(os.getpid())) <= set(before)


def run_of_two(module: str, share: int = 1) -> RunSpec:
    """A run of a task that pays 1, of that share, and one that pays no number."""
    env = f"{module}:Draws-v0"
    good = {"name": "good", "env": env, "env_kwargs": {"pays": 1}, "share": share}
    bad = {"name": "bad", "env": env, "env_kwargs": {"pays": "nan"}}
    config = Config().replace({"tasks": [good, bad], "unroll_length": 8, "envs_per_actor": 4})
    one = draws(module)(1)
    return make_spec("r", config, one.observation, one.action)


def test_rewards_that_are_no_numbers_cost_the_columns_of_their_own_task_alone(module: str) -> None:
    # given
    spec = run_of_two(module)
    actor = Outfit((module,)).make_actor(spec, "a", 1, 0)
    shapes = spec.parameter_shapes()
    actor.policy.load(1, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})

    # when
    played = actor.unroll()
    sent = played._replace(origin=played.origin._replace(sequence=1))
    block = unpack_block(pack_block(sent, spec), spec)
    actor.close()

    # then
    assert block.left_out == (1, 3)
    assert block.trajectory.tasks.ravel().tolist() == [0, 0]
    assert block.tasks == (0, 1, 0, 1)
    assert {episode.episode_return for episode in block.episodes} == {3.0}


def test_processes_are_shared_out_by_the_columns_and_each_task_has_one(module: str) -> None:
    before = set(children_of(os.getpid()))
    outfit = Outfit((module,), env_processes=4)
    environment = outfit.make_environment(run_of_two(module, share=3))
    assert sorted(environment.tasks.tolist()) == [0, 0, 0, 1]
    assert len(set(children_of(os.getpid())) - before) == 3 + 1
    environment.close()
