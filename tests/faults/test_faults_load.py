"""Many connections, too many, and readers that never read.

Each test is a row of the fault matrix (docs/reliability.md). The many actors are real links
(`common.acting.courier`) of real connections; only their environments are left out, to leave the
machine to the network.
"""

import logging
import multiprocessing
import resource
import signal
import socket
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from chaos.crew import PROGRESS_S, Crew
from chaos.servers import OwnServer
from impala_redis.common.acting.courier import Courier
from impala_redis.common.blocks import wire
from impala_redis.common.blocks.trajectory import Block, Origin, empty_trajectory
from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Settled
from impala_redis.common.transport.monitor import MonitorLink, residual
from support import Programs, eventually

log = logging.getLogger(__name__)

# Actors in one process: many more would wait for its interpreter and not for Redis.
CROWD = 200
# As few as 200 in the fast tier, and the row's 1,000.
MANY = [1, pytest.param(5, marks=pytest.mark.full)]
SMALL = (
    *("--envs-per-actor", "1", "--unroll-length", "5", "--batch-size", "32"),
    *("--queue-blocks", "64"),
)


class Crowd:
    """The links of `CROWD` actors to one run, each with a block to push every second."""

    def __init__(self, url: str, run: str, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=carry, args=(theirs, url, run, number), name=f"crowd-{number}", daemon=True
        )
        self._process.start()

    def accepted(self) -> list[int]:
        """For each actor, how many of its blocks Redis has taken."""
        return self._ask("accepted")

    def failures(self) -> list[str]:
        """What ended a link though nobody had asked for it."""
        return self._ask("failures")

    def close(self) -> None:
        """Ends the links in order, and the process."""
        self._ask("close")
        self._process.join(20)
        assert self._process.exitcode == 0

    def kill(self) -> None:
        """Ends the process whatever it does."""
        self._process.kill()
        self._process.join(20)

    def _ask(self, question: str) -> Any:
        self._pipe.send(question)
        assert self._pipe.poll(30), f"the crowd does not answer {question!r}"
        return self._pipe.recv()


def carry(pipe: Connection, url: str, run: str, number: int) -> None:
    """The crowd's process: links that push and beat, until asked to close."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    look = ActorLink(url, run, "actor")
    spec_reply, weights_reply = look.read_spec(), look.read_weights()
    assert spec_reply is not None
    assert weights_reply is not None
    spec = RunSpec.from_json(spec_reply.json)
    fresh = VersionedWeights(*wire.unpack_weights(weights_reply.message, spec))
    couriers, blocks = [], []
    for i in range(CROWD):
        origin = Origin(f"crowd-{number}-{i}", number + 1, 0, fresh.version)
        link = ActorLink(url, run, "actor")
        couriers.append(Courier(link, spec, spec_reply.digest, origin.actor, lambda: {"frames": 1}))
        blocks.append(some_block(spec, origin))
        couriers[-1].start(fresh)
    pushing = threading.Event()
    threading.Thread(target=push_for_ever, args=(couriers, blocks, pushing), daemon=True).start()
    while (question := pipe.recv()) != "close":
        if question == "accepted":
            pipe.send([courier.accepted for courier in couriers])
        else:
            pipe.send([repr(c.failure or "over") for c in couriers if c.over])
    pushing.set()
    closing = [threading.Thread(target=courier.close, args=(2.0,)) for courier in couriers]
    for thread in closing:
        thread.start()
    for thread in closing:
        thread.join()
    pipe.send(None)


def push_for_ever(couriers: list[Courier], blocks: list[Block], stop: threading.Event) -> None:
    """Gives each link a block a second, one after the other."""
    while not stop.is_set():
        for courier, block in zip(couriers, blocks, strict=True):
            courier.hand_over(block)
            stop.wait(1 / CROWD)


def some_block(spec: RunSpec, origin: Origin) -> Block:
    """A valid block in which nothing happens."""
    rows = empty_trajectory(spec, spec.envs_per_actor)
    for array in rows:
        array.fill(0)
    rows.mask.fill(True)
    return Block(origin, rows, (), 0.01)


@pytest.fixture(autouse=True)
def _files() -> Iterator[None]:
    """A thousand connections of each process; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    """A server as the documentation wants it for many actors."""
    options = ("--maxclients", "4096", "--tcp-backlog", "4096", "--tcp-keepalive", "60")
    with OwnServer(tmp_path, *options) as running:
        yield running


