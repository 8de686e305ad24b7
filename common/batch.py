"""A batch on the learner's side: preallocated tensors that blocks of any N are copied into."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from common.losses import Rows
from common.spec import RunSpec
from common.trajectory import Episode, Trajectory, empty_trajectory


class Played(NamedTuple):
    """Who played a block, and how fast."""

    actor: str
    frames: int
    unroll_s: float


@dataclass
class Batch:
    """`[T+1, B, ...]` and `[T, B]` rows on the host, and what is known of them.

    The numpy arrays and the tensors share memory (pinned when the learner has a GPU).
    """

    rows: Trajectory
    tensors: dict[str, Tensor]
    filled: int = 0  # columns
    frames: int = 0
    episodes: list[Episode] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)  # of the behaviour policies, one a column
    replayed: int = 0  # the first so many columns come from the replay memory
    played: list[Played] = field(default_factory=list)  # one for each block that ends in it

    @property
    def size(self) -> int:
        """Columns: trajectories in an update."""
        return int(self.rows.actions.shape[1])

    def clear(self) -> None:
        """Makes room for the next batch."""
        self.filled = self.frames = self.replayed = 0
        self.episodes, self.versions, self.played = [], [], []

    def take(self, trajectory: Trajectory, start: int, version: int) -> int:
        """Copies columns from `start` on, as many as fit; returns how many."""
        count = min(self.size - self.filled, int(trajectory.actions.shape[1]) - start)
        columns = slice(self.filled, self.filled + count)
        for mine, theirs in zip(self.rows, trajectory, strict=True):
            mine[:, columns] = theirs[:, start : start + count]
        self.filled += count
        self.versions += [version] * count
        return count

    def on(self, device: torch.device) -> tuple[Tensor, Rows]:
        """Observations [T+1, B, ...] and the loss's rows on `device`."""
        moved = {name: t.to(device, non_blocking=True) for name, t in self.tensors.items()}
        rows = Rows(
            actions=moved["actions"].long(),
            rewards=moved["rewards"],
            discounts=moved["discounts"],
            behaviour_log_probs=moved["behaviour_log_probs"],
            mask=moved["mask"],
        )
        return moved["observations"], rows


def make_batch(spec: RunSpec, batch_size: int, pinned: bool) -> Batch:
    """An empty batch of `batch_size` trajectories of the run."""
    shapes = empty_trajectory(
        spec.unroll_length, batch_size, spec.observation.shape, spec.observation.dtype
    )
    tensors = {
        name: torch.from_numpy(array).pin_memory() if pinned else torch.from_numpy(array)
        for name, array in shapes._asdict().items()
    }
    rows = Trajectory(**{name: tensor.numpy() for name, tensor in tensors.items()})
    return Batch(rows, tensors)
