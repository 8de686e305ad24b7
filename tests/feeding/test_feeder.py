"""The feeder: what is claimed reaches the learner once and in order, or stands in a counter."""

import dataclasses
import json
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import redis

from impala_redis.common.blocks import wire
from impala_redis.common.blocks.trajectory import (
    Block,
    Episode,
    Origin,
    Trajectory,
    empty_trajectory,
)
from impala_redis.common.errors import Fenced, OutOfStep, RedisUnreachable, RunHeld, RunMissing
from impala_redis.common.feeding.batch import Batch, UnrollTiming
from impala_redis.common.feeding.feeder import Feeder
from impala_redis.common.feeding.intake import Intake
from impala_redis.common.feeding.replay import Replay
from impala_redis.common.feeding.tally import Arrivals, Refusals
from impala_redis.common.records.window import Played
from impala_redis.common.run.spaces import discrete
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Settled
from impala_redis.common.transport.monitor import MonitorLink, residual
from small_networks import make_spec
from support import eventually

T = 2
SPEC = make_spec(hidden_sizes=(4,), unroll_length=T, queue_blocks=1000)
SOON_S = 20.0


def random_block(rng: np.random.Generator, columns: int, spec: RunSpec = SPEC) -> Trajectory:
    """Valid rows of random numbers; an episode may end at the last one."""
    t, n = spec.unroll_length, columns
    mask = rng.random((t, n)) < 0.8
    mask[-1] = True
    return Trajectory(
        observations=rng.normal(size=(t + 1, n, 3)).astype(np.float32),
        is_first=rng.random((t + 1, n)) < 0.3,
        actions=rng.integers(0, spec.action.sizes[0], (t, n)).astype(np.int32),
        rewards=rng.normal(size=(t, n)).astype(np.float32),
        discounts=(rng.random((t, n)) < 0.7).astype(np.float32),
        behaviour_log_probs=-rng.exponential(size=(t, n)).astype(np.float32),
        mask=mask,
        memory=np.empty((1, n, 0), np.float32),
        tasks=np.empty((1, n, 0), np.int16),
    )


