"""What returns in a task are worth: 0 is random play, 1 the reference, and nothing is more."""

from collections.abc import Sequence
from typing import Protocol


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
