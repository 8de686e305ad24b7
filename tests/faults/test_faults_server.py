"""A server that is restarted, frozen, paused, busy, full, unable to save, or tampered with.

Rows 9, 10, 12 to 16, 50 and 51 of the fault matrix.
"""

import itertools
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from full import in_full

from chaos.crew import ENDLESS, PROGRESS_S, Crew, trained
from chaos.servers import DURABLE, OwnServer
from impala_redis.common.acting.courier import Courier
from impala_redis.common.blocks.trajectory import Block, Origin, empty_trajectory
from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server.connection import SOCKET_TIMEOUT_S
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.functions import LIBRARY
from impala_redis.common.transport.monitor import MonitorLink, residual
from support import Program, Programs, eventually

pytestmark = pytest.mark.processes

NAMED = ("--log-level", "debug")  # the learner then names each block that it trained on
POLICIES = ["drop-oldest", "block"]
OPENED_AGAIN = "OPENING THE RUN AGAIN"


@pytest.fixture
def crew(programs: Programs, own_server: OwnServer, run_name: str) -> Crew:
    """Programs of one run at a server of their own."""
    return Crew(programs, own_server.url, run_name)


@pytest.fixture
def operator(own_server: OwnServer) -> Iterator[redis.Redis]:
    """Somebody with redis-cli, who waits for an answer longer than the programs do."""
    with redis.Redis(port=own_server.port, socket_timeout=60) as client:
        yield client


def each_once(*learners: Program) -> None:
    """No block was trained on twice."""
    identities = trained(learners)
    assert len(set(identities)) == len(identities) > 0


# Rows 9 and 10: restarts.


@pytest.mark.fault(9)
@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.full)],
    ids=["sigterm", "kill"],
)
def test_a_server_that_forgets_everything_is_given_the_run_anew(
    crew: Crew, own_server: OwnServer, number: signal.Signals
) -> None:
    # given a run at work
    learner, actors = crew.at_work(2, *NAMED)
    before, record = crew.books(), crew.learner_record()

    # when the server is restarted, with nothing on disk
    own_server.restart(number)

    # then the same programs go on with new books, of another generation, that balance
    crew.goes_on()
    now = crew.balanced()
    assert now["generation"] != before["generation"]
    assert OPENED_AGAIN in learner.output

    # and with a later epoch and newer weights: neither goes back
    again = crew.learner_record()
    assert again["epoch"] > record["epoch"]
    assert again["weights_version"] > record["weights_version"]

    # and an operator is told
    eventually(lambda: crew.learner_record()["figures"].get("runs_lost", 0) >= 1)
    assert "notice   opened again: 1;" in crew.status()[1]
    crew.unharmed(learner, *actors)
    crew.ends_well()
    each_once(learner)


@pytest.mark.fault(10)
@pytest.mark.parametrize("fsync", ["everysec", pytest.param("always", marks=pytest.mark.full)])
def test_a_durable_server_that_is_killed_keeps_the_run_and_its_books(
    programs: Programs, tmp_path: Path, run_name: str, fsync: str
) -> None:
    # given a run at work on a server that keeps a log of its commands
    with OwnServer(tmp_path, *DURABLE, "--appendfsync", fsync) as server:
        crew = Crew(programs, server.url, run_name)
        learner, actors = crew.at_work(2, *NAMED)
        eventually(
            lambda: [int(r["accepted"]) > 0 for r in crew.actor_records().values()] == [True] * 2
        )

        # when it is killed and started again
        records, before = crew.actor_records(), crew.books()
        server.restart()

        # then it has the same books, and the same programs go on
        after = crew.balanced()
        assert after["generation"] == before["generation"]
        crew.goes_on()
        crew.unharmed(learner, *actors)

        # and if it acknowledged nothing before it was written, nothing it acknowledged is lost
        if fsync == "always":
            assert all(after[name] >= before[name] for name in ("produced", "consumed"))
            with server.client() as raw:
                stored = raw.hgetall(crew.keys.seq)
            last = {
                name.decode().partition("#")[0]: int(n.split()[0]) for name, n in stored.items()
            }
            assert all(last[name] >= int(r["accepted"]) for name, r in records.items())
            assert OPENED_AGAIN not in learner.output
            assert crew.books()["abandoned"] == 0
        crew.ends_well()
        each_once(learner)


