"""The network as it is: cut, slow, lossy, silent; and a server that changes its role.

Each test is a row of the fault matrix (docs/reliability.md). The fault is made by a proxy between
real programs and a real server, or by the server itself; the books are read past the proxy.
"""

import logging
import random
import re
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chaos.crew import PROGRESS_S, Crew, trained
from chaos.proxy import Proxy
from chaos.servers import OwnServer
from impala_redis.common.acting.parcels import RING_BLOCKS
from impala_redis.common.errors import RedisUnreachable
from impala_redis.common.server.connection import SOCKET_TIMEOUT_S
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Settled
from support import Programs, eventually

log = logging.getLogger(__name__)

# Blocks and weights of about 500 bytes, for a network that carries them byte by byte.
TINY = (
    *("--envs-per-actor", "1", "--unroll-length", "5", "--batch-size", "4"),
    *("--queue-blocks", "8", "--hidden-sizes", "8"),
)
# Only what is meant grows: a ring without a bound would take megabytes for each second.
FLAT_MB = 16.0
# So many commands are remembered by a server that is asked to note each one.
EVERY_COMMAND = 2_000_000


class Beat(NamedTuple):
    """An actor's figures as of a heartbeat, and when it was seen."""

    seen_at: float
    queued_s: float  # so long its environment thread has waited for a core until then
    figures: dict[str, int]

    def steps_per_s(self, since: "Beat") -> float:
        """The pace of its environments between two heartbeats, as if it had had a core for it."""
        steps = self.figures["frames"] - since.figures["frames"]
        return steps / (self.seen_at - since.seen_at - (self.queued_s - since.queued_s))


@pytest.fixture
def proxy(own_server: OwnServer, chaos_seed: int) -> Iterator[Proxy]:
    with Proxy(own_server.port, chaos_seed) as running:
        yield running


@pytest.fixture
def crew(programs: Programs, own_server: OwnServer, run_name: str) -> Crew:
    """Programs with a way of their own to the server."""
    return Crew(programs, own_server.url, run_name)


@pytest.fixture
def behind(programs: Programs, proxy: Proxy, run_name: str) -> Crew:
    """Programs of the same run that reach the server through the proxy."""
    return Crew(programs, proxy.url, run_name)


def next_beat(crew: Crew) -> Beat:
    """Waits for the next heartbeat of the run's first actor."""

    def figures() -> dict[str, int]:
        records = list(crew.actor_records().values())
        texts = records[0].items() if records else ()
        return {name: int(text) for name, text in texts if text.isdecimal()}

    last = figures().get("frames")

    def beaten() -> dict[str, int]:
        now = figures()
        return now if now.get("frames", last) != last else {}

    found = eventually(beaten, PROGRESS_S, "a heartbeat")
    # The main thread has two figures: nanoseconds on a core, and in the queue for one.
    scheduled = Path(f"/proc/{found['pid']}/schedstat").read_text().split()
    return Beat(time.monotonic(), int(scheduled[1]) / 1e9, found)


