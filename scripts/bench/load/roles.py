"""Load for the transport, for bench_transport.py: real blocks, and the roles of a `crew.Crew`.

Actors push and a learner claims through the real transport. `bench.load.swarm` plays a thousand
actors, and `bench.load.flood` pushes as much as a thousand could.
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from bench.load.crew import LIMIT_S, Crew, Figures
from impala_redis.common.acting.courier import BEAT_EXPIRES_S
from impala_redis.common.acting.parcels import TOGETHER_BYTES
from impala_redis.common.blocks import wire
from impala_redis.common.blocks.trajectory import Block, Origin, empty_trajectory
from impala_redis.common.errors import ImpalaError, OutOfStep, RedisUnreachable, RunMissing
from impala_redis.common.feeding.rhythm import FIRST_PAUSE_S, LAST_PAUSE_S
from impala_redis.common.presets.table import preset
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec, make_spec
from impala_redis.common.server.backoff import keep_trying
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Settled
from impala_redis.common.transport.link import Link
from impala_redis.common.transport.monitor import MonitorLink

RUN = "bench"
# An actor that is not back this long after a restart is not waited for.
STORM_LIMIT_S = 60.0
# As many fields as an actor's heartbeat has.
FIGURES = {f"figure_{index}": 123_456 for index in range(13)}


def spec_of(
    shape: tuple[int, ...], dtype: str, envs: int, queue_blocks: int, weights_nbytes: int = 20_000
) -> RunSpec:
    """The spec of a run with T=20; its weights have about `weights_nbytes`."""
    spec = make_spec(RUN, preset("cartpole"), ObservationSpec(shape, dtype), discrete(2))
    width = max(1, round((weights_nbytes / 4) ** 0.5))
    return replace(
        spec, envs_per_actor=envs, queue_blocks=queue_blocks, hidden_sizes=(width, width)
    )


def spec_of_size(block_nbytes: int, queue_blocks: int) -> RunSpec:
    """The spec of a run of one environment; a block's message has about `block_nbytes`."""
    return spec_of((max(1, (block_nbytes - 700) // 21),), "uint8", 1, queue_blocks)


def message_of(spec: RunSpec) -> bytes:
    """A real block of that run, as bytes on the wire."""
    rows = empty_trajectory(spec, spec.envs_per_actor)
    for array in rows:
        array.fill(0)
    return wire.pack_block(Block(Origin("bench", 1, 1, 1), rows, (), 0.0), spec)


def weights_of(spec: RunSpec) -> wire.Weights:
    """Some weights of that run's network."""
    rng = np.random.default_rng(0)
    return {
        name: (rng.standard_normal(shape, np.float32) * np.float32(0.1))
        for name, shape in spec.parameter_shapes().items()
    }


# The roles. Latencies are in ms.


def learn(
    url: str,
    spec: RunSpec,
    crew: Crew,
    *,
    most: int = 32,
    share: float = 1.0,
    publish_every_s: float = LIMIT_S,
) -> Figures:
    """A learner that claims and commits until `crew.stop`, at most a share of what is produced."""
    learner = LoadedLearner(url, spec, most=most, share=share, publish_every_s=publish_every_s)
    until = time.monotonic() + LIMIT_S
    while not crew.stop.is_set() and time.monotonic() < until:
        crew.learner_cpu_s.value = time.process_time()
        try:
            if learner.publish_what_is_due():
                crew.ready.set()
            claimed = learner.claim()
        except (RunMissing, OutOfStep):
            learner.is_open = False
        except RedisUnreachable:
            time.sleep(0.05 * random.uniform(0.5, 1.0))
        else:
            for _ in range(claimed if crew.credits else 0):
                crew.credits.release()
            learner.rest(claimed)
    learner.settle()
    return {
        "claim_ms": learner.claim_ms,
        "publish_ms": learner.publish_ms,
        "consumed": learner.consumed,
    }


class LoadedLearner:
    """What a learner asks of Redis: it opens the run, publishes, claims, and settles."""

    def __init__(
        self, url: str, spec: RunSpec, *, most: int, share: float, publish_every_s: float
    ) -> None:
        """`most` blocks are claimed at once, at most `share` of those produced."""
        self._link = LearnerLink(url, RUN, "bench", lease_s=60.0)
        self._monitor = MonitorLink(url, RUN, "bench")
        self._spec, self._most, self._share = spec, most, share
        self._publish_every_s, self._publish_at = publish_every_s, 0.0
        self._weights, self._version = wire.pack_weights(weights_of(spec), 1, spec), 0
        self._settled, self._produced, self._pause_s = Settled(), 0, FIRST_PAUSE_S
        self.is_open = False
        self.consumed = 0
        self.claim_ms: list[float] = []
        self.publish_ms: list[float] = []

    def publish_what_is_due(self) -> bool:
        """Opens the run if it is not open; publishes if it is time, and returns whether it was."""
        if not self.is_open:
            self._link.open(take_over=True)
            self._settled, self.is_open, self._publish_at = Settled(), True, 0.0
        if time.monotonic() < self._publish_at:
            return False
        self._version += 1
        self.publish_ms.append(timed_ms(lambda: self._link.publish(self._version, self._weights)))
        self._link.announce(self._spec.to_json(), self._spec.fingerprint, "running")
        self._publish_at = time.monotonic() + self._publish_every_s
        return True

    def claim(self) -> int:
        """Settles the blocks of the last claim, and claims more; returns how many came."""
        wanted = max(0, min(self._wanted(), self._most))
        started = time.perf_counter()
        messages, _ = self._link.settle_and_claim(self._settled, wanted)
        if messages:
            self.claim_ms.append((time.perf_counter() - started) * 1000)
        self.consumed += len(self._settled)
        self._settled = Settled(consumed=len(messages))
        return len(messages)

    def _wanted(self) -> int:
        if self._share >= 1.0:
            return self._most
        taken = self.consumed + len(self._settled)
        if self._share * self._produced - taken < self._most:
            self._produced = self._monitor.read_books()["produced"]
        return int(self._share * self._produced) - taken

    def rest(self, claimed: int) -> None:
        """Pauses, longer each time, while claims bring nothing."""
        if claimed:
            self._pause_s = FIRST_PAUSE_S
            return
        time.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, LAST_PAUSE_S)

    def settle(self) -> None:
        """Settles the blocks of the last claim, unless the run is lost."""
        with contextlib.suppress(RunMissing, OutOfStep):
            persistently(lambda: self._link.settle_and_claim(self._settled, 0))
            self.consumed += len(self._settled)


def produce(
    url: str,
    spec: RunSpec,
    crew: Crew,
    names: Sequence[str],
    seconds: float,
    every_s: float = 0.0,
) -> Figures:
    """Actors that push, each once in `every_s` (0: as fast as they can, or as credits allow)."""
    message, ready = message_of(spec), threading.Barrier(len(names))
    most = min(ActorLink.most_together, TOGETHER_BYTES // len(message))
    push_ms: list[float] = []
    failed: list[str] = []

    def actor(name: str) -> None:
        link = ActorLink(url, RUN, name)
        link.read_spec()  # connects
        ready.wait(60)
        sequence, due = 0, time.monotonic() + random.uniform(0, every_s)
        until = time.monotonic() + seconds
        while max(due, time.monotonic()) < until:
            time.sleep(max(0.0, due - time.monotonic()))
            if crew.credits and not crew.credits.acquire(timeout=1.0):
                continue
            number = 1  # and as many as a courier pushes together when they wait
            while crew.credits and number < most and crew.credits.acquire(block=False):
                number += 1
            due += every_s
            started = time.perf_counter()
            try:
                link.push_together(f"{name}#1", sequence + 1, [message] * number, spec.queue_blocks)
            except ImpalaError as error:
                failed.append(str(error))
            else:
                push_ms.append((time.perf_counter() - started) * 1000)
            sequence += number
        link.close()

    before_s = time.process_time()
    in_threads(actor, names)
    cpu_s = time.process_time() - before_s
    return {"push_ms": push_ms, "failed": failed, "cpu_s": cpu_s}


def join(url: str, spec: RunSpec, actors: int) -> Figures:
    """Actors that join at once: spec, weights, heartbeat, first push; how long each took."""
    message, names = message_of(spec), [f"actor-{index}" for index in range(actors)]
    ready, started = threading.Barrier(len(names)), 0.0

    def actor(name: str) -> float:
        nonlocal started
        if ready.wait(60) == 0:
            started = time.perf_counter()
        with contextlib.closing(ActorLink(url, RUN, name)) as link:
            persistently(lambda: enter(link, name))
        return time.perf_counter()

    def enter(link: ActorLink, name: str) -> None:
        link.read_spec()  # connects
        spec_reply, weights = link.read_spec(), link.read_weights()
        assert spec_reply is not None and weights is not None and weights.intact
        wire.unpack_weights(weights.message, RunSpec.from_json(spec_reply.json))
        link.is_listed(name)
        link.beat(name, FIGURES, BEAT_EXPIRES_S)
        link.push(f"{name}#1", 1, message, spec.queue_blocks)

    return {"joined_s": [at - started for at in in_threads(actor, names)]}


def read_weights(url: str, readers: int, seconds: float, every_s: float) -> Figures:
    """Readers that fetch and check the weights, each once in `every_s`, with jitter."""
    read_ms: list[float] = []
    failed: list[str] = []

    def reader(index: int) -> None:
        link, until = Link(url, RUN, f"reader-{index}"), time.monotonic() + seconds
        due = time.monotonic() + random.uniform(0, min(every_s, seconds))
        while due < until:
            time.sleep(max(0.0, due - time.monotonic()))
            started = time.perf_counter()
            try:
                reply = link.read_weights()
                read_ms.append((time.perf_counter() - started) * 1000)
                assert reply is not None and reply.intact
            except ImpalaError as error:
                failed.append(str(error))
            due = time.monotonic() + every_s * random.uniform(0.5, 1.5)
        link.close()

    in_threads(reader, range(readers))
    return {"read_ms": read_ms, "failed": failed}


def in_threads(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """What `work` returns for each item, each on a thread of its own."""
    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(work, items))


def persistently(attempt: Callable[[], object]) -> None:
    """Tries for half a minute, as programs do."""
    keep_trying(attempt, give_up_after_s=30.0, stopped=lambda: False, waiting=lambda _: None)


def timed_ms(call: Callable[[], object]) -> float:
    """How long a call takes, in ms."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000
