"""Weights and spec: read back whole, and only ever newer."""

import hashlib
import threading
import time

import redis

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
    eventually(lambda: 101 in seen, 10.0)
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
