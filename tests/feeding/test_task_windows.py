"""The mean returns of several tasks: each task's own, whatever the others do."""

from typing import NamedTuple

import numpy as np

from impala_redis.common.feeding.task_windows import TaskWindows
from impala_redis.common.records.window import EpisodeWindow, Played


class Ended(NamedTuple):
    episode_return: float
    column: int
    length: int = 1


def test_each_task_has_the_mean_of_its_own_episodes() -> None:
    # given an actor whose environments play tasks 0, 1, 0, 1
    windows = TaskWindows([[], []])
    tasks = (0, 1, 0, 1)

    # when one task's episodes are ten times as many
    for number in range(50):
        long = [Ended(5.0, 1), Ended(7.0, 3)]
        short = [Ended(1.0, 0), Ended(3.0, 2)] * 10
        windows.add([Played(("a", 1), 4, number == 0, [*long, *short], tasks=tasks)], number * 1.0)

    # then each counts as much as the other
    assert windows.mean_returns == [2.0, 6.0]
    assert windows.mean_return == 4.0
    assert windows.episodes == 50 * 22


def test_the_mean_is_unknown_until_each_task_has_one() -> None:
    # given
    windows = TaskWindows([[], []])

    # when only one task has ended 100 episodes
    windows.add([Played(("a", 1), 1, True, [Ended(1.0, 0)] * 100, tasks=(0,))], 0.0)
    assert windows.mean_returns == [1.0, None]
    assert windows.mean_return is None

    # and then the other
    windows.add([Played(("b", 1), 1, True, [Ended(2.0, 0)] * 100, tasks=(1,))], 0.0)
    assert windows.mean_return == 1.5


def test_a_task_has_the_window_that_a_run_of_that_task_alone_would_have() -> None:
    """Actors join and leave, columns are refused, and episodes are of all lengths."""
    rng = np.random.default_rng(0)
    windows, alone = TaskWindows([[], [], []]), [EpisodeWindow() for _ in range(3)]
    for number in range(400):
        # given actors of which each plays a mix of its own
        blocks = []
        for actor in range(number // 100, number // 100 + 3):
            tasks = np.resize(np.roll([0, 1, 2, 1], actor), 6 + actor).tolist()
            ends = rng.random(len(tasks)) < 0.2
            episodes = [Ended(float(rng.normal()), int(column)) for column in np.flatnonzero(ends)]
            left_out = rng.choice(len(tasks), 1).tolist()
            first = number % 100 == 0
            blocks.append(Played((str(actor), 1), len(tasks), first, episodes, left_out, tasks))

        # when
        windows.add(blocks, number * 0.1)
        for task, window in enumerate(alone):
            window.add([only(block, task) for block in blocks], number * 0.1)

    # then
    assert [w.returns for w in windows.windows] == [w.returns for w in alone]
    assert None not in windows.mean_returns


def only(block: Played, task: int) -> Played:
    """The block of an actor with no other environments."""
    mine = [column for column, of in enumerate(block.tasks) if of == task]
    return Played(
        block.actor,
        len(mine),
        block.first,
        [Ended(e.episode_return, mine.index(e.column)) for e in block.episodes if e.column in mine],
        [mine.index(column) for column in block.left_out if column in mine],
    )


def test_restored_windows_give_the_means_until_there_are_new_ones() -> None:
    # given
    windows = TaskWindows([[1.0] * 100, [5.0] * 100], 700)

    # when
    windows.add([Played(("a", 1), 1, True, [Ended(9.0, 0)], tasks=(1,))], 0.0)

    # then
    assert (windows.mean_returns, windows.episodes) == ([1.0, 5.0], 701)


def test_a_task_that_the_run_has_not_got_counts_nowhere() -> None:
    # given a column whose task was refused
    windows = TaskWindows([[], []])
    windows.add([Played(("a", 1), 3, True, [Ended(1.0, 1)] * 100, (0, 2), (9, 0, -1))], 0.0)
    assert windows.mean_returns == [1.0, None]
