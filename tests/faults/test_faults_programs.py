"""Lives of the programs: killed at any instant, started again, asked to stop, two of them, skewed.

Rows 1 to 8, 32, 33 and 46 to 48 of the fault matrix.
"""

import ast
import json
import re
import signal
import socket
import time
from typing import Any

import pytest
import redis
from full import in_full

from chaos.crew import PROGRESS_S, Crew, trained
from chaos.proxy import Proxy
from chaos.servers import OwnServer
from impala_redis.common.acting.courier import BEAT_EXPIRES_S
from impala_redis.common.acting.parcels import RING_BLOCKS
from impala_redis.common.blocks import wire
from impala_redis.common.records import checkpoint
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.actor_link import MOST_TOGETHER
from impala_redis.common.transport.keys import Keys
from impala_redis.common.transport.monitor import MonitorLink
from support import ROOT, Program, Programs, eventually, pressed_again_and_again

pytestmark = pytest.mark.processes

CHECKPOINTS_OFTEN = ("--checkpoint-interval-s", "0.2")
NAMED = ("--log-level", "debug")  # the learner then names each block that it trained on


@pytest.fixture
def crew(programs: Programs, redis_url: str, run_name: str) -> Crew:
    """Programs of one run at the session's server."""
    return Crew(programs, redis_url, run_name)


def published(raw: redis.Redis, crew: Crew) -> tuple[bytes, bytes]:
    """Version and digest of the weights that are published now."""
    version, digest = raw.hmget(crew.keys.weights, "version", "digest")
    return version, digest


def sequences(raw: redis.Redis, run: str, actor: str) -> dict[str, int]:
    """The last stored sequence number of each incarnation of that actor."""
    pairs = raw.hgetall(Keys(run).seq).items()
    return {
        k.decode(): int(v.split()[0]) for k, v in pairs if k.decode().partition("#")[0] == actor
    }


def killed(program: Program) -> Program:
    """Waits until the program has killed itself."""
    assert program.code() == -signal.SIGKILL, program.output
    return program


def last_claimed(raw: redis.Redis, run: str) -> list[str]:
    """The blocks of the last claim, as actor#incarnation:sequence."""
    keys = Keys(run)
    text = raw.hget(keys.spec, "json")
    assert text is not None
    spec = RunSpec.from_json(text)
    origins = [wire.unpack_block(f, spec).origin for f in raw.lrange(keys.claimed, 0, -1)]
    return [f"{o.actor}#{o.incarnation}:{o.sequence}" for o in origins]


# Rows 1 to 4: actors.


@pytest.mark.fault(1)
def test_an_actor_killed_between_two_steps_loses_its_ring_at_most(
    crew: Crew, raw: redis.Redis
) -> None:
    # given a learner, an actor, and one that is killed after 10 unrolls and a half
    learner = crew.learner("--unroll-length", "100")
    step = "impala_redis.common.envs.vector:VectorEnvironment.step"
    doomed = crew.doomed_actor("before", step, 1051, "--actor-id", "doomed")
    survivor = crew.actor()
    survivor.says("joined")

    # when it is dead
    killed(doomed)

    # then the others go on, and all but its ring and the block on its way had been stored
    crew.goes_on()
    (stored,) = sequences(raw, crew.run, "doomed").values()
    assert 10 - RING_BLOCKS - 1 <= stored <= 10
    crew.unharmed(learner, survivor)

    # and its record is on the way out
    left_ms = raw.pttl(crew.keys.actor("doomed"))
    assert left_ms == -2 or 0 < left_ms <= BEAT_EXPIRES_S * 1000
    crew.ends_well()


@pytest.mark.fault(1)
@pytest.mark.full
def test_a_killed_actor_is_no_longer_listed_after_ten_seconds(crew: Crew) -> None:
    crew.learner()
    doomed = crew.actor("--actor-id", "doomed")
    crew.actor("--actor-id", "other").says("joined")
    eventually(lambda: set(crew.actor_records()) == {"doomed", "other"})
    doomed.send(signal.SIGKILL)
    eventually(lambda: set(crew.actor_records()) == {"other"}, BEAT_EXPIRES_S + 5)
    assert "  doomed" not in crew.status()[1]
    crew.goes_on()
    doomed.code()
    crew.ends_well()


