"""Which task each environment of an actor plays: dealt like cards, by the tasks' shares."""

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

TaskNumbers = NDArray[np.int16]


def schedule(shares: Sequence[int]) -> tuple[int, ...]:
    """Task numbers, each as often as its share says, spread as evenly as they can be.

    Each place goes to the task that lags furthest behind its share (smooth weighted round robin):
    shares of 2, 1, 1 give 0, 1, 2, 0.
    """
    total, lag = sum(shares), [0] * len(shares)
    places = []
    for _ in range(total):
        lag = [behind + share for behind, share in zip(lag, shares, strict=True)]
        number = max(range(len(shares)), key=lag.__getitem__)
        lag[number] -= total
        places.append(number)
    return tuple(places)


def dealt(shares: Sequence[int], start: int, num_envs: int) -> TaskNumbers:
    """The task of each environment [N] of an actor who is dealt the places from `start` on.

    The places of the actors who join one after the other follow each other, so that together they
    hold all tasks by their shares; an actor with as many environments as there are places does
    by itself.
    """
    places = schedule(shares)
    start %= len(places)
    return np.array(list(islice(cycle(places), start, start + num_envs)), np.int16)


def pinned(shares: Sequence[int], numbers: Sequence[int], start: int, num_envs: int) -> TaskNumbers:
    """The same [N] where an actor plays only the tasks of these numbers."""
    kept = np.array(numbers, np.int16)
    found: TaskNumbers = kept[dealt([shares[number] for number in numbers], start, num_envs)]
    return found
