"""A learner is away while its lease is not renewed although Redis answers."""

import pytest

from impala_redis.common.acting.signs import LONGEST_GAP_S, LearnerSigns


def test_a_learner_that_renews_its_lease_is_never_away() -> None:
    signs = LearnerSigns(100.0)
    for second in range(1, 200):
        signs.note(str(second // 3), 100.0 + second)
        assert signs.away_s <= 2.0


@pytest.mark.parametrize("every_s", [0.001, 1.0])
def test_a_learner_without_a_sign_is_away_for_the_time_that_passes(every_s: float) -> None:
    signs = LearnerSigns(0.0)
    signs.note("5.0", 0.0)
    for look in range(1, 1001):
        signs.note("5.0", look * every_s)
    assert signs.away_s == pytest.approx(1000 * every_s)
    signs.note("4.0", 1001 * every_s)  # whatever it says: a server's clock may go back
    assert signs.away_s == 0.0


def test_a_run_whose_lease_nobody_has_renewed_is_without_a_learner_from_the_start() -> None:
    signs = LearnerSigns(0.0)
    for second in range(1, 11):
        signs.note("", float(second))
    assert signs.away_s == 10.0


def test_a_run_that_redis_does_not_have_is_without_a_learner() -> None:
    signs = LearnerSigns(0.0)
    signs.note("5.0", 1.0)
    for second in range(2, 12):
        signs.note(None, float(second))
    assert (signs.away_s, signs.looked_at_s) == (10.0, 11.0)
    signs.note("6.0", 12.0)
    assert signs.away_s == 0.0


def test_the_silence_of_redis_is_not_the_learner_s() -> None:
    signs = LearnerSigns(0.0)
    signs.note("5.0", 1.0)
    signs.note("5.0", 10_000.0)  # after hours without an answer
    assert signs.away_s == LONGEST_GAP_S
