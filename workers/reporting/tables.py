"""The tables of a report's page that list what a run's files hold."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from impala_redis.common.errors import printable
from impala_redis.common.records import history
from impala_redis.common.records.figure import TASK_FRAMES, TASK_RETURN, TASK_SCORE
from impala_redis.common.records.history import Run
from impala_redis.common.records.returns import shown_return
from impala_redis.common.run.config import Config
from impala_redis.workers.reporting.tasks import names_of_tasks, task_of
from impala_redis.workers.reporting.words import setting, whole

# Beyond this many, figures that no chart knows are not listed.
MOST_FIGURES = 200
# Figures that only say when a record was written.
CLOCKS = ("unix_s", "time_s")


class Table(NamedTuple):
    """A caption, a head and rows of texts, of which the first cell names the row."""

    caption: str
    head: list[str]
    rows: list[list[str]]
    kind: str = "number"


def figures_table(run: Run, caption: str) -> Table:
    """The least, mean, greatest and last value of each figure."""
    rows: list[list[str]] = []
    for name in history.names([run]):
        if name in CLOCKS or len(rows) == MOST_FIGURES:
            continue
        values = run.records.column(name)
        values = values[np.isfinite(values)]
        numbers = (values.min(), values.mean(), values.max(), values[-1])
        rows.append([name, *map(whole, map(float, numbers))])
    return Table(caption, ["figure", "min", "mean", "max", "last"], rows)


def task_table(run: Run) -> Table | None:
    """What each task has come to; None for a run without tasks."""
    names = names_of_tasks(run.records.numbers)
    if not names:
        return None
    played = [run.records.last(f"{TASK_FRAMES}{name}") for name in names]
    of_all = math.fsum(frames for frames in played if not math.isnan(frames))
    rows = []
    for name, frames in zip(names, played, strict=True):
        task, score = task_of(run, name), run.records.last(f"{TASK_SCORE}{name}")
        anchors = (task.random, task.reference) if task else (None, None)
        known = not math.isnan(frames) and of_all > 0
        rows.append(
            [
                printable(name),
                *map(shown_return, (run.records.last(f"{TASK_RETURN}{name}"), *anchors)),
                "-" if math.isnan(score) else f"{score:.3f}",
                *((f"{frames:,.0f}", f"{100 * frames / of_all:.1f} %") if known else ("-", "-")),
            ]
        )
    head = ["task", "return", "random", "reference", "score", "frames", "share"]
    return Table("Each task: its mean return at the end, and the frames trained on.", head, rows)


def settings_table(runs: Sequence[Run]) -> Table | None:
    """Settings that are not at their default in some run; None when none are known."""
    defaults = Config().values()
    known = [run for run in runs if run.settings]
    if not known:
        return None
    rows = []
    for key, default in defaults.items():
        values = list(dict.fromkeys(setting(run.settings[key]) for run in known))
        if values != [setting(default)]:
            rows.append([key, ", ".join(values), setting(default)])
    caption = "Settings that are not at their default; config.toml has all of them."
    return Table(caption, ["setting", "value", "default"], rows, "")
