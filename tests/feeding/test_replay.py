"""The memory of past trajectories: what is drawn, what is kept, what goes first."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from impala_redis.common.blocks.trajectory import empty_trajectory
from impala_redis.common.errors import ConfigError
from impala_redis.common.feeding import replay as replay_module
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.feeding.replay import Replay
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import make_spec

T, B = 3, 4
# With all that a block may carry: the frames before a stack, a memory of 3, and a task.
CONFIG = Config().replace(
    {"unroll_length": T, "extra_inputs": "last_action_reward", "env": "CartPole-v1,CartPole-v0"}
)
SPEC = make_spec("test", CONFIG, ObservationSpec((2,), "float32", frame_stack=3), discrete(2))


def fill(batch: Batch, numbers: list[int]) -> None:
    """Puts a trajectory that is `number` all over into each column that is still empty."""
    columns = slice(batch.filled, batch.size)
    for row in batch.rows:
        row[:, columns] = np.array(numbers).reshape(1, -1, *[1] * (row.ndim - 2))
    batch.versions += numbers
    batch.filled = batch.size


def numbers_in(batch: Batch) -> list[int]:
    """The number of each column, which stands in each of its rows."""
    found = batch.rows.actions[0].copy()
    for name, row in batch.rows._asdict().items():
        numbers = found.reshape(1, -1, *[1] * (row.ndim - 2)).astype(row.dtype)
        assert row.size and (row == numbers).all(), name
    return [int(number) for number in found]


def one_round(memory: Replay, numbers: list[int]) -> list[int]:
    """Draws, fills the rest with these, remembers; returns what was drawn."""
    batch = Batch(empty_trajectory(SPEC, B))
    memory.draw_into(batch)
    fill(batch, numbers[: B - batch.filled])
    drawn = numbers_in(batch)[: batch.replayed]
    assert batch.versions[: batch.replayed] == drawn
    memory.remember(batch)
    return drawn


def test_a_batch_is_all_fresh_until_the_memory_holds_enough() -> None:
    memory = Replay(SPEC, capacity=100, columns=2, seed=0)
    assert one_round(memory, [1, 2, 3, 4]) == []
    assert len(one_round(memory, [5, 6])) == 2


def test_what_is_drawn_is_what_was_remembered_whole() -> None:
    memory = Replay(SPEC, capacity=100, columns=2, seed=0)
    one_round(memory, [1, 2, 3, 4])
    assert set(one_round(memory, [5, 6])) <= {1, 2, 3, 4}


def test_the_first_in_is_the_first_out() -> None:
    # given a memory of 5 through which 12 have gone
    memory = Replay(SPEC, capacity=5, columns=2, seed=0)
    for numbers in ([1, 2, 3, 4], [5, 6], [7, 8], [9, 10], [11, 12]):
        one_round(memory, numbers)

    # when
    drawn = {number for _ in range(200) for number in draw(memory)}

    # then
    assert drawn == {8, 9, 10, 11, 12}


def test_draws_are_uniform() -> None:
    # given
    memory = Replay(SPEC, capacity=10, columns=2, seed=0)
    for start in range(1, 11, 2):
        one_round(memory, [start, start + 1, start, start + 1])

    # when
    counts = Counter(number for _ in range(5000) for number in draw(memory))

    # then: 10,000 draws, a tenth of them of each trajectory
    assert set(counts) == set(range(1, 11))
    assert all(abs(count / counts.total() - 1 / 10) < 0.02 for count in counts.values())


def test_replayed_trajectories_are_not_remembered_twice() -> None:
    # given
    memory = Replay(SPEC, capacity=4, columns=2, seed=0)
    one_round(memory, [1, 2, 3, 4])

    # when: two fresh ones come
    one_round(memory, [5, 6])

    # then the two oldest are gone, and no other
    assert {number for _ in range(100) for number in draw(memory)} == {3, 4, 5, 6}


def test_a_memory_smaller_than_a_batch_keeps_its_newest() -> None:
    memory = Replay(SPEC, capacity=2, columns=2, seed=0)
    one_round(memory, [1, 2, 3, 4])
    assert {number for _ in range(100) for number in draw(memory)} == {3, 4}


def test_the_same_seed_draws_the_same() -> None:
    def play(seed: int) -> list[list[int]]:
        memory = Replay(SPEC, capacity=50, columns=2, seed=seed)
        return [one_round(memory, [n, n + 1, n + 2, n + 3]) for n in range(20)]

    assert play(1) == play(1)
    assert play(1) != play(2)


def test_large_rows_are_drawn_and_remembered_as_small_ones_are() -> None:
    # given pictures, and a ring whose end falls into a batch
    spec = make_spec("test", CONFIG, ObservationSpec((40, 40), "uint8"), discrete(2))
    memory = Replay(spec, capacity=5, columns=2, seed=0)

    # when
    for numbers in ([1, 2, 3, 4], [5, 6], [7, 8]):
        batch = Batch(empty_trajectory(spec, B))
        memory.draw_into(batch)
        fill(batch, numbers[: B - batch.filled])
        memory.remember(batch)

    # then every array of a column has the number of one of the last five
    drawn = set()
    for _ in range(100):
        batch = Batch(empty_trajectory(spec, B))
        memory.draw_into(batch)
        fill(batch, [0, 0])
        drawn |= set(numbers_in(batch)[:2])
    assert drawn == {4, 5, 6, 7, 8}


@pytest.mark.parametrize("error", [MemoryError, ValueError])
def test_too_large_a_memory_is_refused_with_its_setting(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def no_memory(*_: Any) -> None:
        raise error  # numpy's ValueError: more bytes than can be counted

    monkeypatch.setattr(replay_module, "empty_trajectory", no_memory)
    with pytest.raises(ConfigError, match="replay_capacity of 1,000,000 trajectories; lower it"):
        Replay(SPEC, capacity=1_000_000, columns=2, seed=0)


def draw(memory: Replay) -> list[int]:
    batch = Batch(empty_trajectory(SPEC, B))
    memory.draw_into(batch)
    return batch.versions
