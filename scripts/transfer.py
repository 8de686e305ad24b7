"""Does one network that learns several tasks learn them sooner than one network for each?

    .venv/bin/python scripts/transfer.py [--suite minigrid-5] [--seeds 3] [--output runs/transfer]

Three ways to the same tasks, each task with as many frames, F, in the first two:

    together   one network for the K tasks of a preset, K F frames
    expert     a network for each task, F frames; in an update as many columns of the task as the
               first way has of it, and so as many updates
    control    a network for each task with all that the first way has for all of them together:
               its columns, its updates and its K F frames (--without-control leaves it out)

Prints the scores at a quarter, at half and at the end of F, as Markdown, and draws the curves into
`SUITE.svg` in the output folder, where the runs are, too: what is there already is not trained
again. A score is that of the window of 100 training episodes, 1 at most. Intervals are of 95 %,
over seeds. `--data FILE` appends what was measured to a file of JSON lines.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.trials import estimate, train
from impala_redis.common.presets.table import preset
from impala_redis.common.records.history import Run, series
from impala_redis.common.run.config import Config
from impala_redis.common.tasks.listing import as_text
from impala_redis.common.tasks.task import Task

WAYS = {"together": "together", "expert": "experts", "control": "experts with all columns"}
COLOURS = {"together": "#0072b2", "expert": "#d55e00", "control": "#999999"}
# Where the scores of the table stand: shares of a task's frames in the first two ways.
MOMENTS = (0.25, 0.5, 1.0)
# Points of a curve.
POINTS = 100
# A run takes an hour at most.
LIMIT_S = 6 * 3600.0

Numbers = NDArray[np.float64]


class Trained(NamedTuple):
    """One task's score in one run, against the task's own frames as shares of F."""

    way: str
    task: str
    seed: int
    frames: Numbers  # [P] of the task, rising
    scores: Numbers  # [P] at most 1


def trained_together(
    folder: Path, suite: str, config: Config, seed: int, options: Sequence[str]
) -> Iterator[Trained]:
    """The scores of all tasks in one run of the preset."""
    run = train(folder / f"together-seed{seed}", seed, ["--preset", suite, *options], LIMIT_S)
    for task in config.environment.tasks:
        yield _of("together", run, task, seed)


def trained_alone(
    folder: Path,
    suite: str,
    config: Config,
    task: Task,
    seed: int,
    way: str,
    options: Sequence[str],
) -> Trained:
    """The scores of one task in a run of its own, with its part of the columns or with all."""
    parts = len(config.environment.tasks) if way == "expert" else 1
    alone = {
        "tasks": as_text((task,)),
        "envs-per-actor": config.environment.envs_per_actor // parts,
        "batch-size": config.training.batch_size // parts,
        "total-frames": config.training.total_frames // parts,
    }
    asked = [text for key, value in alone.items() for text in (f"--{key}", str(value))]
    name = f"{way}-{task.name}-seed{seed}"
    run = train(folder / name, seed, ["--preset", suite, *options, *asked], LIMIT_S)
    return _of(way, run, task, seed)


def _of(way: str, run: Run, task: Task, seed: int) -> Trained:
    """A task's scores; those of the first way and of experts by the frames of the task."""
    alone = f"task_frames:{task.name}" not in run.records.numbers
    over = "frames" if alone else f"task_frames:{task.name}"
    frames, scores = series(run.records, f"task_score:{task.name}", over)
    return Trained(way, task.name, seed, frames, np.minimum(scores, 1.0))


def score_at(one: Trained, frames: float) -> float:
    """The last score that was known at that many frames of the task; 0 before there was one."""
    known = one.scores[one.frames <= frames]
    return float(known[-1]) if len(known) else 0.0


def rows_of(found: Sequence[Trained], frames: float) -> Iterator[list[str]]:
    """A row for each task, and one for their mean: the scores at that many frames of a task."""
    ways = [way for way in WAYS if any(one.way == way for one in found)]
    tasks = list(dict.fromkeys(one.task for one in found))
    for task in tasks:
        yield [task, *(_told(_by_seed(found, way, [task], frames)) for way in ways)]
    yield ["**mean**", *(f"**{_told(_by_seed(found, way, tasks, frames))}**" for way in ways)]


