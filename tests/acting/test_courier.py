"""The courier: what an actor hands over arrives in order and once, and the actor never waits."""

import dataclasses
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from impala_redis.common.acting import courier, parcels
from impala_redis.common.acting.courier import Courier, VersionedWeights
from impala_redis.common.acting.parcels import RING_BLOCKS
from impala_redis.common.blocks import wire
from impala_redis.common.blocks.trajectory import Block, Origin, Trajectory
from impala_redis.common.blocks.weights import Weights
from impala_redis.common.errors import RedisDenied, RedisUnreachable
from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server import connection
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Settled
from impala_redis.common.transport.monitor import MonitorLink, residual
from impala_redis.common.transport.plain_push import PlainActorLink
from impala_redis.common.transport.replies import PushReply, WeightsReply
from support import eventually

T, N = 2, 2
SPEC = RunSpec(
    run="test",
    env="Test-v0",
    observation=ObservationSpec((3,), "float32"),
    action=discrete(2),
    hidden_sizes=(4,),
    activation="tanh",
    unroll_length=T,
    envs_per_actor=N,
    queue_blocks=1000,
    max_policy_age_s=600.0,
    seed=0,
)


def numbered(number: int) -> Block:
    """A valid block that is known by its rewards."""
    rows = Trajectory(
        observations=np.zeros((T + 1, N, 3), np.float32),
        is_first=np.zeros((T + 1, N), np.bool_),
        actions=np.zeros((T, N), np.int32),
        rewards=np.full((T, N), number, np.float32),
        discounts=np.ones((T, N), np.float32),
        behaviour_log_probs=np.zeros((T, N), np.float32),
        mask=np.ones((T, N), np.bool_),
        memory=np.empty((1, N, 0), np.float32),
        tasks=np.empty((1, N, 0), np.int16),
    )
    return Block(Origin("host-7", 12345, 0, 1), rows, (), 0.01)


def weights(value: float, spec: RunSpec = SPEC) -> Weights:
    return {
        name: np.full(shape, value, np.float32) for name, shape in spec.parameter_shapes().items()
    }


def message(version: int, spec: RunSpec = SPEC) -> bytes:
    return wire.pack_weights(weights(float(version), spec), version, spec)


class Run:
    """A run with its learner's side open, and couriers for it."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self.learner = LearnerLink(url, name, "learner", 60.0)
        self.monitor = MonitorLink(url, name, "monitor")
        self.operator = redis.Redis.from_url(url)
        self.couriers: list[Courier] = []
        self.links: list[ActorLink] = []
        self.learner.open()
        self.learner.publish(1, message(1))
        self.learner.announce(SPEC.to_json(), SPEC.fingerprint, "running")

    def courier(
        self,
        kind: type[ActorLink] = ActorLink,
        url: str = "",
        actor: str = "host-7",
        spec: RunSpec = SPEC,
    ) -> Courier:
        """A courier at work, with version 1 of the weights."""
        link = kind(url or self.url, self.name, "actor")
        spec_reply = self.learner.read_spec()
        assert spec_reply is not None
        made = Courier(link, spec, spec_reply.digest, actor, lambda: {"frames": 42})
        self.links.append(link)
        self.couriers.append(made)
        made.start(VersionedWeights(1, weights(1.0)))
        return made

    def stored(self) -> list[Block]:
        """What waits in the list, unpacked."""
        messages: Any = self.operator.lrange(self.learner.keys.trajectories, 0, -1)
        return [wire.unpack_block(message, SPEC) for message in messages]

    def close(self) -> None:
        for made in self.couriers:
            made.close(0.0)
        for link in (*self.links, self.learner, self.monitor, self.operator):
            link.close()


@pytest.fixture(autouse=True)
def _quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "BEAT_INTERVAL_S", 0.05)


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


@pytest.fixture
def frozen(own_run: Run) -> Iterator[Callable[[bool], None]]:
    """Freezes the test's own server (True) and thaws it (False)."""
    pid = int(own_run.operator.info("server")["process_id"])

    def freeze(stop: bool) -> None:
        os.kill(pid, signal.SIGSTOP if stop else signal.SIGCONT)

    try:
        yield freeze
    finally:
        freeze(False)


