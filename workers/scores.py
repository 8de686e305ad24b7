"""What a run with tasks shows of them: figures of a record, parts of a result, rows of a status."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from impala_redis.common.errors import printable
from impala_redis.common.records.figure import TASK_FRAMES, TASK_RETURN, TASK_SCORE
from impala_redis.common.records.returns import shown_return
from impala_redis.common.tasks.scoring import normalised
from impala_redis.common.tasks.task import Task

# A status and a panel name this many tasks one by one.
MOST_SHOWN = 20
LONGEST_NAME = 24
# No learner has counted more; anybody may have written it.
MOST_FRAMES = 2**53


class Learned(Protocol):
    """As much of a learner as its figures by task need."""

    window: Any  # with `mean_returns`
    task_frames: Any  # [tasks]

    @property
    def score(self) -> float | None:
        """The mean score over the tasks."""


def figures_of(tasks: Sequence[Task], learner: Learned) -> dict[str, float | None]:
    """The figures of a record; none for a run without tasks."""
    if not tasks:
        return {}
    found: dict[str, float | None] = {"score": learner.score}
    for one in result_of(tasks, learner):
        found[f"{TASK_RETURN}{one['name']}"] = one["mean_return"]
        found[f"{TASK_SCORE}{one['name']}"] = one["score"]
        found[f"{TASK_FRAMES}{one['name']}"] = one["frames"]
    return found


def result_of(tasks: Sequence[Task], learner: Learned) -> list[dict[str, Any]]:
    """For each task its name, mean return (None before there is one), score, and frames."""
    return [
        {
            "name": task.name,
            "mean_return": mean_return,
            "score": None if mean_return is None else normalised(task, mean_return),
            "frames": int(frames),
        }
        for task, mean_return, frames in zip(
            tasks, learner.window.mean_returns, learner.task_frames, strict=True
        )
    ]


def shown_score(value: float | None) -> str:
    """A score as every screen and log shows it; "-" where there is none."""
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"


def lines_of(names: Sequence[str], figures: Mapping[str, Any]) -> list[str]:
    """A line for each of these tasks in a record's figures; of many, for those that score least."""
    frames = {
        name: count
        for name in names
        if 0 <= (count := figures.get(f"{TASK_FRAMES}{name}", -1)) <= MOST_FRAMES
    }
    if not frames:
        return []
    scores = {name: figures.get(f"{TASK_SCORE}{name}") for name in frames}
    shown = list(frames)
    if len(shown) > MOST_SHOWN:
        least = sorted(shown, key=lambda name: _or_least(scores[name]))[:MOST_SHOWN]
        shown = [name for name in shown if name in least]
    whole = max(sum(frames.values()), 1)
    cells = [
        (
            printable(name)[:LONGEST_NAME],
            shown_return(figures.get(f"{TASK_RETURN}{name}")),
            shown_score(scores[name]),
            f"{frames[name]:,.0f}",
            f"{100 * frames[name] / whole:.1f}",
        )
        for name in shown
    ]
    # No wider than they must be: a terminal may have 80 columns.
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = [
        [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]  # numbers end alike
        for row in cells
    ]
    form = "{}  return {}  score {}  {} frames {} %"
    lines = [form.format(*row) for row in aligned]
    rest = len(frames) - len(shown)
    return [*lines, f"and {rest} more, which score as much or more"] if rest else lines


def _or_least(score: float | None) -> float:
    return float("-inf") if score is None else score
