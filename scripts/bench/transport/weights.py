"""Weights: what large ones cost a bystander, and what new versions cost with many readers."""

import statistics
import time
from contextlib import closing

from bench.load import roles
from bench.load.roles import RUN
from bench.targets import Grid, Target
from bench.transport.stage import Bench, Figures, Part, spread
from impala_redis.common.blocks import wire
from impala_redis.common.transport.link import Link

# About 4,800 parameters (CartPole's network), and 1,600,000.
NETS = {"20kb": 20_000, "6mb": 6_500_000}
VERSIONS_PER_S = (1, 10)
READERS = (1, 10, 100)
# Seconds between two pushes of an actor; each asks for the version, too.
PUSH_EVERY_S = 0.1


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
    spec = roles.spec_of((4,), "float32", envs=32, queue_blocks=4, weights_nbytes=nbytes)
    with bench.stage(spec, publish_every_s=min(1.0, seconds / 3)) as stage:
        url, ping_ms = stage.server.url, []
        read = stage.crew.start(roles.read_weights, url, readers, seconds, every_s)
        with closing(Link(url, RUN, "bystander")) as bystander:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                ping_ms.append(roles.timed_ms(bystander.client.ping))
                time.sleep(0.002)
        figures, (learned, _) = read(), stage.end()
    return {
        **spread(f"ping_{name}", ping_ms),
        f"publish_{name}_max_ms": max(learned["publish_ms"]),
        f"read_{name}_p50_ms": statistics.median(figures["read_ms"]),
        f"read_{name}_mb_per_s": len(figures["read_ms"]) * nbytes / seconds / 1e6,
        f"failed_{name}": len(figures["failed"]),
    }


def fan_out(bench: Bench) -> Figures:
    """Actors push ten CartPole blocks a second each, and fetch the weights when they changed."""
    figures: Figures = {}
    for net, nbytes in NETS.items():
        spec = roles.spec_of((4,), "float32", envs=32, queue_blocks=256, weights_nbytes=nbytes)
        message_nbytes = len(wire.pack_weights(roles.weights_of(spec), 1, spec))
        for versions in VERSIONS_PER_S:
            seconds = bench.seconds if versions == 1 else bench.seconds / 2
            every_s = min(1 / versions, seconds / 3)
            with bench.stage(spec, publish_every_s=every_s) as stage:
                for readers in READERS:
                    row = f"{net}_{versions}hz_{readers}"
                    count = min(readers, bench.many(readers))
                    push_every_s = min(PUSH_EVERY_S, seconds / 5)
                    flood = stage.flood(row, count, seconds, every_s=push_every_s, fetch=True)
                    mb_per_s = flood["fetched_per_s"] * message_nbytes / 1e6
                    figures |= {
                        f"{row}_mb_per_s": mb_per_s,
                        f"{row}_published_per_s": flood["published_per_s"],
                        f"{row}_fetched_per_s": flood["fetched_per_s"] / count,
                        f"{row}_limit_mb_per_s": mb_per_s / max(flood["server_cores"], 1e-6),
                        f"{row}_server_cores": flood["server_cores"],
                        f"{row}_flood_cores": flood["flood_cores"],
                        f"{row}_fetch_p50_ms": statistics.median(flood["fetch_ms"] or [0.0]),
                        **spread(f"{row}_push", flood["push_ms"]),
                    }
                learned, _ = stage.end()
            figures[f"{net}_{versions}hz_publish_p50_ms"] = statistics.median(learned["publish_ms"])
    return figures


PARTS = {
    "L4": Part(
        big_weights,
        [
            Target("ping_10mb_p99_ms", "10 MB/s to 64 readers: PING, p99", limit=50),
            Target("ping_100mb_max_ms", "100 MB to 8 readers: PING, worst", limit=1500),
        ],
    ),
    "weights": Part(
        fan_out,
        [],
        Grid(
            "weights to many readers; the limit is a whole core of the server",
            {
                f"{net}_{versions}hz_{readers}": f"{words}, {versions}/s, {readers} readers"
                for net, words in zip(NETS, ("20 KB", "6.5 MB"), strict=True)
                for versions in VERSIONS_PER_S
                for readers in READERS
            },
            {
                "mb_per_s": "MB/s out",
                "published_per_s": "versions /s",
                "fetched_per_s": "each fetched",
                "push_p50_ms": "push p50 ms",
                "push_p99_ms": "p99 ms",
                "fetch_p50_ms": "fetch p50 ms",
                "limit_mb_per_s": "limit MB/s",
                "server_cores": "share",
                "flood_cores": "readers' cores",
            },
        ),
    ),
}