def rewards(blocks: list[Block]) -> list[int]:
    return [int(block.trajectory.rewards[0, 0]) for block in blocks]


# Blocks.


def test_blocks_arrive_in_order_with_sequences_from_1(run: Run) -> None:
    # when an actor hands blocks over
    carrier = run.courier()
    for number in range(1, 21):
        carrier.hand_over(numbered(number))
        eventually(lambda: carrier.books()["pending_local"] < RING_BLOCKS)
    eventually(lambda: carrier.accepted == 20)

    # then they stand in the list as they were, numbered 1, 2, 3
    stored = run.stored()
    assert rewards(stored) == list(range(1, 21))
    assert [block.origin for block in stored] == [
        Origin("host-7", 12345, number, 1) for number in range(1, 21)
    ]
    assert (carrier.generated, carrier.shed_local, len(carrier._ring)) == (20, 0, 0)
    assert run.monitor.read_books()["produced"] == 20


@pytest.mark.parametrize(
    ("queue_policy", "together_bytes", "pushes"),
    [
        ("drop-oldest", 256 * 1024, [1, 4, 2]),
        ("drop-oldest", 3 * numbered(0).trajectory.nbytes, [1, 3, 3]),
        ("drop-oldest", 0, [1] * 7),
        ("block", 256 * 1024, [1] * 7),
    ],
)
def test_small_blocks_that_wait_are_pushed_together(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    queue_policy: str,
    together_bytes: int,
    pushes: list[int],
) -> None:
    # given six blocks that wait while the first one is pushed
    gate, numbers = threading.Event(), list[int]()
    monkeypatch.setattr(parcels, "TOGETHER_BYTES", together_bytes)

    class CountingLink(ActorLink):
        def push_together(self, *arguments: Any) -> PushReply:
            assert gate.wait(20)
            numbers.append(len(arguments[2]))
            return super().push_together(*arguments)

    carrier = run.courier(CountingLink, spec=dataclasses.replace(SPEC, queue_policy=queue_policy))
    carrier.hand_over(numbered(1))
    eventually(lambda: len(carrier._ring) == 0)
    for number in range(2, 8):
        carrier.hand_over(numbered(number))

    # when they are carried
    gate.set()
    eventually(lambda: carrier.accepted == 7)

    # then it takes as many pushes as their bytes need, and each has its number
    assert numbers == pushes
    assert rewards(run.stored()) == list(range(1, 8))
    assert [block.origin.sequence for block in run.stored()] == list(range(1, 8))
    assert run.monitor.read_books()["produced"] == 7


