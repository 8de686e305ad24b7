"""Names and values as a report's charts, tables and files show them."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any

from impala_redis.common.errors import printable
from impala_redis.common.records.history import Group, Run
from impala_redis.common.tasks.task import Task
from impala_redis.workers.reporting.chart import Chart, Line
from impala_redis.workers.reporting.gallery import SECTIONS
from impala_redis.workers.reporting.infos import is_info_slug
from impala_redis.workers.reporting.tasks import is_task_slug

LEGEND_LETTERS = 52


def part_slug(chart: Chart, line: Line) -> str:
    """The name of the file that has one line of a chart."""
    return f"{chart.slug}-{line.name.replace('_', '-')}"


def is_slug(name: str) -> bool:
    """Whether a chart, or one line of it, is named so."""
    return (
        is_info_slug(name)
        or is_task_slug(name)
        or any(
            name == chart.slug
            or any(
                re.fullmatch(part_slug(chart, line).replace("*", "[0-9]{1,4}"), name)
                for line in chart.all_lines
            )
            for charts in SECTIONS.values()
            for chart in charts
        )
    )


def run_labels(runs: Sequence[Run]) -> list[str]:
    """Each run's directory by its name, with as many of its parents as tell the runs apart."""
    parts = [run.path.resolve().parts for run in runs]
    deepest = max(map(len, parts))
    for depth in count(1):
        labels = [printable("/".join(one[-depth:])) for one in parts]
        if len(set(labels)) == len(runs) or depth >= deepest:
            break
    return labels


def group_labels(groups: Sequence[Group]) -> list[str]:
    """For each group its own label: the settings that set it apart, and the number of its runs.

    Where cut settings would not tell two groups apart, the label is a number and the group's first
    directory.
    """
    labels = [_cut(_differing(group), group) for group in groups]
    often = Counter(labels)
    directories = run_labels([group.runs[0] for group in groups])
    return [
        label if often[label] == 1 else _cut(f"{number}: {directory}", group)
        for number, (label, directory, group) in enumerate(
            zip(labels, directories, groups, strict=True), 1
        )
    ]


def _differing(group: Group) -> str:
    if not group.runs[0].settings:
        return "settings unknown"
    return ", ".join(f"{key} {setting(value)}" for key, value in group.differing.items())


def _cut(words: str, group: Group) -> str:
    if len(words) > LEGEND_LETTERS:
        words = words[: LEGEND_LETTERS - 1] + "…"
    return f"{words} ({len(group.runs)} runs)" if len(group.runs) > 1 else words


def setting(value: Any) -> str:
    """A setting's value as text."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        names = (one.name if isinstance(one, Task) else str(one) for one in value)
        return printable(", ".join(names))
    return f"{value:g}" if isinstance(value, float) else printable(value)


def short(number: float) -> str:
    """The shortest form of a number: 1.5M, 20k, 0.0015."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size <= abs(number) < 1e13:
            return f"{number / (1e3 if letter == 'k' else size):.4g}{letter}"
    return f"{number:.4g}"


def whole(number: float) -> str:
    """A number with its whole part in full, and at least three significant digits."""
    return f"{number:,.0f}" if 1e3 <= abs(number) < 1e12 else f"{number:.3g}"