class Run:
    """An open run, an actor's side to push with, and feeders for it."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self.learner = LearnerLink(url, name, "learner", 60.0)
        self.actor = ActorLink(url, name, "actor")
        self.monitor = MonitorLink(url, name, "monitor")
        self.operator = redis.Redis.from_url(url)
        self.rng = np.random.default_rng(0)
        self.feeders: list[Feeder] = []
        self.links: list[LearnerLink] = []
        self.pushed: list[Trajectory] = []
        self.version = 5  # of the learner's weights
        self.reopened = 0
        self.open()

    def open(self) -> None:
        self.learner.open()
        self.learner.announce(SPEC.to_json(), SPEC.fingerprint, "running")

    def reopen(self) -> None:
        self.reopened += 1
        self.open()

    def feeder(
        self,
        batch_size: int,
        max_policy_lag: int | None = None,
        link: LearnerLink | None = None,
        reopen: Callable[[], None] | None = None,
        replay: Replay | None = None,
        refusals: Refusals | None = None,
    ) -> Feeder:
        self.intake = Intake(
            link or self.learner,
            SPEC,
            max_policy_lag,
            lambda: self.version,
            reopen or self.reopen,
            refusals,
        )
        made = Feeder(
            self.intake, lambda: empty_trajectory(SPEC, batch_size), lambda rows: None, replay
        )
        self.feeders.append(made)
        made.start()
        return made

    def push(self, columns: int, version: int = 0, episodes: tuple[Episode, ...] = ()) -> None:
        """Pushes a random block of that many environments."""
        rows = random_block(self.rng, columns)
        self.pushed.append(rows)
        origin = Origin("a", 1, len(self.pushed), version)
        self.push_raw(wire.pack_block(Block(origin, rows, episodes, 0.01), SPEC))

    def push_raw(self, payload: bytes) -> None:
        """Pushes any bytes."""
        self.sequence = getattr(self, "sequence", 0) + 1
        self.actor.push("a#1", self.sequence, payload, 1000)

    def books(self) -> dict[str, Any]:
        return self.monitor.read_books()

    def close(self) -> None:
        for made in self.feeders:
            made.close()
        for link in (*self.links, self.learner, self.actor, self.monitor, self.operator):
            link.close()


@pytest.fixture
def run(redis_url: str, run_name: str) -> Iterator[Run]:
    made = Run(redis_url, run_name)
    yield made
    made.close()


def joined(parts: list[Trajectory]) -> Trajectory:
    """Trajectories side by side, along the environments."""
    return Trajectory(*(np.concatenate(field, axis=1) for field in zip(*parts, strict=True)))


def same(one: Trajectory, other: Trajectory) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def copied(batch: Batch) -> Trajectory:
    return Trajectory(*(rows.copy() for rows in batch.rows))


def take(feeder: Feeder) -> Batch:
    batch = feeder.next_batch(SOON_S)
    assert batch is not None
    return batch


def train(feeder: Feeder, batches: int) -> list[Trajectory]:
    """Takes batches and says that they were trained on; copies of what was in them."""
    seen = []
    for _ in range(batches):
        batch = take(feeder)
        seen.append(copied(batch))
        feeder.trained(batch)
    return seen


# Blocks in, batches out.


@pytest.mark.parametrize("batch_size", [1, 3, 4, 16], ids=lambda size: f"batches of {size}")
def test_blocks_of_any_width_arrive_once_and_in_order_in_batches_of_another(
    run: Run, batch_size: int
) -> None:
    # given blocks of several widths, 48 columns in all
    for columns in (2, 3, 1, 7, 2, 2, 5, 10, 1, 15):
        run.push(columns)

    # when they are taken as batches
    feeder = run.feeder(batch_size)
    seen = train(feeder, 48 // batch_size)

    # then all of them arrived, in order, and no more
    assert same(joined(seen), joined(run.pushed))
    assert feeder.next_batch(0.05) is None

    # and all are counted once the feeder has settled
    feeder.close()
    books = run.books()
    assert (books["consumed"], books["queued"], books["in_flight"]) == (10, 0, 0)
    assert residual(books) == 0


def test_a_batch_knows_frames_versions_and_episodes(run: Run) -> None:
    # given two blocks of other versions, with episodes that ended inside
    run.push(2, version=4, episodes=(Episode(1.5, 7, 0), Episode(-2.0, 9, 1)))
    run.push(2, version=5, episodes=(Episode(3.0, 11, 0),))

    # when they fill one batch
    batch = take(run.feeder(4))

    # then it says what is in it
    assert batch.versions == [4, 4, 5, 5]
    assert batch.episodes == [Episode(1.5, 7, 0), Episode(-2.0, 9, 1), Episode(3.0, 11, 0)]
    assert batch.frames == sum(rows.frames for rows in run.pushed)
    assert batch.blocks == [
        Played(("a", 1), 2, True, batch.blocks[0].episodes),
        Played(("a", 1), 2, False, batch.blocks[1].episodes),
    ]
    assert [len(block.episodes) for block in batch.blocks] == [2, 1]


def test_a_used_batch_carries_nothing_into_its_next_use(run: Run) -> None:
    # given a feeder with two batches that go round
    feeder = run.feeder(2)
    for version in range(6):
        run.push(2, version=version, episodes=(Episode(float(version), T + 1, 0),))

    # when each is used several times, then it holds what is new only
    for version in range(6):
        batch = take(feeder)
        assert batch.versions == [version, version]
        assert batch.episodes == [Episode(float(version), T + 1, 0)]
        assert batch.frames == run.pushed[version].frames
        assert len(batch.blocks) == 1
        feeder.trained(batch)


def test_no_batch_in_time_is_none(run: Run) -> None:
    feeder = run.feeder(4)
    run.push(3)  # one column short
    assert feeder.next_batch(0.05) is None
    run.push(1)
    assert feeder.next_batch(SOON_S) is not None


@pytest.mark.timeout(30)
def test_a_signal_that_outlasts_the_wait_does_not_make_it_endless(run: Run) -> None:
    # given a signal whose handler begins in the wait and returns after its end
    feeder = run.feeder(4)
    handled: list[int] = []

    def handle(number: int, _: object) -> None:
        time.sleep(0.3)
        handled.append(number)

    before = signal.signal(signal.SIGUSR1, handle)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()

    # when / then
    try:
        assert feeder.next_batch(0.2) is None
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert handled == [signal.SIGUSR1]


def test_the_length_of_the_list_is_known(run: Run) -> None:
    # given a feeder that has filled both its batches, and rests
    for _ in range(10):
        run.push(2)
    feeder = run.feeder(2)
    take(feeder)
    take(feeder)

    # then it has found 10 blocks, and after it had claimed one of them 9
    assert feeder.figures()["queue_blocks"] == 9
    totals = feeder.totals()
    assert (totals["asked"], totals["queued"], totals["claimed"]) == (2, 10 + 9, 2)


@pytest.mark.parametrize("batch_size", [2, 3, 12])
def test_each_block_is_counted_once_when_it_is_claimed(run: Run, batch_size: int) -> None:
    for _ in range(6):
        run.push(2)
    feeder = run.feeder(batch_size)
    train(feeder, 12 // batch_size)
    assert feeder.next_batch(0.05) is None  # it asks for more, and there is none
    assert feeder.totals()["claimed"] == 6


def test_a_batch_knows_who_played_the_blocks_that_end_in_it(run: Run) -> None:
    # given a block that does not fit into the first batch, and another actor's after it
    rows = [random_block(run.rng, columns) for columns in (3, 1)]
    for actor, unroll_s, block in zip("ab", (0.25, 0.5), rows, strict=True):
        origin = Origin(actor, 1, 1, 0)
        run.push_raw(wire.pack_block(Block(origin, block, (), unroll_s), SPEC))

    # when
    feeder = run.feeder(2)
    first, second = take(feeder), take(feeder)

    # then
    assert first.played == []
    assert second.played == [
        UnrollTiming("a", rows[0].frames, 0.25),
        UnrollTiming("b", rows[1].frames, 0.5),
    ]
    feeder.trained(second)
    assert second.played == []


def test_waiting_for_blocks_is_no_time_of_batching(run: Run) -> None:
    # given a feeder that waits for both halves of a batch
    feeder = run.feeder(4)
    for _ in range(2):
        assert feeder.next_batch(0.15) is None
        run.push(2)

    # then
    take(feeder)
    assert 0.0 < feeder.totals()["batch_s"] < 0.1


# What cannot be trained on.


def test_garbage_is_buried_with_its_reason_and_the_loop_goes_on(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    # given good blocks with all kinds of bad ones between them
    good = wire.pack_block(Block(Origin("a", 1, 1, 0), random_block(run.rng, 2), (), 0.1), SPEC)
    other = dataclasses.replace(SPEC, action=discrete(5))
    foreign = wire.pack_block(
        Block(Origin("a", 1, 1, 0), random_block(run.rng, 2, other), (), 0.1), other
    )
    nan = random_block(run.rng, 2)
    nan.rewards[0] = np.nan
    wild = random_block(run.rng, 2)
    wild.actions[0] = 4
    bad = [
        ("malformed", b""),
        ("malformed", b"not a frame at all"),
        ("malformed", good[:-1]),
        ("spec", foreign),
        ("nonfinite", wire.pack_block(Block(Origin("a", 1, 1, 0), nan, (), 0.1), SPEC)),
        ("range", wire.pack_block(Block(Origin("a", 1, 1, 0), wild, (), 0.1), SPEC)),
    ]
    for _, payload in bad:
        run.push(2)
        run.push_raw(payload)
    run.push(2)

    # when they are taken
    feeder = run.feeder(2)
    seen = train(feeder, 7)
    feeder.close()

    # then the good ones have all arrived
    assert same(joined(seen), joined(run.pushed))
    # and the bad ones stand in the counters of their reasons
    books = run.books()
    assert (books["consumed"], books["dead_lettered"], books["in_flight"]) == (7, 6, 0)
    reasons = {"malformed": 3, "spec": 1, "nonfinite": 1, "range": 1}
    assert {reason: books[f"dead_lettered:{reason}"] for reason in reasons} == reasons
    assert dict(run.intake.refused) == reasons
    assert feeder.figures()["blocks_refused"] == 6
    assert residual(books) == 0
    # and can be looked at, newest first
    records: Any = run.operator.lrange(run.learner.keys.dead, 0, -1)
    heads = [json.loads(record.partition(b"\n")[0]) for record in records]
    assert [head["reason"] for head in heads] == [reason for reason, _ in reversed(bad)]
    assert [record.partition(b"\n")[2] for record in records] == [p for _, p in reversed(bad)]
    # and the log names the first, but not each one of a flood
    assert caplog.text.count("refused a block (malformed, number 1)") == 1
    assert caplog.text.count("refused a block") == 1


def test_a_bad_number_costs_its_column_and_the_block_is_consumed(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    # given ten blocks of eight environments, the third of which gives a reward beyond float32
    good = [column for column in range(8) if column != 2]
    expected = []
    for number in range(1, 11):
        rows = random_block(run.rng, 8)
        rows.rewards[1, 2] = np.inf
        expected.append(Trajectory(*(values[:, good] for values in rows)))
        episodes = tuple(Episode(float(column), T + 1, column) for column in range(8))
        run.push_raw(wire.pack_block(Block(Origin("a", 1, number, 0), rows, episodes, 0.1), SPEC))

    # when they are trained on
    refusals = Refusals(SPEC.envs_per_actor)
    feeder = run.feeder(10, refusals=refusals)
    seen, returns = [], []
    for _ in range(7):
        batch = take(feeder)
        seen.append(copied(batch))
        returns += [episode.episode_return for episode in batch.episodes]
        assert all(block.num_envs == 8 for block in batch.blocks)
        feeder.trained(batch)
    feeder.close()

    # then the other columns have all arrived, with their episodes
    assert same(joined(seen), joined(expected))
    assert returns == good * 10
    # and the books count every block as consumed
    books = run.books()
    assert (books["consumed"], books["dead_lettered"], residual(books)) == (10, 0, 0)
    # and the columns are counted by cause, and named once
    assert refusals.arrivals == Arrivals(came=80, refused=10, stale=0)
    figures = refusals.figures()
    assert (figures["columns_refused"], figures["refused_rewards"]) == (10, 10)
    assert figures["episodes_left_out"] == 10
    assert refusals.summary() == {
        "columns_came": 80,
        "columns_refused": 10,
        "columns_stale": 0,
        "refused_share": 0.125,
        "stale_share": 0.0,
        "why": {"refused_rewards": 10},
        "by_actor": {"a": 10},
        "last": "rewards are not finite",
    }
    assert caplog.text.count("left out 1 of 8 columns of a block of a (nonfinite") == 1


def test_a_thousandth_of_bad_observations_costs_about_the_columns_that_hold_them(run: Run) -> None:
    # given 400 blocks of two columns of three observations, of which 0.1 % hold a NaN
    bad_columns = 0
    for number in range(1, 401):
        rows = random_block(run.rng, 2)
        bad = run.rng.random((T + 1, 2)) < 0.001
        rows.observations[bad] = np.nan
        bad_columns += int(bad.any(axis=0).sum())
        run.push_raw(wire.pack_block(Block(Origin("a", 1, number, 0), rows, (), 0.1), SPEC))
    assert 0 < bad_columns < 10

    # when
    refusals = Refusals(SPEC.envs_per_actor)
    feeder = run.feeder(2, refusals=refusals)
    train(feeder, (800 - bad_columns) // 2)
    feeder.close()

    # then no other column was lost
    assert refusals.arrivals == Arrivals(came=800, refused=bad_columns, stale=0)
    assert run.books()["consumed"] >= 398


def test_what_is_too_old_is_counted_in_columns_too(run: Run) -> None:
    # given
    run.version = 10
    for version in (1, 10, 2):
        run.push(2, version=version)

    # when
    refusals = Refusals(SPEC.envs_per_actor)
    train(run.feeder(2, max_policy_lag=2, refusals=refusals), 1)
    eventually(lambda: refusals.arrivals.came == 6)

    # then
    assert refusals.arrivals == Arrivals(came=6, refused=0, stale=4)
    assert refusals.figures()["columns_stale"] == 4


def test_a_block_of_weights_that_are_not_made_yet_is_refused(run: Run) -> None:
    # given a learner whose newest weights are version 10
    run.version = 10
    for version in (11, 2**53, 10):
        run.push(2, version=version)

    # when
    refusals = Refusals(SPEC.envs_per_actor)
    feeder = run.feeder(2, refusals=refusals)
    batch = take(feeder)

    # then only what these or older ones have played is trained on
    assert batch.versions == [10, 10]
    assert run.intake.refused == {"range": 2}
    assert refusals.figures()["refused_weights"] == 4
    assert f"version {2**53} of the weights, but 10 is the newest" in refusals.last
    summary = refusals.summary()
    assert summary is not None
    assert summary["by_actor"] == {"a": 4}


def test_a_block_that_came_around_the_push_function_is_trained_on_once(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    # given a feeder that says what was trained on, and a block
    caplog.set_level(logging.DEBUG, "impala_redis.common.feeding.feeder")
    feeder = run.feeder(batch_size=2)
    rows = random_block(run.rng, 2)
    frame = wire.pack_block(Block(Origin("a", 7, 1, 0), rows, (), 0.01), SPEC)

    # when it is put onto the list twice by hand, and another one after it
    for _ in range(2):
        run.operator.rpush(run.actor.keys.trajectories, frame)
    train(feeder, 1)
    other = wire.pack_block(Block(Origin("a", 7, 2, 0), rows, (), 0.01), SPEC)
    run.operator.rpush(run.actor.keys.trajectories, other)
    train(feeder, 1)

    # then the second copy is buried under a reason of its own
    eventually(lambda: run.books()["consumed"] == 2)
    assert run.books()["dead_lettered:duplicate"] == 1
    messages = [record.getMessage() for record in caplog.records]
    assert [line for line in messages if line.startswith("trained on")] == [
        "trained on a#7:1",
        "trained on a#7:2",
    ]


def test_stale_blocks_are_rejected_and_counted(run: Run) -> None:
    # given a learner at version 10 that takes blocks up to 2 versions old
    run.version = 10
    for version in (7, 8, 9, 10, 5, 10):
        run.push(2, version=version)

    # when they are taken
    feeder = run.feeder(2, max_policy_lag=2)
    seen = train(feeder, 4)
    feeder.close()

    # then the old ones were left out
    assert same(joined(seen), joined([run.pushed[i] for i in (1, 2, 3, 5)]))
    books = run.books()
    assert (books["consumed"], books["stale_rejected"], books["in_flight"]) == (4, 2, 0)
    assert residual(books) == 0


def test_without_a_bound_no_block_is_too_old(run: Run) -> None:
    run.version = 1_000_000
    run.push(2, version=0)
    take(run.feeder(2))
    assert run.books()["stale_rejected"] == 0


def test_a_share_of_each_batch_is_replayed_and_only_fresh_frames_are_counted(run: Run) -> None:
    # given a memory from which 2 of 4 columns come once it holds so many
    feeder = run.feeder(4, replay=Replay(SPEC, capacity=100, columns=2, seed=0))
    run.push(4, version=1)
    first = take(feeder)
    assert (first.replayed, first.frames) == (0, first.rows.frames)
    remembered = first.rows.observations.copy()
    feeder.trained(first)

    # when
    run.push(2, version=2)
    second = take(feeder)

    # then
    assert second.versions == [1, 1, 2, 2]
    assert second.replayed == 2
    assert second.frames == int(second.rows.mask[:, 2:].sum())
    for column in range(2):
        drawn = second.rows.observations[:, column]
        assert any(np.array_equal(drawn, remembered[:, j]) for j in range(4))
    feeder.trained(second)
    feeder.close()
    books = run.books()
    assert (books["produced"], books["consumed"], residual(books)) == (2, 2, 0)


# A run that stays lost.


@pytest.mark.parametrize("error", [RunMissing, OutOfStep])
@pytest.mark.parametrize("from_opening", [False, True])
def test_a_run_that_stays_lost_is_opened_again_with_pauses_until_the_feeder_closes(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: type[Exception], from_opening: bool
) -> None:
    # given a server that keeps answering that it has no such run
    calls = {"claims": 0, "openings": 0}

    def claim(*_: Any) -> Any:
        calls["claims"] += 1
        raise error("no")

    def reopen() -> None:
        calls["openings"] += 1
        if from_opening:
            raise error("no")

    monkeypatch.setattr(run.learner, "settle_and_claim", claim)
    feeder = run.feeder(2, reopen=reopen)

    # when it has been tried for a while
    began = time.monotonic()
    eventually(lambda: calls["openings"] >= 5)
    took_s = time.monotonic() - began

    # then pauses grew meanwhile: they are at least half of 0.05, 0.1, 0.2, 0.4 and 0.8 s
    assert took_s > 0.7
    assert run.intake.figures()["runs_lost"] in (5, 6)

    # and closing ends the longest of them at once
    began = time.monotonic()
    feeder.close()
    assert time.monotonic() - began < 0.3
    assert not feeder._thread.is_alive()


# When a block counts as consumed.


def test_a_block_is_consumed_only_when_it_was_trained_on(run: Run) -> None:
    # given a batch in the learner's hands
    feeder = run.feeder(2)
    run.push(2)
    batch = take(feeder)
    run.push(2)
    run.push(2)
    eventually(lambda: run.books()["in_flight"] == 2)

    # then nothing is consumed, however much the feeder does meanwhile
    assert run.books()["consumed"] == 0

    # but when it was trained on
    feeder.trained(batch)
    eventually(lambda: run.books()["consumed"] == 1)
    assert residual(run.books()) == 0


def test_after_closing_what_was_claimed_and_not_trained_on_is_in_flight(run: Run) -> None:
    # given ten blocks of which six are claimed: two batches of 3 blocks
    for _ in range(10):
        run.push(2)
    feeder = run.feeder(6)
    first = take(feeder)
    take(feeder)
    assert run.books()["in_flight"] == 6

    # when only the first was trained on, and the learner closes
    feeder.trained(first)
    feeder.close()

    # then the books say so
    books = run.books()
    assert books["consumed"] == 3
    assert books["in_flight"] + books["queued"] == 7
    assert books["in_flight"] >= 3
    assert residual(books) == 0

    # and the next learner abandons it
    in_flight = books["in_flight"]
    assert run.learner.open() == in_flight
    assert run.books()["abandoned"] == in_flight


def test_a_block_in_two_batches_is_consumed_with_the_second(run: Run) -> None:
    # given a block of three columns and batches of two
    run.push(3)
    feeder = run.feeder(2)
    feeder.trained(take(feeder))
    run.push(1)
    second = take(feeder)
    assert run.books()["consumed"] == 0

    # when the batch with its last column was trained on
    feeder.trained(second)
    feeder.close()

    # then it counts
    assert run.books()["consumed"] == 2


def test_closing_while_nothing_comes_ends_at_once(run: Run) -> None:
    feeder = run.feeder(2)
    feeder.close()
    assert not feeder._thread.is_alive()
    assert feeder.next_batch(0.0) is None
    assert feeder.failure is None


# Faults.


def test_a_fenced_feeder_tells_the_learner(run: Run) -> None:
    # given a feeder at work
    feeder = run.feeder(2)
    assert feeder.next_batch(0.01) is None

    # when another learner takes the run over
    run.links.append(LearnerLink(run.url, run.name, "second", 60.0))
    run.links[-1].open(take_over=True)

    # then the next batch is not one
    with pytest.raises(Fenced, match="second"):
        feeder.next_batch(SOON_S)


class LossyLink(LearnerLink):
    """Loses replies after the server has done what was asked, and requests before."""

    chances = random.Random(1)
    lost = 0

    def settle_and_claim(
        self, settled: Settled, most: int, most_bytes: int = 0
    ) -> tuple[list[bytes], int]:
        cursor = self._cursor
        chance = self.chances.random()
        if chance < 0.2:
            self.lost += 1
            raise RedisUnreachable("the request was lost")
        reply = super().settle_and_claim(settled, most, most_bytes)
        if chance < 0.4:
            self.lost += 1
            self._cursor = cursor
            raise RedisUnreachable("the reply was lost")
        return reply


def test_lost_requests_and_replies_change_nothing(run: Run) -> None:
    # given a bad connection
    link = LossyLink(run.url, run.name, "lossy", 60.0)
    run.links.append(link)
    link.open(take_over=True)
    for number in range(30):
        run.push(2 if number % 3 else 3)

    # when all is taken through it: 70 columns
    feeder = run.feeder(5, link=link)
    seen = train(feeder, 14)
    eventually(lambda: run.books()["consumed"] == 30)

    # then each block arrived once, in order
    assert link.lost > 3
    assert same(joined(seen), joined(run.pushed))
    assert residual(run.books()) == 0


def test_a_run_that_the_server_lost_is_opened_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given a learner with one batch in hand
    evicted = "the server has evicted 9 keys since this learner began"
    monkeypatch.setattr(run.learner, "evictions", lambda: evicted)
    feeder = run.feeder(2)
    run.push(2)
    batch = take(feeder)

    # when the server loses the run
    run.operator.delete(*run.operator.keys(f"impala:{{{run.name}}}:*"))
    eventually(lambda: run.reopened == 1)
    eventually(lambda: run.actor.read_news() is not None)

    # then the line says why the server has lost it, as far as that is known
    (line,) = [text for text in caplog.messages if text.startswith("OPENING THE RUN AGAIN")]
    assert line.endswith(f"; {evicted}")

    # and the feeder goes on with what is pushed since
    feeder.trained(batch)
    run.push(2)
    assert same(copied(take(feeder)), run.pushed[-1])
    books = run.books()
    assert (books["produced"], books["consumed"], books["in_flight"]) == (1, 0, 1)
    assert residual(books) == 0


def test_a_server_that_goes_away_while_the_run_is_opened_again_is_waited_for(run: Run) -> None:
    # given a learner whose first attempts to open the run again fail half-way
    attempts = []

    def reopen() -> None:
        attempts.append(1)
        run.learner.open()
        if len(attempts) < 3:
            raise RedisUnreachable("gone again")
        run.learner.announce(SPEC.to_json(), SPEC.fingerprint, "running")

    feeder = run.feeder(2, reopen=reopen)

    # when the server loses the run
    run.operator.delete(*run.operator.keys(f"impala:{{{run.name}}}:*"))

    # then it is opened again in full, until that succeeds
    eventually(lambda: run.actor.read_news() is not None)
    assert len(attempts) == 3
    run.push(2)
    take(feeder)
    assert feeder.failure is None


@pytest.mark.parametrize("error", [RunHeld("somebody else"), RuntimeError("a bug")])
def test_what_ends_the_feeder_is_raised_to_the_learner(run: Run, error: Exception) -> None:
    # given a run that cannot be opened again
    def reopen() -> None:
        raise error

    feeder = run.feeder(2, reopen=reopen)
    run.operator.delete(*run.operator.keys(f"impala:{{{run.name}}}:*"))

    # then the learner is told, instead of waiting for ever
    with pytest.raises(type(error), match=str(error)):
        feeder.next_batch(SOON_S)
