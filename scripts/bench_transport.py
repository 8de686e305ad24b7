"""Measures the transport under load on this machine: queue, weights, cold start, storm, hand-over.

    .venv/bin/python scripts/bench_transport.py [--only L1,actors] [--seconds 10] [--repeat 1]

Each part has a server of its own, over TCP, a real learner at work on it, and real blocks.
The loads are those of the targets, made for four cores; only the target of throughput is scaled by
this machine's cores. `others_cores` says how many of them other programs had meanwhile: above 0.2
or so, times are theirs too. Of several repeats the median is judged. The last line is JSON.
"""

import functools
import hashlib
import json
import logging
import os
import platform
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import redis
from rich.console import Console
from threadpoolctl import threadpool_limits

import load
from common import wire
from common.acting import Actor
from common.courier import Courier, Fresh
from common.envs import VectorEnvironment
from common.monitor import MonitorSide, residual
from common.spec import RunSpec
from common.transport import ActorSide, Side
from load import RUN, Crew, Server
from swarm import swarm
from targets import Target, judged, table
from workers import runtime

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# The targets are made for four cores.
SCALE = min(1.0, CORES / 4)
ATARI = ((84, 84, 4), "uint8")
# Windows of each trouble that an actor plays through.
ROUNDS = 3
Figures = dict[str, float]


class Bench(NamedTuple):
    """How long, and how much of the targets' load."""

    seconds: float
    load: float
    folder: Path

    def many(self, count: int) -> int:
        """A count of the targets, scaled by --load."""
        return max(2, round(count * self.load))

    @property
    def moment_s(self) -> float:
        """A second, or less for a quick look."""
        return min(1.0, self.seconds)

    @contextmanager
    def stage(
        self, spec: RunSpec, credits: int | None = None, **learning: Any
    ) -> Iterator["Stage"]:
        """A fresh server, a learner at work on it, and room for a crew."""
        with Server(self.folder) as server, Crew(credits) as crew:
            learned = crew.start(load.learn, server.url, spec, crew, **learning)
            if not crew.ready.wait(60):
                raise RuntimeError("the learner did not open the run")
            yield Stage(server, crew, spec, learned)


