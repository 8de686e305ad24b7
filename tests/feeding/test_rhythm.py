"""When an empty list is asked again."""

import pytest

from impala_redis.common.feeding.rhythm import FIRST_PAUSE_S, LAST_PAUSE_S, Rhythm


def used_to(wait_s: float) -> Rhythm:
    rhythm = Rhythm()
    for _ in range(100):
        rhythm.note(wait_s)
    return rhythm


def asks_until(rhythm: Rhythm, comes_after_s: float) -> tuple[int, float]:
    """How often an empty list is asked until a block is found, and how long it lay there."""
    waited_s, asks = 0.0, 1
    while waited_s < comes_after_s:
        waited_s += rhythm.pause_s(waited_s)
        asks += 1
    return asks, waited_s - comes_after_s


@pytest.mark.parametrize("wait_s", [0.004, 0.006, 0.010, 0.015])
def test_a_block_that_comes_as_usual_is_found_soon_and_by_few_questions(wait_s: float) -> None:
    for share in (0.8, 0.9, 1.0, 1.3):
        asks, late_s = asks_until(used_to(wait_s), share * wait_s)
        assert late_s <= max(FIRST_PAUSE_S, wait_s / 8) + 1e-9
        assert asks <= 8


def test_a_block_that_is_there_already_costs_no_pause_longer_than_the_first() -> None:
    assert Rhythm().pause_s(0.0) == FIRST_PAUSE_S
    assert used_to(0.0001).pause_s(0.0) == FIRST_PAUSE_S


def test_who_waits_for_very_long_asks_ever_less_often_up_to_a_bound() -> None:
    # given
    rhythm = used_to(0.002)

    # when
    pauses = [rhythm.pause_s(waited_s) for waited_s in (0.005, 0.01, 0.02, 0.03, 1.0, 600.0)]

    # then
    assert pauses == sorted(pauses)
    assert pauses[-1] == LAST_PAUSE_S


def test_an_hour_without_a_block_is_forgotten_after_some_twenty() -> None:
    # given
    rhythm = used_to(0.006)

    # when
    rhythm.note(3600.0)
    for _ in range(20):
        rhythm.note(0.006)

    # then a block that comes as usual is found nearly as soon as before
    _, late_s = asks_until(rhythm, 0.006)
    assert late_s <= 0.001