@pytest.mark.fault(2)
def test_a_push_of_which_half_is_sent_stores_nothing(crew: Crew, raw: redis.Redis) -> None:
    # given an actor at work, and one that is killed with half of its fifth push sent
    learner = crew.learner()
    survivor = crew.actor()
    doomed = crew.doomed_actor("half", "push", 5, "--actor-id", "doomed")

    # when it is dead
    killed(doomed)

    # then four of its blocks were stored, and nothing partial has ever reached the learner
    crew.goes_on()
    assert list(sequences(raw, crew.run, "doomed").values()) == [4]
    assert crew.balanced()["dead_lettered"] == 0
    crew.unharmed(learner, survivor)
    assert crew.ends_well()["foreign"] == 0


@pytest.mark.fault(3)
def test_a_push_whose_reply_nobody_read_is_stored_once(crew: Crew, raw: redis.Redis) -> None:
    # given an actor that is killed when its fifth push is sent and not answered
    learner = crew.learner(*NAMED)
    doomed = crew.doomed_actor("sent", "push", 5, "--actor-id", "doomed")

    # when it is dead, with no other actor there
    killed(doomed)

    # then the block is stored, once, and counted like any other
    eventually(lambda: list(sequences(raw, crew.run, "doomed").values()) == [5])
    eventually(lambda: crew.books()["queued"] == 0)
    now = crew.balanced()
    assert (now["produced"], now["dup_push"]) == (5, 0)

    # and training goes on with the next actor
    crew.actor()
    crew.goes_on()
    crew.ends_well()
    identities = trained([learner])
    assert len(set(identities)) == len(identities) > 0


@pytest.mark.fault(4)
def test_an_actor_of_the_same_name_begins_anew_and_nothing_of_it_is_refused(
    crew: Crew, raw: redis.Redis
) -> None:
    # given an actor that is killed after many blocks
    learner = crew.learner()
    first = crew.actor("--actor-id", "same")
    eventually(lambda: sum(sequences(raw, crew.run, "same").values()) > 50)
    first.send(signal.SIGKILL)
    first.code()
    (old,) = sequences(raw, crew.run, "same").items()

    # when it is started again under the same name
    again = crew.actor("--actor-id", "same")
    again.says("joined")

    # then it plays other episodes, and says the seeds
    seeds = [re.findall(r"seeds begin at (\d+)", actor.output) for actor in (first, again)]
    assert [len(found) for found in seeds] == [1, 1]
    assert seeds[0] != seeds[1]

    # and it is another incarnation, counting from 1, of which nothing is taken for a repeat
    crew.goes_on()
    now = sequences(raw, crew.run, "same")
    assert len(now) == 2
    assert now[old[0]] == old[1]
    crew.unharmed(learner)
    books = crew.ends_well()
    assert (books["dup_push"], books["dead_lettered"]) == (0, 0)
    assert books["produced"] == sum(sequences(raw, crew.run, "same").values())


# Rows 5 to 8: the learner.

INSTANTS = {
    "in the middle of a batch": (
        "before",
        "impala_redis.common.learning.numpy_engine:NumpyEngine.step",
        30,
    ),
    "between step and commit": ("after", "impala_redis.common.learning.learner:Learner.update", 30),
    "with a commit and a claim on their way": ("sent", "commit", 30),
}


