"""How a learner holds a run: opening, the lease, and fencing."""

import contextlib
import os
import subprocess
import sys
import threading
from contextlib import closing
from typing import Any

import pytest
import redis
from parties import COUNTERS, LEASE_S, Learners, claim, push, settle

from impala_redis.common.errors import Fenced, OutOfStep, RunHeld, RunMissing
from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.server.suitability import Eviction, EvictionWatch
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Settled
from impala_redis.common.transport.monitor import MonitorLink, residual
from impala_redis.workers import process
from support import eventually, is_running


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
    learner._token = learner._claims_under = before

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
    call, opened, go_on = learner._call_on, threading.Event(), threading.Event()

    def slow(client: Any, function: str, *arguments: Any) -> Any:
        reply = call(client, function, *arguments)
        if function == "open":
            opened.set()
            assert go_on.wait(20)
        return reply

    monkeypatch.setattr(learner, "_call_on", slow)
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
    learner_reading = monitor.read_learner()
    assert learner_reading["figures"] == {"frames": 12.0, "mean_return_100": 0.5, "epoch": 1.0}
    assert (
        learner_reading["holder"],
        learner_reading["epoch"],
        learner_reading["weights_version"],
    ) == ("first", 1, -1)


def test_how_long_a_learner_is_silent_is_told_by_its_lease(
    learners: Learners, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given a learner that has said nothing of its lease yet, as none does in release 0.1
    link = learners("first", lease_s=60.0)
    link.open()
    assert monitor.read_learner()["silent_s"] is None

    # when it renews the lease, and does not for 7 s
    link.renew({"frames": 12, "figures_age_s": 0.5})
    silent_s = monitor.read_learner()["silent_s"]
    operator.pexpire(link.keys.lock, 53_000)
    found = monitor.read_learner()

    # then
    assert 0 <= silent_s < 5
    assert 7 <= found["silent_s"] < 12
    assert 7.5 <= found["figures_age_s"] < 12.5
    assert found["figures"] == {"frames": 12.0, "epoch": 1.0}

    # when another takes over, then nothing of the first one is taken for it
    learners("second", lease_s=5.0).open(take_over=True)
    found = monitor.read_learner()
    assert (found["holder"], found["silent_s"], found["figures_age_s"]) == ("second", None, None)


def test_a_holder_that_is_known_to_have_ended_is_gone_at_once(
    any_server: EmbeddedServer, learners: Learners, run_name: str
) -> None:
    # given leases of a process of this machine that has ended, and of others
    ended, unasked = (subprocess.Popen([sys.executable, "-c", ""]) for _ in range(2))
    ended.wait()
    eventually(lambda: not is_running(unasked.pid))  # its exit code is still asked for
    ours = process.holder_name()
    dead, waits, alive = (
        ours.replace(f":{os.getpid()}#", f":{pid}#")
        for pid in (ended.pid, unasked.pid, os.getppid())
    )
    holders = {dead: True, waits: True, alive: False, f"other-{dead}": False}
    for holder, is_gone in holders.items():
        link = learners(holder, lease_s=60.0)
        link.open(take_over=True)

        # then a reader on this machine knows which is gone
        with contextlib.closing(
            MonitorLink(any_server.url, run_name, "test", process.is_dead_here)
        ) as monitor:
            assert monitor.read_learner()["is_gone"] is is_gone
    unasked.wait()


def test_the_lock_always_expires(learner: LearnerLink, operator: redis.Redis) -> None:
    assert 0 < operator.pttl(learner.keys.lock) <= LEASE_S * 1000
    learner.renew({})
    assert 0 < operator.pttl(learner.keys.lock) <= LEASE_S * 1000


# What the server evicts.


def fill(operator: redis.Redis, kilobytes: int) -> None:
    """Another application's keys."""
    pipe = operator.pipeline(transaction=False)
    for number in range(kilobytes):
        pipe.set(f"other:{number}", b"x" * 1000)
    pipe.execute(raise_on_error=False)


@pytest.mark.parametrize("policy", ["allkeys-random", "volatile-lru"])
def test_keys_that_are_evicted_are_told_with_the_policy(
    own_server: EmbeddedServer, policy: str
) -> None:
    # given a learner whose server keeps everything
    link = LearnerLink(own_server.url, "run", "holder", LEASE_S)
    monitor = MonitorLink(own_server.url, "run", "monitor")
    with redis.Redis.from_url(own_server.url) as operator, closing(link), closing(monitor):
        link.check_server()
        link.open()
        assert (link.evictions(), link.news_of_evictions()) == ("", "")

        # when the policy is changed under way
        operator.config_set("maxmemory-policy", policy)
        may_go = policy.startswith("allkeys")
        words = f"the server may evict the run's keys now (maxmemory-policy {policy})"
        assert link.evictions() == (words if may_go else "")
        assert [link.news_of_evictions(), link.news_of_evictions()] == [link.evictions(), ""]

        # and another application fills the memory
        operator.config_set("maxmemory", operator.info("memory")["used_memory"] + 500_000)
        fill(operator, 2000)
        operator.config_set("maxmemory", 1_000_000_000)
        evicted = operator.info("stats")["evicted_keys"]

        # then
        assert evicted > 0
        more = f"the server has evicted {evicted:,} keys since this learner began"
        assert link.evictions() == f"{more} (maxmemory-policy {policy})"
        assert [bool(link.news_of_evictions()), bool(link.news_of_evictions())] == [True, False]
        memory = monitor.read_memory()
        assert memory is not None
        assert (memory["policy"], memory["evicted_keys"]) == (policy, evicted)


def test_a_server_that_counts_from_the_start_again_and_one_that_does_not_tell() -> None:
    watch = EvictionWatch(Eviction("allkeys-lru", 500))
    assert watch.words(Eviction("allkeys-lru", 500)) == ""
    assert "evicted 1,200 keys" in watch.words(Eviction("allkeys-lru", 1700))
    assert "evicted 20 keys" in watch.words(Eviction("allkeys-lru", 20))
    assert watch.words(None) == watch.news(None) == ""
    assert EvictionWatch(None).words(Eviction("", 0)) == ""
