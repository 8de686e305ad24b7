"""An actor with more environments than its run's others: its unrolls are cut, and arrive whole."""

import dataclasses
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from impala_redis.common.acting.courier import Courier
from impala_redis.common.acting.parcels import RING_BLOCKS, cut, put, taken_together
from impala_redis.common.blocks import wire
from impala_redis.common.blocks.trajectory import (
    Block,
    Episode,
    Origin,
    Trajectory,
    empty_trajectory,
)
from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.feeding.feeder import Feeder
from impala_redis.common.feeding.intake import Intake
from impala_redis.common.run.spaces import ObservationSpec
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Settled
from impala_redis.common.transport.monitor import MonitorLink, residual
from small_networks import make_spec
from support import eventually

SPEC = make_spec(envs_per_actor=16, unroll_length=3)
ATARI = make_spec(
    ObservationSpec((84, 84), "uint8", scale=(255,), frame_stack=4),
    network="shallow",
    hidden_sizes=(16,),
    envs_per_actor=16,
    unroll_length=20,
)
B = 32


def unroll(spec: RunSpec, columns: int, unroll_s: float = 0.5) -> Block:
    """An unroll that is fit to train on; a column is known by its rewards."""
    rows = empty_trajectory(spec, columns)
    for array in rows:
        array[...] = 0
    rows.observations[...] = np.arange(columns).reshape(-1, *[1] * len(spec.observation.shape))
    rows.rewards[...] = np.arange(columns)
    rows.discounts[...], rows.mask[...] = 1.0, True
    return Block(Origin("wide", 100, 0, 1), rows, (), unroll_s)