def resident_mb(pid: int) -> float:
    """Memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1000


# Row 11: the server is away.


@pytest.mark.fault(11)
@pytest.mark.processes
@pytest.mark.timed
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("normal_s", "away_s", "least"),
    # A heartbeat may be seen some tenths of a second late, which short windows feel.
    [(1.0, 2.0, 0.5), pytest.param(30.0, 600.0, 0.8, marks=pytest.mark.full)],
)
def test_an_actor_acts_on_at_its_pace_while_the_server_is_down(
    programs: Programs,
    own_server: OwnServer,
    run_name: str,
    normal_s: float,
    away_s: float,
    least: float,
) -> None:
    # given a run at work, and the pace of its actor; its memory is its own
    crew = Crew(programs, own_server.url, run_name, cold=True)
    _, (actor,) = crew.at_work(1, "--max-policy-age-s", "3600")
    first = next_beat(crew)
    time.sleep(normal_s)
    before = next_beat(crew)

    # when the server is down, and comes back without its memory
    generation = crew.books()["generation"]
    own_server.stop()
    time.sleep(away_s / 2)
    memory_mb = resident_mb(actor.pid)
    time.sleep(away_s / 2)
    grown_mb = resident_mb(actor.pid) - memory_mb
    own_server.start()
    after = next_beat(crew)

    # then the actor stepped on at its pace, with no more memory, and shed what nobody took
    share = after.steps_per_s(before) / before.steps_per_s(first)
    log.warning("pace without Redis: %.2f of normal; memory %+.1f MB", share, grown_mb)
    assert share >= least
    assert grown_mb < FLAT_MB
    assert after.figures["shed_local"] > before.figures["shed_local"]
    # and the same programs go on, with new books
    crew.goes_on()
    assert crew.ends_well()["generation"] != generation


@pytest.mark.fault(11)
@pytest.mark.processes
@pytest.mark.timed
@pytest.mark.full
def test_the_pace_of_an_actor_is_that_of_its_environments_with_and_without_redis(
    crew: Crew, behind: Crew, proxy: Proxy
) -> None:
    # given a run at work, its actor behind a proxy
    learner = crew.learner()
    behind.actor()
    learner.says("first batch is here")

    # when its way to Redis is open and closed by turns
    shares = []
    for _ in range(6):
        start = next_beat(crew)
        time.sleep(3.0)
        cut = next_beat(crew)
        proxy.down = True
        time.sleep(3.0)
        proxy.heal()
        shares.append(next_beat(crew).steps_per_s(cut) / cut.steps_per_s(start))

    # then it makes no difference
    log.warning("pace without Redis over that with it: %s", [f"{share:.2f}" for share in shares])
    assert statistics.median(shares) >= 0.8
    crew.goes_on()
    behind.ends_well()
    crew.ends_well()


# Row 18: a push is executed, and nobody is told.


@pytest.mark.fault(18)
@pytest.mark.processes
@pytest.mark.parametrize(
    ("share", "drops"), [(0.1, 10), pytest.param(0.01, 30, marks=pytest.mark.full)]
)
@pytest.mark.parametrize("policy", ["drop-oldest", "block"])
def test_a_push_whose_reply_was_lost_is_stored_and_trained_on_once(
    crew: Crew,
    behind: Crew,
    proxy: Proxy,
    own_server: OwnServer,
    share: float,
    drops: int,
    policy: str,
) -> None:
    # given a run at work, a server that notes each command, a learner that names each block
    learner = crew.learner(*TINY, "--log-level", "debug", "--queue-policy", policy)
    with own_server.client() as operator:
        operator.config_set("slowlog-max-len", EVERY_COMMAND)
        operator.config_set("slowlog-log-slower-than", 0)
        behind.actor()
        learner.says("first batch is here")

        # when replies to the actor are lost
        proxy.drop_replies = share
        eventually(lambda: proxy.dropped >= drops, 100.0, "replies to be lost")
        proxy.heal()
        crew.goes_on()
        behind.ends_well()
        books = crew.ends_well()
        pushes = executed_pushes(operator.slowlog_get(EVERY_COMMAND))

    # then some pushes were executed again, each was stored once, and the books say which
    sent_again = pushes.total() - len(pushes)
    log.warning("%d of %d pushes were executed again", sent_again, len(pushes))
    assert sent_again > 0
    if policy == "drop-oldest":
        assert books["dup_push"] == sent_again
    else:  # others were sent again because the list was full
        assert 0 < books["dup_push"] <= sent_again
        assert books["dropped_oldest"] == 0
    # (the last one may have been given up while it waited for room)
    assert len(pushes) - (policy == "block") <= books["produced"] <= len(pushes)
    # and none was trained on twice
    blocks = trained([learner])
    assert len(blocks) == len(set(blocks)) > 0
    assert books["dead_lettered"] == 0


def executed_pushes(noted: list[dict[str, Any]]) -> Counter[tuple[bytes, bytes]]:
    """How often each (producer, sequence) was executed, from the server's own record."""
    commands = [entry["command"].split(b" ") for entry in noted]
    pushes = (words[7:12] for words in commands if words[:2] == [b"FCALL", b"impala5_push_begin"])
    return Counter(
        (producer, int(last) - earlier)
        for producer, last, _, _, number in pushes
        for earlier in range(int(number))
    )


# Rows 19 and 20: partitions.


