"""The learner's batch: preallocated arrays that blocks of any width are copied into."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.blocks.trajectory import Episode, Trajectory
from impala_redis.common.records.window import Played


class UnrollTiming(NamedTuple):
    """The actor that played a block, and how fast it did."""

    actor: str
    frames: int
    unroll_s: float


class Part(NamedTuple):
    """Columns of a batch that came from one block."""

    actor: tuple[str, int]  # name and incarnation
    columns: slice
    environments: Sequence[int] = ()  # which of the actor's played each column


@dataclass
class Batch:
    """A `Trajectory` of B columns on the host, and what is known about the columns."""

    rows: Trajectory
    filled: int = 0  # columns
    frames: int = 0
    episodes: list[Episode] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)  # behaviour policy's version, by column
    parts: list[Part] = field(default_factory=list)  # all columns but the replayed ones
    unfit: list[Part] = field(default_factory=list)  # those that the update left out
    replayed: int = 0  # this many columns, the first ones, come from the replay memory
    played: list[UnrollTiming] = field(default_factory=list)  # one for each block that ends here
    blocks: list[Played] = field(default_factory=list)  # the same blocks, for the mean return
    staged: Any = None  # what the engine has begun to bring to where it computes
    _lent: NDArray[Any] | None = field(default=None, repr=False)  # see `room`

    @property
    def size(self) -> int:
        """The number of columns, which is that of trajectories in an update."""
        return int(self.rows.actions.shape[1])

    def clear(self) -> None:
        """Empties it. A GPU must have used what was copied to it."""
        self.staged = None
        self.filled = self.frames = self.replayed = 0
        self.episodes, self.versions, self.played, self.blocks = [], [], [], []
        self.parts, self.unfit = [], []

    def take(
        self,
        trajectory: Trajectory,
        start: int,
        version: int,
        actor: tuple[str, int] = ("", 0),
        environments: Sequence[int] | None = None,
    ) -> int:
        """Copies the columns from `start` on that fit; returns their number.

        `environments` says which of the actor's played each of the trajectory's columns; without
        it they are all there, in their order.

        Observations that were written to the `room` for them are there already.
        """
        count = min(self.size - self.filled, int(trajectory.actions.shape[1]) - start)
        columns = slice(self.filled, self.filled + count)
        for mine, theirs in zip(self.rows, trajectory, strict=True):
            if theirs is not self._lent:
                mine[:, columns] = theirs[:, start : start + count]
        self._lent = None
        self.filled += count
        self.versions += [version] * count
        if environments is None:
            environments = range(trajectory.actions.shape[1])
        self.parts.append(Part(actor, columns, environments[start : start + count]))
        return count

    def room(self, columns: int) -> NDArray[Any] | None:
        """The place of the observations of the next columns; None if the batch has no so many.

        A block whose observations were written there is the next to be taken, or none is.
        """
        if columns > self.size - self.filled:
            return None
        self._lent = self.rows.observations[:, self.filled : self.filled + columns]
        return self._lent

    def task_frames(self, num_tasks: int) -> tuple[int, ...]:
        """The environment steps in each of several tasks; empty where there is but one.

        As in `frames`, neither replayed columns count nor those that were left out.
        """
        if num_tasks < 2:
            return ()
        steps = self.rows.mask.sum(axis=0)  # [B]
        steps[: self.replayed] = 0
        for part in self.unfit:
            steps[part.columns] = 0
        counts = np.bincount(self.rows.tasks[0, :, 0], steps, num_tasks)
        return tuple(int(count) for count in counts)

    def leave_out(self, unfit: list[Part]) -> None:
        """Counts nothing of these columns, nor an episode of a block of theirs."""
        self.unfit = unfit
        actors = {part.actor for part in unfit}
        self.frames -= sum(int(self.rows.mask[:, part.columns].sum()) for part in unfit)
        self.blocks = [
            block._replace(episodes=(), left_out=range(block.num_envs))
            if block.actor in actors
            else block
            for block in self.blocks
        ]
        kept = {id(e) for block in self.blocks for e in block.episodes}
        self.episodes = [episode for episode in self.episodes if id(episode) in kept]


def only(rows: Trajectory, columns: NDArray[np.int64]) -> Trajectory:
    """A copy of some of the columns."""
    return Trajectory._make(array[:, columns] for array in rows)


def one_plain_column(rows: Trajectory) -> Trajectory:
    """A column whose numbers are all ones, and zeros where numbers are categories or flags."""
    first = only(rows, np.zeros(1, np.int64))
    plain = Trajectory._make(np.full_like(a, np.issubdtype(a.dtype, np.floating)) for a in first)
    return plain._replace(
        mask=np.ones_like(first.mask), behaviour_log_probs=-plain.behaviour_log_probs
    )