def test_a_wide_unroll_is_cut_into_blocks_of_other_incarnations() -> None:
    # given
    episodes = tuple(Episode(float(i), 7, i) for i in range(0, 40, 5))
    whole = unroll(SPEC, 40, unroll_s=2.0)._replace(episodes=episodes)

    # when
    parcels = cut(whole, 16)

    # then each has its columns, the episodes that ended in them, and its share of the time
    assert [parcel.num_envs for parcel in parcels] == [16, 16, 8]
    assert [parcel.unroll_s for parcel in parcels] == pytest.approx([0.8, 0.8, 0.4])
    assert [parcel.origin for parcel in parcels] == [
        Origin("wide", 100 + k, 0, 1) for k in range(3)
    ]
    for name in Trajectory._fields:
        joined = np.concatenate([getattr(p.trajectory, name) for p in parcels], axis=1)
        np.testing.assert_array_equal(joined, getattr(whole.trajectory, name))
    found = [(k, e.column, e.episode_return) for k, p in enumerate(parcels) for e in p.episodes]
    assert found == [(i // 16, i % 16, float(i)) for i in range(0, 40, 5)]


@pytest.mark.parametrize("columns", [1, 15, 16])
def test_an_unroll_that_is_not_wider_stays_as_it_is(columns: int) -> None:
    whole = unroll(SPEC, columns)
    (parcel,) = cut(whole, 16)
    assert parcel is whole


@pytest.mark.parametrize(("parcels", "kept"), [(1, RING_BLOCKS), (20, 20)])
def test_what_waits_is_at_most_a_few_blocks_or_one_unroll(parcels: int, kept: int) -> None:
    # given unrolls of so many blocks, which nobody takes
    ring, shed = deque[Block](), 0
    handed_over = [cut(unroll(SPEC, 16 * parcels), 16) for _ in range(kept + 3)]

    # when
    for blocks in handed_over:
        shed += put(ring, blocks, being_sent=0)

    # then the newest wait
    everything = [block for blocks in handed_over for block in blocks]
    assert list(ring) == everything[-kept:]
    assert shed == len(everything) - kept


def test_blocks_of_different_incarnations_are_not_pushed_together() -> None:
    waiting = deque([*cut(unroll(SPEC, 32), 16), *[unroll(SPEC, 2)] * 3])
    pushes = []
    while waiting:
        pushes.append([block.origin.incarnation for block in taken_together(waiting, 4)])
    assert pushes == [[100], [101], [100, 100, 100]]


class Run:
    """A run with a wide actor's courier, and a learner's feeder when it is asked for."""

    def __init__(self, url: str, name: str, spec: RunSpec) -> None:
        self.spec = dataclasses.replace(spec, run=name)
        self.learner = LearnerLink(url, name, "learner", 60.0)
        self.actor = ActorLink(url, name, "actor")
        self.monitor = MonitorLink(url, name, "monitor")
        self.learner.open()
        self.learner.announce(self.spec.to_json(), self.spec.fingerprint, "running")
        reply = self.learner.read_spec()
        assert reply is not None
        self.courier = Courier(self.actor, self.spec, reply.digest, "wide", lambda: {"frames": 42})
        self.courier.start(VersionedWeights(1, {}))
        self.feeder: Feeder | None = None

    def trained(self, columns: int) -> np.ndarray[Any, Any]:
        """Trains on batches of B columns until that many; the first reward of each [columns]."""
        intake = Intake(self.learner, self.spec, None, lambda: 1, lambda: None)
        rows = lambda: empty_trajectory(self.spec, B)  # noqa: E731
        self.feeder = feeder = Feeder(intake, rows, lambda rows: None)
        feeder.start()
        found = []
        for _ in range(columns // B):
            batch = eventually(lambda: feeder.next_batch(1.0))
            assert (batch.rows.observations[0, :, 0, 0] == batch.rows.rewards[0] % 256).all()
            found.append(batch.rows.rewards[0].copy())
            feeder.trained(batch)
        return np.concatenate(found)

    def close(self) -> None:
        self.courier.close(0.0)
        if self.feeder is not None:
            self.feeder.close()
        for link in (self.learner, self.actor, self.monitor):
            link.close()


@pytest.fixture
def runs(redis_url: str, run_name: str) -> Iterator[Any]:
    made = []

    def make(spec: RunSpec) -> Run:
        made.append(Run(redis_url, run_name, spec))
        return made[-1]

    yield make
    for run in made:
        run.close()


@pytest.mark.parametrize(
    ("columns", "queue_policy"), [(512, "block"), (1024, "block"), (512, "drop-oldest")]
)
def test_all_columns_of_a_wide_actor_are_trained_on_once_through_a_list_of_one_block(
    runs: Any, columns: int, queue_policy: str
) -> None:
    # given a list for one block, and an actor that has time
    run = runs(dataclasses.replace(ATARI, queue_blocks=1, queue_policy=queue_policy))
    run.courier.hand_over(unroll(run.spec, columns, unroll_s=3600.0))

    # when
    trained = run.trained(columns)

    # then
    np.testing.assert_array_equal(trained, np.arange(columns))
    assert run.feeder.close()
    books, blocks = run.monitor.read_books(), columns // 16
    assert (books["produced"], books["consumed"], residual(books)) == (blocks, blocks, 0)
    assert run.courier.books() == {
        "generated": blocks, "accepted": blocks, "pending_local": 0,
        "shed_local": 0, "push_unknown": 0, "left_over": 0,
    }  # fmt: skip


def test_a_wide_actor_that_has_no_time_drops_the_oldest_as_others_do(runs: Any) -> None:
    # given a list for two blocks, and nobody who takes them
    run = runs(dataclasses.replace(SPEC, queue_blocks=2))

    # when an unroll of eight blocks comes from an actor that is as fast as can be
    run.courier.hand_over(unroll(run.spec, 128, unroll_s=0.0))
    eventually(lambda: run.courier.accepted == 8)

    # then the newest two are left
    books = run.monitor.read_books()
    assert (books["produced"], books["dropped_oldest"], residual(books)) == (8, 6, 0)
    messages, _ = run.learner.settle_and_claim(Settled(), 8)
    blocks = [wire.unpack_block(message, run.spec) for message in messages]
    assert [int(block.trajectory.rewards[0, 0]) for block in blocks] == [96, 112]


def test_a_wide_actor_that_closes_pushes_what_is_left_and_waits_for_room_no_longer(
    runs: Any,
) -> None:
    # given an actor that waits for room in a list that nobody empties
    run = runs(dataclasses.replace(SPEC, queue_blocks=1))
    run.courier.hand_over(unroll(run.spec, 128, unroll_s=3600.0))
    eventually(lambda: run.courier.accepted == 1)

    # when it closes, then all eight blocks are pushed at once
    began = time.monotonic()
    run.courier.close(6.0)
    assert time.monotonic() - began < 4.0
    assert run.courier.accepted == 8
    books = run.monitor.read_books()
    assert (books["produced"], books["dropped_oldest"], residual(books)) == (8, 7, 0)
