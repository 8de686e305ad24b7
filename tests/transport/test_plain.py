"""Pushing without functions: bounded, counted, and never trained on twice."""

import secrets
from collections.abc import Iterator

import pytest
import redis

from impala_redis.common.errors import RunMissing
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Settled
from impala_redis.common.transport.monitor import MonitorLink, residual
from impala_redis.common.transport.plain_push import PlainActorLink
from support import Programs, eventually

FINGERPRINT = "0" * 16


@pytest.fixture
def learner(redis_url: str, run_name: str) -> Iterator[LearnerLink]:
    link = LearnerLink(redis_url, run_name, secrets.token_hex(4), 60.0)
    link.open()
    link.announce("{}", FINGERPRINT, "running")
    yield link
    link.close()


@pytest.fixture
def actor(redis_url: str, run_name: str) -> Iterator[PlainActorLink]:
    link = PlainActorLink(redis_url, run_name, "actor")
    yield link
    link.close()


@pytest.fixture
def monitor(redis_url: str, run_name: str) -> Iterator[MonitorLink]:
    link = MonitorLink(redis_url, run_name, "monitor")
    yield link
    link.close()


def test_a_plain_push_stores_the_block_and_brings_the_news(
    learner: LearnerLink, actor: PlainActorLink, monitor: MonitorLink
) -> None:
    learner.publish(3, b"weights")
    reply = actor.push("a#1", 1, b"block", queue_blocks=4)
    assert (reply.fate, reply.news.weights_version, reply.news.state) == ("stored", 3, "running")
    assert learner.settle_and_claim(Settled(), 5)[0] == [b"block"]
    books = monitor.read_books()
    assert (books["produced"], books["foreign"], residual(books)) == (1, 1, 0)


def test_the_bound_is_kept_by_refusing_what_has_no_room(
    learner: LearnerLink, actor: PlainActorLink
) -> None:
    # given a full list
    for sequence in (1, 2):
        assert actor.push("a#1", sequence, b"block", queue_blocks=2).stored
    assert not actor.has_room(2)

    # when one more is pushed, then it is not stored
    assert actor.push("a#1", 3, b"late", queue_blocks=2).fate == "full"

    # and when one was taken, it goes in
    assert learner.settle_and_claim(Settled(), 1)[0] == [b"block"]
    assert actor.has_room(2)
    assert actor.push("a#1", 3, b"late", queue_blocks=2).stored
    assert learner.settle_and_claim(Settled(), 5)[0] == [b"block", b"late"]


@pytest.mark.parametrize("queue_blocks", [1, 9])
def test_a_run_that_is_over_takes_no_block(
    learner: LearnerLink, actor: PlainActorLink, queue_blocks: int
) -> None:
    actor.push("a#1", 1, b"block", queue_blocks)
    learner.announce("{}", FINGERPRINT, "finished")
    reply = actor.push("a#1", 2, b"late", queue_blocks)
    assert (reply.fate, reply.news.state) == ("over", "finished")


def test_a_plain_push_into_a_run_that_nobody_opened_is_refused(actor: PlainActorLink) -> None:
    with pytest.raises(RunMissing):
        actor.push("a#1", 1, b"block", queue_blocks=4)


@pytest.mark.processes
def test_a_run_is_trained_by_actors_that_only_push_plainly(
    programs: Programs, redis_url: str, run_name: str, raw: redis.Redis, monitor: MonitorLink
) -> None:
    variables = {"IMPALA_REDIS_URL": redis_url, "IMPALA_RUN": run_name}
    learner = programs.start(
        *("impala-learner", "--preset", "cartpole", "--total-frames", "30000"), **variables
    )
    for _ in range(2):
        programs.start("impala-actor", "--plain-push", **variables)
    eventually(lambda: raw.exists(f"impala:{{{run_name}}}:lock"))
    assert learner.code() == 0, learner.output
    books = monitor.read_books()
    assert residual(books) == 0
    assert books["consumed"] >= 30_000 // (128 * 20)
    assert books["foreign"] == books["produced"]
    assert books["dead_lettered"] == books["dup_push"] == 0
