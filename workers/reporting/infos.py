"""A chart for each number that environments give of their episodes, under names of their own."""

import re
from collections.abc import Iterator, Sequence

from impala_redis.common.errors import printable
from impala_redis.common.records.figure import EPISODE_INFO
from impala_redis.workers.reporting.chart import Chart, Line

MOST_CHARTS = 12
LONGEST_TITLE = 40
_SLUG = "episode-info"


def info_charts(there: Sequence[str]) -> Iterator[Chart]:
    """One chart for each of the first infos by name, of the figures that are there."""
    names = sorted(name for name in there if name.startswith(EPISODE_INFO))
    for number, name in enumerate(names[:MOST_CHARTS], 1):
        yield Chart(
            f"{_SLUG}-{number}",
            printable(name.removeprefix(EPISODE_INFO))[:LONGEST_TITLE],
            "As the environment gave it in an episode's last info: mean over the episodes that "
            "ended between two records.",
            (Line(name),),
            from_zero=False,
        )


def is_info_slug(slug: str) -> bool:
    """Whether one of these charts may be named so."""
    return re.fullmatch(rf"{_SLUG}-[0-9]{{1,2}}", slug) is not None
