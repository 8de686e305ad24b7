"""Tasks are dealt to environments by their shares, whoever joins and however many there are."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_redis.common.tasks.dealing import dealt, pinned, schedule

shares = st.lists(st.integers(1, 8), min_size=1, max_size=8)


@given(shares)
@settings(deadline=None)
def test_each_task_has_its_share_of_the_places_evenly_spread(found: list[int]) -> None:
    # given
    places, total = schedule(found), sum(found)

    # then
    assert Counter(places) == dict(enumerate(found))
    # and after any number of places each task has what it should have, to within one
    for number, share in enumerate(found):
        had = np.cumsum([place == number for place in places])
        assert np.abs(had - share / total * np.arange(1, total + 1)).max() < 1.5


def test_shares_of_two_one_and_one_take_turns() -> None:
    assert schedule([2, 1, 1]) == (0, 1, 2, 0)
    assert schedule([1, 1, 1]) == (0, 1, 2)


@given(shares, st.integers(0, 10**9), st.lists(st.integers(1, 40), min_size=1, max_size=6))
@settings(deadline=None)
def test_actors_who_join_one_after_the_other_hold_all_tasks_by_their_shares(
    found: list[int], start: int, widths: list[int]
) -> None:
    # when each is dealt the places after those of the one before
    columns: Counter[int] = Counter()
    for width in widths:
        columns.update(dealt(found, start, width).tolist())
        start += width

    # then
    for number, share in enumerate(found):
        expected = sum(widths) * share / sum(found)
        assert abs(columns[number] - expected) < 3


def test_an_actor_wide_enough_holds_all_tasks_by_itself() -> None:
    for start in range(7):
        assert Counter(dealt([3, 1], start, 8).tolist()) == {0: 6, 1: 2}


@pytest.mark.parametrize("start", [0, 1, 5])
def test_a_pinned_actor_plays_its_tasks_alone_by_their_shares(start: int) -> None:
    found = pinned([1, 2, 4, 1], [1, 3], start, 9)
    assert found.dtype == np.int16
    assert Counter(found.tolist()) == {1: 6, 3: 3}
