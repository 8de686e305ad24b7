"""An evaluation of several tasks: which ones are played, and what is said of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from impala_redis.common.records.returns import shown_return
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.settings.env_id import travelling
from impala_redis.common.tasks.listing import numbers_of
from impala_redis.common.tasks.scoring import normalised
from impala_redis.workers.playing import EpisodeResult, PlaySettings
from impala_redis.workers.scores import shown_score

TITLES = ("task", "episodes", "mean", "std", "score")


def only_tasks(spec: RunSpec, names: Sequence[str]) -> RunSpec:
    """The spec of a run of these tasks alone, with the run's network; all of them without a name.

    Raises ConfigError: the run has no task of that name.
    """
    if not names:
        return spec
    tasks = tuple(spec.tasks[number] for number in numbers_of(spec.tasks, names))
    return replace(spec, tasks=tasks, env=tasks[0].env)


def one_by_one(spec: RunSpec) -> list[RunSpec]:
    """The spec of each task, as if it was all that the run's network had learned."""
    if not spec.tasks:
        return [spec]
    return [
        replace(spec, tasks=(), env=world.env, env_kwargs=world.variant.env_kwargs)
        for world in spec.worlds
    ]


def figures_of(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """The figures of episodes in one environment, as `--json` prints them."""
    returns = np.array([result.episode_return for result in results])
    return {
        "mean_return": float(returns.mean()),
        "std_return": float(returns.std()),
        "min_return": float(returns.min()),
        "max_return": float(returns.max()),
        "mean_length": float(np.mean([result.length for result in results])),
        "cut": sum(result.cut for result in results),
        "returns": returns.tolist(),
    }


def make_report(
    spec: RunSpec,
    version: int,
    results: Sequence[Sequence[EpisodeResult]],
    settings: PlaySettings,
) -> dict[str, Any]:
    """The figures of an evaluation of several tasks, whose results are in the order of the spec's.

    The mean return and the score are means over the tasks that were played.
    """
    tasks = []
    for task, of_task in zip(spec.tasks, results, strict=True):
        figures = figures_of(of_task)
        score = normalised(task, figures["mean_return"])
        tasks.append({"name": task.name, "env": travelling(task.env), "score": score, **figures})
    return {
        "run": spec.run,
        "weights_version": version,
        "episodes": sum(map(len, results)),
        "greedy": settings.greedy,
        "seed": settings.seed,
        "mean_return": float(np.mean([task["mean_return"] for task in tasks])),
        "score": float(np.mean([task["score"] for task in tasks])),
        "tasks": tasks,
    }


def report_in_words(report: dict[str, Any]) -> str:
    """The report as it is printed without `--json`: a table with a row for each task."""
    how = "greedy" if report["greedy"] else "sampled"
    tasks = report["tasks"]
    cut = sum(task["cut"] for task in tasks)
    cut_in_words = f", {cut} cut at the step limit" if cut else ""
    several = f"{len(tasks)} tasks" if len(tasks) > 1 else "1 task"
    rows = [
        (
            *(task["name"], str(len(task["returns"]))),
            *(shown_return(task["mean_return"]), shown_return(task["std_return"])),
            shown_score(task["score"]),
        )
        for task in tasks
    ]
    if len(tasks) > 1:
        ends = (shown_return(report["mean_return"]), "", shown_score(report["score"]))
        rows.append(("mean", str(report["episodes"]), *ends))
    return "\n".join(
        [
            f"{several}, {report['episodes']} episodes, {how}, seed {report['seed']}, "
            f"weights version {report['weights_version']}{cut_in_words}",
            *_table([TITLES, *rows]),
            *(f"video: {path}" for path in report.get("videos", ())),
        ]
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines: the first column begins at the left, the others end at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    ]
