"""Blocks of any width fill batches of any width, each column once and in order."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_redis.common.blocks.trajectory import (
    Block,
    Episode,
    Origin,
    Trajectory,
    Unfit,
    empty_trajectory,
)
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.learning.torch_inputs import inputs_of, moved
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec

T = 3


def make_spec(observation: ObservationSpec, unroll_length: int = T) -> RunSpec:
    return RunSpec(
        run="test",
        env="Test-v0",
        observation=observation,
        action=discrete(1000),
        hidden_sizes=(4,),
        activation="tanh",
        unroll_length=unroll_length,
        envs_per_actor=1,
        queue_blocks=1,
        max_policy_age_s=600.0,
        seed=0,
        lstm_size=1,  # so that there is some memory
        num_tasks=3,
    )


SPEC = make_spec(ObservationSpec((2,), "float32"))


def numbered(first_column: int, columns: int) -> Trajectory:
    """Rows in which every number names its column (and row, where there is room for it)."""
    rows = empty_trajectory(SPEC, columns)
    column = np.arange(first_column, first_column + columns)
    row = np.arange(T + 1)[:, None]
    rows.observations[:] = (column + 0.1 * row)[..., None] + [0.0, 0.05]
    rows.is_first[:] = (column + row) % 3 == 0
    rows.actions[:] = column
    rows.rewards[:] = column + 0.1 * row[:-1]
    rows.discounts[:] = (column + row[:-1]) % 2
    rows.behaviour_log_probs[:] = -column - 0.1 * row[:-1]
    rows.mask[:] = (column + row[:-1]) % 4 > 0
    rows.memory[:] = column[:, None] + [0.0, 0.5]
    rows.tasks[:] = (column % 3)[:, None]
    return rows


def same(one: Trajectory, other: Trajectory) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def copies(rows: Trajectory) -> Trajectory:
    return Trajectory(*(array.copy() for array in rows))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    batch_size=st.integers(1, 8),
)
def test_no_column_is_lost_repeated_or_reordered(widths: list[int], batch_size: int) -> None:
    # given
    batch = Batch(empty_trajectory(SPEC, batch_size))
    full: list[Trajectory] = []
    versions: list[int] = []

    # when: blocks one after another, what does not fit being carried over
    column = 0
    for version, width in enumerate(widths):
        block, start = numbered(column, width), 0
        while start < width:
            start += batch.take(block, start, version)
            if batch.filled == batch.size:
                full.append(copies(batch.rows))
                versions += batch.versions
                batch.clear()
        column += width
    versions += batch.versions

    # then
    assert len(full) == column // batch_size
    assert batch.filled == column % batch_size
    for index, rows in enumerate(full):
        assert same(rows, numbered(index * batch_size, batch_size))
    rest = Trajectory(*(array[:, : batch.filled] for array in batch.rows))
    assert same(rest, numbered(len(full) * batch_size, batch.filled))
    assert versions == [version for version, width in enumerate(widths) for _ in range(width)]


def test_what_does_not_fit_is_taken_from_where_the_last_batch_ended() -> None:
    # given
    first, second = (Batch(empty_trajectory(SPEC, 3)) for _ in range(2))
    block = numbered(0, 5)

    # when
    taken = first.take(block, 0, version=1)
    rest = second.take(block, taken, version=1)

    # then
    assert (taken, rest) == (3, 2)
    assert (first.filled, second.filled) == (3, 2)
    assert first.rows.actions[0].tolist() == [0, 1, 2]
    assert second.rows.actions[0, :2].tolist() == [3, 4]


def test_each_part_knows_which_environments_of_its_actor_played_it() -> None:
    # given a block of five environments of which one was left out, across two batches
    unfit = (Unfit("nonfinite", "observations", "", 1),)
    origin, rows = Origin("a", 1, 1, 0), numbered(0, 4)
    block = Block(origin, rows, (), 1.0, unfit, left_out=(1,))
    batches = [Batch(empty_trajectory(SPEC, 3)) for _ in range(2)]

    # when
    taken = batches[0].take(rows, 0, 0, origin[:2], block.environments)
    batches[1].take(rows, taken, 0, origin[:2], block.environments)

    # then
    assert [list(batch.parts[0].environments) for batch in batches] == [[0, 2, 3], [4]]


def test_a_full_batch_takes_nothing() -> None:
    # given
    batch = Batch(empty_trajectory(SPEC, 2))
    batch.take(numbered(0, 2), 0, version=1)
    before = copies(batch.rows)

    # when
    taken = batch.take(numbered(7, 2), 0, version=2)

    # then
    assert taken == 0
    assert same(batch.rows, before)
    assert batch.versions == [1, 1]


def test_each_column_keeps_the_version_it_was_made_with() -> None:
    # given
    batch = Batch(empty_trajectory(SPEC, 5))

    # when
    batch.take(numbered(0, 2), 0, version=7)
    batch.take(numbered(2, 9), 0, version=3)

    # then
    assert batch.versions == [7, 7, 3, 3, 3]


def test_a_cleared_batch_is_as_good_as_new() -> None:
    # given
    batch = Batch(empty_trajectory(SPEC, 2))
    batch.take(numbered(0, 2), 0, version=1)
    batch.frames = 5
    batch.episodes += [Episode(1.0, 2, 0)]

    # when
    batch.clear()

    # then
    assert (batch.filled, batch.frames, batch.episodes, batch.versions) == (0, 0, [], [])
    assert batch.take(numbered(7, 2), 0, version=2) == 2
    assert same(batch.rows, numbered(7, 2))
    assert batch.versions == [2, 2]


def test_clearing_one_batch_leaves_what_was_handed_out_before() -> None:
    # given
    batch = Batch(empty_trajectory(SPEC, 1))
    batch.take(numbered(0, 1), 0, version=1)
    batch.episodes += [Episode(1.0, 2, 0)]
    episodes, versions = batch.episodes, batch.versions

    # when
    batch.clear()

    # then
    assert (episodes, versions) == ([Episode(1.0, 2, 0)], [1])


def test_two_batches_share_nothing() -> None:
    # given
    one, other = (Batch(empty_trajectory(SPEC, 2)) for _ in range(2))
    other.take(numbered(0, 2), 0, version=1)

    # when
    one.take(numbered(7, 2), 0, version=2)
    one.episodes += [Episode(1.0, 2, 0)]

    # then
    assert same(other.rows, numbered(0, 2))
    assert (other.versions, other.episodes) == ([1, 1], [])


@pytest.mark.parametrize("name", Trajectory._fields)
def test_tensors_and_arrays_are_the_same_memory(name: str) -> None:
    # given
    batch = Batch(empty_trajectory(SPEC, 4))
    array = getattr(batch.rows, name)
    tensor = moved(batch.rows, torch.device("cpu"))[name]

    # when
    batch.take(numbered(3, 4), 0, version=1)

    # then
    assert tensor.data_ptr() == array.ctypes.data
    assert tuple(tensor.shape) == array.shape
    np.testing.assert_array_equal(tensor.numpy(), getattr(numbered(3, 4), name))


@pytest.mark.parametrize(
    "observation",
    [
        ObservationSpec((2, 3), "uint8"),
        ObservationSpec((), "int64", 9),
        ObservationSpec((4,), "float64"),
    ],
)
def test_a_batch_has_the_runs_shapes_and_dtypes(observation: ObservationSpec) -> None:
    # when
    batch = Batch(empty_trajectory(make_spec(observation, unroll_length=5), 7))

    # then
    assert batch.size == 7
    found: dict[str, Any] = {
        name: (array.shape, str(array.dtype)) for name, array in batch.rows._asdict().items()
    }
    assert found == {
        "observations": ((6, 7, *observation.shape), observation.dtype),
        "is_first": ((6, 7), "bool"),
        "actions": ((5, 7), "int32"),
        "rewards": ((5, 7), "float32"),
        "discounts": ((5, 7), "float32"),
        "behaviour_log_probs": ((5, 7), "float32"),
        "mask": ((5, 7), "bool"),
        "memory": ((1, 7, 2), "float32"),
        "tasks": ((1, 7, 1), "int16"),
    }


def test_the_loss_gets_the_rows_in_its_own_dtypes() -> None:
    # given
    batch: Batch = Batch(empty_trajectory(SPEC, 4))
    expected = numbered(3, 4)
    batch.take(expected, 0, version=1)

    # when
    seen, rows = inputs_of(moved(batch.rows, torch.device("cpu")))

    # then
    for name in ("observations", "is_first", "actions", "rewards"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(seen.memory, expected.memory[0])
    assert rows.actions.dtype == torch.int64
    assert rows.mask.dtype == torch.bool
    assert rows.tasks.dtype == torch.int64
    assert rows.tasks.tolist() == expected.tasks[0, :, 0].tolist()
    for name, tensor in list(rows._asdict().items())[:-1]:
        np.testing.assert_array_equal(tensor.numpy(), getattr(expected, name))


def test_on_a_cpu_the_learner_sees_the_hosts_own_memory() -> None:
    batch = Batch(empty_trajectory(SPEC, 4))
    _, rows = inputs_of(moved(batch.rows, torch.device("cpu")))
    assert rows.rewards.data_ptr() == batch.rows.rewards.ctypes.data
