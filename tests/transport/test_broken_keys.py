"""Keys and counters that somebody has broken: noticed, mended by opening the run, and told."""

import contextlib
import logging

import pytest
import redis
from parties import COUNTERS, Learners, claim, push, settle

from impala_redis.common.errors import ImpalaError, RunMissing
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Dead, Settled
from impala_redis.common.transport.monitor import MonitorLink, residual

pytestmark = pytest.mark.fault(59)

LISTS = ("trajectories", "pushing", "inflight", "claimed", "dead")
HASHES = ("epoch", "stats", "seq", "weights", "spec", "joins")
TOLD = "SOMEBODY HAD BROKEN THE RUN'S KEYS"

TYPES = dict.fromkeys(LISTS, "list") | dict.fromkeys(HASHES, "hash") | {"lock": "string"}
# Each key with each type that it must not have.
BROKEN = [
    (name, kind) for name in TYPES for kind in ("list", "hash", "string") if kind != TYPES[name]
]
# Those whose type a claim finds out; what a push or a publication needs is mended by these.
FOUND_BY_A_CLAIM = ("trajectories", "pushing", "inflight", "claimed", "stats", "seq")
# What somebody may write into a counter that is there.
NO_NUMBERS = ("x", "", "1e3", "-7", "9" * 18, "9" * 40, "nan", "0x10", "007")


def at_work(learner: LearnerLink, actor: ActorLink) -> None:
    """A run with a block of each end, one in flight and two that wait."""
    push(actor, 6)
    claim(learner, 4)
    settle(learner, Settled(1, 1, (Dead("range", "no", b""),)))
    learner.publish(3, b"weights")
    actor.count_join("a")


def made_another(operator: redis.Redis, key: str, kind: str) -> None:
    operator.delete(key)
    if kind == "list":
        operator.rpush(key, "x")
    elif kind == "string":
        operator.set(key, "x")
    else:
        operator.hset(key, "f", "v")


def goes_on(learner: LearnerLink, actor: ActorLink) -> None:
    """The learner announces and publishes; an actor joins, pushes, and the block is trained on."""
    learner.announce("{}", "f", "running")
    learner.publish(10, b"newer")
    learner.renew({"frames": 5.0})
    assert actor.count_join("b") == 0
    assert actor.push("b#2", 1, b"fresh", 1000).stored
    claimed = claim(learner, 100)
    assert claimed[-1] == b"fresh"
    settle(learner, Settled(len(claimed) - 1, 0, (Dead("spec", "no", b""),)))


def noticed(learner: LearnerLink) -> bool:
    """Whether a claim says that the run must be opened again."""
    try:
        claim(learner, 1)
    except RunMissing as error:
        assert "user_function" not in str(error)
        return True
    return False


@pytest.mark.parametrize(("name", "kind"), BROKEN)
def test_a_key_of_another_type_is_mended_by_the_next_opening(
    learner: LearnerLink,
    learners: Learners,
    actor: ActorLink,
    monitor: MonitorLink,
    operator: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    name: str,
    kind: str,
) -> None:
    # given a run at work, one of whose keys somebody has replaced
    at_work(learner, actor)
    made_another(operator, getattr(learner.keys, name), kind)

    # when another learner takes the run over
    second = learners("second")
    second.current_holder()
    with caplog.at_level(logging.ERROR):
        second.open(take_over=True)

    # then it has told what it deleted, and the run goes on with books that balance
    assert f"deleted {getattr(learner.keys, name)}," in caplog.text
    assert caplog.text.count(TOLD) == 1
    assert residual(monitor.read_books()) == 0
    goes_on(second, actor)
    books = monitor.read_books()
    assert (residual(books), books["in_flight"], books["queued"]) == (0, 0, 0)

    # and there is nothing left to mend
    caplog.clear()
    second.open()
    assert TOLD not in caplog.text


@pytest.mark.parametrize(("name", "kind"), [b for b in BROKEN if b[0] in FOUND_BY_A_CLAIM])
def test_a_learner_at_work_notices_a_broken_key_at_its_next_claim(
    learner: LearnerLink,
    actor: ActorLink,
    monitor: MonitorLink,
    operator: redis.Redis,
    name: str,
    kind: str,
) -> None:
    # given
    at_work(learner, actor)

    # when
    made_another(operator, getattr(learner.keys, name), kind)

    # then actors wait for the run or push, and the learner opens it again
    with contextlib.suppress(RunMissing):
        actor.push("c#3", 1, b"x", 1000)
    assert noticed(learner) or name == "pushing"  # which a push has just overwritten
    learner.open()
    goes_on(learner, actor)
    assert residual(monitor.read_books()) == 0


@pytest.mark.parametrize("text", NO_NUMBERS)
@pytest.mark.parametrize("name", sorted(COUNTERS))
def test_a_counter_that_is_no_number_begins_anew_and_the_books_explain_it(
    learner: LearnerLink,
    actor: ActorLink,
    monitor: MonitorLink,
    operator: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    name: str,
    text: str,
) -> None:
    # given
    at_work(learner, actor)
    operator.hset(learner.keys.stats, name, text)

    # when it is opened again, as after a restart
    with caplog.at_level(logging.ERROR):
        learner.open()

    # then
    assert f"began {learner.keys.stats} {name} anew" in caplog.text
    assert residual(monitor.read_books()) == 0
    goes_on(learner, actor)
    books = monitor.read_books()
    assert residual(books) == 0
    assert books["consumed"] > 0


