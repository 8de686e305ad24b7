"""A run that nobody works on can be deleted; any other is left alone."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from parties import Learners, claim, push

from chaos.servers import OwnServer
from impala_redis.common.errors import RedisUnreachable, RunHeld, RunMissing
from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.keys import Keys
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.monitor import OperatorLink
from support import Programs


@pytest.fixture
def deleter(any_server: EmbeddedServer, run_name: str) -> Iterator[OperatorLink]:
    link = OperatorLink(any_server.url, run_name, "status")
    yield link
    link.close()


def keys_of(operator: redis.Redis, run: str) -> set[bytes]:
    return set(operator.keys(Keys(run).prefix + "*"))


@pytest.mark.parametrize("state", ["finished", "running"])
def test_a_run_without_a_learner_and_actors_is_deleted_with_all_its_keys(
    deleter: OperatorLink,
    learner: LearnerLink,
    learners: Learners,
    actor: ActorLink,
    operator: redis.Redis,
    run_name: str,
    state: str,
) -> None:
    # given a run that is over or was interrupted, with blocks in every list, and its neighbours
    learner.publish(1, b"weights")
    push(actor, 3)
    claim(learner, 1)
    operator.lpush(learner.keys.dead, b"record")
    operator.set(learner.keys.prefix + "of-another-version", 1)
    learner.announce("{}", "f", state)  # type: ignore[arg-type]
    learner.release()
    neighbours = [f"{run_name}-2", f"x{run_name}", run_name[:-1] + "?"]
    for name in neighbours:
        learners("other", run=name).open()
    there = keys_of(operator, run_name)
    assert len(there) >= 9

    # when it is deleted
    assert deleter.delete_run() == len(there)

    # then nothing of it is left, and all of the others
    assert keys_of(operator, run_name) == set()
    assert all(keys_of(operator, name) for name in neighbours)

    # and it is no longer there to be deleted, but a learner may begin it anew
    with pytest.raises(RunMissing, match="there is no run"):
        deleter.delete_run()
    assert learners("next").open() == 0


def test_a_run_that_a_learner_holds_is_not_deleted(
    deleter: OperatorLink, learner: LearnerLink, operator: redis.Redis, run_name: str
) -> None:
    there = keys_of(operator, run_name)
    with pytest.raises(RunHeld, match=r"the learner first holds the run .*; stop it first .* s at"):
        deleter.delete_run()
    assert keys_of(operator, run_name) == there


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (("min-replicas-to-write", "1"), r"cannot take commands now: NOREPLICAS Not enough"),
        (("replicaof", "127.0.0.1 1"), r"is a replica now: You can't write"),
    ],
)
def test_a_server_that_takes_no_writes_deletes_nothing_and_says_why(
    tmp_path: Path, setting: tuple[str, str], said: str
) -> None:
    with OwnServer(tmp_path) as server, server.client() as admin:
        # given a run on it
        learner = LearnerLink(server.url, "mine", "holder", 60.0)
        learner.open()
        learner.release()
        learner.close()
        name, value = setting
        if name == "replicaof":
            admin.execute_command("REPLICAOF", *value.split())
        else:
            admin.config_set(name, value)

        # when / then
        operator = OperatorLink(server.url, "mine", "status")
        with contextlib.closing(operator), pytest.raises(RedisUnreachable, match=said):
            operator.delete_run()
        assert admin.exists(learner.keys.stats)


@pytest.mark.parametrize(("count", "named"), [(1, r"1 in all \(a0\)"), (5, r"a0, a1, a2, \.\.\.")])
def test_a_run_with_live_actors_is_not_deleted(
    deleter: OperatorLink, learner: LearnerLink, actor: ActorLink, count: int, named: str
) -> None:
    learner.release()
    for number in range(count):
        actor.beat(f"a{number}", {"frames": 1}, 60.0)
    with pytest.raises(RunHeld, match=f"has live actors, .*{named}.*; stop them first"):
        deleter.delete_run()
    assert actor.read_news() is not None


def test_a_learner_that_comes_in_the_middle_keeps_its_run(
    deleter: OperatorLink,
    learner: LearnerLink,
    learners: Learners,
    operator: redis.Redis,
    run_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a run without a learner, which one opens after the deleter has looked
    learner.release()
    look = deleter.read_actors

    def opened_meanwhile() -> dict[str, dict[str, str]]:
        learners("second").open()
        return look()

    monkeypatch.setattr(deleter, "read_actors", opened_meanwhile)

    # when it is to be deleted, then nothing is
    with pytest.raises(RunHeld, match="taken the run up just now"):
        deleter.delete_run()
    assert operator.get(learner.keys.lock) == b"second"
    assert operator.exists(learner.keys.spec)


@pytest.mark.processes
def test_status_deletes_a_run_says_so_in_one_sentence_and_refuses_in_one(
    programs: Programs, redis_url: str, run_name: str, raw: redis.Redis
) -> None:
    # given a run that its learner holds
    variables = {"IMPALA_REDIS_URL": redis_url, "IMPALA_RUN": run_name}
    link = LearnerLink(redis_url, run_name, secrets.token_hex(4), 60.0)
    link.open()
    link.announce("{}", "f", "finished")

    # when it is to be deleted, then it is not
    code, output = programs.run("impala-status", "--delete", **variables)
    assert code == 7, output
    assert "stop it first" in output
    assert "Traceback" not in output

    # nor with what contradicts it, or by a variable
    for command, expected, words in (
        (("--delete", "--watch"), 2, "leave out --watch"),
        ((), 0, "books"),
    ):
        code, output = programs.run("impala-status", *command, IMPALA_DELETE="1", **variables)
        assert (code, words in output) == (expected, True), output

    # and when the learner has left it
    link.release()
    link.close()
    code, output = programs.run("impala-status", "--delete", **variables)
    assert code == 0, output
    assert output.startswith(f"deleted the run {run_name} from unix://")
    assert len(output.splitlines()) == 1
    assert keys_of(raw, run_name) == set()

    # then there is none to delete
    code, output = programs.run("impala-status", "--delete", "--json", **variables)
    assert code == 14, output
