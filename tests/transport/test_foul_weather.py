"""A list that others write, and a server that forgets, is full, or is gone."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from parties import LEASE_S, Parties, claim, push, settle

from impala_redis.common.errors import RedisUnreachable, RunMissing
from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Dead, Settled
from impala_redis.common.transport.monitor import MonitorLink, residual


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

    # then a reader is told what is missing
    with pytest.raises(RunMissing) as missing:
        monitor.read()
    assert ("this version's functions are not" in str(missing.value)) == (lost == "functions")
    assert ("there is no run" in str(missing.value)) == (lost != "functions")

    # and actor and learner learn it by name, and nothing comes onto the list uncounted
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
        "#!lua name=impala5\nredis.register_function('impala5_push', function() return 9 end)",
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
    with pytest.raises(RedisUnreachable, match="maxmemory"):
        actor.push_together("a#1", 2, [b"x", b"y"], 1)
    operator.config_set("maxmemory", 0)

    # then neither list nor books know of it
    assert operator.lrange(actor.keys.trajectories, 0, -1) == [block]
    (last,) = operator.hvals(actor.keys.seq)
    assert last.split()[0] == b"1"
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


# What asks nothing, or gives no news when there is no answer.
SILENT = {"close", "url", "evictions", "news_of_evictions", "most_together", "opened_elsewhere"}


def _everything(url: str) -> dict[type, tuple[Any, dict[str, Callable[[Any], Any]]]]:
    """Every public method of every side, with a call of it."""
    every: dict[str, Callable[[Any], Any]] = {
        "require": lambda link: link.require("impala-actor", "impala-status"),
        "read_spec": lambda link: link.read_spec(),
        "read_weights": lambda link: link.read_weights(),
        "current_holder": lambda link: link.current_holder(),
        "weights_version": lambda link: link.weights_version(),
    }
    return {
        ActorLink: (
            ActorLink(url, "run", "actor"),
            every
            | {
                "push": lambda link: link.push("a#1", 1, b"x", 4),
                "push_together": lambda link: link.push_together("a#1", 1, [b"x", b"y"], 4),
                "count_join": lambda link: link.count_join("a"),
                "deal": lambda link: link.deal(3),
                "has_room": lambda link: link.has_room(4),
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
                "open": lambda link: link.open(),
                "join": lambda link: link.join(),
                "reopen": lambda link: link.reopen(),
                "reopen_since": lambda link: link.reopen_since(0),
                "renew": lambda link: link.renew({}),
                "read_flow": lambda link: link.read_flow(),
                "release": lambda link: link.release(),
                "announce": lambda link: link.announce("{}", "f", "running"),
                "forget_joins": lambda link: link.forget_joins(),
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
            link.read_spec()
    own_server.close()

    for kind, (link, calls) in everything.items():
        # when any method is called (the list below is complete)
        public = {name for name in dir(kind) if not name.startswith("_")} - SILENT
        assert set(calls) == public
        for name, call in calls.items():
            # then it says so, at once
            started = time.monotonic()
            with pytest.raises(RedisUnreachable, match="no answer from Redis"):
                call(link)
            assert time.monotonic() - started < 2.0, name
        link.close()


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