@pytest.mark.fault(5)
@pytest.mark.fault(6)
@pytest.mark.parametrize("instant", [*list(INSTANTS)[:2], *in_full(*list(INSTANTS)[2:])])
def test_what_a_killed_learner_had_claimed_is_abandoned_once_and_never_trained_on_again(
    crew: Crew, raw: redis.Redis, instant: str
) -> None:
    # given a learner that is killed at that instant, with a checkpoint behind it; it has more
    # actors than it needs, so that seldom a claim finds nothing
    when, what, number = INSTANTS[instant]
    actors = [crew.actor() for _ in range(3)]
    dead = killed(crew.doomed_learner(when, what, number, *CHECKPOINTS_OFTEN, *NAMED))
    eventually(lambda: all(c["name"] != "impala-learner" for c in raw.client_list()))
    left = last_claimed(raw, crew.run)
    before, record = crew.balanced(), crew.learner_record()
    assert before["in_flight"] >= len(left)
    assert before["in_flight"] > 0 or when == "sent"  # a commit may leave none

    # when the next one resumes
    seen = {published(raw, crew)}
    again = crew.learner("--resume", *CHECKPOINTS_OFTEN, *NAMED)
    again.says("resumed from")
    versions = [record["weights_version"]]

    def trained_more() -> bool:
        versions.append(crew.learner_record()["weights_version"])
        seen.add(published(raw, crew))
        return crew.books()["consumed"] > before["consumed"] + 50

    eventually(trained_more, PROGRESS_S)
    assert len({version for version, _ in seen}) == len(seen)

    # then it is of the next epoch, and no version was used twice or went back
    assert crew.learner_record()["epoch"] == record["epoch"] + 1
    assert versions == sorted(versions)
    assert versions[-1] > versions[0]

    # and what was in flight is counted as abandoned, exactly, and trained on by nobody
    assert crew.balanced()["abandoned"] == before["in_flight"]
    crew.unharmed(*actors, again)
    crew.ends_well()
    identities = trained([dead, again])
    assert len(set(identities)) == len(identities)
    afterwards = set(trained([again]))
    assert afterwards
    assert not afterwards & set(left)


@pytest.mark.fault(7)
def test_a_learner_killed_before_its_checkpoint_leaves_the_books_ahead_of_the_model(
    crew: Crew,
) -> None:
    # given a learner that is killed when it begins its second checkpoint, after commits
    actor = crew.actor()
    second = ("before", "impala_redis.common.records.checkpoint:save", 2)
    killed(crew.doomed_learner(*second, "--checkpoint-interval-s", "1"))
    before = crew.balanced()
    assert before["consumed"] > 0

    # when the next one resumes
    again = crew.learner("--resume", *CHECKPOINTS_OFTEN)

    # then the model is that of the first checkpoint, and the counters keep what was consumed
    again.says("resumed from checkpoint-000000000000.json: 0 updates")
    assert crew.balanced()["consumed"] >= before["consumed"]
    crew.goes_on()
    crew.unharmed(actor, again)
    now = crew.ends_well()
    assert now["consumed"] > before["consumed"]
    assert now["abandoned"] >= before["in_flight"]


@pytest.mark.fault(8)
def test_a_learner_killed_with_half_its_weights_sent_leaves_the_old_ones_whole(
    crew: Crew, raw: redis.Redis
) -> None:
    # given a learner that is killed with half of its 20th publication sent
    actor = crew.actor("--actor-id", "player")
    killed(crew.doomed_learner("half", "publish", 20, *CHECKPOINTS_OFTEN))

    # then what is published is whole, and is what had been published before
    link = MonitorLink(raw_url(raw), crew.run, "test")
    reply, spec_reply = link.read_weights(), link.read_spec()
    link.close()
    assert reply is not None
    assert spec_reply is not None
    assert reply.intact
    version, *_ = wire.unpack_weights(reply.message, RunSpec.from_json(spec_reply.json))
    assert version == reply.version

    # and the actor has refused nothing, goes on, and is there for the next learner
    produced = crew.balanced()["produced"]
    eventually(lambda: crew.books()["produced"] > produced + 20)
    assert crew.actor_records()["player"]["weights_refused"] == "0"
    again = crew.learner("--resume", *CHECKPOINTS_OFTEN)
    again.says("resumed from")
    eventually(lambda: crew.learner_record()["weights_version"] > version)
    crew.goes_on()
    crew.unharmed(actor, again)
    crew.ends_well()


