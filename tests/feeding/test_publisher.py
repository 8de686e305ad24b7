"""The publisher: the newest weights reach Redis and the lease is kept, whatever else happens."""

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from impala_redis.common.blocks import wire
from impala_redis.common.blocks.weights import VersionedWeights, Weights
from impala_redis.common.errors import Fenced, NotFinite, RedisUnreachable, RunHeld
from impala_redis.common.feeding import publisher as publisher_module
from impala_redis.common.feeding.publisher import Publisher
from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server import connection
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.monitor import MonitorLink
from small_networks import make_spec
from support import eventually

SPEC = make_spec(hidden_sizes=(4,), unroll_length=2)
LEASE_S = 60.0


def weights(version: int) -> Weights:
    return {
        name: np.full(shape, version, np.float32) for name, shape in SPEC.parameter_shapes().items()
    }


class GatedLink(LearnerLink):
    """Publishes only while the gate is open, and says when somebody waits at it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        self.tried: list[int] = []

    def publish(self, version: int, payload: bytes) -> str | None:
        self.tried.append(version)
        self.waiting.set()
        assert self.gate.wait(20)
        return super().publish(version, payload)


class Run:
    """An open run, and publishers for it."""

    def __init__(self, url: str, name: str, lease_s: float = LEASE_S) -> None:
        self.url, self.name, self.lease_s = url, name, lease_s
        self.link = GatedLink(url, name, "learner", lease_s)
        self.other = LearnerLink(url, name, "other", LEASE_S)
        self.monitor = MonitorLink(url, name, "monitor")
        self.operator = redis.Redis.from_url(url)
        self.publishers: list[Publisher] = []
        self.link.open()

    def publisher(self, interval_s: float = 0.0, spec: RunSpec = SPEC) -> Publisher:
        made = Publisher(self.link, spec, interval_s, self.lease_s)
        self.publishers.append(made)
        made.start()
        return made

    @property
    def published(self) -> int:
        """The version in Redis; its weights must be those of that version."""
        reply = self.monitor.read_weights()
        if reply is None:
            return -1
        version, found, _ = wire.unpack_weights(reply.message, SPEC)
        assert reply.intact
        assert version == reply.version
        assert all(np.array_equal(found[name], w) for name, w in weights(version).items())
        return version

    def close(self) -> None:
        self.link.gate.set()
        for made in self.publishers:
            made.close()
        for link in (self.link, self.other, self.monitor, self.operator):
            link.close()


@pytest.fixture
def run(redis_url: str, run_name: str) -> Iterator[Run]:
    made = Run(redis_url, run_name)
    yield made
    made.close()


@pytest.fixture
def own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run on a server of the test's own, which is noticed within 0.2 s when it is frozen."""
    monkeypatch.setattr(connection, "SOCKET_TIMEOUT_S", 0.2)
    with EmbeddedServer(tmp_path) as server:
        made = Run(server.url, "run")
        yield made
        made.close()


def published_by(publisher: Publisher) -> float:
    """How many versions it has published."""
    return publisher.totals()["published"]


# Weights.


def test_what_is_offered_is_published(run: Run) -> None:
    publisher = run.publisher()
    assert publisher.wants(10**9)
    publisher.offer(VersionedWeights(3, weights(3)))
    eventually(lambda: run.published == 3)
    eventually(lambda: published_by(publisher) == 1)


