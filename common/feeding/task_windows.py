"""The mean returns of a run with several tasks: a window of 100 episodes for each of them.

One window over all tasks would count a task as often as its episodes end.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from impala_redis.common.records.window import Ended, EpisodeWindow, Played

# Actors differ only in where they begin in the schedule of the tasks, and in their numbers of
# environments.
MOST_LAYOUTS = 1024


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