@pytest.fixture
def crew(programs: Programs, server: OwnServer, run_name: str) -> Crew:
    return Crew(programs, server.url, run_name)


def crowds(stack: ExitStack, count: int, url: str, run: str) -> list[Crowd]:
    """That many crowds, all of their links at work."""
    made = [Crowd(url, run, number) for number in range(count)]
    for crowd in made:
        stack.callback(crowd.kill)
    for crowd in made:
        eventually(lambda crowd=crowd: min(crowd.accepted()) > 0, what="everyone's first push")
    return made


def all_pushed_since(before: list[list[int]], many: list[Crowd]) -> bool:
    """Whether every actor of the crowds has got a block through since then."""
    return all(
        now > then
        for crowd, counts in zip(many, before, strict=True)
        for now, then in zip(crowd.accepted(), counts, strict=True)
    )


# Row 42.


@pytest.mark.fault(42)
@pytest.mark.parametrize("count", MANY)
def test_with_many_actors_the_learner_still_claims_without_delay(
    server: OwnServer, run_name: str, count: int
) -> None:
    # given a run, with a learner's side that takes what comes, and many actors
    spec = RunSpec(
        run=run_name,
        env="Test-v0",
        observation=ObservationSpec((4,), "float32"),
        action=discrete(2),
        hidden_sizes=(8,),
        activation="tanh",
        unroll_length=20,
        envs_per_actor=8,
        queue_blocks=64,
        max_policy_age_s=600.0,
        seed=0,
    )
    shapes = spec.parameter_shapes()
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    learner = LearnerLink(server.url, run_name, "learner", 60.0)
    learner.open()
    learner.publish(1, wire.pack_weights(weights, 1, spec))
    learner.announce(spec.to_json(), spec.fingerprint, "running")
    with ExitStack() as stack:
        many = crowds(stack, count, server.url, run_name)
        before = [crowd.accepted() for crowd in many]

        # when the learner claims for three seconds (a minute in the full tier)
        took_s, settled = [], Settled()
        until = time.monotonic() + (3 if count == 1 else 60)
        while time.monotonic() < until:
            started = time.perf_counter()
            blocks, _ = learner.settle_and_claim(settled, 4)
            took_s.append(time.perf_counter() - started)
            settled = Settled(consumed=len(blocks))
            time.sleep(0.002)

        # then no claim waits, every actor is served, every one is listed, and none fell out
        p50, p99 = statistics.median(took_s), statistics.quantiles(took_s, n=100)[98]
        log.warning(
            "%d actors: claims p50 %.1f ms, p99 %.1f ms, max %.0f ms",
            *(count * CROWD, p50 * 1e3, p99 * 1e3, max(took_s) * 1e3),
        )
        assert p99 < 0.5
        eventually(lambda: all_pushed_since(before, many), PROGRESS_S, "everyone's next push")
        look = MonitorLink(server.url, run_name, "test")
        eventually(lambda: len(look.read_actors()) == count * CROWD, PROGRESS_S, "all are listed")
        assert residual(look.read_books()) == 0
        look.close()
        assert not [failure for crowd in many for failure in crowd.failures()]
        with server.client() as operator:
            assert operator.info("stats")["rejected_connections"] == 0
        for crowd in many:
            crowd.close()
    learner.close()


# Row 43.


@pytest.mark.fault(43)
@pytest.mark.processes
@pytest.mark.timed
@pytest.mark.parametrize("count", MANY)
def test_after_a_restart_of_the_server_all_are_back_in_time_and_not_at_once(
    crew: Crew, server: OwnServer, count: int
) -> None:
    # given a run at work with many actors
    crew.learner(*SMALL).says("ready")
    with ExitStack() as stack:
        many = crowds(stack, count, server.url, crew.run)

        # when the server is away for a while, and comes back without its memory
        server.stop()
        time.sleep(2.0)

        # then each actor has pushed again within the time, and no connection was turned away,
        back_s, most = start_and_watch(server, many)
        log.warning("%d actors: back in %.1f s, at most %.0f in 0.1 s", count * CROWD, back_s, most)
        with server.client() as operator:
            assert operator.info("stats")["rejected_connections"] == 0
        assert not [failure for crowd in many for failure in crowd.failures()]
        # and they came one after the other: by their jitter, over half a second or more
        assert most < count * CROWD / 2
        crew.goes_on()
        for crowd in many:
            crowd.close()
    crew.ends_well()