@pytest.mark.fault(10)
def test_a_server_that_lost_its_last_moments_is_gone_on_with_and_nothing_is_trained_on_twice(
    programs: Programs, tmp_path: Path, run_name: str
) -> None:
    # given a run at work on a server that keeps a log of its commands
    with OwnServer(tmp_path, *DURABLE) as server:
        crew = Crew(programs, server.url, run_name)
        learner, actors = crew.at_work(2, *NAMED)
        crew.goes_on(100)
        before, record = crew.books(), crew.learner_record()

        # when the power fails, and the end of that log with it
        server.stop()
        (commands,) = (server.directory / "data").glob("appendonlydir/*.incr.aof")
        os.truncate(commands, commands.stat().st_size * 8 // 10)
        server.start()

        # then the learner, which remembers more than the server, opens the run again and says so
        assert crew.balanced()["consumed"] < before["consumed"]
        learner.says(OPENED_AGAIN)
        crew.goes_on()
        now = crew.learner_record()
        assert now["epoch"] > record["epoch"]
        assert now["weights_version"] >= record["weights_version"]

        # and blocks that are there for a second time are refused
        crew.unharmed(learner, *actors)
        crew.ends_well()
        each_once(learner)


# Rows 12 to 15: no answer for a while.


@pytest.mark.fault(12)
@pytest.mark.parametrize("frozen_s", [3.0, *in_full(0.3, 30.0)], ids="{:g} s".format)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_frozen_server_is_waited_for_and_actors_act_on(
    crew: Crew, own_server: OwnServer, frozen_s: float, policy: str
) -> None:
    # given a run at work
    learner, actors = crew.at_work(2, *NAMED, "--queue-policy", policy)
    crew.goes_on()

    # when the server is frozen for a while
    with own_server.frozen():
        time.sleep(frozen_s)  # the fault itself

    # then the same programs go on, with every block trained on once at most
    crew.goes_on()
    crew.balanced()
    crew.unharmed(learner, *actors)

    # and in a long freeze the actors have acted on: their rings overflowed; those that wait for
    # room take the server for away only after a time-out
    if frozen_s >= (3 if policy == "drop-oldest" else SOCKET_TIMEOUT_S + 1):
        eventually(
            lambda: [int(r["shed_local"]) > 0 for r in crew.actor_records().values()] == [True] * 2
        )
    elif policy == "block":
        assert {record["shed_local"] for record in crew.actor_records().values()} == {"0"}
    books = crew.ends_well()
    assert policy == "drop-oldest" or books["dropped_oldest"] == 0
    each_once(learner)


SPEC = RunSpec(
    run="frozen",
    env="Test-v0",
    observation=ObservationSpec((4,), "float32"),
    action=discrete(2),
    hidden_sizes=(4,),
    activation="tanh",
    unroll_length=20,
    envs_per_actor=32,
    queue_blocks=4,
    max_policy_age_s=600.0,
    seed=0,
)


@pytest.mark.timed
@pytest.mark.fault(12)
def test_handing_a_block_over_takes_no_longer_when_the_server_is_frozen(
    own_server: OwnServer,
) -> None:
    # given an actor's courier, and a frozen server
    link = ActorLink(own_server.url, SPEC.run, "test")
    rows = empty_trajectory(SPEC, SPEC.envs_per_actor)
    courier = Courier(link, SPEC, "digest", "actor", dict)
    with own_server.frozen():
        courier.start(VersionedWeights(1, {}))
        took_s = []

        # when blocks are handed over as fast as an actor makes them, for longer than the ring lasts
        for _ in range(500):
            started = time.perf_counter()
            courier.hand_over(Block(Origin("actor", 1, 0, 1), rows, (), 0.01))
            took_s.append(time.perf_counter() - started)
            time.sleep(0.001)

        # then it takes no time worth mentioning, and the oldest were shed
        assert np.quantile(took_s, 0.5) <= 0.001
        assert np.quantile(took_s, 0.99) <= 0.05  # to wait for the network would take seconds
        assert courier.shed_local > 400
    courier.close(0.0)
    link.close()


@pytest.mark.fault(13)
@pytest.mark.parametrize("mode", ["ALL", "WRITE"])
@pytest.mark.parametrize("pause_s", [1.0, pytest.param(7.0, marks=pytest.mark.full)])
def test_paused_clients_go_on_when_the_pause_is_over(
    crew: Crew, operator: redis.Redis, mode: str, pause_s: float
) -> None:
    # given a run at work
    learner, actors = crew.at_work(2, *NAMED)
    crew.goes_on()

    # when the server pauses its clients
    started = time.monotonic()
    operator.client_pause(round(pause_s * 1000), all=mode == "ALL")

    # then whoever only reads is served during a pause of writes
    if mode == "WRITE":
        link = MonitorLink(crew.url, crew.run, "reader")
        weights, books = link.read_weights(), link.read_books()
        link.close()
        assert time.monotonic() - started < pause_s
        assert weights is not None
        assert weights.intact
        assert residual(books) == 0

    # and after either the same programs go on, with every block trained on once at most
    eventually(lambda: operator.hset("over", "x", "y") >= 0, pause_s + 20)
    crew.goes_on()
    crew.balanced()
    crew.unharmed(learner, *actors)
    crew.ends_well()
    each_once(learner)


@pytest.mark.fault(14)
@pytest.mark.full
@pytest.mark.parametrize("asleep_s", [1, 7])
def test_a_server_that_sleeps_is_waited_for(
    crew: Crew, operator: redis.Redis, asleep_s: int
) -> None:
    # given a run at work, when its server sleeps: for less, or for longer, than clients wait
    learner, actors = crew.at_work(2, *NAMED)
    crew.goes_on()
    operator.execute_command("DEBUG", "SLEEP", asleep_s)

    # then the same programs go on, with every block trained on once at most
    crew.goes_on()
    crew.balanced()
    crew.unharmed(learner, *actors)
    crew.ends_well()
    each_once(learner)


@pytest.mark.fault(15)
def test_a_server_that_is_busy_with_a_script_is_waited_for(
    crew: Crew, own_server: OwnServer, operator: redis.Redis
) -> None:
    # given a run at work
    learner, actors = crew.at_work(2, *NAMED)
    crew.goes_on()

    # when somebody's script keeps the server busy until it is killed
    operator.config_set("busy-reply-threshold", 50)

    def run_a_long_script() -> None:
        with (
            redis.Redis(port=own_server.port, socket_timeout=60) as somebody,
            pytest.raises(redis.ResponseError, match="killed"),
        ):
            somebody.eval("while true do end", 0)

    script = threading.Thread(target=run_a_long_script)
    script.start()
    learner.says("cannot take commands now: BUSY")
    for actor in actors:
        actor.says("cannot take commands now: BUSY")
    operator.script_kill()
    script.join(20)

    # then the same programs have waited, and go on
    crew.goes_on()
    learner.says("Redis is back")
    crew.balanced()
    crew.unharmed(learner, *actors)
    crew.ends_well()
    each_once(learner)


# Rows 16 and 51: a server that refuses writes.


@pytest.mark.fault(16)
def test_a_full_server_is_drained_and_the_learner_keeps_its_lease(
    crew: Crew, operator: redis.Redis
) -> None:
    # given a run at work, with a short lease
    learner, actors = crew.at_work(2, "--lease-s", "2", *NAMED)
    crew.goes_on()

    # when the server's memory is cut below what it uses
    limit = operator.config_get("maxmemory")["maxmemory"]
    used = operator.info("memory")["used_memory"]
    operator.config_set("maxmemory", min(1_000_000, used // 2))

    # then actors hold their blocks back, the learner drains what is there, and the books balance
    for actor in actors:
        actor.says("used memory > 'maxmemory'")
    eventually(lambda: crew.books()["queued"] == 0)
    produced = crew.balanced()["produced"]

    # and the learner keeps its lease for longer than it lasts: nobody can take the run
    holder = crew.learner_record()["holder"]
    assert holder is not None
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert crew.learner_record()["holder"] == holder
        time.sleep(0.1)
    assert crew.balanced()["produced"] == produced

    # and when there is room again, the same programs go on
    operator.config_set("maxmemory", limit)
    crew.goes_on()
    crew.unharmed(learner, *actors)
    crew.ends_well()
    each_once(learner)


@pytest.mark.fault(51)
def test_a_server_that_cannot_save_is_named_with_its_setting_and_waited_for(
    programs: Programs, tmp_path: Path, run_name: str
) -> None:
    # given a run at work on a server that saves snapshots
    with OwnServer(tmp_path, "--save", "3600 1000000000") as server:
        crew = Crew(programs, server.url, run_name)
        learner, actors = crew.at_work(1, *NAMED)
        crew.goes_on()
        assert "writes snapshots (save 3600 1000000000)" in learner.output  # a warning at the start

        # when its disk is gone and a snapshot fails
        with server.client() as operator:
            shutil.rmtree(server.directory / "data")
            operator.bgsave()
            eventually(lambda: operator.info("persistence")["rdb_last_bgsave_status"] == "err")

            # then learner and actor name the error and the setting
            for program in (learner, *actors):
                program.says("cannot take commands now: MISCONF")
                assert "stop-writes-on-bgsave-error" in program.output

            # a learner that comes now ends with its code, and names it as well
            code, output = programs.run(
                "impala-learner", *ENDLESS, "--wait-redis-s", "0.5", IMPALA_REDIS_URL=server.url
            )
            assert code == 4
            assert "stop-writes-on-bgsave-error" in output

            # and when the operator turns that off, the same programs go on
            operator.config_set("stop-writes-on-bgsave-error", "no")
        crew.goes_on()
        crew.balanced()
        crew.unharmed(learner, *actors)
        crew.ends_well()
        each_once(learner)


# Row 50: keys deleted while the run is at work.

# Whoever deletes one of these makes the learner open the run again.
OPENING = ("epoch", "stats")
HARMLESS = ("seq", "lock", "weights", "dead", *OPENING)


@pytest.mark.fault(50)
@pytest.mark.parametrize("keys", [HARMLESS, pytest.param(("spec",), marks=pytest.mark.full)])
def test_deleted_keys_come_back(crew: Crew, operator: redis.Redis, keys: tuple[str, ...]) -> None:
    # given a run at work, with a dead letter, so that every key is there
    learner, actors = crew.at_work(2, *NAMED)
    pushed = itertools.count()

    def some_is_buried() -> bool:
        operator.rpush(crew.keys.trajectories, b"garbage %d" % next(pushed))
        return bool(operator.llen(crew.keys.dead))

    eventually(some_is_buried)
    for key in keys:
        # when one of its keys is deleted
        name, opened = getattr(crew.keys, key), learner.output.count(OPENED_AGAIN)
        assert operator.delete(name) == 1

        # then the same programs go on, it is there again (dead letters have no cause to), and
        # the books balance
        crew.goes_on()
        if key != "dead":
            eventually(lambda name=name: operator.exists(name), PROGRESS_S, key)
        eventually(lambda: residual(crew.books()) == 0, PROGRESS_S, key)
        assert learner.output.count(OPENED_AGAIN) == opened + (key in OPENING), key
    crew.unharmed(learner, *actors)
    crew.ends_well()
    each_once(learner)


@pytest.mark.fault(50)
@pytest.mark.parametrize("what", ["FLUSHALL", "FUNCTION FLUSH"])
def test_a_flush_is_repaired_by_opening_the_run_again(
    crew: Crew, operator: redis.Redis, what: str
) -> None:
    # given a run at work, when somebody flushes the server or its functions
    learner, actors = crew.at_work(2, *NAMED)
    generation = crew.books()["generation"]
    operator.execute_command(*what.split())

    # then the learner opens the run again, and the same programs go on
    learner.says(OPENED_AGAIN)
    crew.goes_on()
    assert operator.function_list(library=LIBRARY)
    assert (crew.balanced()["generation"] == generation) == (what == "FUNCTION FLUSH")
    crew.unharmed(learner, *actors)
    crew.ends_well()
    each_once(learner)


def held_with(crew: Crew, learner: Program, holds: Callable[[], bool]) -> None:
    """Stops the learner between two instants, until it stands where `holds`."""

    def stands() -> bool:
        learner.send(signal.SIGCONT)
        time.sleep(0.02)
        learner.send(signal.SIGSTOP)
        return holds()

    eventually(stands)


@pytest.mark.fault(50)
def test_deleted_trajectories_are_missed_by_the_books_and_status_says_so(
    crew: Crew, operator: redis.Redis
) -> None:
    # given a run whose list is full
    learner, actors = crew.at_work(2, *NAMED)
    learner.send(signal.SIGSTOP)
    eventually(lambda: crew.books()["queued"] == 4)
    for actor in actors:
        actor.send(signal.SIGSTOP)

    # when the list is deleted
    lost = crew.books()["queued"]
    assert operator.delete(crew.keys.trajectories) == 1
    for program in (*actors, learner):
        program.send(signal.SIGCONT)

    # then training goes on, and the loss stays to be seen, exactly
    crew.goes_on()
    crew.unharmed(learner, *actors)
    assert residual(crew.books()) == lost
    code, output = crew.status()
    assert code == 0
    assert f"ALARM    the books do not balance: {lost} blocks are unexplained" in output


@pytest.mark.fault(50)
def test_a_deleted_inflight_list_makes_the_learner_open_the_run_again(
    crew: Crew, operator: redis.Redis
) -> None:
    # given a run with blocks in flight
    learner, actors = crew.at_work(2, *NAMED)
    held_with(crew, learner, lambda: crew.books()["in_flight"] > 0)

    # when they are deleted
    lost = crew.books()["in_flight"]
    assert operator.delete(crew.keys.inflight) == 1
    learner.send(signal.SIGCONT)

    # then the learner says so and goes on, and the loss stays to be seen, exactly
    learner.says(OPENED_AGAIN)
    crew.goes_on()
    crew.unharmed(learner, *actors)
    assert residual(crew.books()) == lost
    assert f"{lost} blocks are unexplained" in crew.status()[1]
