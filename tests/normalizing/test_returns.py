"""Discounted returns: one for each environment, across blocks, and forgotten in the end."""

import numpy as np
import pytest
from updates import make_config, spec_of

from impala_redis.common.blocks.trajectory import Trajectory, empty_trajectory
from impala_redis.common.feeding.batch import Part
from impala_redis.common.normalizing import returns
from impala_redis.common.normalizing.returns import DiscountedReturns

ME, OTHER = ("me", 1), ("other", 1)


def rows_of(rewards: list[list[float]]) -> Trajectory:
    """Rows [T, B] with these rewards, inside of episodes."""
    steps, columns = np.shape(rewards)
    spec = spec_of(make_config(unroll_length=steps))
    rows = empty_trajectory(spec, columns)
    for array in rows:
        array[...] = 0
    rows.rewards[...] = rewards
    rows.discounts[...] = rows.mask[...] = 1
    return rows


def test_a_return_goes_on_from_block_to_block_of_its_environment() -> None:
    # given the blocks of two actors, and one block of mine that is cut into two batches
    followed = DiscountedReturns(0.5)

    # when
    first = followed.follow(
        rows_of([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]]),
        [Part(ME, slice(0, 2), [0, 1]), Part(OTHER, slice(2, 3), [0])],
    )
    second = followed.follow(rows_of([[0.0, 0.0]] * 2), [Part(ME, slice(0, 2), [1, 2])])

    # then row by row; environment 2 has begun with 0
    assert first.tolist() == [1.0, 2.0, 4.0, 1.5, 3.0, 6.0]
    assert second.tolist() == [1.5, 0.0, 0.75, 0.0]


def test_two_blocks_of_one_actor_in_a_batch_are_followed_in_their_order() -> None:
    parts = [Part(ME, slice(0, 1), [0]), Part(OTHER, slice(1, 2), [0]), Part(ME, slice(2, 3), [0])]
    found = DiscountedReturns(0.5).follow(rows_of([[1.0, 8.0, 4.0]]), parts)
    assert found.tolist() == [1.0, 8.0, 4.5]


def test_an_episode_begins_with_a_return_of_zero() -> None:
    # given an episode that ends by the second row, its fake row, and the next one's first
    rows = rows_of([[1.0], [1.0], [9.0], [1.0]])
    rows.mask[2] = False
    rows.is_first[3] = True
    followed = DiscountedReturns(0.5)

    # when
    found = followed.follow(rows, [Part(ME, slice(0, 1), [0])])

    # then
    assert found.tolist() == [1.0, 1.5, 1.0]

    # when a block is missing, and its actor begins again inside of it
    again = rows_of([[1.0]])
    again.is_first[0] = True
    assert followed.follow(again, [Part(ME, slice(0, 1), [0])]).tolist() == [1.0]


def test_returns_of_actors_unheard_of_for_longest_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given
    monkeypatch.setattr(returns, "MOST_ENVIRONMENTS", 2)
    followed, one = DiscountedReturns(1.0), rows_of([[1.0]])

    # when
    for incarnation in (1, 2, 1, 3):
        followed.follow(one, [Part(("me", incarnation), slice(0, 1), [0])])

    # then
    found = [
        followed.follow(one, [Part(("me", incarnation), slice(0, 1), [0])])[0]
        for incarnation in (1, 3, 2)
    ]
    assert found == [3.0, 2.0, 1.0]