@pytest.mark.timed
@pytest.mark.fault(19)
@pytest.mark.processes
@pytest.mark.parametrize("seconds", [3.0, pytest.param(60.0, marks=pytest.mark.full)])
def test_after_a_partition_an_actor_sends_no_more_than_its_ring_of_old_blocks(
    crew: Crew, behind: Crew, proxy: Proxy, own_server: OwnServer, seconds: float
) -> None:
    # given a run at work
    learner = crew.learner()
    behind.actor()
    learner.says("first batch is here")
    before = next_beat(crew).figures

    # when every packet between the actor and Redis vanishes, and comes through again
    proxy.blackhole = True
    time.sleep(seconds)
    with own_server.client() as operator:
        (sent,) = (int(last.split()[0]) for last in operator.hvals(crew.keys.seq))
    proxy.heal()
    after = next_beat(crew).figures

    # then what it made meanwhile was shed, but for the ring and the block that was on its way
    assert after["shed_local"] > before["shed_local"]
    assert after["accepted"] - sent <= RING_BLOCKS + 1
    kept = after["generated"] - after["accepted"] - after["shed_local"]
    assert kept <= RING_BLOCKS + 1
    # and it goes on
    crew.goes_on()
    behind.ends_well()
    crew.ends_well()


@pytest.mark.fault(20)
@pytest.mark.processes
@pytest.mark.parametrize("seconds", [0.0, pytest.param(60.0, marks=pytest.mark.full)])
def test_a_learner_that_was_cut_off_and_replaced_ends_and_changes_nothing(
    crew: Crew, behind: Crew, proxy: Proxy, own_server: OwnServer, seconds: float
) -> None:
    # given a learner that is cut off, and a second one that took the run over
    first = behind.learner(run_dir="first")
    crew.actor()
    first.says("first batch is here")
    proxy.blackhole = True
    cut_at = time.monotonic()
    second = crew.learner("--take-over", run_dir="second")
    second.says("first batch is here")
    time.sleep(max(0.0, cut_at + seconds - time.monotonic()))
    crew.goes_on()
    assert first.process.poll() is None

    # when the network heals, while the second one holds still
    second.send(signal.SIGSTOP)
    with own_server.client() as operator:
        weights = operator.hgetall(crew.keys.weights)
        settled = {name: crew.books()[name] for name in ("consumed", "abandoned", "in_flight")}
        proxy.heal()

        # then the first one ends by the code for it, and what was on its way changed nothing
        assert first.code() == 8, first.output
        assert "another learner took this run over" in first.output
        assert operator.hgetall(crew.keys.weights) == weights
        assert {name: crew.books()[name] for name in settled} == settled

    # and the second one goes on
    second.send(signal.SIGCONT)
    crew.goes_on()
    behind.unharmed()
    crew.ends_well()


# Row 21: far away.


@pytest.mark.fault(21)
@pytest.mark.full
@pytest.mark.processes
@pytest.mark.timed
def test_a_slow_network_slows_the_data_and_nothing_else(
    crew: Crew, behind: Crew, proxy: Proxy
) -> None:
    # given a run at work, all of it behind a proxy
    learner, actor = behind.learner(), behind.actor()
    learner.says("first batch is here")
    before = next_beat(crew).figures

    # when every packet takes 0.2 to 0.3 s, at 1 MB/s
    proxy.latency_s, proxy.jitter_s, proxy.bytes_per_s = 0.2, 0.1, 1_000_000
    late = behind.actor()

    # then blocks arrive, no call times out, the actor sheds what the network cannot carry,
    crew.goes_on(4)
    assert next_beat(crew).figures["shed_local"] > before["shed_local"]
    # and another actor can join
    late.says("joined")
    for program in (learner, actor, late):
        assert "no answer from Redis" not in program.output
    proxy.heal()
    crew.goes_on()
    behind.ends_well()


@pytest.mark.fault(21)
@pytest.mark.full
def test_weights_may_take_longer_to_read_than_a_time_out(
    own_server: OwnServer, proxy: Proxy, run_name: str
) -> None:
    # given weights that take a time-out and a half at 1 MB/s
    learner = LearnerLink(own_server.url, run_name, "learner", 10.0)
    learner.open()
    payload = random.Random(0).randbytes(int(1.5 * SOCKET_TIMEOUT_S * 1_000_000))
    learner.publish(1, payload)
    proxy.bytes_per_s = 1_000_000
    reader = ActorLink(proxy.url, run_name, "actor")

    # when they are read
    started = time.monotonic()
    found = reader.read_weights()

    # then they arrive: a time-out is for silence, not for the whole
    assert time.monotonic() - started > SOCKET_TIMEOUT_S
    assert found is not None
    assert found.intact
    learner.close()
    reader.close()


