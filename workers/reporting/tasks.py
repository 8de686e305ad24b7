"""A report of a run with several tasks: a chart for each of them, and what their figures mean."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence

from impala_redis.common.errors import printable
from impala_redis.common.records.figure import TASK_FRAMES, TASK_RETURN
from impala_redis.common.records.history import Run
from impala_redis.common.tasks.task import Task
from impala_redis.workers.reporting.chart import Chart, Line

# The charts of Atari's 57 games have room.
MOST_CHARTS = 64
LONGEST_TITLE = 40
_SLUG = "task"


def task_charts(there: Iterable[str], runs: Sequence[Run]) -> Iterator[Chart]:
    """One chart for each of the first tasks, of the figures that are there."""
    for number, name in enumerate(names_of_tasks(there)[:MOST_CHARTS], 1):
        yield Chart(
            f"{_SLUG}-{number}",
            printable(name)[:LONGEST_TITLE],
            "Mean return of 100 training episodes of this task.",
            (Line(f"{TASK_RETURN}{name}"),),
            limit=_reference(name, runs),
            from_zero=False,
        )


def is_task_slug(slug: str) -> bool:
    """Whether one of these charts may be named so."""
    return re.fullmatch(rf"{_SLUG}-[0-9]{{1,2}}", slug) is not None


def names_of_tasks(there: Iterable[str]) -> list[str]:
    """The tasks of these figures, in their order."""
    # The frames of all tasks are in the first record, their returns come one by one.
    prefixes, names = (TASK_FRAMES, TASK_RETURN), list(there)
    return list(
        dict.fromkeys(
            name.removeprefix(prefix)
            for prefix in prefixes
            for name in names
            if name.startswith(prefix)
        )
    )


def task_of(run: Run, name: str) -> Task | None:
    """The task of that name in the run's settings; None if it is not there."""
    tasks: tuple[Task, ...] = run.settings.get("tasks", ())
    return next((task for task in tasks if task.name == name), None)


def score_of(run: Run) -> str:
    """The mean score at the end, as text; empty where there is none."""
    score = run.records.last("score")
    return "" if math.isnan(score) else f"{score:.3f}"


def notes(runs: Sequence[Run]) -> Iterator[str]:
    """What the figures of several tasks stand for; nothing for runs of one."""
    most = max((len(names_of_tasks(run.records.numbers)) for run in runs), default=0)
    if most > 1:
        yield (
            "With several tasks the mean return is the mean over them, of 100 episodes of each; it "
            "is known as soon as each task has ended so many."
        )
    if most > MOST_CHARTS:
        yield f"The first {MOST_CHARTS} of {most} tasks have a chart."


def _reference(name: str, runs: Sequence[Run]) -> tuple[float, str] | None:
    """The return whose score is 1, where all runs that know it say the same."""
    found = {task.reference for run in runs if (task := task_of(run, name)) is not None}
    return (found.pop(), "reference") if len(found) == 1 else None
