"""Actors and learners in any order, with lost replies, against a model in Python.

Hypothesis plays them; the model predicts every counter.
"""

import itertools
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from parties import COUNTERS, LEASE_S

from impala_redis.common.errors import Fenced, OutOfStep, RunMissing
from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.server.connection import connect
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Dead, Settled
from impala_redis.common.transport.monitor import MonitorLink, residual

_runs = itertools.count()
COUNTS = st.integers(0, 3)


class TransportModel(RuleBasedStateMachine):
    """Two learners and three producers in any order; the books as Python would keep them."""

    def __init__(self, url: str) -> None:
        super().__init__()
        run = f"model-{next(_runs)}"
        self.learners = [LearnerLink(url, run, holder, LEASE_S) for holder in ("one", "two")]
        self.actor = ActorLink(url, run, "actor")
        self.monitor = MonitorLink(url, run, "monitor")
        self.operator = connect(url, "operator")
        self.pushed = 0
        self.start_afresh()

    def start_afresh(self) -> None:
        self.queue: list[bytes] = []
        self.inflight: list[bytes] = []
        self.unreceived = 0  # in flight by a claim whose reply was lost
        self.uncounted = 0  # pushed by hand since the last claim
        self.last: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.learner = self.learners[0]
        self.learner.open()
        self.learner.announce("{}", "f", "running")
        self.generation = self.monitor.read_books()["generation"]

    def teardown(self) -> None:
        for link in (*self.learners, self.actor, self.monitor, self.operator):
            link.close()

    @property
    def known(self) -> int:
        """Blocks in flight that the learner has seen."""
        return len(self.inflight) - self.unreceived

    def expect_claim(self, most: int) -> list[bytes]:
        """What a claim returns, and its effect on the lists."""
        if self.unreceived:
            return self.inflight[self.known :][:most]
        self.expect_foreign_counted()
        blocks, self.queue = self.queue[:most], self.queue[most:]
        self.inflight += blocks
        self.unreceived = len(blocks)
        return blocks

    def expect_foreign_counted(self) -> None:
        self.counts["produced"] += self.uncounted
        self.counts["foreign"] += self.uncounted
        self.uncounted = 0

    @rule(
        producer=st.sampled_from(["p#1", "p#2", "q#1"]),
        step=st.integers(1, 2),
        cap=st.sampled_from([1, 3, 5, 8]),
        policy=st.sampled_from(["drop-oldest", "block"]),
        number=st.integers(1, 4),
    )
    def push(self, producer: str, step: int, cap: int, policy: str, number: int) -> None:
        self.pushed += number
        blocks = [f"{producer}/{self.pushed + i}".encode() for i in range(number)]
        first = self.last[producer] + step
        fate = self.actor.push_together(producer, first, blocks, cap, policy).fate
        if policy == "block" and len(self.queue) + number > cap:
            assert fate == "full"
            return  # neither list nor books know of it
        assert fate == "stored"
        self.last[producer] = first + number - 1
        self.queue += blocks
        excess = max(len(self.queue) - cap, 0)
        del self.queue[:excess]
        self.counts["dropped_oldest"] += excess
        self.counts["produced"] += number

    @precondition(lambda self: any(self.last.values()))
    @rule(data=st.data(), back=COUNTS, number=st.integers(1, 4))
    def push_again(self, data: st.DataObject, back: int, number: int) -> None:
        producer = data.draw(st.sampled_from(sorted(+self.last)))
        first = max(self.last[producer] - back, 1)
        policy = data.draw(st.sampled_from(["drop-oldest", "block"]))
        again = [b"again"] * number  # the last ones may be new
        assert self.actor.push_together(producer, first, again, 1, policy).fate == "duplicate"
        self.counts["dup_push"] += number

    @rule()
    def push_by_hand(self) -> None:
        self.operator.rpush(self.actor.keys.trajectories, b"by hand")
        self.queue.append(b"by hand")
        self.uncounted += 1

    @rule(most=st.integers(1, 4), lost=st.booleans())
    def claim(self, most: int, lost: bool) -> None:
        before = self.learner._cursor
        expected = self.expect_claim(most)
        assert self.learner.settle_and_claim(Settled(), most) == (expected, len(self.queue))
        if lost:
            self.learner._cursor = before
        else:
            self.unreceived -= len(expected)

    @precondition(lambda self: self.known)
    @rule(
        consumed=COUNTS,
        stale=COUNTS,
        reasons=st.lists(st.sampled_from(["range", "spec"]), max_size=2),
        most=st.integers(1, 3),
        lost=st.integers(0, 2),
    )
    def settle(self, consumed: int, stale: int, reasons: list[str], most: int, lost: int) -> None:
        consumed = min(consumed, self.known)
        stale = min(stale, self.known - consumed)
        reasons = reasons[: self.known - consumed - stale]
        settled = Settled(consumed, stale, tuple(Dead(r, "", b"x") for r in reasons))
        self.inflight = self.inflight[len(settled) :]
        self.counts["consumed"] += consumed
        self.counts["stale_rejected"] += stale
        self.counts["dead_lettered"] += len(reasons)
        for reason in reasons:
            self.counts[f"dead_lettered:{reason}"] += 1
        expected = self.expect_claim(most)
        cursor = self.learner._cursor
        for _ in range(lost):  # the same again and again, as after lost replies
            assert self.learner.settle_and_claim(settled, most)[0] == expected
            self.learner._cursor = cursor
        assert self.learner.settle_and_claim(settled, most) == (expected, len(self.queue))
        self.unreceived -= len(expected)

    @precondition(lambda self: not self.uncounted)
    @rule(beyond=st.integers(1, 3))
    def settle_out_of_step(self, beyond: int) -> None:
        with pytest.raises(OutOfStep, match="what is in flight"):
            self.learner.settle_and_claim(Settled(len(self.inflight) + beyond), 0)

    @rule(same=st.booleans())
    def open(self, same: bool) -> None:
        fenced = self.learner
        if not same:
            self.learner = next(link for link in self.learners if link is not fenced)
        assert self.learner.open(take_over=True) == len(self.inflight)
        self.counts["abandoned"] += len(self.inflight)
        self.inflight, self.unreceived = [], 0
        if not same:
            for attempt in (
                lambda: fenced.settle_and_claim(Settled(), 1),
                lambda: fenced.publish(10**6, b"late"),
                lambda: fenced.renew({}),
            ):
                with pytest.raises(Fenced):
                    attempt()

    @rule()
    def wipe(self) -> None:
        self.operator.delete(*self.operator.keys(f"impala:{{{self.actor.run}}}:*"))
        with pytest.raises(RunMissing):
            self.actor.push("p#1", 1, b"x", 4)
        with pytest.raises(RunMissing):
            self.learner.settle_and_claim(Settled(), 1)
        before = self.generation
        self.start_afresh()
        assert self.generation != before

    @invariant()
    def books_are_as_predicted(self) -> None:
        books = self.monitor.read_books()
        assert residual(books) == 0
        assert books.pop("generation") == self.generation
        predicted = dict.fromkeys(COUNTERS, 0) | dict(self.counts)
        for name in ("produced", "foreign"):
            predicted[name] += self.uncounted
        assert books == predicted | {"queued": len(self.queue), "in_flight": len(self.inflight)}

    @invariant()
    def lists_are_as_predicted(self) -> None:
        keys = self.actor.keys
        assert self.operator.lrange(keys.trajectories, 0, -1) == self.queue
        assert self.operator.llen(keys.inflight) == len(self.inflight)
        assert not self.operator.exists(keys.pushing)
        given_again = self.operator.lrange(keys.claimed, -self.unreceived, -1)
        assert not self.unreceived or given_again == self.inflight[self.known :]


def test_the_books_are_exact_in_any_order_of_events(any_server: EmbeddedServer) -> None:
    run_state_machine_as_test(
        lambda: TransportModel(any_server.url),
        settings=settings(
            max_examples=20,
            stateful_step_count=35,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
