"""Several learners of one run: a list for all, cursors for each, one token that fences them."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis
from parties import Learners, claim, push, settle

from impala_redis.common.errors import Fenced, OutOfStep, RunMissing
from impala_redis.common.transport import learner_link
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.functions import LIBRARY
from impala_redis.common.transport.learner_link import Cursor, LearnerLink
from impala_redis.common.transport.ledger import Dead, Settled
from impala_redis.common.transport.monitor import MonitorLink, residual

Make = Callable[..., list[LearnerLink]]


@pytest.fixture
def group(learners: Learners) -> Make:
    """Makes the links of a group, rank 0 first: opened, announced and joined."""

    def make(ranks: int = 3, holder: str = "group") -> list[LearnerLink]:
        links = [learners(holder, rank=rank, ranks=ranks) for rank in range(ranks)]
        links[0].open(take_over=True)
        links[0].announce("{}", "f", "running")
        for link in links[1:]:
            link.join()
        return links

    return make


def in_flight(monitor: MonitorLink) -> int:
    """How many blocks are in flight by the books, which balance."""
    books = monitor.read_books()
    assert residual(books) == 0
    return int(books["in_flight"])


def test_each_rank_gets_blocks_of_its_own_and_settles_them_alone(
    group: Make, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given
    links = group()
    blocks = push(actor, 9)

    # when all claim in turn, and settle in another order
    claims = [claim(link, 2) for link in links] + [claim(link, 1) for link in links]
    settle(links[2], Settled(3))
    settle(links[0], Settled(1, 1, (Dead("range", "no", b""),)))

    # then no block went to two, and each counter has its own
    assert [block for one in claims for block in one] == blocks
    books = monitor.read_books()
    ends = (books["consumed"], books["stale_rejected"], books["dead_lettered"])
    assert (ends, books["in_flight"], residual(books)) == ((4, 1, 1), 3, 0)
    cursors = operator.hmget(links[0].keys.epoch, *("taken:1", "committed:1", "taken:2"))
    assert cursors == [b"3", b"0", b"3"]


def test_a_lost_reply_gives_a_rank_its_own_blocks_again_whatever_the_others_did(
    group: Make, actor: ActorLink, monitor: MonitorLink
) -> None:
    # given a rank whose claim was lost on its way back
    first, second, _ = group()
    blocks = push(actor, 8)
    claim(second, 1)
    before = second._cursor
    claim(second, 2)
    second._cursor = before

    # when another one claims and settles meanwhile
    assert claim(first, 2) == blocks[3:5]
    settle(first, Settled(2))

    # then the first claim is given again, and a commit that is sent again changes nothing
    assert claim(second, 5) == blocks[1:3]
    before = second._cursor
    settle(second, Settled(2))
    second._cursor = before
    settle(second, Settled(2))
    assert monitor.read_books()["consumed"] == 4
    assert in_flight(monitor) == 1


def test_a_rank_that_joins_again_abandons_what_it_had_and_nothing_of_the_others(
    group: Make, learners: Learners, actor: ActorLink, monitor: MonitorLink
) -> None:
    # given blocks with each of two ranks
    first, second, _ = group()
    blocks = push(actor, 6)
    claim(first, 2)
    claim(second, 3)
    settle(second, Settled(1))

    # when the second one's program begins anew, and never hears the first reply
    again = learners("group", rank=1, ranks=3)
    again.join()
    again.join()

    # then two blocks are abandoned, once, and the list goes on
    books = monitor.read_books()
    assert (books["abandoned"], books["consumed"], in_flight(monitor)) == (2, 1, 2)
    assert claim(again, 3) == blocks[5:]
    settle(first, Settled(2))
    assert in_flight(monitor) == 1

    # and the old program is told that its cursor is not the server's
    with pytest.raises(OutOfStep, match="what is in flight"):
        settle(second, Settled(1))


def test_a_rank_cannot_join_before_rank_0_has_opened_the_run_nor_that_of_others(
    learners: Learners, operator: redis.Redis
) -> None:
    first, second = (learners("group", rank=rank, ranks=2) for rank in (0, 1))
    stranger = learners("stranger", rank=1, ranks=2)
    operator.function_load(learner_link.functions.FILE.read_text(), replace=True)
    for link in (second, stranger):
        with pytest.raises(RunMissing):
            link.join()

    # when
    first.open()

    # then it may, and no other group's
    second.join()
    assert claim(second, 1) == []
    with pytest.raises(RunMissing):
        stranger.join()
    assert claim(first, 1) == []


@pytest.mark.parametrize("broken", ["the number of ranks", "the books"])
def test_a_rank_that_does_not_fit_the_run_has_rank_0_open_it_again(
    group: Make, learners: Learners, operator: redis.Redis, broken: str
) -> None:
    # given a group of three, none of which has blocks, so that all cursors fit
    links = group(3)
    rank = links[1] if broken == "the books" else learners("group", rank=1, ranks=2)
    if broken == "the books":
        operator.delete(rank.keys.stats)

    # when
    with pytest.raises(RunMissing):
        rank.join()

    # then
    with pytest.raises(RunMissing):
        links[0].renew({})


def test_a_rank_that_joins_again_leaves_no_claimed_block_behind(
    group: Make, learners: Learners, actor: ActorLink, operator: redis.Redis
) -> None:
    # given
    second = group(2)[1]
    push(actor, 2)
    claim(second, 2)
    claimed = second.keys.claimed_by(1)
    assert operator.llen(claimed) == 2

    # when
    learners("group", rank=1, ranks=2).join()

    # then
    assert not operator.exists(claimed)


def test_a_block_that_has_been_committed_is_not_given_again(group: Make, actor: ActorLink) -> None:
    # given a rank of whose request the server has got the commit only
    second = group(2)[1]
    push(actor, 3)
    claim(second, 3)
    learner_link.round_trip(second.client, [second._commit_command(Settled(2))])

    # when it believes that it has received one block
    second._cursor = Cursor(1, 2)

    # then
    with pytest.raises(OutOfStep, match=r"received 1 is not in 2 \.\. 3"):
        claim(second, 3)


def test_another_group_that_takes_over_fences_every_rank(
    group: Make, actor: ActorLink, monitor: MonitorLink
) -> None:
    # given blocks with every rank
    old = group(3, "old")
    push(actor, 8)
    for link in old:
        claim(link, 2)

    # when
    new = group(2, "new")

    # then none of the old ones is served, and all that they had is abandoned
    for link in old:
        with pytest.raises(Fenced, match="new"):
            settle(link, Settled(1))
    with pytest.raises(Fenced, match="new"):
        old[0].renew({})
    books = monitor.read_books()
    assert (books["abandoned"], in_flight(monitor)) == (6, 0)
    assert [claim(link, 1) for link in new] == [[b"a#1/7"], [b"a#1/8"]]


def test_a_rank_that_is_fenced_while_it_claims_gets_no_block_of_the_others(
    group: Make, actor: ActorLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a rank whose commands reach the server one by one
    first, second = group(2)
    blocks, all_at_once = push(actor, 4), learner_link.round_trip

    def one_by_one(client: Any, commands: list[tuple[Any, ...]]) -> list[Any]:
        replies = []
        for command in commands:
            replies += all_at_once(client, [command])
            # when rank 0 opens the run again, right after that rank's claim
            if command[1] == f"{LIBRARY}_claim" and client is second.client:
                first.open()
        return replies

    monkeypatch.setattr(learner_link, "round_trip", one_by_one)

    # then it is told to join once more, not that another group took over
    with pytest.raises(OutOfStep, match="rank 0 has opened the run again"):
        claim(second, 2)
    monkeypatch.undo()
    second.join()
    assert claim(second, 1) == blocks[2:3]


@pytest.mark.parametrize("sizes", [(3, 2), (2, 1), (1, 3), (3, 64)])
def test_a_run_goes_on_with_another_number_of_ranks(
    group: Make,
    actor: ActorLink,
    monitor: MonitorLink,
    operator: redis.Redis,
    sizes: tuple[int, int],
) -> None:
    # given a group that ended with blocks in flight, and with a claim that was not confirmed
    before, after = sizes
    links = group(before)
    push(actor, 3 * before)
    for link in links:
        claim(link, 2)

    # when one of another size goes on
    links = group(after)

    # then the books are exact, and of the ranks that are no more nothing is left
    books = monitor.read_books()
    assert (books["abandoned"], books["queued"], in_flight(monitor)) == (2 * before, before, 0)
    found = {key.decode() for key in operator.keys(f"{links[0].keys.claimed}*")}
    fields = {name.decode() for name in operator.hkeys(links[0].keys.epoch)}
    cursors = {name for name in fields if name.startswith(("taken:", "committed:"))}
    assert found == set()
    assert cursors == {f"{what}:{r}" for what in ("taken", "committed") for r in range(after)}
    got = [block for link in links for block in claim(link, 1)]
    assert len(got) == len(set(got)) == min(before, after)
    for link in links:
        settle(link, Settled(link._cursor.received))
    assert in_flight(monitor) == 0


# What somebody has broken.

# A number that is another one must not fit by chance: rank 1 has taken 2 blocks and committed none.
BROKEN = [
    *[(name, text) for name in ("taken:1", "committed:1") for text in ("x", "", "-1", "7", "9e99")],
    *[(name, None) for name in ("taken:1", "committed:2", "taken:0", "ranks", "in_flight")],
    *[("in_flight", text) for text in ("x", "0", "7")],
    *[("ranks", text) for text in ("2", "x", "9" * 12)],
]


@pytest.mark.fault(59)
@pytest.mark.parametrize(("field", "text"), BROKEN)
def test_a_cursor_that_somebody_broke_is_mended_by_rank_0_and_no_block_is_lost_unseen(
    group: Make,
    actor: ActorLink,
    monitor: MonitorLink,
    operator: redis.Redis,
    field: str,
    text: str | None,
) -> None:
    # given a group at work
    links = group()
    blocks = push(actor, 8)
    for link in links:
        claim(link, 2)
    epoch = links[0].keys.epoch
    operator.hset(epoch, field, text) if text is not None else operator.hdel(epoch, field)

    # when the rank that it is about goes on, and any further one joins
    with pytest.raises((RunMissing, OutOfStep)):
        settle(links[int(field[-1]) if ":" in field else 2], Settled(2))
    with pytest.raises(RunMissing):
        links[2].join()

    # then rank 0 hears of it even if it claims nothing, and opens the run again
    with pytest.raises(RunMissing):
        links[0].renew({})
    links[0].reopen()
    for link in links[1:]:
        link.join()
    books = monitor.read_books()
    assert (books["abandoned"], books["consumed"], in_flight(monitor)) == (6, 0, 0)
    assert [claim(link, 1) for link in links] == [blocks[6:7], blocks[7:], []]


@pytest.mark.fault(59)
@pytest.mark.parametrize(
    "name", ["trajectories", "pushing", "inflight", "stats", "seq", "claimed:1"]
)
@pytest.mark.parametrize("kind", ["string", "deleted"])
def test_a_key_that_somebody_broke_is_mended_although_rank_0_sleeps(
    group: Make,
    actor: ActorLink,
    monitor: MonitorLink,
    operator: redis.Redis,
    name: str,
    kind: str,
) -> None:
    # given a group at work, and a claim of rank 1 whose reply was lost
    first, second = group(2)
    push(actor, 6)
    claim(first, 2)
    claim(second, 2)
    second._cursor = Cursor()
    key = f"{first.keys.prefix}{name}"
    operator.delete(key)
    if kind == "string":
        operator.set(key, "x")

    # when rank 1 goes on, and rank 0 does no more than to renew its lease
    for _ in range(4):
        try:
            claim(second, 1)
            break
        except (RunMissing, OutOfStep):
            _joined_again(second, first)

    # then both work
    for link in (first, second):
        if link._claims_under != first._token:
            first.reopen()
    assert actor.push("b#2", 1, b"fresh", 1000).stored
    assert b"fresh" in claim(second, 100) + claim(first, 100)
    assert operator.type(key) in (b"none", b"list", b"hash")

    # and what somebody has taken away is missing in the books, for all to see
    missing = {"trajectories": 2, "inflight": 4}.get(name, 0) if kind == "deleted" else 0
    assert residual(monitor.read_books()) == missing


def _joined_again(second: LearnerLink, first: LearnerLink) -> None:
    """Lets a rank join, as its intake would, beside rank 0's publisher."""
    for _ in range(3):
        try:
            second.join()
            return
        except RunMissing:
            epoch = first.epoch
            try:
                first.renew({})
            except (RunMissing, OutOfStep):
                first.reopen_since(epoch)


