"""A run that the server has lost: a group of learners opens it again, whoever sleeps or waits."""

import contextlib
import logging
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import redis

from impala_redis.common.blocks import wire
from impala_redis.common.blocks.trajectory import Block, Origin, Trajectory, empty_trajectory
from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.feeding.feeder import Feeder
from impala_redis.common.feeding.intake import Intake
from impala_redis.common.feeding.publisher import Publisher
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.monitor import MonitorLink, residual
from small_networks import make_spec
from support import eventually

N = 2
SPEC = make_spec(hidden_sizes=(4,), unroll_length=2, envs_per_actor=N, queue_blocks=100)
LEASE_S = 0.6  # renewed each 0.2 s


def rows() -> Trajectory:
    """A block's rows, all alike."""
    made = empty_trajectory(SPEC, N)
    for array in made:
        array[...] = 0
    made.mask[...] = True
    return made


class Group:
    """Rank 0 with its feeder and publisher, rank 1 with its feeder, and an actor."""

    def __init__(self, url: str, name: str) -> None:
        self.links = [LearnerLink(url, name, "group", LEASE_S, rank, 2) for rank in (0, 1)]
        self.actor, self.monitor = ActorLink(url, name, "actor"), MonitorLink(url, name, "test")
        self.operator, self.pushed = redis.Redis.from_url(url), 0
        first, second = self.links
        first.open()
        second.join()
        self.publisher = Publisher(first, SPEC, 0.0, LEASE_S)
        weights = {n: np.zeros(s, np.float32) for n, s in SPEC.parameter_shapes().items()}
        self.publisher.introduce(SPEC, VersionedWeights(1, weights))
        self.publisher.start()
        self.feeders = [self._feeder(first, self._reopen)]

    def start_rank_1(self) -> None:
        self.feeders.append(self._feeder(self.links[1], self.links[1].join))

    def _reopen(self) -> None:
        self.links[0].reopen()
        self.publisher.reintroduce()

    def _feeder(self, link: LearnerLink, reopen: Callable[[], None]) -> Feeder:
        intake = Intake(link, SPEC, None, lambda: 1, reopen)
        feeder = Feeder(intake, lambda: empty_trajectory(SPEC, N), lambda rows: None)
        feeder.start()
        return feeder

    def push(self, blocks: int) -> None:
        for _ in range(blocks):
            self.pushed += 1
            block = Block(Origin("a", 1, self.pushed, 1), rows(), (), 0.01)
            assert self.actor.push("a#1", self.pushed, wire.pack_block(block, SPEC), 100).stored

    def books(self) -> dict[str, int]:
        books = self.monitor.read_books()
        assert residual(books) == 0
        return books

    def close(self) -> None:
        for feeder in self.feeders:
            feeder.close()
        self.publisher.close()
        for link in (*self.links, self.actor, self.monitor, self.operator):
            link.close()


@pytest.fixture
def group(redis_url: str, run_name: str) -> Iterator[Group]:
    with contextlib.closing(Group(redis_url, run_name)) as made:
        yield made


@pytest.mark.fault(54)
@pytest.mark.parametrize("lost", ["everything", "epoch", "a cursor of rank 1", "type of the list"])
def test_rank_0_opens_the_run_again_although_its_feeder_sleeps_with_full_batches(
    group: Group, caplog: pytest.LogCaptureFixture, lost: str
) -> None:
    # given a rank 0 with two full batches, which its program does not take, and a rank 1 that waits
    first, second = group.links
    group.push(2)
    eventually(lambda: group.books()["in_flight"] == 2)
    group.start_rank_1()
    epoch = first.epoch

    # when the server loses the run, or somebody breaks a part of it
    if lost == "everything":
        group.operator.delete(*group.operator.keys(f"{first.keys.prefix}*"))
    elif lost == "epoch":
        group.operator.delete(first.keys.epoch)
    elif lost == "a cursor of rank 1":
        group.operator.hdel(first.keys.epoch, "taken:1")
    else:
        group.operator.set(first.keys.trajectories, "x")

    # then rank 0 opens it and rank 1 joins, and what is pushed then reaches rank 1
    eventually(lambda: first.epoch > epoch and second.epoch == first.epoch)
    eventually(lambda: group.actor.read_news() is not None)
    assert group.publisher.failure is None
    assert caplog.text.count("JOINING THE RUN AGAIN") <= 2
    group.push(3)
    for _ in range(3):
        batch = group.feeders[1].next_batch(20.0)
        assert batch is not None
        group.feeders[1].trained(batch)
    eventually(lambda: group.books()["consumed"] == 3)


@pytest.mark.fault(54)
def test_a_rank_that_waits_for_rank_0_says_so_once(
    redis_url: str, run_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    # given a rank 1 at work, whose rank 0 does nothing
    first, second = (LearnerLink(redis_url, run_name, "group", 60.0, rank, 2) for rank in (0, 1))
    operator, joins = redis.Redis.from_url(redis_url), []
    first.open()
    second.join()

    def join() -> None:
        joins.append(1)
        second.join()

    intake = Intake(second, SPEC, None, lambda: 1, join)
    feeder = Feeder(intake, lambda: empty_trajectory(SPEC, N), lambda rows: None)
    feeder.start()
    with contextlib.ExitStack() as ending, caplog.at_level(logging.INFO):
        for link in (first, second, operator, feeder):
            ending.callback(link.close)

        # when the server loses the run, until rank 0 comes back
        operator.delete(*operator.keys(f"{first.keys.prefix}*"))
        eventually(lambda: len(joins) >= 5)
        first.reopen()
        eventually(lambda: second.epoch == first.epoch)

        # then
        assert caplog.text.count("JOINING THE RUN AGAIN, what was in flight is lost") == 1
        assert intake.figures()["runs_lost"] == 1
        assert feeder.failure is None
