"""Scores: 0 for random play, 1 from the reference on, and their mean over all tasks."""

from typing import NamedTuple

import pytest

from impala_redis.common.tasks.scoring import advice_on_references, normalised, score
from impala_redis.common.tasks.task import Task


class Anchors(NamedTuple):
    random: float
    reference: float


PONG, MAZE = Anchors(-21.0, 9.0), Anchors(0.0, 0.5)


@pytest.mark.parametrize(
    ("mean_return", "expected"), [(-21.0, 0.0), (-6.0, 0.5), (9.0, 1.0), (20.0, 1.0), (-24.0, -0.1)]
)
def test_a_score_is_0_at_random_play_and_1_from_the_reference_on(
    mean_return: float, expected: float
) -> None:
    assert normalised(PONG, mean_return) == pytest.approx(expected)


def test_no_task_makes_up_for_another_one_beyond_its_reference() -> None:
    assert score([PONG, MAZE], [1000.0, 0.1]) == pytest.approx((1.0 + 0.2) / 2)


@pytest.mark.parametrize("mean_returns", [[9.0, None], [None, None], [9.0]])
def test_there_is_no_score_before_each_task_has_a_mean_return(
    mean_returns: list[float | None],
) -> None:
    assert score([PONG, MAZE], mean_returns) is None


def test_a_run_without_tasks_has_no_score() -> None:
    assert score([], []) is None


def test_a_score_that_would_be_the_return_is_told_with_the_remedy() -> None:
    # given tasks of which two say nothing of what can be earned
    plain, other = Task("plain", "A-v0"), Task("other", "B-v0", share=2)
    told = Task("told", "C-v0", reference=500.0)

    # then
    assert advice_on_references([told]) == ""
    assert advice_on_references([told, plain]).startswith(
        "the score of the task plain is its return, since"
    )
    assert "the task plain and 1 more is" in advice_on_references([plain, told, other])
