"""Pushes: steady ones, many connections, an overload, and Atari's blocks."""

import statistics
import time
from contextlib import closing

from bench.load import roles
from bench.load.roles import RUN
from bench.load.swarm import swarm
from bench.targets import Target
from bench.transport.stage import CORES, Bench, Figures, Part, spread
from impala_redis.common.blocks import wire
from impala_redis.common.transport.monitor import MonitorLink, residual

# The targets are made for four cores.
SCALE = min(1.0, CORES / 4)
ATARI = ((84, 84, 4), "uint8")


def steady_pushes(bench: Bench) -> Figures:
    """64 actors push ten blocks of 64 KiB a second each."""
    with bench.stage(roles.spec_of_size(65_536, queue_blocks=256)) as stage:
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
    with bench.stage(roles.spec_of_size(100_000, queue_blocks=256)) as stage:
        server, crew = stage.server, stage.crew
        swarmed = crew.start(
            swarm, server.url, stage.spec, crew, clients, expires_s, bench.moment_s
        )
        time.sleep(1.5 * bench.moment_s + bench.seconds)  # in the first moment they connect
        with closing(MonitorLink(server.url, RUN, "bench")) as monitor:
            alive = len(monitor.read_actors())
        learned, books = stage.end()
        figures = swarmed()
    return {
        "connections": clients,
        "blocks_per_s": len(figures["push_ms"]) / figures["seconds"],
        **spread("push", figures["push_ms"]),
        **spread("claim", learned["claim_ms"]),
        "heartbeats_missing": clients - alive,
        "retries": figures["retries"],
        "residual": residual(books),
        "dropped": books["dropped_oldest"],
    }


def overload(bench: Bench) -> Figures:
    """As much as can be pushed, with a learner that takes a third."""
    queue_blocks, most, processes, threads = 32, 8, 2, 4
    spec = roles.spec_of(*ATARI, envs=1, queue_blocks=queue_blocks)
    nbytes = len(roles.message_of(spec))
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


def atari_blocks(bench: Bench) -> Figures:
    """Blocks of 84x84x4 frames end to end, as fast as one server carries them."""
    return {**_end_to_end(bench, 1), **_end_to_end(bench, 4)}


def _end_to_end(bench: Bench, envs: int) -> Figures:
    spec = roles.spec_of(*ATARI, envs=envs, queue_blocks=8)
    message, seconds = roles.message_of(spec), bench.seconds / 2
    # No more credits than the queue has room for: nothing is pushed only to be dropped.
    with bench.stage(spec, credits=spec.queue_blocks, most=4) as stage:
        produced = stage.produce("actor", 4, seconds)()
        learned, books = stage.end()
    unpack_ms = [roles.timed_ms(lambda: wire.unpack_block(message, spec)) for _ in range(50)]
    return {
        f"blocks_per_s_n{envs}": learned["consumed"] / seconds,
        f"mb_per_s_n{envs}": learned["consumed"] * len(message) / seconds / 1e6,
        f"push_p50_ms_n{envs}": statistics.median(produced["push_ms"]),
        f"claim_p50_ms_n{envs}": statistics.median(learned["claim_ms"]),
        f"unpack_ms_n{envs}": statistics.median(unpack_ms),
        f"dropped_n{envs}": books["dropped_oldest"],
        f"residual_n{envs}": residual(books),
    }


PARTS = {
    "L1": Part(
        steady_pushes,
        [
            Target("push_p99_ms", "64 actors, 640 x 64 KiB/s: push, p99", limit=20),
            Target("residual", "blocks not in the books", "==", unit="blocks"),
            Target("dropped", "dropped, the learner keeping up", "==", unit="blocks"),
        ],
    ),
    "L2": Part(
        many_connections,
        [
            Target("push_p99_ms", "1,000 connections, 100 MB/s: push, p99", limit=250),
            Target("claim_p99_ms", "the learner's claim of up to 32, p99", limit=100),
            Target("heartbeats_missing", "actors not listed at the end", "==", unit="actors"),
        ],
    ),
    "L3": Part(
        overload,
        [
            Target("memory_of_need", "saturated: memory's peak of bound", limit=1.3, unit="x"),
            Target("unexplained", "dropped - (offered - consumed - queued)", "==", unit="blocks"),
            Target("timeouts", "pushes without an answer", "==", unit="pushes"),
        ],
    ),
    "L5": Part(
        atari_blocks,
        [Target("blocks_per_s_n1", "Atari blocks end to end", ">=", 600 * SCALE, "blocks/s")],
    ),
}
