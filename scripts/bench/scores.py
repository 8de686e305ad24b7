"""The scores of tasks in runs of several seeds: read back, told as Markdown, drawn."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.trials import estimate
from impala_redis.common.records.history import Run, series
from impala_redis.common.tasks.task import Task

# Points of a curve, and small charts in a row.
POINTS, CHARTS = 100, 3
# Scores of a run that go into the data file, at equal distances.
KEPT = 20

Numbers = NDArray[np.float64]


class Trained(NamedTuple):
    """One task's score in one run, against the task's own frames."""

    way: str  # how it was trained
    task: str
    seed: int
    frames: Numbers  # [P] of the task, rising
    scores: Numbers  # [P] at most 1


class Way(NamedTuple):
    """One of the ways to train that are compared."""

    words: str
    colour: str
    factor: int = 1  # its runs have so many times the frames of a task that the others have


Ways = dict[str, Way]


def trained(way: str, run: Run, task: Task, seed: int) -> Trained:
    """A task's scores in a run of several, or of this task alone."""
    own = f"task_frames:{task.name}"
    over = own if own in run.records.numbers else "frames"
    frames, scores = series(run.records, f"task_score:{task.name}", over)
    return Trained(way, task.name, seed, frames, np.minimum(scores, 1.0))


def score_at(one: Trained, frames: float) -> float:
    """The last score that was known at that many frames of the task; 0 before there was one."""
    known = one.scores[one.frames <= frames]
    return float(known[-1]) if len(known) else 0.0


def tasks_of(found: Sequence[Trained]) -> list[str]:
    """The names of the tasks, in their order."""
    return list(dict.fromkeys(one.task for one in found))


def by_seed(
    found: Sequence[Trained], ways: Ways, way: str, tasks: Sequence[str], frames: float
) -> list[float]:
    """For each seed the mean score over these tasks, at that many frames of each."""
    of_seed: dict[int, list[float]] = {}
    for one in found:
        if one.way == way and one.task in tasks:
            of_seed.setdefault(one.seed, []).append(score_at(one, frames * ways[way].factor))
    return [float(np.mean(scores)) for _, scores in sorted(of_seed.items())]


def told(values: Sequence[float]) -> str:
    """A mean over seeds with its interval; of one seed the value."""
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "-"
    found = estimate(values)
    return f"{found.mean:.3f} ± {found.half:.3f}"


def table(found: Sequence[Trained], ways: Ways, moments: Sequence[float]) -> str:
    """The scores when so many frames of each task were trained on, as Markdown."""
    there = [way for way in ways if any(one.way == way for one in found)]
    lines: list[str] = []
    for frames in moments:
        head = [f"after {frames:,.0f} frames of each task", *(ways[way].words for way in there)]
        rows = [head, ["---"] * len(head), *_rows(found, ways, there, frames)]
        lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
    return "\n".join(lines)


def _rows(
    found: Sequence[Trained], ways: Ways, there: Sequence[str], frames: float
) -> Iterator[list[str]]:
    tasks = tasks_of(found)
    for task in tasks:
        yield [task, *(told(by_seed(found, ways, way, [task], frames)) for way in there)]
    means = (told(by_seed(found, ways, way, tasks, frames)) for way in there)
    yield ["**mean**", *(f"**{mean}**" for mean in means)]


def draw(found: Sequence[Trained], ways: Ways, frames: float, path: Path) -> None:
    """Draws a small chart for each task, and one for the mean: means over seeds, and the range."""
    from matplotlib.figure import Figure

    tasks = tasks_of(found)
    rows = -(-(len(tasks) + 1) // CHARTS)
    figure = Figure(figsize=(9.6, 0.6 + 2.2 * rows), layout="constrained")
    axes: Any = figure.subplots(rows, CHARTS, sharex=True, sharey=True, squeeze=False)
    grid = np.linspace(0.0, frames, POINTS)
    for place, name in zip(axes.flat, ["", *tasks], strict=False):
        for way, (words, colour, _) in ways.items():
            curves = _curves(found, ways, way, [name] if name else tasks, grid)
            if len(curves):
                x = grid / 1000
                place.plot(x, curves.mean(0), color=colour, label=words)
                place.fill_between(x, curves.min(0), curves.max(0), color=colour, alpha=0.2, lw=0)
        place.set_title(name or "mean of all tasks", fontsize=9)
        place.set_ylim(0, 1.02)
        place.grid(alpha=0.3)
    for place in list(axes.flat)[len(tasks) + 1 :]:
        place.set_axis_off()
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.supxlabel("thousands of frames of each task", fontsize=9)
    figure.supylabel("score", fontsize=9)
    figure.savefig(path)


def _curves(
    found: Sequence[Trained], ways: Ways, way: str, tasks: Sequence[str], grid: Numbers
) -> Numbers:
    """[seeds, P] the mean score of these tasks."""
    several = [by_seed(found, ways, way, tasks, frames) for frames in grid.tolist()]
    return np.array(several).T if several[0] else np.empty((0, len(grid)))


def kept(one: Trained, suite: str) -> dict[str, Any]:
    """What a data file keeps of one task in one run."""
    last = float(one.frames[-1]) if len(one.frames) else 0.0
    parts = [last * part / KEPT for part in range(1, KEPT + 1)]
    return {
        **{"suite": suite, "way": one.way, "task": one.task, "seed": one.seed},
        "task_frames": [round(frames) for frames in parts],
        "task_score": [round(score_at(one, frames), 4) for frames in parts],
    }