def test_an_actor_holds_no_more_blocks_when_several_are_on_their_way(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given four blocks that are pushed together, and no answer yet
    turns = threading.Semaphore(0)

    class SteppedLink(ActorLink):
        def push_together(self, *arguments: Any) -> PushReply:
            assert turns.acquire(timeout=20)
            return super().push_together(*arguments)

    carrier = run.courier(SteppedLink)
    for number in range(1, 6):
        carrier.hand_over(numbered(number))
        eventually(lambda: carrier._being_sent == 1)
    turns.release()
    eventually(lambda: carrier._being_sent == 4)

    # when more are handed over than there is room for
    for number in range(6, 15):
        carrier.hand_over(numbered(number))

    # then one and the ring are kept, of which the oldest four cannot be shed any more
    assert carrier.books()["pending_local"] == RING_BLOCKS + 1
    turns.release(20)
    eventually(lambda: carrier.books()["pending_local"] == 0)
    assert rewards(run.stored()) == [1, 2, 3, 4, 5, *range(10, 15)]
    assert carrier.shed_local == 4


class GatedLink(ActorLink):
    """Waits before every push until the gate is open."""

    gate: threading.Event

    def push_together(self, *arguments: Any) -> PushReply:
        assert self.gate.wait(20)
        return super().push_together(*arguments)


def test_a_slow_server_costs_the_oldest_blocks_which_are_counted(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a server that does not answer yet
    gate = threading.Event()
    monkeypatch.setattr(GatedLink, "gate", gate, raising=False)
    carrier = run.courier(GatedLink)
    carrier.hand_over(numbered(1))
    eventually(lambda: len(carrier._ring) == 0)  # on its way

    # when more is handed over than the ring holds
    for number in range(2, RING_BLOCKS + 7):
        carrier.hand_over(numbered(number))

    # then the oldest of those that wait are gone, and counted
    assert (carrier.shed_local, len(carrier._ring)) == (5, RING_BLOCKS)

    # and the rest arrives when it answers
    gate.set()
    eventually(lambda: carrier.accepted == RING_BLOCKS + 1)
    assert rewards(run.stored()) == [1, *range(7, RING_BLOCKS + 7)]
    assert [b.origin.sequence for b in run.stored()] == list(range(1, RING_BLOCKS + 2))


def test_a_frozen_server_never_makes_the_actor_wait(
    own_run: Run, frozen: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an actor at work, after its first heartbeat
    monkeypatch.setattr(courier, "BEAT_INTERVAL_S", 1000.0)
    carrier = own_run.courier()
    carrier.hand_over(numbered(1))
    eventually(lambda: carrier.accepted == 1 and own_run.monitor.read_actors())

    # when the server freezes, then handing over takes no time
    frozen(True)
    carrier.hand_over(numbered(2))
    eventually(lambda: len(carrier._ring) == 0)
    longest_s = 0.0
    for number in range(3, 203):
        started = time.perf_counter()
        carrier.hand_over(numbered(number))
        longest_s = max(longest_s, time.perf_counter() - started)
    assert longest_s < 0.05

    # and while it stays so the ring sheds its oldest, and each block is in one count
    eventually(lambda: carrier.silent_s > 0.5)  # more than one time-out
    assert carrier.generated == 202
    assert len(carrier._ring) == RING_BLOCKS
    being_sent = 1
    assert carrier.accepted + carrier.shed_local + len(carrier._ring) + being_sent == 202

    # and when it thaws the pushes go on: nothing is stored twice, and all is accounted for
    frozen(False)
    eventually(lambda: len(carrier._ring) == 0 and carrier.accepted >= RING_BLOCKS + 2)
    assert carrier.accepted + carrier.shed_local == 202
    stored = own_run.stored()
    assert rewards(stored) == [1, 2, *range(195, 203)]
    assert [block.origin.sequence for block in stored] == list(range(1, len(stored) + 1))
    books = own_run.monitor.read_books()
    assert books["produced"] == carrier.accepted
    assert books["dup_push"] >= 1  # what the frozen server found in its socket
    assert residual(books) == 0


def test_a_push_whose_reply_is_lost_is_stored_and_counted_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a server whose every third reply to a push is lost
    class LossyLink(ActorLink):
        calls = lost = 0

        def push_together(self, *arguments: Any) -> PushReply:
            reply = super().push_together(*arguments)
            self.calls += 1
            if self.calls % 3 == 1:
                LossyLink.lost += len(arguments[2])
                raise RedisUnreachable("the reply was lost")
            return reply

    # when six blocks are carried
    carrier = run.courier(LossyLink)
    for number in range(1, 7):
        carrier.hand_over(numbered(number))
    eventually(lambda: carrier.accepted == 6)

    # then each is there once
    assert rewards(run.stored()) == [1, 2, 3, 4, 5, 6]
    books = run.monitor.read_books()
    assert (books["produced"], books["dup_push"]) == (6, LossyLink.lost)
    assert LossyLink.lost > 0


def test_closing_pushes_what_the_ring_holds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # given blocks in the ring
    gate = threading.Event()
    monkeypatch.setattr(GatedLink, "gate", gate, raising=False)
    carrier = run.courier(GatedLink)
    for number in range(1, 6):
        carrier.hand_over(numbered(number))

    # when the actor closes
    gate.set()
    carrier.close(10.0)

    # then they are in the list
    assert rewards(run.stored()) == [1, 2, 3, 4, 5]
    assert (carrier.accepted, len(carrier._ring)) == (5, 0)
    assert carrier.over
    assert carrier.failure is None


def test_closing_does_not_wait_for_a_frozen_server(
    own_run: Run, frozen: Callable[[bool], None]
) -> None:
    # given blocks that cannot be pushed
    carrier = own_run.courier()
    eventually(lambda: own_run.monitor.read_actors())
    frozen(True)
    for number in range(1, 6):
        carrier.hand_over(numbered(number))

    # when the actor closes, then it has its time and little more
    started = time.monotonic()
    carrier.close(0.3)
    assert time.monotonic() - started < 3.0


def test_a_block_given_up_at_the_end_does_not_swallow_the_next(run: Run) -> None:
    # given a first push whose reply is lost while the actor closes
    closing = threading.Event()

    class LosesTheFirst(ActorLink):
        calls = 0

        def push_together(self, *arguments: Any) -> PushReply:
            self.calls += 1
            if self.calls > 1:
                return super().push_together(*arguments)
            assert closing.wait(20)
            super().push_together(*arguments)
            raise RedisUnreachable("the reply was lost")

    carrier = run.courier(LosesTheFirst)
    carrier.hand_over(numbered(1))
    eventually(lambda: len(carrier._ring) == 0)
    carrier.hand_over(numbered(2))

    # when its time to flush is over
    closer = threading.Thread(target=carrier.close, args=(0.0,))
    closer.start()
    eventually(lambda: carrier._closing)
    closing.set()
    closer.join(10)
    eventually(lambda: carrier.over)

    # then a block that counts as accepted is in the list
    assert carrier.accepted == 1
    assert rewards(run.stored()) == [1, 2]


# A run whose actors wait for room.

BLOCKING = dataclasses.replace(SPEC, queue_blocks=2, queue_policy="block")
LINKS = [ActorLink, PlainActorLink]


def played(carrier: Courier, first: int, last: int) -> list[int]:
    """Hands blocks over as an actor does, until none is wanted; which they were."""
    done = []
    for number in range(first, last + 1):
        if not carrier.wait_for_room(0.3):
            break
        carrier.hand_over(numbered(number))
        done.append(number)
    return done


@pytest.mark.parametrize("link", LINKS)
def test_an_actor_waits_for_room_and_sheds_nothing(run: Run, link: type[ActorLink]) -> None:
    # given room for two blocks, and nobody who takes them
    carrier = run.courier(link, spec=BLOCKING)

    # when an actor plays as long as its blocks are wanted
    done = played(carrier, 1, 20)

    # then two are in the list, one waits to get in, and one is ready: it stands still
    assert done == [1, 2, 3, 4]
    eventually(lambda: carrier.accepted == 2)
    assert carrier.books() == {
        "generated": 4, "accepted": 2, "pending_local": 2,
        "shed_local": 0, "push_unknown": 0, "left_over": 0,
    }  # fmt: skip
    assert 0.25 < carrier.waited_s < 5.0

    # and it is heard of all the time
    assert carrier.silent_s < 1.0
    assert run.monitor.read_actors()

    # when the learner takes blocks, then it goes on, and all arrive in their order
    taken: list[bytes] = []
    while len(taken) < 20:
        taken += run.learner.settle_and_claim(Settled(), 1)[0]
        done += played(carrier, done[-1] + 1, min(done[-1] + 1, 20))
    assert rewards([wire.unpack_block(m, SPEC) for m in taken]) == list(range(1, 21))
    eventually(lambda: carrier.accepted == 20)
    books = run.monitor.read_books()
    assert (books["dropped_oldest"], residual(books)) == (0, 0)


def test_without_that_policy_no_actor_waits(run: Run) -> None:
    carrier = run.courier(spec=dataclasses.replace(BLOCKING, queue_policy="drop-oldest"))
    assert played(carrier, 1, 50) == list(range(1, 51))
    eventually(lambda: carrier.accepted + carrier.shed_local == 50)
    assert carrier.waited_s == 0.0
    assert run.monitor.read_books()["dropped_oldest"] == carrier.accepted - 2


@pytest.mark.parametrize("link", LINKS)
def test_an_actor_that_waits_for_room_can_be_closed(run: Run, link: type[ActorLink]) -> None:
    # given one that waits
    carrier = run.courier(link, spec=BLOCKING)
    assert played(carrier, 1, 20) == [1, 2, 3, 4]

    # when it closes, then it has its time and little more
    began = time.monotonic()
    carrier.close(0.3)
    assert 0.25 < time.monotonic() - began < 1.0
    assert carrier.over

    # and what did not come in is known not to be there
    assert carrier.books() == {
        "generated": 4, "accepted": 2, "left_over": 2,
        "pending_local": 0, "shed_local": 0, "push_unknown": 0,
    }  # fmt: skip
    assert rewards(run.stored()) == [1, 2]
    assert run.monitor.read_actors() == {}


@pytest.mark.parametrize("link", LINKS)
def test_what_waits_when_the_run_ends_was_not_accepted(run: Run, link: type[ActorLink]) -> None:
    # given an actor that waits
    carrier = run.courier(link, spec=BLOCKING)
    assert played(carrier, 1, 20) == [1, 2, 3, 4]

    # when the run is finished
    run.learner.announce(SPEC.to_json(), SPEC.fingerprint, "finished")
    eventually(lambda: carrier.over and carrier.left_over == 1)

    # then the actor may play no more, and the books hold
    assert carrier.wait_for_room(20.0)
    assert carrier.run_finished
    books = carrier.books()
    assert books["accepted"] == len(run.stored()) == 2
    assert books["generated"] == sum(n for name, n in books.items() if name != "generated")


def test_a_plain_push_into_a_run_that_is_over_is_not_accepted(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an actor that hears of the end by its push
    carrier = run.courier(PlainActorLink)
    eventually(run.monitor.read_actors)
    monkeypatch.setattr(courier, "BEAT_INTERVAL_S", 1000.0)
    carrier._next_beat = time.monotonic() + 1000.0
    run.learner.announce(SPEC.to_json(), SPEC.fingerprint, "finished")
    carrier.hand_over(numbered(1))
    eventually(lambda: carrier.over)

    # then the block is where it is: nowhere
    assert run.stored() == []
    assert (carrier.books()["accepted"], carrier.books()["left_over"]) == (0, 1)


def test_while_redis_is_away_a_waiting_actor_plays_on_and_sheds(
    own_run: Run, frozen: Callable[[bool], None]
) -> None:
    # given an actor that waits for room
    carrier = own_run.courier(spec=BLOCKING)
    assert played(carrier, 1, 20) == [1, 2, 3, 4]

    # when the server freezes, then its environments go on, as without that policy
    frozen(True)
    assert carrier.wait_for_room(20.0)
    for number in range(5, 25):
        assert carrier.wait_for_room(0.0)
        carrier.hand_over(numbered(number))
    assert (len(carrier._ring), carrier.shed_local) == (RING_BLOCKS, 21 - RING_BLOCKS)

    # and when it thaws, they stand still again, and nothing was lost twice
    frozen(False)
    eventually(lambda: not carrier.wait_for_room(0.1))
    taken: list[bytes] = []
    while len(taken) < 3 + RING_BLOCKS:
        taken += own_run.learner.settle_and_claim(Settled(), 1)[0]
    assert rewards([wire.unpack_block(m, SPEC) for m in taken]) == [1, 2, 3, *range(17, 25)]
    assert residual(own_run.monitor.read_books()) == 0


def test_an_actor_that_waits_outlives_a_wipe_and_its_block_arrives(own_run: Run) -> None:
    # given an actor that waits
    carrier = own_run.courier(spec=BLOCKING)
    assert played(carrier, 1, 20) == [1, 2, 3, 4]

    # when the server loses everything, and the learner opens the run again
    own_run.operator.flushall()
    assert not carrier.wait_for_room(0.3)  # the server answers: nothing is shed
    own_run.learner.open()
    own_run.learner.publish(1, message(1))
    own_run.learner.announce(SPEC.to_json(), SPEC.fingerprint, "running")

    # then what waited comes in
    eventually(lambda: carrier.accepted == 4)
    assert rewards(own_run.stored()) == [3, 4]
    assert carrier.shed_local == 0


def test_a_learner_is_away_from_a_run_that_the_server_has_lost(own_run: Run) -> None:
    # given a run that a learner holds
    carrier = own_run.courier()
    own_run.learner.renew({})
    eventually(lambda: carrier.learner_away_s < 0.06)

    # when the server loses everything, and nobody opens the run again
    own_run.operator.flushall()

    # then
    eventually(lambda: carrier.learner_away_s > 2.5)
    assert not carrier.over

    # until somebody does
    own_run.learner.open()
    own_run.learner.renew({})
    own_run.learner.publish(1, message(1))
    own_run.learner.announce(SPEC.to_json(), SPEC.fingerprint, "running")
    eventually(lambda: carrier.learner_away_s < 1.0)


def test_a_learner_that_renews_its_lease_is_not_away(run: Run) -> None:
    # given a learner that renews its lease now and then
    carrier = run.courier()
    for _ in range(5):
        run.learner.renew({})
        eventually(lambda: carrier.learner_away_s > 0.06)
        run.learner.renew({})
        eventually(lambda: carrier.learner_away_s < 0.06)

    # when it does so no more, whatever it publishes
    run.learner.publish(2, message(2))
    eventually(carrier.weights.take)
    eventually(lambda: carrier.learner_away_s > 0.5)


@pytest.mark.parametrize("kind", [ActorLink, PlainActorLink])
def test_a_server_that_has_lost_the_run_shows_that_its_learner_is_away(
    run: Run, kind: type[ActorLink]
) -> None:
    # given a learner that has just renewed its lease
    carrier = run.courier(kind)
    run.learner.renew({})
    eventually(lambda: carrier.learner_away_s > 0.0)

    # when the server loses the run, as by a restart without memory, then Redis is not silent
    run.operator.unlink(*run.operator.keys(run.learner.keys.prefix + "*"))
    carrier.hand_over(numbered(1))
    eventually(lambda: carrier.learner_away_s > 0.6)
    assert carrier.silent_s < 2.0

    # and when a learner opens it again, it is back
    run.learner.open()
    run.learner.publish(2, message(2))
    run.learner.announce(SPEC.to_json(), SPEC.fingerprint, "running")
    run.learner.renew({})
    eventually(lambda: carrier.learner_away_s < 0.3)


# Weights.


class CountingLink(ActorLink):
    """Counts how often the weights are fetched, and notes which pushes ask for them."""

    fetched = 0
    with_weights: tuple[bool, ...] = ()

    def push_together(self, *push: Any, **more: Any) -> PushReply:
        self.with_weights += (push[-1],)
        return super().push_together(*push, **more)

    def read_weights(self) -> WeightsReply | None:
        self.fetched += 1
        return super().read_weights()


def test_new_weights_are_fetched_once_and_handed_over_once(run: Run) -> None:
    # given an actor that acts on version 1
    carrier = run.courier(CountingLink)
    link = run.links[-1]
    assert isinstance(link, CountingLink)
    carrier.hand_over(numbered(1))
    eventually(lambda: carrier.accepted == 1)
    assert (carrier.weights.take(), link.fetched) == (None, 0)

    # when a new version is published, with no block to push
    run.learner.publish(2, message(2))
    fresh = eventually(carrier.weights.take)

    # then it is handed over, once
    assert fresh.version == 2
    assert all(np.array_equal(fresh.weights[name], w) for name, w in weights(2.0).items())
    for number in range(2, 6):
        carrier.hand_over(numbered(number))
        eventually(lambda: len(carrier._ring) == 0)
    eventually(lambda: carrier.accepted == 5)
    assert (carrier.weights.take(), link.fetched) == (None, 1)

    # and of several new ones, the newest
    run.learner.publish(3, message(3))
    run.learner.publish(4, message(4))
    eventually(lambda: (f := carrier.weights.take()) is not None and f.version == 4)


def pushing_once_without_beats(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> tuple[Courier, CountingLink]:
    """A courier that has pushed a block, and looks for news with its pushes alone from now on."""
    monkeypatch.setattr(courier, "BEAT_INTERVAL_S", 1000.0)
    carrier = run.courier(CountingLink)
    link = run.links[-1]
    assert isinstance(link, CountingLink)
    carrier.hand_over(numbered(1))
    eventually(lambda: carrier.accepted == 1)
    return carrier, link


@pytest.mark.parametrize(("light_bytes", "fetched"), [(courier.LIGHT_WEIGHTS_BYTES, 0), (0, 1)])
def test_only_weights_that_are_heavy_take_a_round_trip_of_their_own(
    run: Run, monkeypatch: pytest.MonkeyPatch, light_bytes: int, fetched: int
) -> None:
    # given an actor that asks for what is new with its pushes alone
    monkeypatch.setattr(courier, "LIGHT_WEIGHTS_BYTES", light_bytes)
    carrier, link = pushing_once_without_beats(run, monkeypatch)

    # when new weights are published before a push
    run.learner.publish(2, message(2))
    carrier.hand_over(numbered(2))
    fresh = eventually(carrier.weights.take)

    # then
    assert fresh.version == 2
    assert all(np.array_equal(fresh.weights[name], w) for name, w in weights(2.0).items())
    assert link.fetched == fetched


def test_light_weights_that_are_refused_do_not_come_with_each_push(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an actor that asks for what is new with its pushes alone
    carrier, link = pushing_once_without_beats(run, monkeypatch)

    # when it pushes while weights are published that it must not use
    run.learner.publish(2, message(2)[:-1])
    for number in range(2, 5):
        carrier.hand_over(numbered(number))
        eventually(lambda number=number: carrier.accepted == number)

    # then they came once
    assert (carrier.weights.refused, link.fetched) == (1, 0)
    assert link.with_weights == (True, True, False, False)

    # and newer ones are acted with
    run.learner.publish(3, message(3))
    carrier.hand_over(numbered(5))
    assert eventually(carrier.weights.take).version == 3


def test_light_weights_are_fetched_after_a_plain_push(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "BEAT_INTERVAL_S", 1000.0)
    carrier = run.courier(PlainActorLink)
    run.learner.publish(2, message(2))
    carrier.hand_over(numbered(1))
    assert eventually(carrier.weights.take).version == 2


def test_what_is_published_is_known_with_the_weights_that_are_loaded(run: Run) -> None:
    # given an actor that has not looked for weights yet
    made = run.courier()
    assert made.published_version == 1

    # when newer ones are published, then it knows of them with its next push
    run.learner.publish(7, message(7))
    made.hand_over(numbered(1))
    eventually(lambda: made.published_version == 7)
    assert eventually(made.weights.take).version == 7


def test_a_learner_that_starts_again_from_an_older_version_is_followed(own_run: Run) -> None:
    # given an actor that acts on version 9
    carrier = own_run.courier()
    own_run.learner.publish(9, message(9))
    assert eventually(carrier.weights.take).version == 9

    # when server and learner are lost, and an older checkpoint is gone on from
    own_run.operator.flushall()
    own_run.learner.open()
    own_run.learner.publish(4, message(4))
    own_run.learner.announce(SPEC.to_json(), SPEC.fingerprint, "running")

    # then the actor acts on what that learner publishes
    assert eventually(carrier.weights.take, 5.0).version == 4


@pytest.mark.fault(38)
@pytest.mark.parametrize("wrong", ["digest", "bytes", "another run's", "not finite"])
def test_weights_that_are_not_right_are_refused_and_the_old_ones_kept(
    run: Run, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    # given an actor
    caplog.set_level(logging.WARNING)
    carrier = run.courier(CountingLink)

    # when weights are published that it must not use
    if wrong == "another run's":
        other = dataclasses.replace(SPEC, hidden_sizes=(5,))
        run.learner.publish(2, message(2, other))
    elif wrong == "not finite":
        run.learner.publish(2, wire.pack_weights(weights(float("nan")), 2, SPEC))
    elif wrong == "bytes":
        run.learner.publish(2, message(2)[:-1])
    else:
        run.operator.hset(
            run.learner.keys.weights,
            mapping={"payload": message(2), "digest": "0" * 64, "version": 2},
        )
    eventually(lambda: carrier.weights.refused == 1)

    # then it keeps what it has, says so, and does not ask again
    assert carrier.weights.take() is None
    assert "kept the old weights" in caplog.text
    carrier.hand_over(numbered(1))
    eventually(lambda: carrier.accepted == 1)
    link = run.links[-1]
    assert isinstance(link, CountingLink)
    assert (carrier.weights.refused, link.fetched) == (1, 1)
    assert not carrier.over

    # and goes on with the next good ones
    run.learner.publish(3, message(3))
    assert eventually(carrier.weights.take).version == 3


# The run's end, and the courier's.


def test_a_finished_run_ends_the_courier(run: Run) -> None:
    carrier = run.courier()
    run.learner.announce(SPEC.to_json(), SPEC.fingerprint, "finished")
    eventually(lambda: carrier.over)
    assert carrier.failure is None


def test_another_spec_ends_the_courier_at_the_next_push(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an actor whose next heartbeat is far
    carrier = run.courier()
    monkeypatch.setattr(courier, "BEAT_INTERVAL_S", 1000.0)
    carrier._next_beat = time.monotonic() + 1000.0

    # when the run becomes another one
    other = dataclasses.replace(SPEC, unroll_length=3)
    run.learner.announce(other.to_json(), other.fingerprint, "running")
    carrier.hand_over(numbered(1))

    # then the actor learns it with the next push
    eventually(lambda: carrier.over)
    assert carrier.failure is None


def test_a_lost_run_is_waited_for(own_run: Run, caplog: pytest.LogCaptureFixture) -> None:
    # given a server that lost everything
    caplog.set_level(logging.INFO)
    carrier = own_run.courier()
    carrier.hand_over(numbered(1))
    eventually(lambda: carrier.accepted == 1)
    own_run.operator.flushall()
    carrier.hand_over(numbered(2))
    eventually(lambda: "acting on without Redis" in caplog.text)

    # when the learner opens the run again
    own_run.learner.open()
    own_run.learner.publish(1, message(1))
    own_run.learner.announce(SPEC.to_json(), SPEC.fingerprint, "running")

    # then the actor goes on
    eventually(lambda: carrier.accepted == 2)
    assert rewards(own_run.stored()) == [2]
    assert "Redis is back" in caplog.text
    assert not carrier.over


def test_a_revoked_actor_fails_for_good(own_run: Run) -> None:
    # given an actor with a user of its own
    own_run.operator.execute_command("ACL", "SETUSER", "joe", "on", ">hush", "~*", "+@all")
    carrier = own_run.courier(url=own_run.url + "&username=joe&password=hush")
    carrier.hand_over(numbered(1))
    eventually(lambda: carrier.accepted == 1)

    # when the user is taken away
    own_run.operator.execute_command("ACL", "DELUSER", "joe")

    # then the courier ends, and says why
    eventually(lambda: carrier.over)
    eventually(lambda: carrier.failure is not None)
    assert isinstance(carrier.failure, RedisDenied)
    assert "hush" not in str(carrier.failure)

    # and handing over still takes no time
    for number in range(100):
        carrier.hand_over(numbered(number))


@pytest.mark.parametrize("actor", ["host-7", "host#7", "a:actor:b"])
def test_an_actor_is_listed_while_it_lives(run: Run, actor: str) -> None:
    # when an actor starts, then it is listed with its figures
    carrier = run.courier(actor=actor)
    eventually(run.monitor.read_actors)
    assert run.monitor.read_actors() == {actor: {"frames": "42"}}

    # and its record expires if it dies
    assert 0 < run.operator.pttl(run.learner.keys.actor(actor)) <= courier.BEAT_EXPIRES_S * 1000

    # and goes when it closes
    carrier.close(5.0)
    assert run.monitor.read_actors() == {}


def test_an_idle_actor_hears_from_redis(run: Run) -> None:
    carrier = run.courier()
    eventually(lambda: carrier.silent_s > 0.02)
    eventually(lambda: carrier.silent_s < 0.02)
