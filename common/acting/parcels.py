"""How an actor's unrolls are cut into blocks, which of those wait, and which go together. Pure."""

from collections import defaultdict, deque

from impala_redis.common.blocks.trajectory import Block, Episode, Trajectory

# At most this many blocks, or those of one unroll, wait in the actor while Redis is away.
RING_BLOCKS = 8
# Blocks that are pushed together have at most this many bytes: they must be through before the
# time-out of a slow link.
TOGETHER_BYTES = 256 * 1024


def cut(block: Block, most_columns: int) -> list[Block]:
    """The block itself, or if it has more columns than that, blocks of at most so many.

    Each of them has an incarnation of its own, the whole's plus its place: the columns of one index
    are other environments in each, and whoever counts episodes tells them apart by it. Its time is
    its share of the whole's.
    """
    num_envs, origin = block.num_envs, block.origin
    if num_envs <= most_columns:
        return [block]
    episodes = defaultdict[int, list[Episode]](list)  # by place
    for episode in block.episodes:
        place, column = divmod(episode.column, most_columns)
        episodes[place].append(episode._replace(column=column))
    parcels = list[Block]()
    for place, start in enumerate(range(0, num_envs, most_columns)):
        rows = Trajectory._make(
            array[:, start : start + most_columns] for array in block.trajectory
        )
        parcels.append(
            block._replace(
                origin=origin._replace(incarnation=origin.incarnation + place),
                trajectory=rows,
                episodes=tuple(episodes[place]),
                unroll_s=block.unroll_s * rows.actions.shape[1] / num_envs,
            )
        )
    return parcels


def put(ring: deque[Block], unroll: list[Block], being_sent: int) -> int:
    """Appends the blocks of an unroll, and sheds the oldest for which there is no room: how many.

    `being_sent` are those that have left the ring and may not have arrived.
    """
    most, shed = max(RING_BLOCKS, len(unroll)) - max(1, being_sent), 0
    for block in unroll:
        if len(ring) > most:
            ring.popleft()
            shed += 1
        ring.append(block)
    return shed


def taken_together(waiting: deque[Block], most: int) -> list[Block]:
    """Removes the oldest blocks and returns them: `most` at most, and one however large it is.

    All of them are of one incarnation of an actor, whose blocks are numbered one after the other.
    """
    taken, nbytes = list[Block](), 0
    while waiting and len(taken) < most:
        nbytes += waiting[0].trajectory.nbytes
        if taken and (nbytes > TOGETHER_BYTES or waiting[0].origin[:2] != taken[0].origin[:2]):
            break
        taken.append(waiting.popleft())
    return taken
