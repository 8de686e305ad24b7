"""Everyone who has a link to a run, and what they do in the tests beside this file."""

from collections.abc import Callable
from typing import NamedTuple

import redis

from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Settled
from impala_redis.common.transport.monitor import MonitorLink

LEASE_S = 30.0
COUNTERS = {
    "produced",
    "consumed",
    "dropped_oldest",
    "dead_lettered",
    "stale_rejected",
    "abandoned",
    "dup_push",
    "foreign",
}

Learners = Callable[..., LearnerLink]


class Parties(NamedTuple):
    """Everyone on the test's own server, with the run open."""

    learner: LearnerLink
    actor: ActorLink
    monitor: MonitorLink
    operator: redis.Redis


def push(actor: ActorLink, count: int, producer: str = "a#1", start: int = 1) -> list[bytes]:
    """Pushes `count` blocks, each another text, with room for all."""
    blocks = [f"{producer}/{number}".encode() for number in range(start, start + count)]
    for number, block in enumerate(blocks, start):
        actor.push(producer, number, block, 1000)
    return blocks


def claim(learner: LearnerLink, most: int) -> list[bytes]:
    return learner.settle_and_claim(Settled(), most)[0]


def settle(learner: LearnerLink, settled: Settled) -> None:
    learner.settle_and_claim(settled, 0)
