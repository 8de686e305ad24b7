"""A flood of what is no block: refused in bulk, with few bytes at once, and honest blocks pass."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from chaos.fuzz import SPECS, make_block, seal
from impala_redis.common.blocks import wire
from impala_redis.common.blocks.trajectory import empty_trajectory
from impala_redis.common.feeding import intake as intake_module
from impala_redis.common.feeding.feeder import Feeder
from impala_redis.common.feeding.intake import FLOOD_BLOCKS, FLOOD_BYTES, Intake
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import DEAD_RECORDS, Settled
from impala_redis.common.transport.monitor import MonitorLink, residual
from support import eventually

pytestmark = pytest.mark.fault(60)

SPEC = SPECS[0]
COLUMNS = 2  # of each block, and of each batch


class CountingLink(LearnerLink):
    """Notes each claim that brought something: how many messages, of how many bytes in all."""

    claims: list[tuple[int, int]]

    def settle_and_claim(
        self, settled: Settled, most: int, most_bytes: int = 0
    ) -> tuple[list[bytes], int]:
        messages, left = super().settle_and_claim(settled, most, most_bytes)
        if messages:
            self.claims.append((len(messages), sum(map(len, messages))))
        return messages, left


class Flooded:
    """An open run, whoever may append to its list, and a feeder that fills batches of one block."""

    def __init__(self, url: str, run: str) -> None:
        self.link = CountingLink(url, run, "learner", 60.0)
        self.link.claims = []
        self.monitor = MonitorLink(url, run, "monitor")
        self.anybody = redis.Redis.from_url(url)
        self.link.open()
        self.intake = Intake(self.link, SPEC, None, lambda: 5, self.link.open)
        self.feeder = Feeder(
            self.intake, lambda: empty_trajectory(SPEC, COLUMNS), lambda rows: None
        )

    def append(self, *messages: bytes) -> None:
        """Puts messages onto the list, around every push."""
        for start in range(0, len(messages), 5000):
            self.anybody.rpush(self.link.keys.trajectories, *messages[start : start + 5000])

    def books(self) -> dict[str, Any]:
        return self.monitor.read_books()

    def refused(self, count: int, timeout_s: float = 60.0) -> None:
        """Waits until so many were refused, and the server knows it."""
        eventually(lambda: self.books()["dead_lettered"] == count, timeout_s, "the refusals")

    def train(self) -> int:
        """Trains on the next batch; how many blocks ended in it."""
        batch = self.feeder.next_batch(30.0)
        assert batch is not None
        blocks = len(batch.blocks)
        self.feeder.trained(batch)
        return blocks

    def close(self) -> None:
        self.feeder.close()
        for link in (self.link, self.monitor, self.anybody):
            link.close()


@pytest.fixture
def flooded(redis_url: str, run_name: str) -> Iterator[Flooded]:
    made = Flooded(redis_url, run_name)
    yield made
    made.close()


def honest(sequence: int) -> bytes:
    return wire.pack_block(make_block(SPEC, COLUMNS, sequence), SPEC)


# What anybody can send: bytes, a prefix and nothing behind it, a whole message with wrong contents.
JUNK = {
    "one byte": b"x",
    "a prefix alone": honest(1)[:24],
    "a header that is none": seal(1, b"\xc1", b""),
    "a block that is sent again": honest(1),
}


@pytest.mark.parametrize("kind", JUNK)
def test_a_flood_is_refused_in_bulk_and_an_honest_block_behind_it_is_trained_on(
    flooded: Flooded, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    # given a first block, so that one that is sent again is known, and a flood behind it
    count = 4_000 if kind == "a block that is sent again" else 40_000  # it is read to its end
    flooded.append(honest(1), *[JUNK[kind]] * count, honest(2))

    # when
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        flooded.feeder.start()
        assert flooded.train() == flooded.train() == 1
    took_s = time.monotonic() - began

    # then it was claimed in bulk, counted exactly, and told in a few lines
    flooded.refused(count)
    assert len(flooded.link.claims) < count / FLOOD_BLOCKS + 50
    assert flooded.intake.figures()["blocks_refused"] == count
    eventually(lambda: flooded.books()["consumed"] == 2)
    assert residual(flooded.books()) == 0
    assert len(caplog.records) <= 2 + took_s / 5
    assert flooded.anybody.llen(flooded.link.keys.dead) == DEAD_RECORDS


def test_a_flood_of_large_junk_never_comes_in_one_heap(flooded: Flooded) -> None:
    # given a flood of small junk, by which claims have grown, and large junk behind it
    large = bytes(FLOOD_BYTES // 10)
    flooded.append(*[b"x"] * 5000, *[large] * 40, bytes(2 * FLOOD_BYTES), large)

    # when
    flooded.feeder.start()
    flooded.refused(5042)

    # then no claim brought more than the bound, but for the one that is larger by itself
    assert max(count for count, _ in flooded.link.claims) == FLOOD_BLOCKS
    heaps = [size for _, size in flooded.link.claims if size > FLOOD_BYTES]
    assert heaps == [2 * FLOOD_BYTES]


def test_a_flood_that_comes_while_a_batch_waits_leaves_nothing_behind(flooded: Flooded) -> None:
    # given a block that waits to be trained on, for nobody takes the batch
    flooded.append(honest(1), honest(2))
    flooded.feeder.start()
    eventually(lambda: flooded.books()["in_flight"] == 2)
    batch = flooded.feeder.next_batch(10.0)

    # when a flood comes
    flooded.append(*[b"x"] * 20_000)
    assert batch is not None
    flooded.feeder.trained(batch)
    flooded.refused(20_000)

    # then it is settled although a block before it is not
    books = flooded.books()
    assert (books["consumed"], books["in_flight"]) == (1, 1)
    assert residual(books) == 0
    assert len(flooded.intake._ledger._claimed) == 1


def test_without_a_flood_no_more_is_claimed_than_is_needed(flooded: Flooded) -> None:
    # given junk now and then
    for number in range(1, 30):
        flooded.append(honest(number), *[b"x"] * (number % 3 == 0))

    # when
    flooded.feeder.start()
    for _ in range(29):
        flooded.train()
    flooded.refused(9)

    # then: one block fills a batch, and after one that was refused two are claimed, once
    assert {count for count, _ in flooded.link.claims} <= {1, 2}
    assert intake_module.FLOOD_BLOCKS == 512


def test_blocks_within_a_flood_are_trained_on_in_their_order(flooded: Flooded) -> None:
    # given a block after each 300 of a flood
    for number in range(1, 21):
        flooded.append(*[b"x"] * 300, honest(number))

    # when
    flooded.feeder.start()
    trained = []
    for _ in range(20):
        batch = flooded.feeder.next_batch(30.0)
        assert batch is not None
        trained += [origin.sequence for _, origin in flooded.feeder._finished[id(batch)]]
        flooded.feeder.trained(batch)

    # then
    assert trained == list(range(1, 21))
    flooded.refused(6000)
    eventually(lambda: flooded.books()["consumed"] == 20)
    assert residual(flooded.books()) == 0
