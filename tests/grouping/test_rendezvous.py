"""How learners of a group meet, with threads in place of processes, and a store in memory."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import ClassVar

import pytest

from impala_redis.common.errors import ConfigError
from impala_redis.common.grouping.rendezvous import Rendezvous
from impala_redis.common.grouping.seat import Seat
from support import eventually

Came = Future[tuple[str, bytes] | None]


class MemoryStore:
    """A store as torchrun's, for the threads of one process."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def set(self, key: str, value: bytes, /) -> None:
        self.values[key] = value

    def get(self, key: str, /) -> bytes:
        return self.values[key]

    def check(self, keys: list[str], /) -> bool:
        return all(key in self.values for key in keys)

    def add(self, key: str, amount: int, /) -> int:
        with self._lock:
            total = int(self.values.get(key, b"0")) + amount
            self.values[key] = str(total).encode()
        return total

    def compare_set(self, key: str, expected: bytes, desired: bytes, /) -> bytes:
        with self._lock:
            if self.values.get(key, b"") == expected:
                self.values[key] = desired
            return self.values.get(key, expected)


class Learner:
    """A learner of a group of three, which can be made to die in its wait."""

    living: ClassVar[list["Learner"]] = []

    def __init__(self, store: MemoryStore, rank: int, restarts: int = 0) -> None:
        self.store, self.rank = store, rank
        self.dies, self._awake, self._sleeps = (threading.Event() for _ in range(3))
        self._awake.set()
        self.living.append(self)
        self.polls = 0
        seat = Seat(rank, 3, rank, restarts, "localhost", 1, serves_store=False)
        self.rendezvous = Rendezvous(store, seat, self._stop)

    def _stop(self, timeout_s: float) -> bool:
        self.polls += 1
        if not self._awake.is_set():
            self._sleeps.set()
            self._awake.wait(20)
        return self.dies.wait(min(timeout_s, 0.001))

    def polled(self) -> None:
        """Waits until it has seen all that is in the store now."""
        before = self.polls
        eventually(lambda: self.polls > before + 1)

    @contextmanager
    def sleeping(self) -> Iterator[None]:
        """Keeps it from looking into the store."""
        self._awake.clear()
        assert self._sleeps.wait(10)
        yield
        self._awake.set()

    def die(self, waiting: Came | Future[str | None]) -> None:
        """Dies in its wait."""
        self.dies.set()
        assert waiting.result(10) is None

    def has_acked(self) -> Callable[[], bool]:
        """Whether a learner of this rank has answered rank 0."""
        nonce = self.store.values[f"impala/hello/{self.rank}"].decode()
        return lambda: any(key.endswith(nonce) and "/ack/" in key for key in self.store.values)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for the learners."""
    with ThreadPoolExecutor() as threads:
        yield threads
        while Learner.living:  # after a failure they would wait for good
            Learner.living.pop().dies.set()


def come_in(pool: ThreadPoolExecutor, learner: Learner) -> Came:
    """Lets a learner say hello."""
    key = f"impala/hello/{learner.rank}"
    before = learner.store.values.get(key)
    coming = pool.submit(learner.rendezvous.come_in)
    eventually(lambda: learner.store.values.get(key) != before)
    return coming


def test_ranks_that_come_late_get_the_prefix_and_the_facts_of_rank_0(
    pool: ThreadPoolExecutor,
) -> None:
    # given one that came before rank 0
    store = MemoryStore()
    first, second = Learner(store, 1), Learner(store, 2)
    early = come_in(pool, first)
    first.polled()
    zero = Learner(store, 0)
    calling = pool.submit(zero.rendezvous.call_in, b"any\nbytes\x00\xff")

    # when another comes after it
    eventually(first.has_acked())
    zero.polled()
    assert not early.done() and not calling.done()
    late = come_in(pool, second)

    # then
    prefix = calling.result(10)
    assert early.result(10) == late.result(10) == (prefix, b"any\nbytes\x00\xff")
    assert {one.rendezvous.attempt for one in (zero, first, second)} == {1}


def test_a_rank_that_begins_anew_in_the_handshake_is_met_and_its_dead_self_is_not(
    pool: ThreadPoolExecutor,
) -> None:
    # given one that has answered rank 0, and died before all were there
    store = MemoryStore()
    zero, dead = Learner(store, 0), Learner(store, 1)
    calling = pool.submit(zero.rendezvous.call_in, b"facts")
    doomed = come_in(pool, dead)
    eventually(dead.has_acked())
    dead.die(doomed)

    # when it comes again, but cannot answer for now
    alive, other = Learner(store, 1, restarts=1), Learner(store, 2)
    store.set("impala/hello/1", b"of one that has only just begun")
    zero.polled()
    last = come_in(pool, other)
    eventually(other.has_acked())
    zero.polled()

    # then the answer of the dead one is none
    assert not calling.done()
    again = come_in(pool, alive)
    assert again.result(10) == last.result(10) == (calling.result(10), b"facts")


def test_a_rank_0_that_begins_anew_in_the_handshake_is_followed(pool: ThreadPoolExecutor) -> None:
    # given two who have answered one rank 0, the second after that has died
    store = MemoryStore()
    dead, first, second = Learner(store, 0), Learner(store, 1), Learner(store, 2)
    doomed = pool.submit(dead.rendezvous.call_in, b"old")
    early = come_in(pool, first)
    eventually(first.has_acked())
    dead.die(doomed)
    late = come_in(pool, second)

    # when
    prefix = Learner(store, 0).rendezvous.call_in(b"new")

    # then
    assert early.result(10) == late.result(10) == (prefix, b"new")
    assert (first.rendezvous.attempt, second.rendezvous.attempt) == (2, 2)


def test_a_go_of_a_dead_rank_0_is_not_one_of_the_next(pool: ThreadPoolExecutor) -> None:
    # given a learner whom the go of a rank 0 finds asleep
    store = MemoryStore()
    asleep, other = Learner(store, 1), Learner(store, 2)
    calling = pool.submit(Learner(store, 0).rendezvous.call_in, b"old")
    late = come_in(pool, asleep)
    eventually(asleep.has_acked())
    with asleep.sleeping():
        assert come_in(pool, other).result(10) == (calling.result(10), b"old")

        # when rank 0 and the other one are gone by the time it wakes up
        zero = Learner(store, 0)
        calling = pool.submit(zero.rendezvous.call_in, b"new")
        zero.polled()
    polls = asleep.polls
    eventually(lambda: late.done() or asleep.polls > polls + 1)

    # then it waits for all of them
    assert not late.done()
    again = come_in(pool, Learner(store, 2))
    assert late.result(10) == again.result(10) == (calling.result(10), b"new")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[(name, b) for name in ("answer", "end") for b in (b"\xff", b"7", b"[7]", b"[" * 100_000)],
        ("end", b'["x", ""]'),
    ],
)
def test_what_no_learner_has_written_is_refused_in_a_sentence(
    pool: ThreadPoolExecutor, name: str, text: bytes
) -> None:
    # given
    store = MemoryStore()
    coming = come_in(pool, Learner(store, 1))
    nonce = store.values["impala/hello/1"].decode()

    # when
    store.set("impala/end" if name == "end" else f"impala/answer/{nonce}", text)

    # then
    with pytest.raises(ConfigError, match=r"somebody else writes .* let only them reach its port"):
        coming.result(10)


def test_what_a_dead_attempt_has_left_leads_nobody_to_it(pool: ThreadPoolExecutor) -> None:
    # given an attempt whose learners had all met
    store = MemoryStore()
    earlier = [come_in(pool, Learner(store, rank)) for rank in (1, 2)]
    old = Learner(store, 0).rendezvous.call_in(b"old")
    assert [came.result(10) for came in earlier] == [(old, b"old")] * 2

    # when the next rank 0 is there before the others, and then they come
    zero = Learner(store, 0)
    calling = pool.submit(zero.rendezvous.call_in, b"new")
    zero.polled()
    assert not calling.done()
    later = [come_in(pool, Learner(store, rank)) for rank in (1, 2)]

    # then
    new = calling.result(10)
    assert new != old
    assert [came.result(10) for came in later] == [(new, b"new")] * 2


def test_rank_0_counts_attempts_even_where_the_store_has_died_with_it() -> None:
    store = MemoryStore()
    assert [Learner(store, 0).rendezvous.attempt for _ in range(3)] == [1, 2, 3]
    assert Learner(MemoryStore(), 0, restarts=4).rendezvous.attempt == 5


def test_a_note_outlives_the_attempt_that_has_written_it() -> None:
    # given
    store = MemoryStore()
    Learner(store, 0).rendezvous.note("directory", "runs/ö")

    # then
    again = Learner(store, 2).rendezvous
    assert (again.noted("directory"), again.noted("holder")) == ("runs/ö", None)


def test_an_end_is_heard_by_those_who_wait_and_by_those_who_come_later(
    pool: ThreadPoolExecutor,
) -> None:
    # given two who wait for a third
    store = MemoryStore()
    zero, one = Learner(store, 0), Learner(store, 1)
    calling, coming = pool.submit(zero.rendezvous.call_in, b""), come_in(pool, one)
    assert one.rendezvous.ended is None

    # when that says that the run has ended, and another says something else
    two = Learner(store, 2).rendezvous
    two.end(9, "the run has another “network”")
    zero.rendezvous.end(0)

    # then
    assert (calling.result(10), coming.result(10)) == (None, None)
    assert Learner(store, 1).rendezvous.ended == (9, "the run has another “network”")
    assert Learner(store, 1).rendezvous.come_in() is None


def test_who_is_asked_to_stop_waits_no_longer(pool: ThreadPoolExecutor) -> None:
    store = MemoryStore()
    zero, one = Learner(store, 0), Learner(store, 1)
    calling, coming = pool.submit(zero.rendezvous.call_in, b""), come_in(pool, one)
    began_s = time.monotonic()
    zero.die(calling)
    one.die(coming)
    assert time.monotonic() - began_s < 5
