"""What an actor does while its run has no learner."""

import logging

import pytest

from impala_redis.common.errors import WaitedTooLong
from impala_redis.workers.absence import NOTICE_S, LearnerAbsence


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


@pytest.fixture(autouse=True)
def _listening(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_an_absence_is_told_once_after_a_minute_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    absence = LearnerAbsence("r", 600.0, ends=False)

    # when the learner is away for less, then nothing is said
    assert not any(absence.keeps_from_playing(float(s)) for s in range(int(NOTICE_S)))
    assert messages(caplog) == []

    # when it stays away
    assert not any(absence.keeps_from_playing(float(s)) for s in range(60, 600))
    assert messages(caplog) == [
        "no learner has held the run 'r' for 60 s; nobody trains on what is played here: this "
        "actor pauses after 600 s"
    ]

    # and when it comes back, and goes again
    assert not any(absence.keeps_from_playing(away_s) for away_s in (0.0, 1.0, 0.0, 61.0))
    assert messages(caplog)[0] == "a learner of the run 'r' is back"


@pytest.mark.parametrize("most_away_s", [0.5, 60.0, 600.0])
def test_an_actor_pauses_until_a_learner_is_back(
    caplog: pytest.LogCaptureFixture, most_away_s: float
) -> None:
    absence = LearnerAbsence("r", most_away_s, ends=False)
    assert not absence.keeps_from_playing(most_away_s - 0.1)
    messages(caplog)
    assert absence.keeps_from_playing(most_away_s)
    assert absence.keeps_from_playing(most_away_s + 1000)
    paused = f"no learner has held the run 'r' for {most_away_s:.0f} s"
    assert messages(caplog) == [f"paused: {paused}; playing goes on when one is back"]
    assert not absence.keeps_from_playing(0.1)
    assert messages(caplog) == ["a learner of the run 'r' is back"]


def test_an_actor_that_is_to_end_says_why() -> None:
    absence = LearnerAbsence("r", 90.0, ends=True)
    assert not absence.keeps_from_playing(89.0)
    with pytest.raises(WaitedTooLong, match="'r' for 90 s, and --max-learner-away-s is over"):
        absence.keeps_from_playing(90.0)


def test_without_a_bound_an_actor_plays_on(caplog: pytest.LogCaptureFixture) -> None:
    absence = LearnerAbsence("r", float("inf"), ends=True)
    assert not any(absence.keeps_from_playing(away_s) for away_s in (60.0, 1e6))
    assert messages(caplog) == [
        "no learner has held the run 'r' for 60 s; nobody trains on what is played here"
    ]