def _by_seed(
    found: Sequence[Trained], way: str, tasks: Sequence[str], frames: float
) -> list[float]:
    """For each seed the mean score over these tasks."""
    seeds = sorted({one.seed for one in found if one.way == way})
    # The control has the frames of all tasks for one: the whole of it counts as the whole of F.
    factor = len({one.task for one in found}) if way == "control" else 1
    return [
        float(
            np.mean(
                [
                    score_at(one, frames * factor)
                    for one in found
                    if (one.way, one.seed) == (way, seed) and one.task in tasks
                ]
            )
        )
        for seed in seeds
    ]


def _told(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "-"
    found = estimate(values)
    return f"{found.mean:.3f} ± {found.half:.3f}"


def table(found: Sequence[Trained], frames: float) -> str:
    """The scores at some moments, as Markdown."""
    ways = [words for way, words in WAYS.items() if any(one.way == way for one in found)]
    lines: list[str] = []
    for share in MOMENTS:
        head = [f"after {frames * share:,.0f} frames of each task", *ways]
        rows = [head, ["---"] * len(head), *rows_of(found, frames * share)]
        lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
    return "\n".join(lines)


def draw(found: Sequence[Trained], frames: float, path: Path) -> None:
    """Draws a small chart for each task, and one for the mean: means over seeds, and the range."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(one.task for one in found))
    columns = 3
    rows = -(-(len(tasks) + 1) // columns)
    figure = Figure(figsize=(9.6, 2.3 * rows), layout="constrained")
    axes: Any = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    grid = np.linspace(0.0, frames, POINTS)
    for place, name in zip(axes.flat, [*tasks, None], strict=False):
        for way, words in WAYS.items():
            curves = _curves(found, way, [name] if name else tasks, grid)
            if len(curves):
                x, colour = grid / 1000, COLOURS[way]
                place.plot(x, curves.mean(0), color=colour, label=words)
                place.fill_between(x, curves.min(0), curves.max(0), color=colour, alpha=0.2, lw=0)
        place.set_title(name or "mean of all tasks", fontsize=9)
        place.set_ylim(0, 1.02)
        place.grid(alpha=0.3)
    for place in list(axes.flat)[len(tasks) + 1 :]:
        place.set_axis_off()
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.supxlabel("thousands of frames of the task (of all columns: of the tasks together)")
    figure.supylabel("score")
    figure.savefig(path)


def _curves(found: Sequence[Trained], way: str, tasks: Sequence[str], grid: Numbers) -> Numbers:
    """[seeds, P] the mean score of these tasks."""
    several = [_by_seed(found, way, tasks, frames) for frames in grid.tolist()]
    return np.array(several).T if several[0] else np.empty((0, len(grid)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--suite", default="minigrid-5", help="a preset with tasks")
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, 11), metavar="1..10")
    parser.add_argument("--output", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--frames", type=int, help="of each task, F, in place of the preset's")
    parser.add_argument("--tasks", nargs="*", help="experts and controls of these alone")
    parser.add_argument("--without-control", action="store_true")
    parser.add_argument("--data", type=Path, help="a file of JSON lines to append to")
    parser.add_argument("options", nargs="*", help="of impala-train, behind --, for all runs")
    asked = parser.parse_args()

    config = preset(asked.suite)
    number = len(config.environment.tasks)
    if asked.frames:
        config = config.replace({"total_frames": asked.frames * number})
    options = ["--total-frames", str(config.training.total_frames), *asked.options]
    folder = asked.output / asked.suite
    ways = ["expert"] if asked.without_control else ["expert", "control"]
    found: list[Trained] = []
    for seed in range(asked.seeds):
        common = (folder, asked.suite, config)
        found += trained_together(*common, seed, options)
        for way in ways:
            for task in config.environment.tasks:
                if not asked.tasks or task.name in asked.tasks:
                    found.append(trained_alone(*common, seed, task, way, options))
                    last = found[-1]
                    print(f"  {way} {task.name}, seed {seed}: {_told([score_at(last, np.inf)])}")
    frames = config.training.total_frames / number
    print("\n" + table(found, frames))
    draw(found, frames, folder / f"{asked.suite}.svg")
    if asked.data:
        with asked.data.open("a") as file:
            for one in found:
                told = one._asdict() | {"suite": asked.suite, "frames_per_task": frames}
                told |= {"frames": None, "scores": _kept(one, frames)}
                file.write(json.dumps(told) + "\n")


def _kept(one: Trained, frames: float) -> list[float]:
    """Twenty scores, at equal distances of what the run has of the task."""
    last = float(one.frames[-1]) if len(one.frames) else frames
    return [round(score_at(one, last * part / 20), 4) for part in range(1, 21)]


if __name__ == "__main__":
    main()
