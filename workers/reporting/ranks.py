"""A report of a group of learners: how many there were, and which one the others waited for."""

import math
from collections.abc import Iterator, Sequence

from impala_redis.common.records import history
from impala_redis.common.records.history import Run
from impala_redis.common.records.lines import number_or_nan
from impala_redis.common.transport.situation import (
    STANDBY_SHARE,
    WAIT_SHARE,
    SlowRank,
    slow_rank_in,
)
from impala_redis.workers.ranks import MOST_LEARNERS


def learners(run: Run) -> float:
    """How many learners the group had at the end; NaN for a learner alone."""
    for value in (number_or_nan(run.result.get("ranks")), run.records.last("ranks")):
        if 2 <= value <= MOST_LEARNERS:
            return value
    return math.nan


def slow_rank_of(run: Run) -> SlowRank | None:
    """The learner of a group that the others waited for, in the mean over the run."""
    names = [name for name in run.records.numbers if name.startswith((WAIT_SHARE, STANDBY_SHARE))]
    means = {name: history.mean(run.records, name, "time_s") for name in names}
    return slow_rank_in({name: mean for name, mean in means.items() if mean is not None})


def notes(runs: Sequence[Run]) -> Iterator[str]:
    """What the figures of a group stand for; nothing where each run had a single learner."""
    if not all(math.isnan(learners(run)) for run in runs):
        yield (
            "A group of learners trained: frames, updates, episodes, returns and losses are of all "
            "of them; policy lag, actors, refused columns, queue, waits and the stages of an "
            "update are of rank 0 alone, which trains on an equal share of each batch."
        )
