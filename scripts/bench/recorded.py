"""Blocks that an actor has played, and a link that hands them out again and again without Redis."""

import contextlib
import dataclasses
import zlib
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np

from impala_redis.common.acting.unroll import Actor
from impala_redis.common.blocks import wire
from impala_redis.common.blocks.trajectory import Block, Trajectory
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.networks.network import make_network
from impala_redis.common.run.spec import RunSpec

# A block of more environments than these has several unrolls of so many, side by side.
TOGETHER = 64
# Games that have just begun look alike, and are packed smaller than later ones.
WARM_UP_UNROLLS = 3


def recorded(spec: RunSpec, blocks: int) -> list[bytes]:
    """Messages with blocks of `spec.envs_per_actor` environments, played by new weights.

    A network with convolutions is replaced by a small one: a block has nothing of it.
    """
    num_envs = spec.envs_per_actor
    together = min(num_envs, TOGETHER)
    small = {"network": "mlp", "hidden_sizes": (8,)} if spec.network != "mlp" else {}
    playing = dataclasses.replace(spec, **small)
    weights = {name: p.detach().numpy() for name, p in make_network(playing, 0).named_parameters()}
    with contextlib.closing(VectorEnvironment(spec.env, together)) as environment:
        actor = Actor(playing, environment, "bench", 0)
        actor.policy.load(0, weights)
        for _ in range(WARM_UP_UNROLLS):
            actor.unroll()
        return [
            wire.pack_block(
                _side_by_side([actor.unroll() for _ in range(-(-num_envs // together))], num_envs),
                spec,
            )
            for _ in range(blocks)
        ]


def _side_by_side(unrolls: list[Block], num_envs: int) -> Block:
    """One block with the first `num_envs` columns of these."""
    rows = Trajectory._make(
        np.concatenate(arrays, 1)[:, :num_envs]
        for arrays in zip(*(block.trajectory for block in unrolls), strict=True)
    )
    width = unrolls[0].num_envs
    episodes = [
        episode._replace(column=number * width + episode.column)
        for number, block in enumerate(unrolls)
        for episode in block.episodes
    ]
    within = tuple(episode for episode in episodes if episode.column < num_envs)
    seconds = sum(block.unroll_s for block in unrolls)
    return Block(unrolls[0].origin._replace(sequence=1), rows, within, seconds)


class RecordedLink:
    """What an intake asks of Redis: the messages in turns, each time as an actor's next blocks."""

    def __init__(self, messages: list[bytes]) -> None:
        self._parts = [_header_and_body(message) for message in messages]
        self._sequence = 0

    def settle_and_claim(self, _settled: Any, most: int, _bytes: int) -> tuple[list[bytes], int]:
        """`most` blocks, and as many as if they were left."""
        return list(self._numbered(most)), most

    def _numbered(self, count: int) -> Iterator[bytes]:
        for _ in range(count):
            self._sequence += 1
            header, body = self._parts[self._sequence % len(self._parts)]
            packed = msgpack.packb(header | {"sequence": self._sequence})
            checksum = zlib.crc32(body, zlib.crc32(packed))
            about = (wire.MAGIC, wire.WIRE_VERSION, wire.BLOCK, len(packed), len(body), checksum)
            yield b"".join([wire.PREFIX.pack(*about), packed, body])


def body_of(message: bytes) -> memoryview:
    """The arrays of a block as they are sent."""
    return memoryview(_header_and_body(message)[1])


def _header_and_body(message: bytes) -> tuple[dict[str, Any], bytes]:
    start = wire.PREFIX.size
    stop = start + wire.PREFIX.unpack_from(message)[3]
    return msgpack.unpackb(message[start:stop]), message[stop:]
