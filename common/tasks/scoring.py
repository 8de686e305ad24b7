"""What returns in a task are worth: 0 is random play, 1 the reference, and nothing is more."""

from collections.abc import Sequence
from typing import Protocol

from impala_redis.common.tasks.task import Task


class Scored(Protocol):
    """As much of a task as its score needs."""

    @property
    def random(self) -> float:
        """The mean return of random play."""

    @property
    def reference(self) -> float:
        """The mean return that scores 1; another one than `random`."""


def normalised(task: Scored, mean_return: float) -> float:
    """The score of a mean return in this task: 0 at its random play, 1 from its reference on.

    It is below 0 for what is worse than random play.
    """
    return min((mean_return - task.random) / (task.reference - task.random), 1.0)


def score(tasks: Sequence[Scored], mean_returns: Sequence[float | None]) -> float | None:
    """The mean score over all tasks; None while the mean return of one of them is unknown.

    `mean_returns` are in the order of the tasks.
    """
    known = [mean_return for mean_return in mean_returns if mean_return is not None]
    if not tasks or len(known) < len(tasks):
        return None
    return sum(map(normalised, tasks, known)) / len(tasks)


def advice_on_references(tasks: Sequence[Task]) -> str:
    """What to say where a run is to stop at a score, and a task's score would be its return."""
    plain = [task.name for task in tasks if (task.random, task.reference) == (0.0, 1.0)]
    if not plain:
        return ""
    more = f" and {len(plain) - 1} more" if len(plain) > 1 else ""
    return (
        f"the score of the task {plain[0]}{more} is its return, since nothing says what a random "
        "policy and a good one earn; give it random and reference in [[tasks]], unless these are 0 "
        "and 1"
    )
