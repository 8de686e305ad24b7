"""The mean returns of a run with several tasks: a window of 100 episodes for each of them.

One window over all tasks would count a task as often as its episodes end.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.records.lines import number_or_nan
from impala_redis.common.records.window import Ended, EpisodeWindow, Played

# Actors differ only in where they begin in the schedule of the tasks, and in their numbers of
# environments.
MOST_LAYOUTS = 1024
# No checkpoint has a larger count: up to here float64 has each whole number.
MOST_COUNTED = 2**53


class _EndedInTask(NamedTuple):
    """An episode, with the environment's index among those of its actor that play the task."""

    column: int
    episode_return: float
    length: int


class _Layout(NamedTuple):
    """Which task each environment of an actor plays."""

    places: tuple[int, ...]  # of each environment among those of its task
    counts: dict[int, int]  # environments by task


class TaskWindows:
    """The mean return of 100 training episodes in each task, and the number of all episodes."""

    def __init__(self, returns: Sequence[Iterable[float]], episodes: int = 0) -> None:
        """`returns` are those of earlier windows, by task: as many windows as tasks, also empty."""
        self.windows = [EpisodeWindow(of_task) for of_task in returns]
        self.episodes = episodes

    @property
    def mean_returns(self) -> list[float | None]:
        """The mean return of each task; None before its window was known."""
        return [window.mean_return for window in self.windows]

    @property
    def mean_return(self) -> float | None:
        """The mean over the tasks of their mean returns; None until all are known."""
        known = [mean for mean in self.mean_returns if mean is not None]
        return sum(known) / len(known) if len(known) == len(self.windows) else None

    @property
    def returns(self) -> list[list[float]]:
        """The returns of each task's window, as `__init__` takes them."""
        return [window.returns for window in self.windows]

    def add(self, blocks: Iterable[Played], now_s: float) -> None:
        """Counts blocks in the order in which they were trained on, by a monotonic clock."""
        by_task: dict[int, list[Played]] = {}
        for block in blocks:
            self.episodes += len(block.episodes)
            for task, part in _by_task(block).items():
                if 0 <= task < len(self.windows):  # columns of another one were refused
                    by_task.setdefault(task, []).append(part)
        for task, parts in by_task.items():
            self.windows[task].add(parts, now_s)


def _by_task(block: Played) -> dict[int, Played]:
    """What an actor would have played that had only its environments of one task, for each."""
    tasks = tuple(block.tasks)
    places, counts = _layout(tasks)
    episodes: dict[int, list[Ended]] = {task: [] for task in counts}
    left_out: dict[int, list[int]] = {task: [] for task in counts}
    for episode in block.episodes:
        column = episode.column
        ended = _EndedInTask(places[column], episode.episode_return, episode.length)
        episodes[tasks[column]].append(ended)
    for column in block.left_out:
        left_out[tasks[column]].append(places[column])
    return {
        task: Played(block.actor, count, block.first, episodes[task], left_out[task])
        for task, count in counts.items()
    }


@lru_cache(MOST_LAYOUTS)
def _layout(tasks: tuple[int, ...]) -> _Layout:
    counts: dict[int, int] = {}
    places = []
    for task in tasks:
        places.append(counts.setdefault(task, 0))
        counts[task] += 1
    return _Layout(tuple(places), counts)


Window = EpisodeWindow | TaskWindows


def window_of(num_tasks: int, returns: Sequence[Any] = (), episodes: int = 0) -> Window:
    """The window of a run with that many tasks.

    Args:
      num_tasks: 1 for a run of one environment, whose window is an `EpisodeWindow`.
      returns: `returns` of an earlier window, as a checkpoint has them; empty if there was none.
      episodes: how many ended up to then.

    Raises ValueError or TypeError: the returns are no numbers, or those of other tasks.
    """
    if num_tasks == 1:
        return EpisodeWindow(_numbers_in(returns), episodes)
    by_task = [_numbers_in(of_task) for of_task in returns or [()] * num_tasks]
    if len(by_task) != num_tasks:
        raise ValueError("returns")
    return TaskWindows(by_task, episodes)


def counts_in(values: Sequence[Any], num_tasks: int) -> NDArray[np.int64]:
    """Counts by task [num_tasks], as a checkpoint has them. Raises ValueError or TypeError."""
    counts = np.array(_numbers_in(values))
    if counts.shape != (num_tasks,) or not ((counts >= 0) & (counts <= MOST_COUNTED)).all():
        raise ValueError("task_frames")
    return counts.astype(np.int64)


def _numbers_in(values: Sequence[Any]) -> list[float]:
    numbers = [number_or_nan(one) for one in values]
    if np.isnan(numbers).any():
        raise ValueError("returns")
    return numbers