def test_a_version_that_somebody_else_wrote_is_written_over_and_told_once_in_a_while(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    # given a publisher at work
    publisher = run.publisher()
    publisher.offer(VersionedWeights(1, weights(1)))
    eventually(lambda: run.published == 1)

    # when somebody raises the version again and again
    for version in (2, 3):
        run.operator.hset(run.link.keys.weights, "version", 10**15)
        publisher.offer(VersionedWeights(version, weights(version)))

        # then the learner's own is there
        eventually(lambda: run.link.weights_version() == version)  # noqa: B023

    # and one line tells what was there
    (line,) = [text for text in caplog.messages if "SOMEBODY ELSE" in text]
    assert "1000000000000000, and version 2 was written over it" in line


def test_of_several_offers_the_newest_is_published(run: Run) -> None:
    # given a publisher that waits for Redis with version 1
    run.link.gate.clear()
    publisher = run.publisher()
    publisher.offer(VersionedWeights(1, weights(1)))
    assert run.link.waiting.wait(20)

    # when more is offered meanwhile
    for version in range(2, 10):
        publisher.offer(VersionedWeights(version, weights(version)))
    run.link.gate.set()

    # then the newest follows, and those in between are passed over
    eventually(lambda: run.published == 9, 5.0)
    assert run.link.tried == [1, 9]


def test_closing_publishes_the_last_offer(run: Run) -> None:
    publisher = run.publisher(interval_s=1000.0)
    publisher.offer(VersionedWeights(1, weights(1)))
    publisher.offer(VersionedWeights(2, weights(2)))
    publisher.close()
    assert run.published == 2


def test_closing_publishes_an_offer_that_came_while_another_was_on_its_way(run: Run) -> None:
    # given version 1 on its way
    run.link.gate.clear()
    publisher = run.publisher()
    publisher.offer(VersionedWeights(1, weights(1)))
    assert run.link.waiting.wait(20)

    # when the learner ends: it offers its last weights and closes
    publisher.offer(VersionedWeights(2, weights(2)))
    closer = threading.Thread(target=publisher.close)
    closer.start()
    run.link.gate.set()
    closer.join(20)

    # then they are what is left in Redis
    assert run.published == 2


def test_the_next_offer_is_wanted_after_the_interval(run: Run) -> None:
    # given an interval
    publisher = run.publisher(interval_s=0.2)
    publisher.offer(VersionedWeights(1, weights(1)))
    eventually(lambda: published_by(publisher) == 1)
    at = publisher._published_at

    # then weights are not worth making before it is over
    eventually(lambda: publisher.wants(10**9))
    assert time.monotonic() - at >= 0.2


@pytest.mark.parametrize(("most_behind", "wanted_from"), [(0, 2), (1, 3), (7, 9)])
def test_an_interval_gives_way_to_weights_that_are_too_far_behind(
    run: Run, most_behind: int, wanted_from: int
) -> None:
    # given an interval that never ends
    publisher = Publisher(run.link, SPEC, 1e9, run.lease_s, most_behind)
    publisher.introduce(SPEC, VersionedWeights(1, weights(1)))

    # then
    assert [publisher.wants(version) for version in range(11)] == [
        version >= wanted_from for version in range(11)
    ]


def test_what_was_offered_once_is_not_wanted_again(run: Run) -> None:
    publisher = run.publisher()
    publisher.offer(VersionedWeights(3, weights(3)))
    eventually(lambda: published_by(publisher) == 1)
    assert [publisher.wants(version) for version in (2, 3, 4)] == [False, False, True]


def test_while_an_offer_waits_no_other_is_wanted(run: Run) -> None:
    run.link.gate.clear()
    publisher = run.publisher()
    publisher.offer(VersionedWeights(1, weights(1)))
    assert not publisher.wants(10**9)
    run.link.gate.set()
    eventually(lambda: publisher.wants(10**9))


def test_a_publication_whose_reply_was_lost_is_sent_again_without_harm(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a first reply that is lost
    publish, calls = run.link.publish, []

    def lossy(version: int, payload: bytes) -> None:
        publish(version, payload)
        calls.append(version)
        if len(calls) == 1:
            raise RedisUnreachable("the reply was lost")

    monkeypatch.setattr(run.link, "publish", lossy)

    # when weights are published, then the next ones are too
    publisher = run.publisher()
    publisher.offer(VersionedWeights(1, weights(1)))
    eventually(lambda: published_by(publisher) == 1)
    publisher.offer(VersionedWeights(2, weights(2)))
    eventually(lambda: published_by(publisher) == 2)
    assert run.published == 2
    assert calls == [1, 1, 2]
    assert publisher.failure is None


def test_weights_that_bfloat16_cannot_hold_end_the_publisher_and_are_not_published(
    run: Run,
) -> None:
    # given
    publisher = run.publisher(spec=dataclasses.replace(SPEC, weights_dtype="bfloat16"))

    # when
    publisher.offer(
        VersionedWeights(1, weights(1) | {"policy.bias": np.full(2, 3.4e38, np.float32)})
    )

    # then
    eventually(lambda: isinstance(publisher.failure, NotFinite))
    assert run.link.tried == []


# The lease.


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_the_lease_is_kept_well_past_its_length(redis_url: str, run_name: str, busy: bool) -> None:
    # given a lease of one second
    run = Run(redis_url, run_name, lease_s=1.0)
    publisher = run.publisher()
    version, until = 0, time.monotonic() + 1.5
    try:
        # when the learner goes on for longer, with and without weights to publish
        while time.monotonic() < until:
            if busy and publisher.wants(10**9):
                version += 1
                publisher.offer(VersionedWeights(version, weights(version)))
            # then nobody else can have the run
            with pytest.raises(RunHeld, match="learner"):
                run.other.open()
            time.sleep(0.005)
        assert publisher.failure is None
        assert published_by(publisher) >= (5 if busy else 0)
    finally:
        run.close()


def test_the_learners_figures_are_left_for_whoever_asks(redis_url: str, run_name: str) -> None:
    run = Run(redis_url, run_name, lease_s=1.0)
    publisher = run.publisher()
    publisher.status_figures = {"frames": 1e6, "policy_lag_mean": 1.5}
    expected = {"frames": 1e6, "policy_lag_mean": 1.5, "epoch": 1}
    eventually(lambda: run.monitor.read_learner()["figures"] == expected)
    run.close()


def test_the_share_of_dropped_blocks_is_of_the_time_since_it_was_last_asked(
    redis_url: str, run_name: str
) -> None:
    # given a list that takes 2 blocks, and holds them
    run = Run(redis_url, run_name)
    run.link.announce(SPEC.to_json(), SPEC.fingerprint, "running")
    actor = ActorLink(redis_url, run_name, "actor")
    publisher = Publisher(run.link, SPEC, 0.0, LEASE_S)  # not started: it asks when we say so
    for sequence in (1, 2):
        actor.push("actor#1", sequence, b"block", 2)
    publisher._keep_lease()
    assert publisher.figures() == {"blocks_produced": 2, "blocks_dropped": 0}  # what was before

    # when more come and nobody takes one
    for sequence in (3, 4, 5):
        actor.push("actor#1", sequence, b"block", 2)
    publisher._keep_lease()

    # then each of those has pushed one out; when nothing is pushed there is no share
    assert publisher.figures() == {"blocks_produced": 5, "blocks_dropped": 3, "dropped_share": 1.0}
    publisher._keep_lease()
    assert publisher.figures() == {"blocks_produced": 5, "blocks_dropped": 3}
    actor.close()
    run.close()


def test_books_that_begin_anew_have_no_share_and_no_share_is_above_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given books that are deleted after 5 blocks, and then count more drops than pushes
    readings = [(5, 3), (2, 0), (9, 1), (20, 0), (21, 4)]
    monkeypatch.setattr(run.link, "read_flow", iter(readings).__next__)
    publisher = Publisher(run.link, SPEC, 0.0, LEASE_S)

    # when
    shares = []
    for _ in readings:
        publisher._keep_lease()
        shares.append(publisher.figures().get("dropped_share"))

    # then
    assert shares == [None, None, pytest.approx(1 / 7), None, 1.0]


def test_evictions_are_told_once_and_asked_for_seldom(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given a server that begins to evict
    news = iter(["", "the server has evicted 3 keys (maxmemory-policy allkeys-lru)", ""])
    monkeypatch.setattr(run.link, "news_of_evictions", lambda: next(news))
    publisher = Publisher(run.link, SPEC, 0.0, LEASE_S)

    # when the lease is kept often, and then for a longer time
    for _ in range(5):
        publisher._keep_lease()
    monkeypatch.setattr(publisher_module, "EVICTIONS_S", 0.0)
    publisher._evictions_due = 0.0
    publisher._keep_lease()
    publisher._keep_lease()

    # then the news were asked for three times in all, and told
    assert list(news) == []
    (line,) = [text for text in caplog.messages if "evicted" in text]
    assert line.startswith("the server has evicted 3 keys (maxmemory-policy allkeys-lru); set max")


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_publisher_that_is_fenced_says_so(redis_url: str, run_name: str, busy: bool) -> None:
    # given a publisher whose run is taken over
    run = Run(redis_url, run_name, lease_s=1.0)
    publisher = run.publisher()
    publisher.offer(VersionedWeights(1, weights(1)))
    eventually(lambda: published_by(publisher) == 1)
    run.other.open(take_over=True)

    # when it publishes or only renews its lease
    if busy:
        publisher.offer(VersionedWeights(2, weights(2)))
    eventually(lambda: publisher.failure is not None)

    # then it fails for good, and nothing has changed
    assert isinstance(publisher.failure, Fenced)
    assert run.published == 1
    assert run.other.current_holder() == "other"
    run.close()


# Faults.


@pytest.mark.fault(9)
def test_after_a_wipe_the_last_weights_are_published_again(run: Run) -> None:
    # given published weights on a server that loses them
    publisher = run.publisher()
    publisher.offer(VersionedWeights(7, weights(7)))
    eventually(lambda: published_by(publisher) == 1)
    run.operator.delete(*run.operator.keys(f"impala:{{{run.name}}}:*"))

    # when the run is opened again
    run.link.open()
    publisher.reintroduce()

    # then they are there, the spec too, and the next ones follow
    assert run.published == 7
    spec = run.monitor.read_spec()
    assert spec is not None
    assert RunSpec.from_json(spec.json) == SPEC
    publisher.offer(VersionedWeights(8, weights(8)))
    eventually(lambda: run.published == 8)


def test_nothing_is_published_again_before_there_were_weights(run: Run) -> None:
    run.publisher().reintroduce()
    assert run.published == -1
    assert run.monitor.read_spec() is None


def test_writing_the_last_weights_again_does_not_put_off_the_next_ones(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given weights that are written again more often than new ones are wanted
    monkeypatch.setattr(publisher_module, "REPUBLISH_S", 0.2)
    publisher = run.publisher(interval_s=1.5)
    publisher.introduce(SPEC, VersionedWeights(1, weights(1)))

    # when the interval is over, then new ones are wanted, and published
    eventually(lambda: publisher.wants(10**9))
    publisher.offer(VersionedWeights(2, weights(2)))
    eventually(lambda: published_by(publisher) == 1)  # versions, not writings
    assert run.published == 2


@pytest.mark.fault(38)
@pytest.mark.parametrize("key", ["weights", "spec"])
def test_what_actors_join_by_is_written_again_though_there_is_no_update(
    run: Run, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    # given a learner without data, and a run that actors could join
    assert publisher_module.REPUBLISH_S <= 5.0
    monkeypatch.setattr(publisher_module, "REPUBLISH_S", 0.3)
    publisher = run.publisher()
    publisher.introduce(SPEC, VersionedWeights(3, weights(3)))

    # when someone deletes a part of it
    run.operator.delete(f"impala:{{{run.name}}}:{key}")

    # then it comes back by itself
    eventually(lambda: run.published == 3 and run.monitor.read_spec() is not None)


def test_an_offer_waits_for_a_lost_run_to_be_opened_again(run: Run) -> None:
    # given a server that lost the run
    publisher = run.publisher()
    run.operator.delete(*run.operator.keys(f"impala:{{{run.name}}}:*"))
    publisher.offer(VersionedWeights(1, weights(1)))
    eventually(lambda: len(run.link.tried) >= 2)  # it tries and tries
    assert publisher.failure is None

    # when it is opened again, then the offer goes out
    run.link.open()
    eventually(lambda: run.published == 1)


def test_a_frozen_server_delays_the_offer_and_no_more(own_run: Run) -> None:
    # given a publisher whose server freezes
    publisher = own_run.publisher()
    pid = int(own_run.operator.info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        # when weights are offered, then offering takes no time
        started = time.monotonic()
        publisher.offer(VersionedWeights(1, weights(1)))
        assert time.monotonic() - started < 0.1
        eventually(lambda: len(own_run.link.tried) >= 2)
    finally:
        os.kill(pid, signal.SIGCONT)

    # and they are there when it thaws
    eventually(lambda: published_by(publisher) == 1)
    assert own_run.published == 1
    assert publisher.failure is None


def test_closing_without_a_server_ends_in_time(tmp_path: Path) -> None:
    # given a publisher whose server is gone
    with EmbeddedServer(tmp_path) as server:
        run = Run(server.url, "run")
        publisher = run.publisher()
    publisher.offer(VersionedWeights(1, weights(1)))

    # when it closes, then it does so soon
    started = time.monotonic()
    publisher.close()
    assert time.monotonic() - started < 5.0
    assert not publisher._thread.is_alive()
    run.close()