@pytest.mark.fault(21)
@pytest.mark.full
def test_weights_that_the_network_cannot_carry_in_a_time_out_are_not_half_published(
    own_server: OwnServer, proxy: Proxy, run_name: str
) -> None:
    # given weights that take several time-outs at 1 MB/s, and older ones
    learner = LearnerLink(proxy.url, run_name, "learner", 60.0)
    learner.open()
    learner.publish(1, b"old")
    payload = bytes(int(4 * SOCKET_TIMEOUT_S * 1_000_000))
    proxy.bytes_per_s = 1_000_000

    # when they are published
    started = time.monotonic()
    with pytest.raises(RedisUnreachable, match="Timeout writing"):
        learner.publish(2, payload)

    # then it ends by the time-out, and the old ones stay: what is sent must fit into one
    assert time.monotonic() - started < SOCKET_TIMEOUT_S + 3.0
    proxy.heal()
    reader = ActorLink(own_server.url, run_name, "actor")
    found = reader.read_weights()
    assert found is not None
    assert (found.version, found.message) == (1, b"old")
    learner.close()
    reader.close()


# Row 22: cut to pieces.


@pytest.mark.fault(22)
@pytest.mark.processes
@pytest.mark.parametrize("resets", [8, pytest.param(100, marks=pytest.mark.full)])
def test_replies_in_single_bytes_and_cut_anywhere_are_never_misread(
    programs: Programs,
    crew: Crew,
    own_server: OwnServer,
    run_name: str,
    chaos_seed: int,
    resets: int,
) -> None:
    with ExitStack() as stack:
        # given a run at work, each program behind a proxy of its own
        links = [stack.enter_context(Proxy(own_server.port, chaos_seed + i)) for i in range(2)]
        far, farther = (Crew(programs, link.url, run_name) for link in links)
        learner = far.learner(*TINY)
        farther.actor()
        learner.says("first batch is here")

        # when every byte travels alone, and connections are reset at any point of a reply
        draw = random.Random(chaos_seed)
        for link in links:
            link.slice_bytes = 1
        for _ in range(resets):
            time.sleep(draw.uniform(0.05, 0.3))
            draw.choice(links).reset()

        # then the data flows, slowly, and all that arrived was right
        crew.goes_on(4)
        for link in links:
            link.heal()
        crew.goes_on()
        assert sum(link.accepted for link in links) > resets / 2
        assert next_beat(crew).figures["weights_refused"] == 0
        assert crew.books()["dead_lettered"] == 0
        farther.ends_well()
        far.ends_well()


# Row 23: silence.


@pytest.mark.fault(23)
def test_every_call_ends_by_its_time_out_when_nothing_answers(
    own_server: OwnServer, proxy: Proxy, run_name: str
) -> None:
    # given a run, and for each call a connection of its own that works
    owner = LearnerLink(own_server.url, run_name, "learner", 60.0)
    owner.open()
    frame = b"x" * 1000

    def learner(call: Callable[[LearnerLink], object]) -> tuple[Any, Callable[[Any], object]]:
        return LearnerLink(proxy.url, run_name, "learner", 60.0), call

    def actor(call: Callable[[ActorLink], object]) -> tuple[Any, Callable[[Any], object]]:
        return ActorLink(proxy.url, run_name, "actor"), call

    calls = {
        "push": actor(lambda link: link.push("a#1", 1, frame, 4)),
        "read_news": actor(lambda link: link.read_news()),
        "read_spec": actor(lambda link: link.read_spec()),
        "read_weights": actor(lambda link: link.read_weights()),
        "beat": actor(lambda link: link.beat("a", {"frames": 1}, 10.0)),
        "leave": actor(lambda link: link.leave("a")),
        "check_server": learner(lambda link: link.check_server()),
        "open": learner(lambda link: link.open()),
        "renew": learner(lambda link: link.renew({})),
        "publish": learner(lambda link: link.publish(1, frame)),
        "settle_and_claim": learner(lambda link: link.settle_and_claim(Settled(), 4)),
        "release": learner(lambda link: link.release()),
    }
    for link, _ in calls.values():
        link.read_spec()
    # and one that has none yet
    calls["connect"] = actor(lambda link: link.read_spec())

    # when nothing comes back any more
    proxy.blackhole = True

    def seconds(name: str) -> float:
        link, call = calls[name]
        started = time.monotonic()
        with pytest.raises(RedisUnreachable):
            call(link)
        return time.monotonic() - started

    with ThreadPoolExecutor(len(calls)) as pool:
        took_s = dict(zip(calls, pool.map(seconds, calls), strict=True))

    # then each call ends, after one time-out and not after several
    assert max(took_s.values()) < SOCKET_TIMEOUT_S + 3.0, took_s
    for link, _ in calls.values():
        link.close()
    owner.close()