class Stage(NamedTuple):
    """A server and those who work it."""

    server: Server
    crew: Crew
    spec: RunSpec
    learned: Callable[[], dict[str, Any]]

    def produce(self, name: str, actors: int, seconds: float, every_s: float = 0.0) -> Any:
        """Starts actors that push; returns a function that waits for what they measured."""
        names = [f"{name}-{index}" for index in range(actors)]
        return self.crew.start(
            load.produce, self.server.url, self.spec, self.crew, names, seconds, every_s
        )

    def end(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Stops all roles; what the learner measured, and the books."""
        self.crew.stop.set()
        learned = self.learned()
        with closing(MonitorSide(self.server.url, RUN, "bench")) as monitor:
            return learned, monitor.read_books()


def spread(name: str, values: list[float]) -> Figures:
    """Median, 99th percentile and maximum."""
    ordered = sorted(values)
    return {
        f"{name}_p50_ms": statistics.median(ordered),
        f"{name}_p99_ms": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        f"{name}_max_ms": ordered[-1],
    }


def steady_pushes(bench: Bench) -> Figures:
    """64 actors push ten blocks of 64 KiB a second each."""
    with bench.stage(load.spec_of_size(65_536, queue_blocks=256)) as stage:
        produced = stage.produce("actor", bench.many(64), bench.seconds, every_s=0.1)()
        learned, books = stage.end()
    return {
        "blocks_per_s": len(produced["push_ms"]) / bench.seconds,
        **spread("push", produced["push_ms"]),
        **spread("claim", learned["claim_ms"]),
        "failed": len(produced["failed"]),
        "residual": residual(books),
        "dropped": books["dropped_oldest"],
    }


def many_connections(bench: Bench) -> Figures:
    """1,000 connections push 100 KB once a second each, and beat."""
    clients, expires_s = bench.many(1000), max(2.0, min(5.0, bench.seconds / 3))
    with bench.stage(load.spec_of_size(100_000, queue_blocks=256)) as stage:
        server, crew = stage.server, stage.crew
        swarmed = crew.start(
            swarm, server.url, stage.spec, crew, clients, expires_s, bench.moment_s
        )
        time.sleep(1.5 * bench.moment_s + bench.seconds)  # in the first moment they connect
        with closing(MonitorSide(server.url, RUN, "bench")) as monitor:
            alive = len(monitor.read_actors())
        learned, books = stage.end()
        told = swarmed()
    return {
        "connections": clients,
        "blocks_per_s": len(told["push_ms"]) / told["seconds"],
        **spread("push", told["push_ms"]),
        **spread("claim", learned["claim_ms"]),
        "heartbeats_missing": clients - alive,
        "retries": told["retries"],
        "residual": residual(books),
        "dropped": books["dropped_oldest"],
    }


def saturation(bench: Bench) -> Figures:
    """As much as can be pushed, with a learner that takes a third."""
    queue_blocks, most, processes, threads = 32, 8, 2, 4
    spec = load.spec_of(*ATARI, envs=1, queue_blocks=queue_blocks)
    nbytes = len(load.frame_of(spec))
    # In the list, claimed, on the way to the learner, and on the way from each actor.
    need = (queue_blocks + most + most + processes * threads) * nbytes
    with bench.stage(spec, most=most, share=1 / 3) as stage:
        before = stage.server.info("memory")["used_memory"]
        pushing = [stage.produce(f"p{i}", threads, bench.seconds) for i in range(processes)]
        produced = [pushed() for pushed in pushing]
        memory = stage.server.info("memory")
        learned, books = stage.end()
    consumed, offered = learned["consumed"], sum(len(p["push_ms"]) for p in produced)
    return {
        "offered_mb_per_s": offered * nbytes / bench.seconds / 1e6,
        "taken_share": consumed / offered,
        **spread("push", [ms for p in produced for ms in p["push_ms"]]),
        "memory_peak_mb": (memory["used_memory_peak"] - before) / 1e6,
        "memory_of_need": (memory["used_memory_peak"] - before) / need,
        "interpreter_mb": memory.get("used_memory_vm_total", 0) / 1e6,
        "resident_mb": memory["used_memory_rss"] / 1e6,
        "unexplained": books["dropped_oldest"] - (offered - consumed - books["queued"]),
        "residual": residual(books),
        "timeouts": sum(len(p["failed"]) for p in produced),
    }


def big_weights(bench: Bench) -> Figures:
    """A bystander's PING while 64 readers fetch 10 MB, and while 8 fetch 100 MB."""
    return {
        **_weights(bench, "10mb", 10_000_000, bench.many(64), bench.seconds, every_s=5.0),
        **_weights(bench, "100mb", 100_000_000, bench.many(8), bench.seconds / 3, every_s=0.0),
    }


def _weights(
    bench: Bench, name: str, nbytes: int, readers: int, seconds: float, every_s: float
) -> Figures:
    nbytes = round(nbytes * bench.load)
    spec = load.spec_of((4,), "float32", envs=32, queue_blocks=4, weights_nbytes=nbytes)
    with bench.stage(spec, publish_every_s=min(1.0, seconds / 3)) as stage:
        url, ping_ms = stage.server.url, []
        read = stage.crew.start(load.read_weights, url, readers, seconds, every_s)
        with closing(Side(url, RUN, "bystander")) as bystander:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                ping_ms.append(load.timed_ms(bystander.ping))
                time.sleep(0.002)
        figures, (learned, _) = read(), stage.end()
    return {
        **spread(f"ping_{name}", ping_ms),
        f"publish_{name}_max_ms": max(learned["publish_ms"]),
        f"read_{name}_p50_ms": statistics.median(figures["read_ms"]),
        f"read_{name}_mb_per_s": len(figures["read_ms"]) * nbytes / seconds / 1e6,
        f"failed_{name}": len(figures["failed"]),
    }


def atari_blocks(bench: Bench) -> Figures:
    """Blocks of 84x84x4 frames end to end, as fast as one server carries them."""
    return {**_end_to_end(bench, 1), **_end_to_end(bench, 4)}


def _end_to_end(bench: Bench, envs: int) -> Figures:
    spec = load.spec_of(*ATARI, envs=envs, queue_blocks=8)
    frame, seconds = load.frame_of(spec), bench.seconds / 2
    # As many credits as the queue has room: nothing is pushed only to be dropped.
    with bench.stage(spec, credits=spec.queue_blocks, most=4) as stage:
        produced = stage.produce("actor", 4, seconds)()
        learned, books = stage.end()
    unpack_ms = [load.timed_ms(lambda: wire.unpack_block(frame, spec)) for _ in range(50)]
    return {
        f"blocks_per_s_n{envs}": learned["consumed"] / seconds,
        f"mb_per_s_n{envs}": learned["consumed"] * len(frame) / seconds / 1e6,
        f"push_p50_ms_n{envs}": statistics.median(produced["push_ms"]),
        f"claim_p50_ms_n{envs}": statistics.median(learned["claim_ms"]),
        f"unpack_ms_n{envs}": statistics.median(unpack_ms),
        f"dropped_n{envs}": books["dropped_oldest"],
        f"residual_n{envs}": residual(books),
    }


def cold_start_and_storm(bench: Bench) -> Figures:
    """256 actors join at once; 1,000 come back after the server was killed."""
    clients, joining = bench.many(1000), bench.many(256)
    with bench.stage(load.spec_of((4,), "float32", envs=32, queue_blocks=256)) as stage:
        server, crew = stage.server, stage.crew
        joined = crew.start(load.join, server.url, stage.spec, joining)()
        swarmed = crew.start(swarm, server.url, stage.spec, crew, clients, 10.0, bench.moment_s)
        time.sleep(2.5 * bench.moment_s)  # each has pushed
        connected = server.info("clients")["connected_clients"]
        server.kill()
        time.sleep(bench.moment_s)  # each has noticed
        crew.restarted_at.value = time.monotonic()
        server.start()
        told, _ = swarmed(), stage.end()
    return {
        "cold_start_s": max(joined["joined_s"]),
        "connected_before": connected,
        "storm_median_s": statistics.median(told["back_s"]),
        "storm_s": max(told["back_s"]),
        "retries_per_client": told["retries"] / clients,
    }


def actors_never_block(bench: Bench) -> Figures:
    """A real actor's hand-over and steps/s: Redis healthy, frozen, healthy, dead, and again."""
    runtime.share_the_interpreter()
    spec = load.spec_of((4,), "float32", envs=32, queue_blocks=4)
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
        incarnation, first = secrets.randbits(62), Fresh(1, load.weights_of(spec))
        environment = VectorEnvironment("CartPole-v1", spec.envs_per_actor)
        self._side = ActorSide(url, RUN, "actor")
        self._actor = Actor(spec, environment, "bench", incarnation)
        self._actor.policy.load(*first)
        digest = hashlib.sha256(spec.to_json().encode()).hexdigest()
        producer = f"bench#{incarnation}"
        self.courier = Courier(self._side, spec, digest, producer, lambda: load.FIGURES)
        self.courier.start(first)

    def play(self, seconds: float, hand_over_ms: list[float]) -> float:
        """The actor's loop, as in `ActorProgram._act`; returns steps/s."""
        began, frames = time.perf_counter(), self._actor.frames
        while time.perf_counter() - began < seconds:
            fresh = self.courier.take_weights()
            if fresh is not None:
                self._actor.policy.load(*fresh)
            hand_over = functools.partial(self.courier.hand_over, self._actor.unroll())
            hand_over_ms.append(load.timed_ms(hand_over))
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
        self._side.close()


PARTS: dict[str, tuple[Callable[[Bench], Figures], list[Target]]] = {
    "L1": (
        steady_pushes,
        [
            Target("push_p99_ms", "64 actors, 640 x 64 KiB/s: push, p99", limit=20),
            Target("residual", "blocks not in the books", "==", unit="blocks"),
            Target("dropped", "dropped, the learner keeping up", "==", unit="blocks"),
        ],
    ),
    "L2": (
        many_connections,
        [
            Target("push_p99_ms", "1,000 connections, 100 MB/s: push, p99", limit=250),
            Target("claim_p99_ms", "the learner's claim of up to 32, p99", limit=100),
            Target("heartbeats_missing", "actors not listed at the end", "==", unit="actors"),
        ],
    ),
    "L3": (
        saturation,
        [
            Target("memory_of_need", "saturated: memory's peak of bound", limit=1.3, unit="x"),
            Target("unexplained", "dropped - (offered - consumed - queued)", "==", unit="blocks"),
            Target("timeouts", "pushes without an answer", "==", unit="pushes"),
        ],
    ),
    "L4": (
        big_weights,
        [
            Target("ping_10mb_p99_ms", "10 MB/s to 64 readers: PING, p99", limit=50),
            Target("ping_100mb_max_ms", "100 MB to 8 readers: PING, worst", limit=1500),
        ],
    ),
    "L5": (
        atari_blocks,
        [Target("blocks_per_s_n1", "Atari blocks end to end", ">=", 600 * SCALE, "blocks/s")],
    ),
    "L6": (
        cold_start_and_storm,
        [
            Target("cold_start_s", "256 actors join", limit=10, unit="s"),
            Target("storm_s", "1,000 come back after a restart", limit=15, unit="s"),
        ],
    ),
    "actors": (
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


def machine(folder: Path) -> dict[str, Any]:
    """What the figures were measured on, and with."""
    with Server(folder) as server:
        info = server.info("server")
    name = "valkey" if "valkey_version" in info else "redis"
    return {
        "cores": CORES,
        "server": f"{name} {info[f'{name}_version']}",
        "redis_py": redis.__version__,
        "python": platform.python_version(),
    }


def measured(part: str, bench: Bench) -> Figures:
    """The part's figures, and how many cores other programs had meanwhile."""
    (all_before, ours_before), before = load.cpu_s(), time.monotonic()
    figures = PARTS[part][0](bench)
    (all_after, ours_after), seconds = load.cpu_s(), time.monotonic() - before
    others_s = (all_after - all_before) - (ours_after - ours_before)
    return figures | {"others_cores": max(0.0, others_s / seconds), "part_s": seconds}


def chosen_parts(context: click.Context, option: click.Parameter, text: str) -> list[str]:
    """The parts that --only names."""
    parts = [part.strip() for part in text.split(",")]
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise click.BadParameter(f"no part {', '.join(sorted(unknown))}")
    return parts


@click.command(help=__doc__, context_settings=runtime.CONTEXT)
@click.option("--only", default=",".join(PARTS), callback=chosen_parts, help="Parts to measure.")
@click.option("--seconds", default=10.0, help="How long each load lasts.")
@click.option("--repeat", default=1, help="How often each part is measured.")
@click.option("--load", "share", default=1.0, help="Share of the targets' load: for a quick look.")
@click.option("--json", "only_json", is_flag=True, help="No table, only the line of JSON.")
def main(only: list[str], seconds: float, repeat: int, share: float, only_json: bool) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.getLogger("common").setLevel(logging.ERROR)  # that Redis is away is meant
    load.raise_open_files()
    figures: dict[str, dict[str, list[float]]] = {}
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(seconds, share, Path(folder))
        about = machine(bench.folder)
        about |= {"scale": SCALE, "seconds": seconds, "repeat": repeat, "load": share}
        try:
            for part in only:
                click.echo(f"{part}: {PARTS[part][0].__doc__}", err=True)
                runs = [measured(part, bench) for _ in range(repeat)]
                figures[part] = {name: [round(run[name], 4) for run in runs] for name in runs[0]}
        except KeyboardInterrupt:
            code = 130
    rows = [
        judged(part, target, figures[part][target.figure])
        for part in figures
        for target in PARTS[part][1]
    ]
    if not only_json:
        Console(width=None if sys.stdout.isatty() else 110).print(table(rows, figures, repeat))
        print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(json.dumps({"about": about, "figures": figures, "targets": rows}))
    sys.exit(code)


if __name__ == "__main__":
    main()
