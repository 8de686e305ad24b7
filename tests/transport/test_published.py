"""Weights and spec: read back whole, and only ever newer."""

import hashlib
import threading
import time

import pytest
import redis
from parties import Learners

from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.monitor import MonitorLink
from support import eventually


def test_weights_are_read_back_whole_with_a_digest_that_fits(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # when weights are published
    message = bytes(range(256)) * 1000
    learner.publish(3, message)

    # then a reader gets exactly them
    found = actor.read_weights()
    assert found is not None
    assert (found.version, found.message, found.intact) == (3, message, True)
    assert found.digest == hashlib.sha256(message).hexdigest()
    assert abs(monitor.read_learner()["published_unix_s"] - time.time()) < 60

    # and sees when they were damaged
    operator.hset(actor.keys.weights, "payload", message[:-1] + b"\x00")
    damaged = actor.read_weights()
    assert damaged is not None
    assert not damaged.intact


def test_the_weights_version_only_grows(
    learner: LearnerLink, actor: ActorLink, operator: redis.Redis
) -> None:
    # given version 5
    assert learner.weights_version() == -1
    learner.publish(5, b"five")
    published = operator.hgetall(actor.keys.weights)

    # when an older one comes late, or a number that sorts lower as text
    learner.publish(4, b"four")
    assert operator.hgetall(actor.keys.weights) == published
    learner.publish(10, b"ten")

    # then only the newer one is stored
    found = actor.read_weights()
    assert found is not None
    assert (found.version, found.message, found.intact) == (10, b"ten", True)


@pytest.mark.parametrize("raised", ["1000000000000000", "1" + "0" * 29, "x", "9" * 100, "-3"])
def test_a_version_that_somebody_else_wrote_is_written_over_and_told(
    learner: LearnerLink, actor: ActorLink, operator: redis.Redis, raised: str
) -> None:
    # given a learner at work, and somebody who writes another version
    assert learner.publish(5, b"five") is None
    operator.hset(actor.keys.weights, "version", raised)

    # when the learner publishes the same once more, as after 5 s without an update
    assert learner.publish(5, b"five") == raised[:40]

    # then actors find it, and the next one is as always
    found = actor.read_weights()
    assert found is not None
    assert (found.version, found.intact) == (5, True)
    assert learner.publish(6, b"six") is None
    assert learner.publish(5, b"five") is None
    assert learner.weights_version() == 6


@pytest.mark.parametrize("raised", [str(2**52 + 1), str(2**53), "1" + "0" * 29, "x"])
def test_a_learner_does_not_go_on_from_a_version_that_no_learner_gets_to(
    learner: LearnerLink, learners: Learners, operator: redis.Redis, raised: str
) -> None:
    # given
    learner.publish(5, b"five")
    operator.hset(learner.keys.weights, "version", raised)

    # when another learner begins
    second = learners("second")
    second.open(take_over=True)

    # then it begins from its own
    assert second.weights_version() == -1
    assert second.publish(0, b"zero") == raised
    assert second.weights_version() == 0


def test_a_learner_goes_on_from_the_version_of_the_one_before(
    learner: LearnerLink, learners: Learners
) -> None:
    # given
    learner.publish(2**52, b"many")

    # when
    second = learners("second")
    second.open(take_over=True)

    # then what it publishes is newer, and nobody else's
    assert second.weights_version() == 2**52
    assert second.publish(2**52 + 1, b"one more") is None


def test_publishing_the_same_version_again_repairs_it(
    learner: LearnerLink, actor: ActorLink, operator: redis.Redis
) -> None:
    learner.publish(5, b"five")
    operator.hset(actor.keys.weights, "payload", b"damaged")
    learner.publish(5, b"five")
    found = actor.read_weights()
    assert found is not None
    assert (found.version, found.message, found.intact) == (5, b"five", True)


def test_readers_never_see_weights_of_two_versions(
    any_server: EmbeddedServer, learner: LearnerLink, run_name: str
) -> None:
    # given a reader that looks all the time
    learner.publish(1, b"1" * 100_000)
    done, seen, torn = threading.Event(), set(), []

    def watch() -> None:
        link = ActorLink(any_server.url, run_name, "watch")
        while not done.is_set():
            found = link.read_weights()
            assert found is not None
            seen.add(found.version)
            if not found.intact or found.message != b"%d" % (found.version % 10) * 100_000:
                torn.append(found.version)
        link.close()

    watcher = threading.Thread(target=watch)
    watcher.start()

    # when many versions are published
    for version in range(2, 102):
        learner.publish(version, b"%d" % (version % 10) * 100_000)
    eventually(lambda: 101 in seen)
    done.set()
    watcher.join(10)

    # then each reading was of one version
    assert len(seen) > 1
    assert torn == []


def test_the_spec_is_read_back_with_its_digest_and_state(
    learner: LearnerLink, actor: ActorLink
) -> None:
    learner.announce('{"b": 2}', "fingerprint", "finished")
    found = actor.read_spec()
    assert found == (b'{"b": 2}', hashlib.sha256(b'{"b": 2}').hexdigest(), "finished")
