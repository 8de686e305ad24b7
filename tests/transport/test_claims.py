"""Claims and commits: each block arrives, is settled once, and survives lost replies."""

import json
import time
from typing import Any

import pytest
import redis
from parties import Learners, claim, push, settle

from impala_redis.common.errors import Fenced, OutOfStep
from impala_redis.common.transport import learner_link
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.functions import LIBRARY
from impala_redis.common.transport.learner_link import Cursor, LearnerLink
from impala_redis.common.transport.ledger import Dead, Settled
from impala_redis.common.transport.monitor import MonitorLink, residual


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


@pytest.mark.parametrize(
    ("most_bytes", "claimed"), [(1, 1), (100, 1), (199, 1), (200, 2), (399, 3), (400, 4), (999, 4)]
)
def test_no_more_blocks_are_claimed_than_have_so_many_bytes_but_one_at_least(
    learner: LearnerLink,
    actor: ActorLink,
    monitor: MonitorLink,
    most_bytes: int,
    claimed: int,
) -> None:
    # given five blocks of 100 bytes
    blocks = [b"%d" % number * 100 for number in range(5)]
    for number, block in enumerate(blocks, 1):
        actor.push("a#1", number, block, 1000)

    # when up to four are claimed
    messages, left = learner.settle_and_claim(Settled(), 4, most_bytes)

    # then
    assert messages == blocks[:claimed]
    assert left == 5 - claimed
    assert residual(monitor.read_books()) == 0


def test_a_claim_whose_reply_was_lost_gives_the_same_blocks_again(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink
) -> None:
    # given a first block that arrived, and a claim of two whose reply did not
    blocks = push(actor, 5)
    claim(learner, 1)
    cursor = learner._cursor
    claim(learner, 2)
    learner._cursor = cursor

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
        cursor = learner._cursor
        first, _ = learner.settle_and_claim(settled, 2)
        learner._cursor = cursor
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
    all_at_once = learner_link.round_trip

    def one_by_one(client: Any, commands: list[tuple[Any, ...]]) -> list[Any]:
        replies = []
        for command in commands:
            replies += all_at_once(client, [command])
            # when another takes the run over and claims, right after the first one's claim
            if command[1] == f"{LIBRARY}_claim" and client is learner.client:
                second.open(take_over=True)
                taken.extend(second.settle_and_claim(Settled(), 2)[0])
        return replies

    blocks = push(actor, 4)
    monkeypatch.setattr(learner_link, "round_trip", one_by_one)

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
    learner._cursor = Cursor()
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
    learner._cursor = Cursor()

    # when the learner only settles
    assert claim(learner, 0) == []

    # then the blocks are still there to be claimed
    assert claim(learner, 5) == blocks[:2]


def test_a_claim_ahead_of_the_servers_cursor_is_an_error(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink
) -> None:
    push(actor, 2)
    learner._cursor = Cursor(received=1)  # of a run where nothing was claimed
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
    learner._cursor = learner._cursor._replace(committed=0)

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
    learner._cursor = learner._cursor._replace(committed=committed)
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
