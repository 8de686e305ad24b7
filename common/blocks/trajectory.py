"""A trajectory: one unroll of N environments, time-major, and the rule of its rows.

Row t holds the action taken at observation t and what it led to. Gymnasium's next-step autoreset
adds one fake row after an episode's last: its observation is the true final one (so that a
truncated episode's bootstrap value is simply there), its action does nothing, and its `mask` is
False: it counts in no loss, in no trace and not as a frame.

The second axis is the environment in every array, so that one index takes a column from each.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.run.spaces import ObservationPart
from impala_redis.common.run.spec import RunSpec

NO_INFOS: Mapping[str, float] = MappingProxyType({})


class Trajectory(NamedTuple):
    """The rows of an unroll: T of most, T+1 of `observations` and `is_first`, 1 of the last two."""

    # [H+T+1, N, ...] in the environment's dtype; H rows of history come first if frames are stacked
    observations: NDArray[np.generic]
    is_first: NDArray[np.bool_]  # [T+1, N] True on an episode's first observation
    actions: NDArray[np.generic]  # [T, N, ...] int32 choices or float32 numbers
    rewards: NDArray[np.float32]  # [T, N] as the environment gave them
    discounts: NDArray[np.float32]  # [T, N] 0 where the environment terminated, else 1
    behaviour_log_probs: NDArray[np.float32]  # [T, N] log mu(a|x) of the action taken
    mask: NDArray[np.bool_]  # [T, N] False on fake rows
    memory: NDArray[np.float32]  # [1, N, M] before row 0; M is `RunSpec.memory_size`
    # [1, N, K] int16, the number of the environment's task; K is 1, and 0 where there is but one
    tasks: NDArray[np.generic]

    @property
    def frames(self) -> int:
        """How many environment steps it holds; fake rows are not counted."""
        return int(np.count_nonzero(self.mask))

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays, as they travel when they are not compressed."""
        return sum(array.nbytes for array in self)


class Episode(NamedTuple):
    """An episode that ended inside an unroll."""

    episode_return: float  # undiscounted sum of the environment's rewards
    length: int  # steps
    column: int  # the environment's index in the block, 0 .. N-1
    # Numbers of the episode's last info, by name: finite in float32. A name may be missing here and
    # be there in the block's other episodes.
    infos: Mapping[str, float] = NO_INFOS


class Origin(NamedTuple):
    """Where a block comes from: this identity makes a push that is sent twice harmless."""

    actor: str  # at most 64 characters
    incarnation: int  # drawn at random each time an actor joins; one for each part of a cut unroll
    sequence: int  # 1, 2, 3 ... within an incarnation
    weights_version: int  # the behaviour policy's at the unroll's start


class Unfit(NamedTuple):
    """Columns of a block that are left out for one cause."""

    reason: str  # "nonfinite" or "range", as in MessageRefused
    kind: str  # what is wrong, such as "observations"
    explanation: str
    columns: int  # how many


class Block(NamedTuple):
    """What an actor pushes at once: a trajectory, and what is known about it."""

    origin: Origin
    trajectory: Trajectory
    episodes: tuple[Episode, ...]
    unroll_s: float  # seconds the actor took for the unroll
    # What its reader left out; an episode is also left out where its column is.
    unfit: tuple[Unfit, ...] = ()
    episodes_left_out: int = 0
    left_out: tuple[int, ...] = ()  # the columns
    # Which task each of the actor's environments plays, as it says; empty where there is but one.
    tasks: tuple[int, ...] = ()

    def numbered(self, sequence: int) -> "Block":
        """The same block with that sequence."""
        return self._replace(origin=self.origin._replace(sequence=sequence))

    @property
    def num_envs(self) -> int:
        """How many environments played it, those included whose columns were left out."""
        columns: int = self.trajectory.actions.shape[1]
        return columns + sum(unfit.columns for unfit in self.unfit)

    @property
    def environments(self) -> Sequence[int]:
        """Which of the actor's environments played each of the trajectory's columns."""
        everyone = range(self.num_envs)
        return [n for n in everyone if n not in self.left_out] if self.left_out else everyone


def layout(spec: RunSpec, num_envs: int) -> list[tuple[str, tuple[int, ...]]]:
    """The dtype and shape of each array of a trajectory of the run, in the order of its fields."""
    t, n, observation, action = spec.unroll_length, num_envs, spec.observation, spec.action
    return [
        (observation.dtype, (observation.history + t + 1, n, *observation.shape)),
        ("bool", (t + 1, n)),
        (action.dtype, (t, n, *action.shape)),
        ("float32", (t, n)),
        ("float32", (t, n)),
        ("float32", (t, n)),
        ("bool", (t, n)),
        ("float32", (1, n, spec.memory_size)),
        ("int16", (1, n, spec.task_size)),
    ]


def taken_out(part: ObservationPart, rows: NDArray[Any]) -> NDArray[Any]:
    """A part of observations [..., bytes], as [..., *part.shape] in the part's dtype."""
    place = np.ascontiguousarray(rows[..., part.start : part.start + part.num_bytes])
    return place.view(part.dtype).reshape(*rows.shape[:-1], *part.shape)


def empty_trajectory(spec: RunSpec, num_envs: int) -> Trajectory:
    """Uninitialised rows for one unroll of `num_envs` environments of the run."""
    return Trajectory(*(np.empty(shape, dtype) for dtype, shape in layout(spec, num_envs)))
