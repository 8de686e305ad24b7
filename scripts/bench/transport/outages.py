"""What actors meet: joining, a server that freezes or dies, and a thousand reconnections."""

import functools
import hashlib
import secrets
import statistics
import time
from contextlib import closing

from threadpoolctl import threadpool_limits

from bench.load import roles
from bench.load.roles import RUN
from bench.load.swarm import swarm
from bench.targets import Target
from bench.transport.stage import Bench, Figures, Part, spread
from impala_redis.common.acting.courier import Courier
from impala_redis.common.acting.unroll import Actor
from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.workers import process

# An actor plays through each trouble this often.
ROUNDS = 3


def cold_start_and_storm(bench: Bench) -> Figures:
    """256 actors join at once; 1,000 come back after the server was killed."""
    clients, joining = bench.many(1000), bench.many(256)
    with bench.stage(roles.spec_of((4,), "float32", envs=32, queue_blocks=256)) as stage:
        server, crew = stage.server, stage.crew
        joined = crew.start(roles.join, server.url, stage.spec, joining)()
        swarmed = crew.start(swarm, server.url, stage.spec, crew, clients, 10.0, bench.moment_s)
        time.sleep(2.5 * bench.moment_s)  # each has pushed
        connected = server.info("clients")["connected_clients"]
        server.kill()
        time.sleep(bench.moment_s)  # each has noticed
        crew.restarted_at.value = time.monotonic()
        server.start()
        figures, _ = swarmed(), stage.end()
    return {
        "cold_start_s": max(joined["joined_s"]),
        "connected_before": connected,
        "storm_median_s": statistics.median(figures["back_s"]),
        "storm_s": max(figures["back_s"]),
        "retries_per_client": figures["retries"] / clients,
    }


def actors_never_block(bench: Bench) -> Figures:
    """A real actor's hand-over and steps/s: Redis healthy, frozen, healthy, dead, and again."""
    process.share_the_interpreter()
    spec = roles.spec_of((4,), "float32", envs=32, queue_blocks=4)
    hand_over_ms: dict[str, list[float]] = {"healthy": [], "frozen": [], "dead": []}
    ratios: dict[str, list[float]] = {"frozen": [], "dead": []}
    healthy_steps_per_s: list[float] = []
    with bench.stage(spec, publish_every_s=0.1) as stage, threadpool_limits(limits=1):
        server = stage.server
        troubles = {"frozen": (server.freeze, server.thaw), "dead": (server.kill, server.start)}
        with closing(PlayedActor(server.url, spec)) as actor:
            for trouble in [*troubles] * ROUNDS:
                begin, end = troubles[trouble]
                actor.play_until_accepted()
                healthy = actor.play(bench.seconds / 5, hand_over_ms["healthy"])
                begin()
                actor.play(bench.seconds / 20, hand_over_ms[trouble])
                ratios[trouble].append(
                    actor.play(bench.seconds / 5, hand_over_ms[trouble]) / healthy
                )
                end()
                healthy_steps_per_s.append(healthy)
            shed = actor.courier.shed_local
            actor.play_until_accepted()  # the learner has opened the run again
        stage.end()
    figures: Figures = {"steps_per_s": statistics.median(healthy_steps_per_s), "shed_local": shed}
    for state, values in hand_over_ms.items():
        figures |= spread(f"hand_over_{state}", values)
    for trouble, values in ratios.items():
        figures[f"steps_{trouble}"] = statistics.median(values)
        figures[f"steps_{trouble}_low"] = min(values)
        figures[f"steps_{trouble}_high"] = max(values)
    return figures


class PlayedActor:
    """A real actor and its courier, joined to the run as `workers.actor` joins."""

    def __init__(self, url: str, spec: RunSpec) -> None:
        incarnation, first = secrets.randbits(62), VersionedWeights(1, roles.weights_of(spec))
        environment = VectorEnvironment("CartPole-v1", spec.envs_per_actor)
        self._link = ActorLink(url, RUN, "actor")
        self._actor = Actor(spec, environment, "bench", incarnation)
        self._actor.policy.load(first.version, first.weights)
        digest = hashlib.sha256(spec.to_json().encode()).hexdigest()
        self.courier = Courier(self._link, spec, digest, "bench", lambda: roles.FIGURES)
        self.courier.start(first)

    def play(self, seconds: float, hand_over_ms: list[float]) -> float:
        """The actor's loop, as in `ActorProgram._act`; returns steps/s."""
        began, frames = time.perf_counter(), self._actor.frames
        while time.perf_counter() - began < seconds:
            fresh = self.courier.weights.take()
            if fresh is not None:
                self._actor.policy.load(fresh.version, fresh.weights)
            hand_over = functools.partial(self.courier.hand_over, self._actor.unroll())
            hand_over_ms.append(roles.timed_ms(hand_over))
        return (self._actor.frames - frames) / (time.perf_counter() - began)

    def play_until_accepted(self) -> None:
        """Plays on until Redis has taken some blocks."""
        goal, deadline = self.courier.accepted + 5, time.monotonic() + 20
        while self.courier.accepted < goal:
            if self.courier.over or time.monotonic() > deadline:
                raise RuntimeError(f"no block is accepted any more: {self.courier.failure}")
            self.play(0.05, [])

    def close(self) -> None:
        """Ends the courier."""
        self.courier.close(flush_s=0.0)
        self._link.close()


PARTS = {
    "L6": Part(
        cold_start_and_storm,
        [
            Target("cold_start_s", "256 actors join", limit=10, unit="s"),
            Target("storm_s", "1,000 come back after a restart", limit=15, unit="s"),
        ],
    ),
    "actors": Part(
        actors_never_block,
        [
            *(
                Target(
                    f"hand_over_{state}_{which}_ms", f"hand-over, Redis {state}: {which}", "<=", ms
                )
                for state in ("healthy", "frozen", "dead")
                for which, ms in (("p99", 1), ("max", 10))
            ),
            Target("steps_frozen", "steps/s, frozen of healthy", ">=", 0.95, "x"),
            Target("steps_dead", "steps/s, dead of healthy", ">=", 0.95, "x"),
        ],
    ),
}
