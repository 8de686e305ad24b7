"""An actor of a run of several tasks plays each column's own, and its blocks say which."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from impala_redis.common.acting.unroll import Actor
from impala_redis.common.blocks.trajectory import Block, empty_trajectory
from impala_redis.common.blocks.weights import Weights
from impala_redis.common.blocks.wire import pack_block, unpack_block
from impala_redis.common.errors import ConfigError, MessageRefused, UnsupportedEnvironment
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec, make_spec
from impala_redis.workers.outfit import Outfit

T = 6


class Saying(gymnasium.Env[Any, Any]):
    """Shows and pays its number, and ends after as many steps."""

    observation_space = spaces.Box(0, 9, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, number: float, width: int = 1) -> None:
        self._number, self._width = number, width
        self.observation_space = spaces.Box(0, 9, (width,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._steps = 0
        return self._seen(), {"seed": seed}

    def step(self, action: Any) -> Any:
        self._steps += 1
        return self._seen(), self._number, self._steps >= self._number, False, {}

    def _seen(self) -> Any:
        return np.full(self._width, self._number, np.float32)


TABLES: list[dict[str, Any]] = [
    {"name": "two", "env": "Saying-v0", "share": 2, "env_kwargs": {"number": 2}},
    {"name": "three", "env": "Saying-v0", "env_kwargs": {"number": 3}},
    {"name": "odd", "env": "Saying-v0", "env_kwargs": {"number": float("1e30")}},
]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register("Saying-v0", Saying)
    yield
    gymnasium.registry.pop("Saying-v0")


def spec_of(tables: list[dict[str, Any]]) -> RunSpec:
    config = Config().replace({"tasks": tables, "unroll_length": T, "envs_per_actor": 8})
    return make_spec("several", config, ObservationSpec((1,), "float32", scale=()), discrete(2))


SPEC = spec_of(TABLES[:2])


def actor_of(spec: RunSpec, outfit: Outfit, start: int = 0) -> Actor:
    actor = outfit.make_actor(spec, "a", 7, 0, start)
    weights: Weights = {
        name: np.zeros(shape, np.float32) for name, shape in spec.weight_shapes().items()
    }
    actor.policy.load(3, weights)
    return actor


def block_of(spec: RunSpec, outfit: Outfit, start: int = 0) -> Block:
    actor = actor_of(spec, outfit, start)
    try:
        return actor.unroll()._replace()
    finally:
        actor.close()


@pytest.mark.parametrize("env_processes", [0, 3])
def test_each_column_plays_the_task_that_its_block_says(env_processes: int) -> None:
    # when eight environments are dealt from the second place on
    block = block_of(SPEC, Outfit(("Saying-v0",), env_processes=env_processes), start=1)

    # then
    rows, tasks = block.trajectory, block.trajectory.tasks[0, :, 0]
    assert tasks.tolist() == [1, 0, 0, 1, 0, 0, 1, 0]
    numbers = np.array([2.0, 3.0])[tasks]
    assert (rows.observations[..., 0] == numbers).all()
    assert (rows.rewards == np.where(rows.mask, numbers, 0)).all()
    for episode in block.episodes:
        assert episode.length == numbers[episode.column]
        assert episode.episode_return == numbers[episode.column] ** 2


def test_a_pinned_actor_plays_the_named_tasks_alone() -> None:
    outfit = Outfit(("Saying-v0",), tasks=("three",))
    block = block_of(SPEC, outfit)
    assert set(block.trajectory.tasks.flat) == {1}
    # and says so where it joins
    assert outfit.told(SPEC) == "three (of 2 tasks)"
    assert Outfit().told(SPEC) == "2 tasks (two, three)"
    with pytest.raises(ConfigError, match="no task 'four'; there are: two, three"):
        block_of(SPEC, Outfit(("Saying-v0",), tasks=("four",)))


def test_a_task_of_other_spaces_on_this_machine_is_named() -> None:
    wide = [TABLES[0], TABLES[1] | {"env_kwargs": {"number": 3, "width": 2}}]
    with pytest.raises(UnsupportedEnvironment, match=r"^Saying-v0 is another one.*float32\[2\]"):
        block_of(spec_of(wide), Outfit(("Saying-v0",)))


def test_the_learner_reads_which_tasks_all_environments_play() -> None:
    # given
    block = block_of(SPEC, Outfit(("Saying-v0",)))

    # when
    read = unpack_block(pack_block(block.numbered(1), SPEC), SPEC)

    # then
    assert read.tasks == (0, 1, 0, 0, 1, 0, 0, 1)
    assert np.array_equal(read.trajectory.tasks, block.trajectory.tasks)


@pytest.mark.fault(65)
@pytest.mark.parametrize("wrong", [-1, 2, 2**15 - 1])
def test_a_column_of_a_task_that_there_is_not_is_left_out_and_counted(wrong: int) -> None:
    # given
    block = block_of(SPEC, Outfit(("Saying-v0",)))
    block.trajectory.tasks[0, 3] = wrong

    # when
    read = unpack_block(pack_block(block.numbered(1), SPEC), SPEC)

    # then
    assert [(u.reason, u.kind, u.columns) for u in read.unfit] == [("range", "tasks", 1)]
    assert read.left_out == (3,)
    assert read.trajectory.tasks[0, :, 0].tolist() == [0, 1, 0, 1, 0, 0, 1]

    # and with each column wrong the block is
    block.trajectory.tasks[:] = wrong
    with pytest.raises(MessageRefused, match=r"a task's number is not in 0 \.\. 1"):
        unpack_block(pack_block(block.numbered(1), SPEC), SPEC)


@pytest.mark.fault(65)
@pytest.mark.parametrize(
    "other",
    [spec_of(TABLES[1::-1]), spec_of(TABLES), spec_of(TABLES[:1])],
    ids=["order", "number", "one"],
)
def test_a_block_of_a_run_with_other_tasks_is_refused(other: RunSpec) -> None:
    block = block_of(SPEC, Outfit(("Saying-v0",)))
    with pytest.raises(MessageRefused) as caught:
        unpack_block(pack_block(block.numbered(1), SPEC), other)
    assert caught.value.reason == "spec"


@pytest.mark.fault(66)
def test_what_is_beyond_all_numbers_in_one_task_costs_no_column_of_another() -> None:
    # given a task that pays more than a learner takes
    spec = spec_of(TABLES)
    block = block_of(spec, Outfit(("Saying-v0",)))
    assert Counter(block.trajectory.tasks.flat) == {0: 4, 1: 2, 2: 2}

    # when
    read = unpack_block(pack_block(block.numbered(1), spec), spec)

    # then
    assert [(u.kind, u.columns) for u in read.unfit] == [("rewards", 2)]
    assert Counter(read.trajectory.tasks.flat) == {0: 4, 1: 2}
    batch = Batch(empty_trajectory(spec, 6))
    batch.take(read.trajectory, 0, version=3)
    assert np.isfinite(batch.rows.rewards).all()


def test_one_task_takes_not_a_byte_more_than_none() -> None:
    # given the same environment as a run's only one, and as its only task
    alone = make_spec(
        "several",
        Config().replace(
            {
                **{"env": "Saying-v0", "env_kwargs": {"number": 2}},
                **{"unroll_length": T, "envs_per_actor": 8},
            }
        ),
        ObservationSpec((1,), "float32", scale=()),
        discrete(2),
    )

    # when
    one, none = (
        pack_block(block_of(spec, Outfit(("Saying-v0",))).numbered(1)._replace(unroll_s=1.0), spec)
        for spec in (spec_of(TABLES[:1]), alone)
    )

    # then
    assert len(one) == len(none)


def test_a_run_that_was_dealt_the_next_places_plays_them() -> None:
    first, second = (
        block_of(replace(SPEC, envs_per_actor=4), Outfit(("Saying-v0",)), start) for start in (0, 4)
    )
    columns = [*first.trajectory.tasks[0, :, 0], *second.trajectory.tasks[0, :, 0]]
    assert columns == [0, 1, 0, 0, 1, 0, 0, 1]
