"""Measures what fast compression makes of real Atari blocks: bytes, and time at both ends.

    .venv/bin/python scripts/bench_codecs.py [--games Pong,Breakout] [--steps 2000]

It needs the extra `atari`, and lz4 and zstandard. A block is an unroll of single frames with the
rows before it that its first stacks need, as the rows lie: [rows, N, 84, 84]. Games are played by
random actions, and blocks are spread over what was played after the first fifth. The two lines
with "by" transform the rows first, in numpy, which is in their times: each environment's rows
together, or each row as its difference from the one before. Times are of one thread, for a block,
the codecs in turns. The last line is JSON.
"""

import itertools
import zlib
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import click
import lz4.block
import numpy as np
import zstandard
from numpy.typing import NDArray
from rich.table import Table

from bench import measuring
from bench.measuring import Figures, Spreads
from impala_redis.common.games import atari
from impala_redis.workers.options import CONTEXT

GAMES = "Pong,Breakout,Seaquest,Qbert,SpaceInvaders"
BLOCKS = 8
# Blocks come from what was played after this share: before it, games look like their start.
FIRST_SHARE = 0.2

Screens = NDArray[np.uint8]  # [rows, N, 84, 84]


class Codec(NamedTuple):
    """A way to compress: rows to bytes, and bytes to rows of a given shape."""

    compress: Callable[[Screens], bytes]
    decompress: Callable[[bytes, tuple[int, ...]], Screens]


def rows_of(data: bytes, shape: tuple[int, ...]) -> Screens:
    return np.frombuffer(data, np.uint8).reshape(shape)


def lz4_codec(**options: Any) -> Codec:
    return Codec(
        lambda rows: lz4.block.compress(rows, store_size=False, **options),
        lambda data, shape: rows_of(
            lz4.block.decompress(data, uncompressed_size=int(np.prod(shape))), shape
        ),
    )


def zstd_codec(level: int) -> Codec:
    compressor = zstandard.ZstdCompressor(level=level)
    decompressor = zstandard.ZstdDecompressor()
    return Codec(
        compressor.compress, lambda data, shape: rows_of(decompressor.decompress(data), shape)
    )


def zlib_codec(level: int) -> Codec:
    return Codec(
        lambda rows: zlib.compress(rows, level),
        lambda data, shape: rows_of(zlib.decompress(data), shape),
    )


def by_environment(codec: Codec) -> Codec:
    def decompress(data: bytes, shape: tuple[int, ...]) -> Screens:
        rows, envs, *frame = shape
        return np.ascontiguousarray(codec.decompress(data, (envs, rows, *frame)).swapaxes(0, 1))

    return Codec(lambda rows: codec.compress(np.ascontiguousarray(rows.swapaxes(0, 1))), decompress)


def by_difference(codec: Codec) -> Codec:
    def compress(rows: Screens) -> bytes:
        changed = rows.copy()
        changed[1:] ^= rows[:-1]
        return codec.compress(changed)

    def decompress(data: bytes, shape: tuple[int, ...]) -> Screens:
        rows = codec.decompress(data, shape).copy()
        for before, row in itertools.pairwise(rows):
            row ^= before
        return rows

    return Codec(compress, decompress)


CODECS = {
    "lz4": lz4_codec(),
    "lz4, acceleration 4": lz4_codec(mode="fast", acceleration=4),
    "lz4, acceleration 16": lz4_codec(mode="fast", acceleration=16),
    "zstd -5": zstd_codec(-5),
    "zstd 1": zstd_codec(1),
    "zstd 3": zstd_codec(3),
    "zlib 1": zlib_codec(1),
    "zstd 1 by environment": by_environment(zstd_codec(1)),
    "zstd 1 by difference": by_difference(zstd_codec(1)),
}


def played(game: str, steps: int, num_envs: int, rows: int) -> list[Screens]:
    """Blocks of `rows` rows each, from random play."""
    env = atari.make(f"{atari.GAMES_PREFIX}{game}-v5", num_envs)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(
        env.single_action_space.n,
        size=(steps, num_envs),
    )
    frames = np.stack([env.step(row)[0] for row in actions])
    env.close()
    starts = np.linspace(FIRST_SHARE * steps, steps - rows, BLOCKS).astype(int)
    return [frames[start : start + rows] for start in starts]


