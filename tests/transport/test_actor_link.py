"""What an actor does: push within a bound and once, join a run that is open, beat."""

import hashlib
import threading

import pytest
import redis
from parties import Learners, claim, push, settle

from chaos.servers import OpenServer
from impala_redis.common.errors import RunMissing
from impala_redis.common.transport import actor_link
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Settled
from impala_redis.common.transport.monitor import MonitorLink, residual
from support import eventually

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
    assert reply == ("stored", (7, digest, "running", ""), None)
    assert actor.read_news() == reply.news


def test_a_push_brings_the_weights_to_whom_they_are_light(
    learner: LearnerLink, actor: ActorLink
) -> None:
    # given a run without weights
    without = actor.push_together("a#1", 1, [b"block"], 4, with_weights=True)
    assert (without.stored, without.news.weights_version, without.weights) == (True, -1, None)

    # when some are published
    learner.publish(7, b"weights")
    reply = actor.push_together("a#1", 2, [b"block"], 4, with_weights=True)

    # then they come with the news, as they would by themselves
    assert reply.weights == actor.read_weights()
    assert reply.weights is not None and reply.weights.intact
    assert (reply.weights.version, reply.weights.message) == (7, b"weights")

    # and also with a push that stores nothing
    again = actor.push_together("a#1", 2, [b"block"], 4, with_weights=True)
    assert (again.fate, again.weights) == ("duplicate", reply.weights)
    full = actor.push_together("a#1", 3, [b"block"], 2, "block", with_weights=True)
    assert (full.fate, full.weights) == ("full", reply.weights)


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
    any_server: OpenServer, learner: LearnerLink, monitor: MonitorLink, run_name: str
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
    assert (again.fate, older.fate) == ("duplicate", "duplicate")
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


