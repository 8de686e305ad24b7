"""The learner's batch: preallocated tensors that blocks of any width are copied into."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from impala_redis.common.blocks.trajectory import Episode, Trajectory, empty_trajectory
from impala_redis.common.learning.device import enough_memory, pinned_if_possible
from impala_redis.common.loss.impala import LossInput
from impala_redis.common.networks.network import NetworkInput
from impala_redis.common.records.window import Played
from impala_redis.common.run.spec import RunSpec

Inputs = tuple[NetworkInput, LossInput]


class UnrollTiming(NamedTuple):
    """The actor that played a block, and how fast it did."""

    actor: str
    frames: int
    unroll_s: float


class Part(NamedTuple):
    """Columns of a batch that came from one block."""

    actor: tuple[str, int]  # name and incarnation
    columns: slice


@dataclass
class Batch:
    """A `Trajectory` of B columns on the host, and what is known about the columns.

    The numpy arrays and the tensors share memory (pinned when the learner has a GPU).
    """

    rows: Trajectory
    tensors: dict[str, Tensor]
    filled: int = 0  # columns
    frames: int = 0
    episodes: list[Episode] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)  # behaviour policy's version, by column
    parts: list[Part] = field(default_factory=list)  # all columns but the replayed ones
    unfit: list[Part] = field(default_factory=list)  # those that the update left out
    replayed: int = 0  # this many columns, the first ones, come from the replay memory
    played: list[UnrollTiming] = field(default_factory=list)  # one for each block that ends here
    blocks: list[Played] = field(default_factory=list)  # the same blocks, for the mean return
    # On a GPU: the copy that `stage` began, and the stream it is made on.
    _copy: dict[str, Tensor] | None = None
    _stream: torch.cuda.Stream | None = None

    @property
    def size(self) -> int:
        """The number of columns, which is that of trajectories in an update."""
        return int(self.rows.actions.shape[1])

    def clear(self) -> None:
        """Empties it. A GPU must have used what was copied to it."""
        self._copy = None
        self.filled = self.frames = self.replayed = 0
        self.episodes, self.versions, self.played, self.blocks = [], [], [], []
        self.parts, self.unfit = [], []

    def take(
        self, trajectory: Trajectory, start: int, version: int, actor: tuple[str, int] = ("", 0)
    ) -> int:
        """Copies the columns from `start` on that fit; returns their number."""
        count = min(self.size - self.filled, int(trajectory.actions.shape[1]) - start)
        columns = slice(self.filled, self.filled + count)
        for mine, theirs in zip(self.rows, trajectory, strict=True):
            mine[:, columns] = theirs[:, start : start + count]
        self.filled += count
        self.versions += [version] * count
        self.parts.append(Part(actor, columns))
        return count

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

    def stage(self, device: torch.device) -> None:
        """Begins to copy a full batch to a GPU while that computes; does nothing on a CPU.

        The batch may be filled again when the figures of its update have been fetched: the update
        waits for the copy, and the figures for the update. Raises DeviceFull.
        """
        if device.type == "cuda":
            if self._stream is None:
                self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            with torch.cuda.stream(self._stream), enough_memory():
                self._copy = self._moved(device)

    def on(self, device: torch.device) -> Inputs:
        """The inputs of the network and of the loss, on `device`."""
        moved = self._moved(device) if self._copy is None else self._copy
        if self._stream is not None:
            torch.cuda.current_stream(device).wait_stream(self._stream)
        actions = moved["actions"]
        loss_input = LossInput(
            actions=actions if actions.is_floating_point() else actions.long(),
            rewards=moved["rewards"],
            discounts=moved["discounts"],
            behaviour_log_probs=moved["behaviour_log_probs"],
            mask=moved["mask"],
        )
        network_input = NetworkInput(
            observations=stacked(moved["observations"], moved["is_first"]),
            is_first=moved["is_first"],
            actions=loss_input.actions,
            rewards=loss_input.rewards,
            memory=moved["memory"][0],
        )
        return network_input, loss_input

    def _moved(self, device: torch.device) -> dict[str, Tensor]:
        return {name: t.to(device, non_blocking=True) for name, t in self.tensors.items()}


def only(inputs: Inputs, columns: Tensor) -> Inputs:
    """The same for some of the columns."""
    network_input, loss_input = inputs
    columns = columns.to(loss_input.rewards.device)
    *several, memory = network_input
    return (
        NetworkInput._make([*(tensor[:, columns] for tensor in several), memory[columns]]),
        LossInput(*(tensor[:, columns] for tensor in loss_input)),
    )


def one_plain_column(inputs: Inputs) -> Inputs:
    """A column whose numbers are all ones, and zeros where numbers are categories or flags."""
    network_input, loss_input = only(inputs, torch.zeros(1, dtype=torch.long))

    def plain(tensor: Tensor) -> Tensor:
        return torch.full_like(tensor, tensor.is_floating_point())

    return (
        NetworkInput(*map(plain, network_input)),
        LossInput(*map(plain, loss_input))._replace(
            mask=torch.ones_like(loss_input.mask), behaviour_log_probs=-plain(loss_input.rewards)
        ),
    )


def stacked(observations: Tensor, is_first: Tensor) -> Tensor:
    """Observations [H+R, B, ...] as the network takes them in R rows: [R, B, S, ...] if H is not 0.

    S is H+1, the frames of a stack; `common.acting.frames` has the rule of the stacks.
    """
    history = len(observations) - len(is_first)
    if history == 0:
        return observations
    device, rows = is_first.device, len(is_first)
    numbers = torch.arange(rows, device=device)[:, None]  # [R, 1]
    begun = torch.where(is_first, numbers, -history).cummax(0).values  # [R, B]
    wanted = numbers + torch.arange(-history, 1, device=device)  # [R, S]
    missing = wanted[:, None] < begun[..., None]  # [R, B, S]
    planes = [observations[first : first + rows] for first in range(history + 1)]
    # In memory a pixel's frames lie side by side: convolutions then take half the time.
    stacks = torch.stack(planes, -1).movedim(-1, 2)
    if device.type == "cpu":
        stacks[missing.nonzero(as_tuple=True)] = 0  # a mask would be written out in full
        return stacks
    # A pass over the whole array, but one that does not wait to know what is missing.
    return stacks.masked_fill_(missing.view(*missing.shape, *[1] * (stacks.dim() - 3)), 0)


def make_batch(spec: RunSpec, batch_size: int, pinned: bool) -> Batch:
    """An empty batch of `batch_size` trajectories of the run, pinned for copies to a GPU."""
    arrays = empty_trajectory(spec, batch_size)._asdict()
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if pinned:
        tensors = pinned_if_possible(tensors)
    rows = Trajectory(**{name: tensor.numpy() for name, tensor in tensors.items()})
    return Batch(rows, tensors)