def raw_url(raw: redis.Redis) -> str:
    """The address that a client of the session's server was made with."""
    return f"unix://{raw.connection_pool.connection_kwargs['path']}?db=0"


# Row 32: two learners.


@pytest.mark.fault(32)
def test_of_two_learners_started_at_once_exactly_one_gets_the_run(crew: Crew) -> None:
    # given two learners for one run, started in the same moment
    pair = [crew.learner(run_dir=name) for name in ("run", "other")]

    # when one of them has ended
    eventually(lambda: any(p.process.poll() is not None for p in pair))
    (loser,) = (p for p in pair if p.process.poll() is not None)
    (winner,) = (p for p in pair if p is not loser)

    # then it was refused by name, and the other holds the run and trains
    assert loser.code() == 7
    assert f"another learner holds this run: {socket.gethostname()}:{winner.pid}#" in loser.output
    assert "--take-over" in loser.output
    crew.actor()
    winner.says("first batch is here")
    assert crew.learner_record()["epoch"] == 1

    # and only who insists gets it, whereupon the first one ends with its own code
    again = crew.learner("--take-over", run_dir="third")
    assert winner.code() == 8
    again.says("first batch is here")
    assert crew.learner_record()["epoch"] == 2
    crew.goes_on()
    crew.ends_well()


# Row 33: clocks.

# Where the wall clock is read: as a stamp for people. What decides is a version, Redis's TIME, an
# expiry that Redis counts, or a monotonic clock.
STAMPS = {
    ("common/records/tensorboard_file.py", "__init__"),
    ("common/transport/ledger.py", "record"),
    ("workers/actor.py", "__init__"),
    ("workers/logbook.py", "record"),
    ("workers/logbook.py", "write_result"),
    ("workers/process.py", "started_at_unix_s"),
    ("workers/status.py", "_age"),
}