@pytest.mark.fault(23)
@pytest.mark.processes
def test_a_silent_network_keeps_no_program_from_ending(
    crew: Crew, behind: Crew, proxy: Proxy
) -> None:
    # given a run at work whose connections fall silent, without an end
    learner, (actor,) = behind.at_work()
    proxy.blackhole = True

    # when the programs are asked to end
    asked_at = time.monotonic()
    for program in (learner, actor):
        program.send(signal.SIGTERM)

    # then they do, by the codes of a clean stop: the actor after its flush (2 s and at most one
    # more), the learner after the time-outs that its threads are in
    assert actor.code(10.0) == 0
    actor_s = time.monotonic() - asked_at
    assert learner.code(20.0) == 130
    log.warning("actor ended in %.1f s, learner in %.1f s", actor_s, time.monotonic() - asked_at)
    behind.unharmed()
    crew.balanced()


# Row 49: another server takes its place.


@pytest.fixture
def other_server(tmp_path: Path) -> Iterator[OwnServer]:
    """A second server, to be made the first one's replica or primary."""
    directory = tmp_path / "other"
    directory.mkdir()
    with OwnServer(directory) as running:
        yield running


def follow(replica: OwnServer, primary: OwnServer) -> None:
    """Makes one server the other's replica, and waits until it has its data."""
    with primary.client() as operator:
        operator.config_set("repl-diskless-sync-delay", 0)
    with replica.client() as operator:
        operator.replicaof("127.0.0.1", primary.port)

        def in_step() -> bool:
            return operator.info("replication").get("master_link_status") == "up"

        eventually(in_step, what="the replica to be in step")


def lead(server: OwnServer) -> None:
    """Makes a server a primary."""
    with server.client() as operator:
        operator.replicaof("NO", "ONE")


@pytest.mark.fault(49)
@pytest.mark.processes
def test_a_demoted_server_is_waited_for_until_it_leads_again(
    crew: Crew, own_server: OwnServer, other_server: OwnServer
) -> None:
    # given a run at work, and a replica in step
    learner, (actor,) = crew.at_work()
    generation = crew.books()["generation"]
    follow(other_server, own_server)

    # when the replica is promoted and the server demoted
    lead(other_server)
    follow(own_server, other_server)

    # then both programs say so, and wait
    learner.says("is a replica now")
    actor.says("is a replica now")

    # and when it leads again, they go on where they were
    lead(own_server)
    crew.goes_on()
    assert crew.ends_well()["generation"] == generation


@pytest.mark.fault(49)
@pytest.mark.processes
def test_a_server_that_followed_an_empty_one_is_a_new_beginning(
    crew: Crew, own_server: OwnServer, other_server: OwnServer
) -> None:
    # given a run at work
    learner, _ = crew.at_work()
    generation = crew.books()["generation"]

    # when its server becomes the replica of an empty one, and leads again
    follow(own_server, other_server)
    with own_server.client() as operator:
        assert operator.dbsize() == 0
    lead(own_server)

    # then the learner says that the run was lost and opens it again, with new books
    learner.says("OPENING THE RUN AGAIN")
    crew.goes_on()
    assert crew.ends_well()["generation"] != generation


@pytest.mark.fault(49)
@pytest.mark.processes
def test_programs_follow_an_address_that_moves_to_the_promoted_replica(
    programs: Programs, behind: Crew, proxy: Proxy, own_server: OwnServer, other_server: OwnServer
) -> None:
    # given a run at work behind an address, and a replica in step
    behind.at_work()
    follow(other_server, own_server)

    # when the replica is promoted and the address leads to it, while connections stay open
    lead(other_server)
    proxy._target_port = other_server.port
    follow(own_server, other_server)

    # then the programs leave the old server for the new one
    Crew(programs, other_server.url, behind.run).goes_on()
    behind.ends_well()