def sizes(codec: Codec, blocks: list[Screens], frames: int) -> Spreads:
    """How small a codec makes the blocks, and over all of them; each must come back unchanged."""
    found = []
    for rows in blocks:
        data = codec.compress(rows)
        if not np.array_equal(codec.decompress(data, rows.shape), rows):
            raise AssertionError("a codec lost something")
        found.append({"ratio": rows.nbytes / len(data), "bytes_per_frame": len(data) / frames})
    return measuring.spreads(found)


def times(blocks: list[Screens], seconds: float) -> dict[str, Figures]:
    """How long each codec takes for a block at both ends."""
    calls: dict[str, Callable[[], object]] = {}
    for name, codec in CODECS.items():
        packed = [(codec.compress(rows), rows.shape) for rows in blocks]
        calls[f"{name}/compress_s"] = lambda c=codec: [c.compress(rows) for rows in blocks]
        calls[f"{name}/decompress_s"] = lambda c=codec, p=packed: [c.decompress(*one) for one in p]
    measuring.side_by_side(calls, measuring.WARM_UP_SHARE * seconds)
    found: dict[str, Figures] = {name: {} for name in CODECS}
    for call, taken_s in measuring.side_by_side(calls, seconds).items():
        name, _, figure = call.rpartition("/")
        found[name][figure] = taken_s / len(blocks)
    return found


def table(game: str, figures: dict[str, Spreads], block_bytes: int) -> Table:
    heads = ("ratio", "bytes/step", "compress ms", "MB/s", "decompress ms", "MB/s")
    made = measuring.table(f"{game}: blocks of {block_bytes:,} bytes", *heads)
    for name, of in figures.items():
        cells = [of["ratio"].shown(".1f"), of["bytes_per_frame"].shown()]
        for end in ("compress_s", "decompress_s"):
            cells += [of[end].shown(".2f", 1e3), f"{block_bytes / of[end].median / 1e6:,.0f}"]
        made.add_row(name, *cells)
    return made


@click.command(help=__doc__, context_settings=CONTEXT)
@click.option("--games", default=GAMES, help="Of ALE, as in their ids; several with commas.")
@click.option("--steps", type=click.IntRange(min=200), default=1500, help="Of each environment.")
@click.option("--num-envs", type=click.IntRange(min=1), default=8, help="In a block.")
@click.option("--unroll-length", type=click.IntRange(min=1, max=100), default=20, help="Steps.")
@click.option("--history", type=click.IntRange(min=0, max=10), default=3, help="Rows before.")
@measuring.timing_options(0.5, "How long each end of each codec is measured.")
def main(
    games: str,
    steps: int,
    num_envs: int,
    unroll_length: int,
    history: int,
    seconds: float,
    repeat: int,
    only_json: bool,
) -> None:
    measuring.begin()
    others_cores = measuring.others_cores()
    frames, tables, figures = unroll_length * num_envs, [], {}
    with measuring.one_sentence():
        blocks = {
            game: played(game, steps, num_envs, history + unroll_length + 1)
            for game in games.split(",")
        }
    for game, of_game in blocks.items():
        runs = [times(of_game, seconds) for _ in range(repeat)]
        spreads = {
            name: sizes(codec, of_game, frames) | measuring.spreads([run[name] for run in runs])
            for name, codec in CODECS.items()
        }
        tables.append(table(game, spreads, of_game[0].nbytes))
        figures |= {f"{game}, {name}": of for name, of in spreads.items()}
    about = {name: metadata.version(name) for name in ("ale-py", "lz4", "zstandard")} | {
        "unroll_length": unroll_length,
        "num_envs": num_envs,
        "history": history,
        "steps": steps,
        "uncompressed_bytes_per_step": of_game[0].nbytes // frames,
        "others_cores": round(others_cores(), 2),
    }
    measuring.show(tables, measuring.as_document(about, figures), only_json)


if __name__ == "__main__":
    main()
