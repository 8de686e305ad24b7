"""What an update is made of, and what it has come to; one learner makes it, or several."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.feeding.batch import Batch, Part
from impala_redis.common.learning.engine import Rates, Step
from impala_redis.common.normalizing.normalization import Seen
from impala_redis.common.records.window import Played


class Share(NamedTuple):
    """What a learner's batch brings to an update beside its gradient."""

    frames: int
    blocks: Sequence[Played]
    seen: Seen = ()  # by the running figures
    task_frames: Sequence[int] = ()  # by task; empty where there is but one


class UnderWay(NamedTuple):
    """An update that was begun; `result` waits for what the step has come to."""

    batch: Batch
    shares: Sequence[Share]
    version: int
    rates: Rates
    result: Callable[[], Step]


class Agreed(NamedTuple):
    """What is left of an update whose loss or gradients were not finite."""

    shares: Sequence[Share]
    any_fit: bool  # whether any learner has columns that allow a finite step


class Updated(NamedTuple):
    """An update that has ended."""

    batch: Batch  # what it was made of
    version: int  # of the weights that it made
    figures: dict[str, float]  # by name; stages in seconds


def columns_of(parts: list[Part]) -> NDArray[np.int64]:
    """The numbers of their columns."""
    numbers = [np.arange(part.columns.start, part.columns.stop) for part in parts]
    return np.concatenate([np.zeros(0, np.int64), *numbers])


def blocks_of(shares: Sequence[Share]) -> list[Played]:
    """The blocks of all of them, an actor's first one before those that came after it.

    Each of several learners has some of an actor's blocks.
    """
    blocks = [block for share in shares for block in share.blocks]
    return blocks if len(shares) == 1 else sorted(blocks, key=lambda block: not block.first)


def task_frames_of(shares: Iterable[Share], num_tasks: int) -> NDArray[np.int64]:
    """The environment steps in all of them by task, [num_tasks]."""
    total = np.zeros(num_tasks, np.int64)
    for share in shares:
        total += np.array(share.task_frames if num_tasks > 1 else (share.frames,), np.int64)
    return total


def frames_of(shares: Iterable[Share]) -> int:
    """The environment steps in all of them."""
    return sum(share.frames for share in shares)