def start_and_watch(server: OwnServer, many: list[Crowd]) -> tuple[float, float]:
    """Seconds until all have pushed again, and the most connections that were made in 0.1 s."""
    before = [crowd.accepted() for crowd in many]
    counts = deque([(time.monotonic(), 0)])
    server.start()
    started = time.monotonic()
    most, look_at = 0.0, started + 0.5
    with server.client() as operator:
        while True:
            now = time.monotonic()
            counts.append((now, operator.info("stats")["total_connections_received"]))
            while len(counts) > 2 and counts[1][0] <= now - 0.1:
                counts.popleft()
            seconds, connections = now - counts[0][0], counts[-1][1] - counts[0][1]
            most = max(most, connections * min(1.0, 0.1 / seconds))
            if now >= look_at:
                if all_pushed_since(before, many):
                    return now - started, most
                assert now - started < PROGRESS_S, "some are not back"
                look_at = time.monotonic() + 0.2
            time.sleep(0.01)


# Row 44.


@pytest.mark.fault(44)
@pytest.mark.processes
def test_who_finds_no_free_connection_says_so_and_waits_for_one(
    crew: Crew, server: OwnServer
) -> None:
    # given a run at work, and a server that takes no more clients
    learner, (actor,) = crew.at_work()
    with server.client() as operator:
        operator.config_set("maxclients", 1)

        # when one more actor comes, and someone asks for the status
        late = crew.actor()
        code, status = crew.status()

        # then both are told why, the one waits, and those who are in go on
        assert code == 4
        assert "max number of clients reached" in status
        late.says("max number of clients reached")
        consumed = int(operator.hget(crew.keys.stats, "consumed"))
        eventually(lambda: int(operator.hget(crew.keys.stats, "consumed")) > consumed + 20)

        # and when all are thrown out and nobody is let in
        operator.client_kill_filter(_type="normal", skipme=True)
        eventually(lambda: operator.info("stats")["rejected_connections"] > 3)

        # then there is room for all as soon as the limit is raised
        operator.config_set("maxclients", 1000)
    late.says("joined")
    crew.goes_on()
    crew.unharmed(learner, actor, late)
    crew.ends_well()


# Row 17.


@pytest.mark.fault(17)
@pytest.mark.processes
def test_readers_that_never_read_are_thrown_out_and_pushes_go_on(
    crew: Crew, server: OwnServer
) -> None:
    # given a run at work, with weights of 270 KB, on a server of 64 MB
    with server.client() as operator:
        operator.config_set("maxmemory", "64mb")
        learner, (actor,) = crew.at_work(1, "--hidden-sizes", "256,256")

        # when 32 clients ask for the weights 48 times each and never read: 400 MB
        with stalled_readers(server, crew, operator):
            # then a server without a limit for them is full, and the actor is told so
            actor.says("cannot take commands now")

            # but when one is set, the server throws the largest out, and pushes go on
            operator.config_set("maxmemory-clients", "25%")
            crew.goes_on()
            thrown_out = operator.info("stats")["evicted_clients"]
            assert thrown_out > 0
        actor.says("Redis is back")

        # and with the limit set beforehand, the next readers disturb nobody
        refusals = actor.output.count("cannot take commands now")
        with stalled_readers(server, crew, operator):
            crew.goes_on()
            assert operator.info("stats")["evicted_clients"] > thrown_out
        assert actor.output.count("cannot take commands now") == refusals
    crew.unharmed(learner, actor)
    crew.ends_well()


@contextmanager
def stalled_readers(server: OwnServer, crew: Crew, operator: redis.Redis) -> Iterator[None]:
    """32 clients that ask for the weights 48 times each, and do not read as long as this lasts."""
    payload = operator.hget(crew.keys.weights, "payload")
    assert payload is not None
    assert len(payload) > 250_000
    with ExitStack() as stack:
        for _ in range(32):
            reader = stack.enter_context(socket.socket())
            # Or the kernel would take megabytes for a reader that does not.
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", server.port))
            reader.sendall(f"HGET {crew.keys.weights} payload\r\n".encode() * 48)
        yield
