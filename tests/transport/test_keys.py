"""The names of keys: those of the design, and those of one run alone."""

import pytest
import redis
from parties import Learners, claim, push, settle

from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.keys import Keys
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Dead, Settled
from impala_redis.common.transport.monitor import MonitorLink


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
    # and only these may go on a server whose policy is volatile-*: both are written again
    expiring = {key.decode() for key in found if operator.pttl(key) >= 0}
    assert expiring == {f"{prefix}lock", f"{prefix}actor:host-7"}
    operator.delete(*expiring)
    learner.renew({})
    actor.beat("host-7", {"frames": 1}, 10.0)
    assert all(operator.pttl(key) > 0 for key in expiring)

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
        "renewed_at",
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
