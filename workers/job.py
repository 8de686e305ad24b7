"""What a learner is started with."""

from typing import NamedTuple

from impala_redis.common.grouping.facts import part_of
from impala_redis.common.run.config import Config
from impala_redis.workers.plan import Plan
from impala_redis.workers.seating import Seating
from impala_redis.workers.terms import Terms


class Means(NamedTuple):
    """Where a learner finds the server, and what it computes with."""

    redis_url: str
    wait_redis_s: float
    engine: str
    device: str
    threads: int


class Job(NamedTuple):
    """What the learner does that owns a run."""

    plan: Plan
    resume: bool
    terms: Terms
    means: Means
    seating: Seating

    @property
    def ranks(self) -> int:
        """How many learners make each update."""
        return self.seating.ranks

    @property
    def part(self) -> Config:
        """The settings of this learner's part of each batch. Raises ConfigError."""
        return part_of(self.plan.config, self.ranks)