# Two threads of rank 0.


def test_the_thread_that_claims_goes_on_with_what_the_publishers_thread_has_opened(
    group: Make, actor: ActorLink, operator: redis.Redis, monitor: MonitorLink
) -> None:
    # given blocks in flight, and a server that loses the run
    first, second = group(2)
    push(actor, 2)
    claim(first, 1)
    operator.delete(*operator.keys(f"{first.keys.prefix}*"))
    epoch = first.epoch

    # when the publisher's thread opens it again, twice because the first reply was late
    first.reopen_since(epoch)
    first.reopen_since(epoch)
    assert first.opened_elsewhere
    first.announce("{}", "f", "running")
    second.join()

    # then the one that claims is told so, whatever it asks for, and opens nothing itself
    for settled in (Settled(), Settled(1)):
        with pytest.raises(OutOfStep, match="the publisher's thread has opened the run again"):
            first.settle_and_claim(settled, 1)
    first.reopen()
    assert first.epoch == epoch + 1
    actor.push("c#3", 1, b"fresh", 1000)
    assert (claim(second, 0), claim(first, 1)) == ([], [b"fresh"])
    assert in_flight(monitor) == 1


def test_both_threads_of_rank_0_may_open_the_run_again_at_once(
    group: Make, operator: redis.Redis
) -> None:
    # given
    first, second = group(2)
    for _ in range(10):
        operator.delete(first.keys.epoch)
        epoch, start = first.epoch, threading.Barrier(2)

        def publish(epoch: int = epoch, start: threading.Barrier = start) -> None:
            start.wait(20)
            first.reopen_since(epoch)

        # when
        thread = threading.Thread(target=publish)
        thread.start()
        start.wait(20)
        first.reopen()
        thread.join(20)

        # then at most two openings come of it, and what was opened last serves both, and rank 1
        first.renew({})
        if first.opened_elsewhere:
            first.reopen()
        assert claim(first, 1) == []
        assert first.epoch in (epoch + 1, epoch + 2)
        second.join()
        assert claim(second, 1) == []
