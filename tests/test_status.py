"""What impala-status says that an operator must not overlook."""

from typing import Any

from workers.status import notices


def status(residual: int = 0, foreign: int = 0, **figures: float) -> dict[str, Any]:
    return {"residual": residual, "books": {"foreign": foreign}, "learner": {"figures": figures}}


def test_when_all_is_well_there_is_no_notice() -> None:
    assert notices(status(runs_lost=0, updates_skipped=0)) == []


def test_books_that_do_not_balance_are_an_alarm_and_come_first() -> None:
    told = notices(status(residual=3, foreign=1))
    assert told[0] == "ALARM    the books do not balance: 3 blocks are unexplained"
    assert len(told) == 2


def test_what_was_lost_skipped_or_came_another_way_is_told() -> None:
    lost, foreign, skipped = notices(status(foreign=7, runs_lost=2, updates_skipped=5))
    assert "opened again: 2; the server had lost" in lost
    assert "7 blocks came onto the list around the push" in foreign
    assert "5 updates were skipped" in skipped