@pytest.mark.fault(33)
def test_the_wall_clock_is_read_for_stamps_only() -> None:
    found = set()
    for path in [*ROOT.glob("common/**/*.py"), *ROOT.glob("workers/**/*.py")]:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                words = {ast.unparse(n) for n in ast.walk(function) if isinstance(n, ast.Attribute)}
                if words & {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now"}:
                    found.add((str(path.relative_to(ROOT)), function.name))
    assert found
    assert found <= STAMPS


@pytest.mark.fault(33)
@pytest.mark.full
def test_clocks_that_leap_by_hours_change_nothing(crew: Crew, raw: redis.Redis) -> None:
    # given a learner whose clock leaps back and forth by two hours, and an actor with such a clock
    learner = crew.skewed("learner", "--lease-s", "3", "--max-policy-age-s", "5", *NAMED)
    actor = crew.skewed("actor", "--actor-id", "leaper")
    learner.says("first batch is here")
    holder = crew.learner_record()["holder"]

    # when they have worked through many leaps, and for longer than a lease
    started = time.monotonic()
    while time.monotonic() - started < 4:
        crew.goes_on()
        # then the lease never lapsed, and the record and the lease expire when they would anyway
        assert crew.learner_record()["holder"] == holder
        assert 0 < raw.pttl(crew.keys.lock) <= 3000
        left_ms = raw.pttl(crew.keys.actor("leaper"))
        assert 0 < left_ms <= BEAT_EXPIRES_S * 1000

    # and nobody paused, refused or lost anything
    crew.unharmed(learner, actor)
    assert "paused" not in actor.output
    now = crew.ends_well()
    assert now["dead_lettered"] == now["stale_rejected"] == now["dup_push"] == 0
    identities = trained([learner])
    assert len(set(identities)) == len(identities)


# Rows 46 to 48: asked to stop.


@pytest.mark.fault(46)
def test_an_actor_that_is_asked_to_stop_flushes_its_ring_first(
    programs: Programs, own_server: OwnServer, run_name: str
) -> None:
    # given an actor whose way to Redis is slow: its ring is full but for what is on its way
    crew = Crew(programs, own_server.url, run_name)
    learner = crew.learner()
    with Proxy(own_server.port) as proxy, own_server.client() as raw:
        proxy.latency_s = 0.1
        actor = Crew(programs, proxy.url, run_name).actor("--actor-id", "slow")
        eventually(
            lambda: int(crew.actor_records().get("slow", {}).get("shed_local", 0)) > 0,
            what="a full ring",
        )

        # when it is asked to stop
        (before,) = sequences(raw, run_name, "slow").values()
        actor.send(signal.SIGTERM)

        # then it ends with 0 within 5 s, having pushed what its ring held, and is no longer listed
        assert actor.code(5) == 0, actor.output
        (after,) = sequences(raw, run_name, "slow").values()
        assert after - before >= RING_BLOCKS - MOST_TOGETHER
        assert crew.actor_records() == {}
    crew.unharmed(learner)
    assert "Traceback" not in actor.output
    crew.ends_well()


@pytest.mark.fault(46)
def test_a_learner_that_is_asked_to_stop_commits_saves_and_gives_the_lease_back(
    crew: Crew, raw: redis.Redis
) -> None:
    # given a learner at work that has saved nothing since it began
    learner, (actor,) = crew.at_work(1, *NAMED)
    crew.goes_on()

    # when it is asked to stop
    learner.send(signal.SIGTERM)

    # then it ends as interrupted within 20 s, with its last update saved and the lease free
    assert learner.code(20) == 130, learner.output
    result = json.loads((crew.folder / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert checkpoint.load(crew.folder).facts["updates"] == result["updates"] > 0
    assert crew.learner_record()["holder"] is None

    # and all that it trained on is committed
    assert crew.balanced()["consumed"] == len(trained([learner]))
    crew.unharmed(actor)
    crew.ends_well()


@pytest.mark.fault(47)
def test_a_second_ctrl_c_ends_a_program_at_once(
    programs: Programs, own_server: OwnServer, run_name: str
) -> None:
    # given a learner that saves all the time, an actor, and a server that stops answering:
    # after one Ctrl-C the actor would end with 0, the learner after 5 s
    crew = Crew(programs, own_server.url, run_name)
    learner, (actor,) = crew.at_work(1, "--lease-s", "3", "--checkpoint-interval-s", "0.01")
    eventually(lambda: checkpoint.load(crew.folder).facts["updates"] > 0, what="a checkpoint")
    with own_server.frozen():
        # when Ctrl-C is pressed again and again
        for program in (actor, learner):
            eventually(pressed_again_and_again(program), 4.0, "the end at once")
            assert program.code() == 130

    # then the newest checkpoint is whole, the lease ends by itself, and the run can go on
    crew.unharmed()
    assert checkpoint.load(crew.folder).facts["updates"] > 0
    eventually(lambda: crew.learner_record()["holder"] is None, 3 + 2, "the lease to lapse")
    crew.actor()
    crew.learner("--resume").says("resumed from")
    crew.goes_on()
    crew.ends_well()


@pytest.mark.fault(48)
@pytest.mark.full
def test_programs_that_are_asked_to_stop_do_so_while_the_server_is_frozen(
    programs: Programs, own_server: OwnServer, run_name: str
) -> None:
    # given a learner, an actor, an actor that waits for a run, and a frozen server
    crew = Crew(programs, own_server.url, run_name)
    learner, (actor,) = crew.at_work(1)
    waiting = crew.actor("--run", "nobody")
    waiting.says("waiting")
    everyone = {learner: (130, 20), actor: (0, 10), waiting: (0, 10)}
    with own_server.frozen():
        # when all are asked to stop
        for program in everyone:
            program.send(signal.SIGTERM)

        # then each does within its grace period, as on any other day
        for program, (code, grace_s) in everyone.items():
            assert program.code(grace_s) == code, program.output

    # and the run goes on from the checkpoint that was saved all the same
    result: dict[str, Any] = json.loads((crew.folder / "result.json").read_text())
    assert result["status"] == "interrupted"
    crew.unharmed()
    crew.actor()
    crew.learner("--resume").says(f"{result['updates']} updates")
    crew.goes_on()
    crew.ends_well()
