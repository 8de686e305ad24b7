"""The limits of one server: blocks from more and more actors, as fast as it takes them."""

from typing import Any

from bench.load import roles
from bench.targets import Grid
from bench.transport.stage import Bench, Figures, Part, Stage, spread
from impala_redis.common.run.spec import RunSpec

ACTORS = (10, 100, 1000)
# The cost of a push alone does not depend on the number of actors.
ACTORS_ALONE = (100,)
# The list's length, and the most that a learner claims at once; fewer of the large blocks.
QUEUE_BLOCKS, MOST = 64, 32
FEW_BLOCKS, FEW = 16, 8


def specs() -> dict[str, RunSpec]:
    """The kinds of blocks, T=20: 32 CartPoles, a grey Atari screen, eight of them."""
    screen = (84, 84, 1)
    return {
        "cartpole": roles.spec_of((4,), "float32", envs=32, queue_blocks=QUEUE_BLOCKS),
        "atari": roles.spec_of(screen, "uint8", envs=1, queue_blocks=QUEUE_BLOCKS),
        "atari8": roles.spec_of(screen, "uint8", envs=8, queue_blocks=FEW_BLOCKS),
    }


def actors_of(kind: str) -> tuple[int, ...]:
    """Numbers of actors for a kind of blocks; a thousand with large ones are too many."""
    return ACTORS[:2] if kind == "atari8" else ACTORS


def saturation(bench: Bench) -> Figures:
    """Up to 1,000 actors push without a pause: each block is taken; none is; more than can be."""
    figures: Figures = {}
    for kind, spec in specs().items():
        most = FEW if kind == "atari8" else MOST
        with bench.stage(spec, spec.queue_blocks, most=most) as stage:
            for row, actors in rows_of(kind, "").items():
                figures |= flooded(bench, stage, row, actors, credits=stage.crew.credits)
            for row, actors in rows_of(kind, "_overload").items():
                figures |= flooded(bench, stage, row, actors)
            stage.end()
            for row, actors in rows_of(kind, "_alone").items():
                figures |= flooded(bench, stage, row, actors)
    return figures


def rows_of(kind: str, way: str) -> dict[str, int]:
    """Rows for a kind of blocks and a way of taking them, with the number of actors in each."""
    every = actors_of(kind)
    actors = {"": every, "_alone": ACTORS_ALONE, "_overload": every[-1:]}[way]
    return {f"{kind}_{count}{way}": count for count in actors}


def flooded(bench: Bench, stage: Stage, row: str, actors: int, credits: Any = None) -> Figures:
    """The figures of one row of the grid."""
    spec, nbytes = stage.spec, len(roles.message_of(stage.spec))
    figures = stage.flood(row, bench.many(actors), bench.seconds / 2, credits=credits)
    pushed_per_s = figures["pushed_per_s"]
    return {
        f"{row}_pushed_per_s": pushed_per_s,
        f"{row}_taken_per_s": figures["taken_per_s"],
        f"{row}_mb_per_s": pushed_per_s * nbytes / 1e6,
        f"{row}_frames_per_s": pushed_per_s * spec.unroll_length * spec.envs_per_actor,
        f"{row}_limit_per_s": pushed_per_s / max(figures["server_cores"], 1e-6),
        f"{row}_server_cores": figures["server_cores"],
        f"{row}_flood_cores": figures["flood_cores"],
        f"{row}_learner_cores": figures["learner_cores"],
        **spread(f"{row}_push", figures["push_ms"]),
    }


KINDS = {"cartpole": "CartPole", "atari": "84x84", "atari8": "84x84 x 8"}
WAYS = {"": "all taken", "_alone": "none taken", "_overload": "too many"}

PARTS = {
    "saturation": Part(
        saturation,
        [],
        Grid(
            "one server, saturated; the limit is a whole core of it",
            {
                row: f"{words}, {actors:,}, {taken}"
                for kind, words in KINDS.items()
                for way, taken in WAYS.items()
                for row, actors in rows_of(kind, way).items()
            },
            {
                "pushed_per_s": "pushed /s",
                "taken_per_s": "taken /s",
                "mb_per_s": "MB/s in",
                "frames_per_s": "frames /s",
                "push_p50_ms": "p50 ms",
                "push_p99_ms": "p99 ms",
                "limit_per_s": "limit /s",
                "server_cores": "share",
                "flood_cores": "actors' cores",
                "learner_cores": "learner's",
            },
        ),
    )
}