def test_of_blocks_that_are_pushed_together_each_has_a_number_and_is_stored_once(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given two blocks, and three that are pushed together
    push(actor, 2)
    together = [b"a#1/3", b"a#1/4", b"a#1/5"]
    assert actor.push_together("a#1", 3, together, 1000).stored

    # when they are sent again, some of them alone, and some with a new one behind them
    again = [
        actor.push_together("a#1", 3, together, 1000).fate,
        actor.push("a#1", 4, together[1], 1000).fate,
        actor.push_together("a#1", 5, [together[2], b"new"], 1000).fate,
    ]

    # then they are counted and not stored, and the new one comes in by its own push
    assert again == ["duplicate"] * 3
    assert actor.push("a#1", 6, b"a#1/6", 1000).stored
    stored = operator.lrange(actor.keys.trajectories, 0, -1)
    assert stored == [f"a#1/{number}".encode() for number in range(1, 7)]
    books = monitor.read_books()
    assert (books["produced"], books["dup_push"], residual(books)) == (6, 6, 0)


def test_blocks_that_are_pushed_together_keep_the_bound(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given a list with room for one
    push(actor, 2)

    # when two are pushed together by a producer that waits for room, then none comes in
    blocks = [b"b#1/1", b"b#1/2"]
    assert actor.push_together("b#1", 1, blocks, 3, "block").fate == "full"
    assert monitor.read_books()["produced"] == 2

    # and by one that does not, the oldest goes, also of the pushed ones themselves
    assert actor.push_together("b#1", 1, blocks, 3).stored
    assert operator.lrange(actor.keys.trajectories, 0, -1) == [b"a#1/2", *blocks]
    assert actor.push_together("b#1", 3, [b"x", b"y"], 1).stored
    assert operator.lrange(actor.keys.trajectories, 0, -1) == [b"y"]
    books = monitor.read_books()
    assert (books["produced"], books["dropped_oldest"], residual(books)) == (6, 5, 0)


@pytest.mark.parametrize("bound", [1, 4])
def test_a_producer_that_waits_for_room_drops_nobody_s_block(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis, bound: int
) -> None:
    # given a full list
    blocks = push(actor, bound)
    before = monitor.read_books(), operator.hgetall(actor.keys.seq)

    # when one more comes, then it is kept out, and neither list nor books have changed
    assert not actor.has_room(bound)
    assert actor.push("b#1", 1, b"late", bound, "block").fate == "full"
    assert operator.lrange(actor.keys.trajectories, 0, -1) == blocks
    assert (monitor.read_books(), operator.hgetall(actor.keys.seq)) == before
    assert not operator.exists(actor.keys.pushing)

    # and one that is in the list already is known, full or not
    assert actor.push("a#1", bound, blocks[-1], bound, "block").fate == "duplicate"

    # and when one was taken, it comes in under the same number
    claim(learner, 1)
    assert actor.has_room(bound)
    assert actor.push("b#1", 1, b"late", bound, "block").stored
    assert claim(learner, 9) == [*blocks[1:], b"late"]
    books = monitor.read_books()
    assert (books["produced"], books["dropped_oldest"]) == (bound + 1, 0)
    assert residual(books) == 0


def test_producers_that_wait_for_room_lose_no_block_however_many_there_are(
    any_server: OpenServer, learner: LearnerLink, monitor: MonitorLink, run_name: str
) -> None:
    producers, blocks_each, bound = 3, 40, 2

    def produce(number: int) -> None:
        link = ActorLink(any_server.url, run_name, f"actor-{number}")
        for sequence in range(1, blocks_each + 1):
            block = f"{number}/{sequence}".encode()
            while not link.push(f"{number}#1", sequence, block, bound, "block").stored:
                eventually(lambda: link.has_room(bound))
        link.close()

    # when they push at once, and a learner takes one block at a time
    threads = [threading.Thread(target=produce, args=(i,)) for i in range(producers)]
    for thread in threads:
        thread.start()
    taken: list[bytes] = []
    while len(taken) < producers * blocks_each:
        new, left = learner.settle_and_claim(Settled(), 1)
        assert left <= bound
        taken += new
    for thread in threads:
        thread.join(20)

    # then each block came once, those of one producer in their order
    for number in range(producers):
        mine = [block for block in taken if block.startswith(b"%d/" % number)]
        assert mine == [b"%d/%d" % (number, i) for i in range(1, blocks_each + 1)]
    books = monitor.read_books()
    assert (books["dropped_oldest"], books["dup_push"], residual(books)) == (0, 0, 0)


def test_producers_that_were_silent_for_a_day_are_forgotten_when_another_joins(
    learner: LearnerLink, actor: ActorLink, operator: redis.Redis
) -> None:
    # given one that pushes, and what others have left; release 0.1 wrote no times
    push(actor, 3)
    seconds = int(operator.time()[0])
    left = {
        "dead#1": f"7 {seconds - 86_500}",
        "quiet#1": f"8 {seconds - 86_000}",
        "release-0.1#1": "9",
        "damaged#1": "what",
    }
    operator.hset(actor.keys.seq, mapping=left)

    # when nobody joins, then all are known
    push(actor, 1, start=4)
    assert operator.hlen(actor.keys.seq) == 5

    # when another one joins
    assert actor.push("new#1", 1, b"x", 1000).stored

    # then the dead one is forgotten, and what has no time has one from now on
    known = {k.decode(): v.decode().split(" ") for k, v in operator.hgetall(actor.keys.seq).items()}
    expected = {"a#1": "4", "quiet#1": "8", "release-0.1#1": "9", "damaged#1": "what", "new#1": "1"}
    assert {name: parts[0] for name, parts in known.items()} == expected
    assert all(int(parts[1]) >= seconds - 86_000 for parts in known.values())

    # and a block that was sent again is known by what release 0.1 left, too
    assert actor.push("release-0.1#1", 9, b"x", 1000).fate == "duplicate"
    assert actor.push("release-0.1#1", 10, b"x", 1000).stored


def test_the_news_show_each_renewal_of_the_lease(
    learner: LearnerLink, actor: ActorLink, operator: redis.Redis
) -> None:
    # given a learner that has not renewed its lease yet
    first = actor.read_news()
    assert first is not None
    assert first.renewed_at == ""

    # when it renews it
    learner.renew({})
    second = actor.push("a#1", 1, b"x", 4).news
    learner.renew({"frames": 1})
    third = actor.read_news()

    # then it is another text each time, the server's time
    assert third is not None
    assert third.renewed_at != second.renewed_at != ""
    assert abs(float(third.renewed_at) - float(operator.time()[0])) < 60

    # and no news about the run itself
    assert third._replace(renewed_at="") == first


def test_a_new_incarnation_begins_at_1_again(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink
) -> None:
    push(actor, 3, "a#1")
    assert actor.push("a#2", 1, b"new", 1000).stored
    books = monitor.read_books()
    assert (books["produced"], books["dup_push"]) == (4, 0)


def test_a_push_into_a_run_that_nobody_opened_is_refused(
    any_server: OpenServer,
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


# Heartbeats.


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
    any_server: OpenServer, run_name: str, mine: str, others: list[str]
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


# Joins.


def test_each_join_of_a_name_has_a_number_until_a_learner_begins(
    learner: LearnerLink, actor: ActorLink
) -> None:
    # given joins of two names
    assert [actor.count_join("a") for _ in range(3)] == [0, 1, 2]
    assert actor.count_join("b") == 0

    # when a learner begins, then they count from 0 again
    learner.forget_joins()
    assert [actor.count_join("a"), actor.count_join("b"), actor.count_join("a")] == [0, 0, 1]


def test_the_names_that_have_joined_are_bounded(
    learner: LearnerLink,
    actor: ActorLink,
    operator: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given containers of which each has a name of its own
    monkeypatch.setattr(actor_link, "MOST_JOINED", 10)
    for number in range(35):
        assert actor.count_join(f"pod-{number}") == 0
        assert operator.hlen(actor.keys.joins) <= 10


def test_a_user_who_may_not_count_joins_still_joins(
    any_server: OpenServer, learner: LearnerLink, operator: redis.Redis, run_name: str
) -> None:
    # given the rights that an actor needed in release 0.1
    operator.acl_setuser(
        "old", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-hincrby", "-hlen"]
    )
    link = ActorLink(any_server.tcp_url.replace("//", "//old:x@", 1), run_name, "actor")

    # then its episodes are drawn by chance
    assert link.count_join("a") is None
    link.close()
    operator.acl_deluser("old")


def test_actors_are_dealt_places_that_follow_each_other(
    learner: LearnerLink, actor: ActorLink
) -> None:
    # given actors of 8, 3 and 8 environments
    assert [actor.deal(number) for number in (8, 3, 8)] == [0, 8, 11]

    # then those who play only some of the tasks take none of these places
    assert [actor.deal(2, ("near", "far")), actor.deal(3, ("far", "near"))] == [0, 2]
    assert actor.deal(1) == 19

    # and no actor's name stands in the way, and another learner begins anew
    assert actor.count_join("places") == 0
    learner.forget_joins()
    assert actor.deal(5) == 0
