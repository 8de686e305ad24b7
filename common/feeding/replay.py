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
            theirs[:, : self._columns] = mine[:, drawn]
        batch.versions += self._versions[drawn].tolist()
        batch.filled = batch.replayed = self._columns

    def remember(self, batch: Batch) -> None:
        """Keeps the fresh columns of a full batch; the oldest in memory make room."""
        fresh = np.arange(batch.replayed, batch.filled)[-self._capacity :]
        places = (self._remembered + np.arange(len(fresh))) % self._capacity
        for mine, theirs in zip(self._rows, batch.rows, strict=True):
            mine[:, places] = theirs[:, fresh]
        self._versions[places] = np.asarray(batch.versions)[fresh]
        self._remembered += len(fresh)


def make_replay(spec: RunSpec, config: Config) -> Replay | None:
    """The memory of past trajectories, if the settings ask for one. Raises ConfigError."""
    training, columns = config.training, config.replayed_columns
    return Replay(spec, training.replay_capacity, columns, training.seed) if columns else None