def test_counters_whose_sum_is_no_number_begin_anew_once(
    learner: LearnerLink,
    actor: ActorLink,
    monitor: MonitorLink,
    operator: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # given counters each of which is a number that Lua can hold
    at_work(learner, actor)
    ends = ("consumed", "stale_rejected", "dropped_oldest", "dead_lettered", "abandoned")
    operator.hset(learner.keys.stats, mapping=dict.fromkeys(ends, 2**53 - 100))

    # when the learner opens the run again, as after each such error
    with pytest.raises(RunMissing, match="has broken a key of this run"):
        for _ in range(3):
            claim(learner, 1)
    with caplog.at_level(logging.ERROR):
        learner.open()

    # then
    assert "anew" in caplog.text
    goes_on(learner, actor)
    assert residual(monitor.read_books()) == 0


def test_a_counter_of_a_reason_that_is_no_number_begins_anew(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given
    at_work(learner, actor)
    operator.hset(learner.keys.stats, "dead_lettered:range", "many")

    # when one more is refused
    with pytest.raises(RunMissing, match="has broken a key of this run"):
        settle(learner, Settled(0, 0, (Dead("range", "no", b""),)))
    learner.open()

    # then
    books = monitor.read_books()
    assert (books["dead_lettered:range"], residual(books)) == (0, 0)


def test_a_counter_that_was_deleted_is_mended_and_told(
    learner: LearnerLink,
    actor: ActorLink,
    monitor: MonitorLink,
    operator: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # given
    at_work(learner, actor)
    operator.hdel(learner.keys.stats, "consumed")

    # when
    assert noticed(learner)
    with caplog.at_level(logging.ERROR):
        learner.open()

    # then
    assert "corrected `produced` by -1 blocks" in caplog.text
    assert residual(monitor.read_books()) == 0


@pytest.mark.parametrize("text", ["x", "", "1e99", "1" + "0" * 29, "-5", "2.5", "nan", "inf"])
@pytest.mark.parametrize("field", ["number", "ranks", "in_flight", "taken:0", "committed:0"])
def test_an_epoch_that_is_no_number_begins_anew(
    learner: LearnerLink,
    learners: Learners,
    actor: ActorLink,
    monitor: MonitorLink,
    operator: redis.Redis,
    field: str,
    text: str,
) -> None:
    # given
    at_work(learner, actor)
    operator.hset(learner.keys.epoch, field, text)

    # when the learner goes on, or another one comes
    with contextlib.suppress(ImpalaError):
        claim(learner, 1)
    second = learners("second")
    second.open(take_over=True)

    # then
    assert second.epoch >= 1
    goes_on(second, actor)
    assert residual(monitor.read_books()) == 0


@pytest.mark.parametrize("number", [10**14, 10**15, 2**52, 2**53 - 1, 2**53])
def test_an_epoch_that_is_absurdly_high_fences_nobody_from_its_own_run(
    learner: LearnerLink,
    learners: Learners,
    actor: ActorLink,
    operator: redis.Redis,
    number: int,
) -> None:
    # given
    at_work(learner, actor)
    operator.hset(learner.keys.epoch, "number", number)

    # when two learners take the run one after the other
    second, third = learners("second"), learners("third")
    second.open(take_over=True)
    third.open(take_over=True)

    # then each has an epoch of its own, and the last one works
    assert third.epoch != second.epoch
    goes_on(third, actor)


@pytest.mark.parametrize("text", ["x", "", "-1 x", "5e300 5", "9" * 40, "7 x"])
def test_a_producer_whose_sequence_is_no_number_is_let_in(
    learner: LearnerLink, actor: ActorLink, operator: redis.Redis, text: str
) -> None:
    operator.hset(learner.keys.seq, "a#1", text)
    reply = actor.push("a#1", 1, b"block", 4)
    assert reply.stored
    assert claim(learner, 1) == [b"block"]


@pytest.mark.parametrize("text", ["x", "9" * 40])
def test_joins_that_cannot_be_counted_keep_no_actor_away(
    learner: LearnerLink, actor: ActorLink, operator: redis.Redis, text: str
) -> None:
    # given
    operator.hset(learner.keys.joins, "a", text)
    assert actor.count_join("a") is None

    # when all of them are of another type
    made_another(operator, learner.keys.joins, "string")
    assert actor.count_join("a") is None


def test_a_heartbeat_that_is_of_another_type_is_written_anew(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    made_another(operator, actor.keys.actor("a"), "list")
    actor.beat("a", {"frames": 1}, 5.0)
    assert monitor.read_actors() == {"a": {"frames": "1"}}


def test_weights_and_spec_of_another_type_are_written_anew_in_mid_run(
    learner: LearnerLink, actor: ActorLink, operator: redis.Redis
) -> None:
    # given
    at_work(learner, actor)
    for name in ("weights", "spec"):
        made_another(operator, getattr(learner.keys, name), "list")
    with pytest.raises(RunMissing, match="has broken a key"):
        actor.push("b#2", 1, b"x", 1000)

    # when the learner publishes and announces, as it does all the time, and opens nothing
    learner.publish(4, b"four")
    learner.announce("{}", "f", "running")
    made_another(operator, learner.keys.spec, "list")
    learner.renew({})
    learner.announce("{}", "f", "running")

    # then
    assert actor.push("b#2", 2, b"x", 1000).news.weights_version == 4
