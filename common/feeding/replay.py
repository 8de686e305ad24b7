"""The learner's memory of past trajectories: uniform draws, first in first out (paper, 5.2.2).

Off unless `replay_share` is above 0. It is not part of a checkpoint: a resumed run begins with an
empty memory.
"""

import numpy as np

from impala_redis.common.blocks.trajectory import empty_trajectory
from impala_redis.common.errors import ConfigError
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec

# Where a row of a column is as large as this, each column is copied by itself: numpy copies what it
# draws as a list twice.
LARGE_ROW_NBYTES = 1024


class Replay:
    """A ring of `capacity` trajectories from which a part of every batch is drawn."""

    def __init__(self, spec: RunSpec, capacity: int, columns: int, seed: int) -> None:
        """Draws `columns` trajectories for each batch. Raises ConfigError if memory is short."""
        try:
            self._rows = empty_trajectory(spec, capacity)
        except (MemoryError, ValueError) as error:
            raise ConfigError(
                f"there is no memory for a replay_capacity of {capacity:,} trajectories; lower it"
            ) from error
        self._versions = np.zeros(capacity, np.int64)
        self._capacity, self._columns = capacity, columns
        self._rng = np.random.default_rng([seed, 2])
        self._remembered = 0  # trajectories, ever

    def draw_into(self, batch: Batch) -> None:
        """Fills the first columns of an empty batch, or none while the memory holds too few."""
        held = min(self._remembered, self._capacity)
        if held < self._columns:
            return
        drawn = self._rng.integers(held, size=self._columns)
        for mine, theirs in zip(self._rows, batch.rows, strict=True):
            if mine[0, 0].nbytes < LARGE_ROW_NBYTES:
                theirs[:, : self._columns] = mine[:, drawn]
            else:
                for column, number in enumerate(drawn.tolist()):
                    theirs[:, column] = mine[:, number]
        batch.versions += self._versions[drawn].tolist()
        batch.filled = batch.replayed = self._columns

    def remember(self, batch: Batch) -> None:
        """Keeps the fresh columns of a full batch; the oldest in memory make room."""
        first = max(batch.replayed, batch.filled - self._capacity)
        while first < batch.filled:
            place = self._remembered % self._capacity
            count = min(batch.filled - first, self._capacity - place)  # up to the ring's end
            for mine, theirs in zip(self._rows, batch.rows, strict=True):
                mine[:, place : place + count] = theirs[:, first : first + count]
            self._versions[place : place + count] = batch.versions[first : first + count]
            self._remembered += count
            first += count


def make_replay(spec: RunSpec, config: Config) -> Replay | None:
    """The memory of past trajectories, if the settings ask for one. Raises ConfigError."""
    training, columns = config.training, config.replayed_columns
    return Replay(spec, training.replay_capacity, columns, training.seed) if columns else None
