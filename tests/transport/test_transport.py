"""The transport on every kind of server: names, bound, books, fencing, and what repeats do to them.

The last part lets hypothesis play actors and learners in any order, with lost replies, against a
model in Python that predicts every counter.
"""

import hashlib
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from impala_redis.common.errors import Fenced, OutOfStep, RedisUnreachable, RunHeld, RunMissing
from impala_redis.common.server import embedded as server_module
from impala_redis.common.server.connection import connect
from impala_redis.common.server.embedded import EmbeddedServer
from impala_redis.common.transport import link as transport
from impala_redis.common.transport.ledger import Dead, Settled
from impala_redis.common.transport.link import ActorLink, Keys, LearnerLink
from impala_redis.common.transport.monitor import MonitorLink, residual
from support import eventually

LEASE_S = 30.0
COUNTERS = {
    "produced",
    "consumed",
    "dropped_oldest",
    "dead_lettered",
    "stale_rejected",
    "abandoned",
    "dup_push",
    "foreign",
}

Learners = Callable[..., LearnerLink]


@pytest.fixture
def operator(any_server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A plain client, as redis-cli would be."""
    client = redis.Redis.from_url(any_server.url)
    yield client
    client.close()


@pytest.fixture
def actor(any_server: EmbeddedServer, run_name: str) -> Iterator[ActorLink]:
    link = ActorLink(any_server.url, run_name, "actor")
    yield link
    link.close()


@pytest.fixture
def monitor(any_server: EmbeddedServer, run_name: str) -> Iterator[MonitorLink]:
    link = MonitorLink(any_server.url, run_name, "monitor")
    yield link
    link.close()


@pytest.fixture
def learners(any_server: EmbeddedServer, run_name: str) -> Iterator[Learners]:
    """Makes learners of the test's run, not yet opened."""
    made: list[LearnerLink] = []

    def make(holder: str, lease_s: float = LEASE_S, run: str = run_name) -> LearnerLink:
        made.append(LearnerLink(any_server.url, run, holder, lease_s))
        return made[-1]

    yield make
    for link in made:
        link.close()


@pytest.fixture
def learner(learners: Learners) -> LearnerLink:
    """A learner that has opened and announced the run."""
    link = learners("first")
    link.open()
    link.announce('{"a": 1}', "fingerprint", "running")
    return link


@pytest.fixture
def own_server(
    any_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmbeddedServer]:
    """A server of the test's own, to be filled, wiped or ended; of the same kind."""
    monkeypatch.setenv(server_module.SERVER_VARIABLE, str(any_server.binary))
    with EmbeddedServer(tmp_path) as running:
        yield running


class Parties(NamedTuple):
    """Everyone on the test's own server, with the run open."""

    learner: LearnerLink
    actor: ActorLink
    monitor: MonitorLink
    operator: redis.Redis


@pytest.fixture
def parties(own_server: EmbeddedServer) -> Iterator[Parties]:
    url = own_server.url
    all_of_them = Parties(
        LearnerLink(url, "run", "first", LEASE_S),
        ActorLink(url, "run", "actor"),
        MonitorLink(url, "run", "monitor"),
        redis.Redis.from_url(url),
    )
    all_of_them.learner.open()
    all_of_them.learner.announce("{}", "f", "running")
    yield all_of_them
    for party in all_of_them:
        party.close()


def push(actor: ActorLink, count: int, producer: str = "a#1", start: int = 1) -> list[bytes]:
    """Pushes `count` blocks, each another text, with room for all."""
    blocks = [f"{producer}/{number}".encode() for number in range(start, start + count)]
    for number, block in enumerate(blocks, start):
        actor.push(producer, number, block, 1000)
    return blocks


def claim(learner: LearnerLink, most: int) -> list[bytes]:
    return learner.settle_and_claim(Settled(), most)[0]


def settle(learner: LearnerLink, settled: Settled) -> None:
    learner.settle_and_claim(settled, 0)


# Names.


def test_the_keys_are_those_of_the_design(
    learner: LearnerLink, actor: ActorLink, operator: redis.Redis, run_name: str
) -> None:
    # when everything that is ever written has been written
    push(actor, 3)
    claim(learner, 1)
    settle(learner, Settled(0, 0, (Dead("malformed", "no", b"x"),)))
    claim(learner, 1)
    learner.publish(1, b"weights")
    actor.beat("host-7", {"frames": 1}, 10.0)

    # then these keys hold it, and no others
    prefix = f"impala:{{{run_name}}}:"
    found = {key: operator.type(key) for key in operator.keys("*") if run_name.encode() in key}
    assert found == {
        f"{prefix}trajectories".encode(): b"list",
        f"{prefix}inflight".encode(): b"list",
        f"{prefix}claimed".encode(): b"list",
        f"{prefix}weights".encode(): b"hash",
        f"{prefix}spec".encode(): b"hash",
        f"{prefix}stats".encode(): b"hash",
        f"{prefix}seq".encode(): b"hash",
        f"{prefix}epoch".encode(): b"hash",
        f"{prefix}lock".encode(): b"string",
        f"{prefix}dead".encode(): b"list",
        f"{prefix}actor:host-7".encode(): b"hash",
    }
    assert {k.decode() for k in operator.hkeys(f"{prefix}weights")} == {
        "version",
        "payload",
        "digest",
        "published_at",
    }
    assert {k.decode() for k in operator.hkeys(f"{prefix}spec")} == {
        "json",
        "digest",
        "fingerprint",
        "state",
    }


def test_a_key_that_is_not_in_the_table_has_no_name() -> None:
    with pytest.raises(AttributeError):
        _ = Keys("run").trajectory


def test_two_runs_on_one_server_do_not_touch_each_other(
    learner: LearnerLink, learners: Learners, actor: ActorLink, monitor: MonitorLink, run_name: str
) -> None:
    # given another run whose name begins with this one's
    other = learners("other", run=f"{run_name}.2")
    other.open()

    # when this one is pushed to
    push(actor, 2)

    # then the other sees nothing of it
    assert claim(other, 5) == []
    assert claim(learner, 5) == [b"a#1/1", b"a#1/2"]


# Push.


def test_a_push_stores_the_block_counts_it_and_brings_the_news(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given published weights
    learner.publish(7, b"weights")

    # when any bytes are pushed
    reply = actor.push("a#1", 1, b"\x00\xff\r\n", 4)

    # then they stand in the list as they are, and are counted
    assert operator.lrange(actor.keys.trajectories, 0, -1) == [b"\x00\xff\r\n"]
    assert monitor.read_books()["produced"] == 1
    # and the reply tells of weights and spec
    digest = hashlib.sha256(b'{"a": 1}').hexdigest()
    assert reply == (True, 7, digest, "running")
    assert actor.read_news() == (False, 7, digest, "running")


def test_the_bound_drops_the_oldest_and_counts_them(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # when ten blocks are pushed into room for four
    for number in range(1, 11):
        actor.push("a#1", number, f"{number}".encode(), 4)
        assert monitor.read_books()["queued"] == min(number, 4)

    # then the newest four are left
    assert operator.lrange(actor.keys.trajectories, 0, -1) == [b"7", b"8", b"9", b"10"]
    books = monitor.read_books()
    assert (books["produced"], books["dropped_oldest"], residual(books)) == (10, 6, 0)

    # and a smaller bound holds from the next push on
    actor.push("a#1", 11, b"11", 2)
    assert operator.lrange(actor.keys.trajectories, 0, -1) == [b"10", b"11"]
    books = monitor.read_books()
    assert (books["dropped_oldest"], residual(books)) == (9, 0)


def test_the_bound_holds_at_every_instant_with_many_producers(
    any_server: EmbeddedServer, learner: LearnerLink, monitor: MonitorLink, run_name: str
) -> None:
    producers, blocks_each, bound = 4, 150, 3
    done, lengths, residuals = threading.Event(), [], []

    def produce(number: int) -> None:
        link = ActorLink(any_server.url, run_name, f"actor-{number}")
        for sequence in range(1, blocks_each + 1):
            link.push(f"{number}#1", sequence, bytes(1000), bound)
        link.close()

    def watch() -> None:
        link = MonitorLink(any_server.url, run_name, "watch")
        while not done.is_set():
            books = link.read_books()
            lengths.append(books["queued"])
            residuals.append(residual(books))
        link.close()

    # given somebody who looks all the time
    watcher = threading.Thread(target=watch)
    watcher.start()

    # when several actors push at once
    threads = [threading.Thread(target=produce, args=(i,)) for i in range(producers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    done.set()
    watcher.join(20)

    # then the list was never longer than its bound, and the books balanced all the time
    assert len(lengths) > 10
    assert max(lengths) == bound
    assert set(residuals) == {0}
    books = monitor.read_books()
    assert books["produced"] == producers * blocks_each
    assert books["dropped_oldest"] == producers * blocks_each - bound


def test_a_block_sent_again_is_stored_once(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink
) -> None:
    # given three stored blocks
    push(actor, 3)

    # when the last, and one before it, are sent again
    again = actor.push("a#1", 3, b"a#1/3", 1000)
    older = actor.push("a#1", 1, b"a#1/1", 1000)

    # then they are counted, and not stored
    assert (again.stored, older.stored) == (False, False)
    books = monitor.read_books()
    assert (books["produced"], books["queued"], books["dup_push"]) == (3, 3, 2)


def test_a_block_sent_again_leaves_a_full_list_as_it_was(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given a full list
    for number in (1, 2, 3):
        actor.push("a#1", number, f"{number}".encode(), 3)

    # when a block is sent again
    assert not actor.push("a#1", 3, b"3", 3).stored

    # then it has taken nobody's place
    assert operator.lrange(actor.keys.trajectories, 0, -1) == [b"1", b"2", b"3"]
    books = monitor.read_books()
    assert (books["dropped_oldest"], books["dup_push"], residual(books)) == (0, 1, 0)


def test_a_block_sent_again_is_not_stored_after_it_was_claimed_and_settled(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink
) -> None:
    push(actor, 1)
    claim(learner, 1)
    settle(learner, Settled(1))
    assert not actor.push("a#1", 1, b"a#1/1", 1000).stored
    assert monitor.read_books()["queued"] == 0


def test_a_new_incarnation_begins_at_1_again(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink
) -> None:
    push(actor, 3, "a#1")
    assert actor.push("a#2", 1, b"new", 1000).stored
    books = monitor.read_books()
    assert (books["produced"], books["dup_push"]) == (4, 0)


def test_a_push_into_a_run_that_nobody_opened_is_refused(
    any_server: EmbeddedServer,
    learners: Learners,
    actor: ActorLink,
    operator: redis.Redis,
    run_name: str,
) -> None:
    # given a server that knows our functions, but not this run
    learners("elsewhere", run=f"{run_name}-2").open()

    # when an actor pushes
    with pytest.raises(RunMissing, match="no learner has opened this run"):
        actor.push("a#1", 1, b"x", 4)

    # then nothing of the run has come to be
    assert operator.keys(f"impala:{{{run_name}}}:*") == []
    assert actor.read_news() is None
    assert actor.read_spec() is None
    assert actor.read_weights() is None


# Open, the lease, and fencing.


def test_open_makes_the_books_and_a_generation(
    learners: Learners, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given no run
    with pytest.raises(RunMissing, match="impala-learner --run"):
        monitor.read_books()

    # when a learner opens it
    link = learners("first")
    assert link.open() == 0

    # then every counter stands at 0
    books = monitor.read_books()
    generation = books.pop("generation")
    assert books == dict.fromkeys(COUNTERS | {"queued", "in_flight"}, 0)
    assert len(generation) == 16
    assert link.epoch == 1

    # and another open keeps books and generation
    assert link.open() == 0
    assert monitor.read_books()["generation"] == generation
    assert link.epoch == 2


def test_a_second_learner_is_refused_and_told_who_holds_the_run(
    learner: LearnerLink, learners: Learners
) -> None:
    # when another holder wants the run
    second = learners("second")
    with pytest.raises(RunHeld, match=r"first .*--take-over"):
        second.open()

    # then the first one goes on
    assert second.current_holder() == "first"
    learner.renew({})
    assert claim(learner, 1) == []


def test_taking_over_fences_the_first_learner(
    learner: LearnerLink,
    learners: Learners,
    actor: ActorLink,
    monitor: MonitorLink,
    operator: redis.Redis,
) -> None:
    # given a learner with a claimed block, and published weights
    push(actor, 3)
    claim(learner, 1)
    learner.publish(1, b"first")

    # when another takes the run over
    second = learners("second")
    assert second.open(take_over=True) == 1
    assert (second.epoch, second.current_holder()) == (learner.epoch + 1, "second")
    spec, books = operator.hgetall(actor.keys.spec), monitor.read_books()

    # then nothing the first one does has an effect
    for attempt in (
        lambda: learner.settle_and_claim(Settled(1), 1),
        lambda: learner.settle_and_claim(Settled(), 1),
        lambda: learner.publish(2, b"late"),
        lambda: learner.renew({"frames": 1}),
        lambda: learner.announce("{}", "late", "finished"),
        learner.release,
    ):
        with pytest.raises(Fenced, match="second"):
            attempt()
    assert monitor.read_books() == books
    assert operator.hgetall(actor.keys.spec) == spec
    assert second.current_holder() == "second"
    assert second.weights_version() == 1

    # and the second one works
    assert claim(second, 5) == [b"a#1/2", b"a#1/3"]


def test_an_opening_whose_reply_was_lost_does_not_fence_its_own_learner(
    learner: LearnerLink,
) -> None:
    # given a learner that opened the run again and never heard so
    before = learner._token
    learner.open()
    learner._token = before

    # when it goes on, then it is told to open once more, not that another took over
    for attempt in (lambda: learner.renew({}), lambda: learner.settle_and_claim(Settled(), 1)):
        with pytest.raises(OutOfStep, match="the reply to an opening"):
            attempt()
    learner.open()
    learner.renew({})


def test_open_abandons_what_was_in_flight_and_counts_it(
    learner: LearnerLink, learners: Learners, actor: ActorLink, monitor: MonitorLink
) -> None:
    # given five blocks: one settled, two claimed, two waiting
    push(actor, 5)
    claim(learner, 3)
    settle(learner, Settled(1))
    learner.release()

    # when the next learner opens the run
    assert learners("second").open() == 2

    # then the books say where each block is
    books = monitor.read_books()
    assert (books["consumed"], books["abandoned"], books["queued"]) == (1, 2, 2)
    assert (books["in_flight"], residual(books)) == (0, 0)


def test_the_epoch_never_goes_back_even_when_the_server_has_forgotten_it(
    learners: Learners,
) -> None:
    # given a learner that has reached epoch 7 on a server that lost everything
    link = learners("first")
    link.epoch = 7

    # when it opens the run again
    link.open()

    # then its epoch is above all that were before
    assert link.epoch == 8


def test_a_learner_that_did_not_open_the_run_after_a_wipe_is_fenced_by_one_that_did(
    learner: LearnerLink, learners: Learners, actor: ActorLink, operator: redis.Redis, run_name: str
) -> None:
    # given a server that lost the run in its first epoch
    assert learner.epoch == 1
    operator.delete(*operator.keys(f"impala:{{{run_name}}}:*"))

    # when another learner opens it, and blocks arrive
    second = learners("second")
    second.open()
    second.announce("{}", "f", "running")
    push(actor, 2)

    # then the first one, which also counts epoch 1, takes none of them
    with pytest.raises((Fenced, RunMissing)):
        claim(learner, 1)


def test_a_learner_is_not_fenced_by_its_own_opening(
    learner: LearnerLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a learner that opens its run again, and waits for the reply
    call, opened, go_on = learner._call, threading.Event(), threading.Event()

    def slow(client: Any, function: str, *arguments: Any) -> Any:
        reply = call(client, function, *arguments)
        if function == "open":
            opened.set()
            assert go_on.wait(20)
        return reply

    monkeypatch.setattr(learner, "_call", slow)
    opening = threading.Thread(target=learner.open)
    opening.start()
    assert opened.wait(20)

    # when its other thread renews the lease meanwhile
    failures: list[Exception] = []

    def renew() -> None:
        try:
            learner.renew({})
        except Exception as error:
            failures.append(error)

    renewing = threading.Thread(target=renew)
    renewing.start()
    renewing.join(0.2)  # it may wait for the new epoch
    go_on.set()
    for thread in (opening, renewing):
        thread.join(20)

    # then it is not told that another learner took the run over
    assert not [error for error in failures if isinstance(error, Fenced)]


def test_the_same_learner_may_open_again_at_any_time(learner: LearnerLink) -> None:
    before = learner.epoch
    learner.open()
    assert learner.epoch == before + 1


def test_after_a_release_another_learner_opens_at_once(
    learner: LearnerLink, learners: Learners
) -> None:
    learner.release()
    second = learners("second")
    assert second.current_holder() is None
    second.open()
    assert second.current_holder() == "second"


def test_a_lease_lapses_by_itself(learners: Learners) -> None:
    # given a learner that went away without a word
    learners("first", lease_s=0.1).open()
    second = learners("second")

    # then its lease lapses, and another opens the run without force
    eventually(lambda: second.current_holder() is None, 5.0)
    second.open()


def test_renewing_keeps_the_lease_and_leaves_the_learners_figures(
    learners: Learners, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given a lease that has nearly run out
    link = learners("first", lease_s=5.0)
    link.open()
    operator.pexpire(link.keys.lock, 500)

    # when it is renewed
    link.renew({"frames": 12, "mean_return_100": 0.5})

    # then it is as long as at first
    assert 4000 < operator.pttl(link.keys.lock) <= 5000
    told = monitor.read_learner()
    assert told["figures"] == {"frames": 12.0, "mean_return_100": 0.5, "epoch": 1.0}
    assert (told["holder"], told["epoch"], told["weights_version"]) == ("first", 1, -1)


def test_the_lock_always_expires(learner: LearnerLink, operator: redis.Redis) -> None:
    assert 0 < operator.pttl(learner.keys.lock) <= LEASE_S * 1000
    learner.renew({})
    assert 0 < operator.pttl(learner.keys.lock) <= LEASE_S * 1000


# Claim and commit.


def test_a_claim_moves_the_oldest_blocks_in_flight_in_order(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given five blocks
    blocks = push(actor, 5)

    # when three are claimed
    claimed, left = learner.settle_and_claim(Settled(), 3)

    # then they are the oldest, and in flight
    assert (claimed, left) == (blocks[:3], 2)
    assert operator.lrange(learner.keys.inflight, 0, -1) == [b"1", b"2", b"3"]
    assert operator.lrange(learner.keys.claimed, 0, -1) == blocks[:3]
    books = monitor.read_books()
    assert (books["queued"], books["in_flight"], residual(books)) == (2, 3, 0)

    # and the next claim goes on from there, with what there is
    assert learner.settle_and_claim(Settled(), 5) == (blocks[3:], 0)
    assert learner.settle_and_claim(Settled(), 5) == ([], 0)


def test_a_claim_whose_reply_was_lost_gives_the_same_blocks_again(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink
) -> None:
    # given a first block that arrived, and a claim of two whose reply did not
    blocks = push(actor, 5)
    claim(learner, 1)
    received = learner._received
    claim(learner, 2)
    learner._received = received

    # when it is claimed again, by ones and twos
    assert claim(learner, 1) == blocks[1:2]
    assert claim(learner, 2) == blocks[2:3]

    # then nothing was skipped and nothing is claimed twice
    assert claim(learner, 5) == blocks[3:]
    assert monitor.read_books()["in_flight"] == 5


def test_each_claim_brings_its_own_blocks_with_commits_and_lost_replies_between(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink
) -> None:
    # given blocks for six claims of two, each of which commits what the one before brought
    blocks, settled, arrived = push(actor, 12), Settled(), []
    for _ in range(6):
        # when each is repeated as after a lost reply
        cursors = learner._received, learner._committed
        first, _ = learner.settle_and_claim(settled, 2)
        learner._received, learner._committed = cursors
        again, left = learner.settle_and_claim(settled, 2)

        # then it brings the same blocks
        assert again == first
        arrived += again
        settled = Settled(len(again))

    # and together they are all, in order
    assert (arrived, left) == (blocks, 0)
    assert residual(monitor.read_books()) == 0


def test_a_learner_that_is_taken_over_while_it_claims_gets_no_block_of_the_other(
    learner: LearnerLink,
    learners: Learners,
    actor: ActorLink,
    monitor: MonitorLink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a learner whose commands reach the server one by one
    second, taken = learners("second"), []
    all_at_once = transport.round_trip

    def one_by_one(client: Any, commands: list[tuple[Any, ...]]) -> list[Any]:
        replies = []
        for command in commands:
            replies += all_at_once(client, [command])
            # when another takes the run over and claims, right after the first one's claim
            if command[1] == f"{transport.LIBRARY}_claim" and client is learner.client:
                second.open(take_over=True)
                taken.extend(second.settle_and_claim(Settled(), 2)[0])
        return replies

    blocks = push(actor, 4)
    monkeypatch.setattr(transport, "round_trip", one_by_one)

    # then the first one is told so, and the blocks are the second's alone
    with pytest.raises(Fenced, match="second"):
        claim(learner, 2)
    assert taken == blocks[2:]
    books = monitor.read_books()
    assert (books["abandoned"], books["in_flight"], residual(books)) == (2, 2, 0)


def test_claimed_blocks_that_were_deleted_before_they_arrived_are_abandoned(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given a claim whose reply was lost, and somebody who deletes the blocks
    push(actor, 3)
    claim(learner, 2)
    learner._received = 0
    operator.delete(learner.keys.claimed)

    # when it is claimed again
    with pytest.raises(OutOfStep, match="its blocks are gone"):
        claim(learner, 2)

    # then opening the run again sets the books right
    assert learner.open() == 2
    assert claim(learner, 2) == [b"a#1/3"]
    assert residual(monitor.read_books()) == 0


def test_asking_for_no_blocks_gives_none_even_after_a_lost_reply(
    learner: LearnerLink, actor: ActorLink
) -> None:
    # given a first claim whose reply was lost
    blocks = push(actor, 3)
    claim(learner, 2)
    learner._received = 0

    # when the learner only settles
    assert claim(learner, 0) == []

    # then the blocks are still there to be claimed
    assert claim(learner, 5) == blocks[:2]


def test_a_claim_ahead_of_the_servers_cursor_is_an_error(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink
) -> None:
    push(actor, 2)
    learner._received = 1  # of a run where nothing was claimed
    with pytest.raises(OutOfStep, match="what is in flight"):
        claim(learner, 1)
    assert monitor.read_books()["queued"] == 2


def test_a_commit_sent_again_is_ignored(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink
) -> None:
    # given a commit whose reply was lost
    push(actor, 4)
    claim(learner, 3)
    settled = Settled(1, 1)
    settle(learner, settled)
    learner._committed = 0

    # when it is sent again
    settle(learner, settled)

    # then it has been counted once
    books = monitor.read_books()
    assert (books["consumed"], books["stale_rejected"], books["in_flight"]) == (1, 1, 1)
    assert residual(books) == 0

    # and the next one follows
    settle(learner, Settled(1))
    assert monitor.read_books()["consumed"] == 2


@pytest.mark.parametrize(
    ("committed", "settled"),
    [(1, Settled(1)), (0, Settled(2, 1, (Dead("range", "no", b""),)))],
    ids=["not after the last", "more than in flight"],
)
def test_a_commit_out_of_step_is_an_error_and_changes_nothing(
    learner: LearnerLink,
    actor: ActorLink,
    monitor: MonitorLink,
    operator: redis.Redis,
    committed: int,
    settled: Settled,
) -> None:
    # given three blocks in flight, none settled
    push(actor, 5)
    claim(learner, 3)
    books, epoch = monitor.read_books(), operator.hgetall(learner.keys.epoch)

    # when a commit comes that does not follow
    learner._committed = committed
    with pytest.raises(OutOfStep, match="what is in flight"):
        settle(learner, settled)

    # then all is as it was
    assert monitor.read_books() == books
    assert operator.hgetall(learner.keys.epoch) == epoch
    assert not operator.exists(learner.keys.dead)


def test_settling_counts_each_block_in_one_counter(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given eight blocks in flight
    push(actor, 9)
    claim(learner, 8)

    # when they end in every way there is
    long = bytes(range(256)) * 20  # 5120 bytes
    settled = Settled(
        3,
        2,
        (Dead("spec", "another run's", long), Dead("range", "9", b"r"), Dead("range", "8", b"")),
    )
    assert len(settled) == 8
    assert learner.settle_and_claim(settled, 4) == ([b"a#1/9"], 0)

    # then each is in one counter, and the refused ones in their reason's too
    books = monitor.read_books()
    assert (books["consumed"], books["stale_rejected"], books["dead_lettered"]) == (3, 2, 3)
    assert (books["dead_lettered:spec"], books["dead_lettered:range"]) == (1, 2)
    assert (books["in_flight"], residual(books)) == (1, 0)

    # and their evidence is kept, newest first: a line of JSON and the first bytes
    records = [record.split(b"\n", 1) for record in operator.lrange(learner.keys.dead, 0, -1)]
    heads = [json.loads(head) for head, _ in records]
    assert [head["reason"] for head in heads] == ["range", "range", "spec"]
    assert heads[2]["message"] == "another run's"
    assert heads[2]["bytes"] == 5120
    assert abs(heads[2]["unix_s"] - time.time()) < 60
    assert [body for _, body in records] == [b"", b"r", long[:4096]]


def test_of_the_refused_the_last_100_are_kept_and_all_are_counted(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given 130 bad blocks
    push(actor, 130)
    claim(learner, 130)

    # when they are refused, in two commits
    for start, stop in ((0, 65), (65, 130)):
        dead = tuple(Dead("malformed", "", f"{i}".encode()) for i in range(start, stop))
        settle(learner, Settled(0, 0, dead))

    # then the list is bounded, the counters are not
    kept = [record.split(b"\n", 1)[1] for record in operator.lrange(learner.keys.dead, 0, -1)]
    assert kept == [f"{i}".encode() for i in reversed(range(30, 130))]
    assert monitor.read_books()["dead_lettered:malformed"] == 130


# Weights, spec, heartbeats.


def test_weights_are_read_back_whole_with_a_digest_that_fits(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # when weights are published
    payload = bytes(range(256)) * 1000
    learner.publish(3, payload)

    # then a reader gets exactly them
    found = actor.read_weights()
    assert found is not None
    assert (found.version, found.payload, found.intact) == (3, payload, True)
    assert found.digest == hashlib.sha256(payload).hexdigest()
    assert abs(monitor.read_learner()["published_unix_s"] - time.time()) < 60

    # and sees when they were damaged
    operator.hset(actor.keys.weights, "payload", payload[:-1] + b"\x00")
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
    assert (found.version, found.payload, found.intact) == (10, b"ten", True)


def test_publishing_the_same_version_again_repairs_it(
    learner: LearnerLink, actor: ActorLink, operator: redis.Redis
) -> None:
    learner.publish(5, b"five")
    operator.hset(actor.keys.weights, "payload", b"damaged")
    learner.publish(5, b"five")
    found = actor.read_weights()
    assert found is not None
    assert (found.version, found.payload, found.intact) == (5, b"five", True)


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
            if not found.intact or found.payload != b"%d" % (found.version % 10) * 100_000:
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


def test_a_heartbeat_expires_unless_it_beats(actor: ActorLink, monitor: MonitorLink) -> None:
    # given one actor that beats for long, and one for a moment
    actor.beat("steady", {"frames": 5, "host": "here"}, 60.0)
    actor.beat("gone", {"frames": 6}, 0.2)

    # then the second is listed no longer
    eventually(lambda: "gone" not in monitor.read_actors(), 5.0)
    assert monitor.read_actors() == {"steady": {"frames": "5", "host": "here"}}

    # and a clean end takes the first away at once
    actor.leave("steady")
    assert monitor.read_actors() == {}


@pytest.mark.parametrize(
    ("mine", "others"),
    [
        ("a.b-c", ["a.b-d", "axb-c", "a.b-c-", "xa.b-c"]),
        ("a*c", ["abc", "a*", "ac"]),
        ("a?c", ["abc"]),
        ("a[bx]c", ["abc", "axc"]),
        ("a\\c", ["ac"]),
    ],
)
def test_a_run_lists_only_its_own_actors(
    any_server: EmbeddedServer, run_name: str, mine: str, others: list[str]
) -> None:
    # given runs whose names a pattern could confuse
    for run in [mine, *others]:
        link = ActorLink(any_server.url, f"{run_name}{run}", "actor")
        link.beat(f"of-{run}", {"frames": 1}, 60.0)
        link.close()

    # then each lists its own
    monitor = MonitorLink(any_server.url, f"{run_name}{mine}", "monitor")
    assert list(monitor.read_actors()) == [f"of-{mine}"]
    monitor.close()


@pytest.mark.parametrize("name", ["a:actor:b", "a b", "a*b", "ü", "#1"])
def test_an_actor_is_listed_under_the_name_it_beats_with(
    actor: ActorLink, monitor: MonitorLink, name: str
) -> None:
    actor.beat(name, {"frames": 1}, 60.0)
    assert list(monitor.read_actors()) == [name]
    actor.leave(name)
    assert monitor.read_actors() == {}


# A list that others write, and a server that forgets, is full, or is gone.


def test_what_is_pushed_by_hand_is_counted_before_and_after_it_is_claimed(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given a block of an actor and two that came another way
    push(actor, 1)
    operator.rpush(actor.keys.trajectories, b"x", b"y")
    books = monitor.read_books()
    assert (books["produced"], books["foreign"], residual(books)) == (3, 2, 0)

    # when the learner claims
    assert claim(learner, 2) == [b"a#1/1", b"x"]

    # then they are in the books, by their name
    books = monitor.read_books()
    assert (books["produced"], books["foreign"], books["queued"]) == (3, 2, 1)
    assert residual(books) == 0


@pytest.mark.parametrize("lost", ["keys", "functions", "keys and functions", "books"])
def test_a_server_that_forgets_is_noticed_and_open_repairs_it(parties: Parties, lost: str) -> None:
    # given a run with one block in flight and one waiting
    learner, actor, monitor, operator = parties
    generation, epoch = monitor.read_books()["generation"], learner.epoch
    push(actor, 2)
    claim(learner, 1)

    # when the server forgets
    if "keys" in lost:
        operator.flushall()
    if "functions" in lost:
        operator.function_flush()
    if lost == "books":
        operator.delete(actor.keys.stats)

    # then actor and learner learn it by name, and nothing comes onto the list uncounted
    waiting = operator.llen(actor.keys.trajectories)
    with pytest.raises(RunMissing):
        actor.push("a#1", 3, b"x", 4)
    assert operator.llen(actor.keys.trajectories) == waiting
    with pytest.raises(RunMissing):
        claim(learner, 1)

    # and open repairs it, in a later epoch
    learner.open()
    learner.announce("{}", "f", "running")
    assert learner.epoch > epoch
    assert (monitor.read_books()["generation"] == generation) == (lost == "functions")
    assert actor.push("a#2", 1, b"new", 4).stored
    assert claim(learner, 9)[-1] == b"new"
    settle(learner, Settled(1))
    assert residual(monitor.read_books()) == 0


def test_open_replaces_functions_that_are_not_ours(parties: Parties) -> None:
    # given a library of our name with another content
    learner, actor, _, operator = parties
    operator.function_load(
        "#!lua name=impala2\nredis.register_function('impala2_push', function() return 9 end)",
        replace=True,
    )

    # when a learner opens a run, then it is ours again
    learner.open()
    push(actor, 1)
    assert claim(learner, 1) == [b"a#1/1"]


def test_a_full_server_is_drained_while_pushes_wait(parties: Parties) -> None:
    # given blocks in the list and in flight, and then no memory left
    learner, actor, monitor, operator = parties
    blocks = push(actor, 4)
    claim(learner, 1)
    operator.config_set("maxmemory", 1)

    # when an actor pushes or beats, then it is told to try again
    with pytest.raises(RedisUnreachable, match="maxmemory"):
        actor.push("a#1", 5, b"x", 1000)
    with pytest.raises(RedisUnreachable, match="maxmemory"):
        actor.beat("a", {"frames": 1}, 10.0)

    # and the learner goes on, in all it does
    dead = (Dead("range", "no", b""),)
    assert learner.settle_and_claim(Settled(0, 0, dead), 2) == (blocks[1:3], 1)
    assert learner.settle_and_claim(Settled(2), 2) == (blocks[3:], 0)
    learner.renew({"frames": 1})
    learner.publish(1, b"weights")
    learner.announce("{}", "f", "finished")
    learner.open()

    # until there is room again, and the books balance
    operator.config_set("maxmemory", 0)
    books = monitor.read_books()
    assert (books["consumed"], books["dead_lettered"], books["abandoned"]) == (2, 1, 1)
    assert residual(books) == 0
    assert actor.push("a#1", 5, b"x", 1000).stored


def test_a_push_that_a_full_server_refuses_leaves_nothing_and_comes_through_later(
    parties: Parties,
) -> None:
    # given a run with a block
    _, actor, monitor, operator = parties
    (block,) = push(actor, 1)
    books = monitor.read_books()

    # when a full server refuses the next one
    operator.config_set("maxmemory", 1)
    with pytest.raises(RedisUnreachable, match="maxmemory"):
        actor.push("a#1", 2, b"x", 1)
    operator.config_set("maxmemory", 0)

    # then neither list nor books know of it
    assert operator.lrange(actor.keys.trajectories, 0, -1) == [block]
    assert operator.hgetall(actor.keys.seq) == {b"a#1": b"1"}
    assert monitor.read_books() == books

    # and sent again it is stored, once
    assert actor.push("a#1", 2, b"x", 4).stored
    assert not actor.push("a#1", 2, b"x", 4).stored
    assert operator.lrange(actor.keys.trajectories, 0, -1) == [block, b"x"]


def test_a_full_server_still_says_how_the_run_is(parties: Parties) -> None:
    # given a run on a server without memory left
    _, actor, monitor, operator = parties
    push(actor, 2)
    actor.beat("a", {"frames": 1}, 60.0)
    operator.config_set("maxmemory", 1)

    # then whoever wants to know why it stands still can see it
    assert monitor.read_books()["queued"] == 2
    assert monitor.read_learner()["holder"] == "first"
    assert monitor.read_actors() == {"a": {"frames": "1"}}


def _everything(url: str) -> dict[type, tuple[Any, dict[str, Callable[[Any], Any]]]]:
    """Every public method of every side, with a call of it."""
    every: dict[str, Callable[[Any], Any]] = {
        "ping": lambda link: link.ping(),
        "read_spec": lambda link: link.read_spec(),
        "read_weights": lambda link: link.read_weights(),
    }
    return {
        ActorLink: (
            ActorLink(url, "run", "actor"),
            every
            | {
                "push": lambda link: link.push("a#1", 1, b"x", 4),
                "read_news": lambda link: link.read_news(),
                "beat": lambda link: link.beat("a", {"frames": 1}, 1.0),
                "is_listed": lambda link: link.is_listed("a"),
                "leave": lambda link: link.leave("a"),
            },
        ),
        LearnerLink: (
            LearnerLink(url, "run", "first", LEASE_S),
            every
            | {
                "check_server": lambda link: link.check_server(),
                "current_holder": lambda link: link.current_holder(),
                "open": lambda link: link.open(),
                "renew": lambda link: link.renew({}),
                "read_flow": lambda link: link.read_flow(),
                "release": lambda link: link.release(),
                "announce": lambda link: link.announce("{}", "f", "running"),
                "weights_version": lambda link: link.weights_version(),
                "publish": lambda link: link.publish(1, b"w"),
                "settle_and_claim": lambda link: link.settle_and_claim(Settled(1), 1),
            },
        ),
        MonitorLink: (
            MonitorLink(url, "run", "monitor"),
            every
            | {
                "read_books": lambda link: link.read_books(),
                "read_learner": lambda link: link.read_learner(),
                "read_actors": lambda link: link.read_actors(),
                "read_memory": lambda link: link.read_memory(),
                "read": lambda link: link.read(),
            },
        ),
    }


@pytest.mark.parametrize("connected", [True, False], ids=["lost", "never there"])
def test_every_method_says_soon_that_the_server_is_gone(
    own_server: EmbeddedServer, connected: bool
) -> None:
    # given sides of a server that goes away
    everything = _everything(own_server.url)
    if connected:
        for link, _ in everything.values():
            link.ping()
    own_server.close()

    for kind, (link, calls) in everything.items():
        # when any method is called (the list below is complete)
        public = {name for name in dir(kind) if not name.startswith("_")} - {"close"}
        assert set(calls) == public
        for name, call in calls.items():
            # then it says so, at once
            started = time.monotonic()
            with pytest.raises(RedisUnreachable, match="no answer from Redis"):
                call(link)
            assert time.monotonic() - started < 2.0, name
        link.close()


# The model.

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
    )
    def push(self, producer: str, step: int, cap: int) -> None:
        self.last[producer] += step
        self.pushed += 1
        block = f"{producer}/{self.pushed}".encode()
        assert self.actor.push(producer, self.last[producer], block, cap).stored
        excess = max(len(self.queue) + 1 - cap, 0)
        self.queue = [*self.queue[excess:], block]
        self.counts["dropped_oldest"] += excess
        self.counts["produced"] += 1

    @precondition(lambda self: self.last)
    @rule(data=st.data(), back=COUNTS)
    def push_again(self, data: st.DataObject, back: int) -> None:
        producer = data.draw(st.sampled_from(sorted(self.last)))
        sequence = max(self.last[producer] - back, 1)
        assert not self.actor.push(producer, sequence, b"again", 1).stored
        self.counts["dup_push"] += 1

    @rule()
    def push_by_hand(self) -> None:
        self.operator.rpush(self.actor.keys.trajectories, b"by hand")
        self.queue.append(b"by hand")
        self.uncounted += 1

    @rule(most=st.integers(1, 4), lost=st.booleans())
    def claim(self, most: int, lost: bool) -> None:
        before = self.learner._received
        expected = self.expect_claim(most)
        assert self.learner.settle_and_claim(Settled(), most) == (expected, len(self.queue))
        if lost:
            self.learner._received = before
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
        cursor = self.learner._received, self.learner._committed
        for _ in range(lost):  # the same again and again, as after lost replies
            assert self.learner.settle_and_claim(settled, most)[0] == expected
            self.learner._received, self.learner._committed = cursor
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


@pytest.mark.parametrize(
    ("reply", "read"),
    [(b"12", 12), (b"-3", -3), (None, 7), (b"twelve", 7), (b"", 7), (b"9" * 5000, 7)],
)
def test_a_reply_that_is_no_number_of_ours_is_the_default(reply: bytes | None, read: int) -> None:
    assert transport.number(reply, 7) == read


def test_a_counter_that_someone_deleted_is_nothing_and_shows_in_the_residual(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given a run with a block
    learner.announce("{}", "f", "running")
    actor.push("actor#1", 1, b"block", 4)

    # when
    operator.hset(learner.keys.stats, "consumed", 5)
    operator.hdel(learner.keys.stats, "produced")

    # then what is not accounted for is taken for what came around the push
    books = monitor.read_books()
    assert (books["produced"], books["foreign"]) == (6, 6)
