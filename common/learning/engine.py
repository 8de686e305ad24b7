"""An engine computes the updates of one network: what the state of training stands on.

There are two: one of torch, for every network and device, and one of numpy, for plain networks on a
CPU. Both have the same parameters and the same state, tensor for tensor.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.blocks.trajectory import Trajectory, empty_trajectory
from impala_redis.common.normalizing.value_scales import Statistics
from impala_redis.common.run.spec import RunSpec

Floats = NDArray[np.float32]
# By the names of the network's parameters, or of the optimizer's state: "square.policy.weight".
Arrays = Mapping[str, Floats]
# Each parameter's name, its part of the vector of all, and its shape, in the order they travel.
Layout = list[tuple[str, slice, tuple[int, ...]]]

# A gradient counts as one up to this norm: float32 has room for the square of a thousand such.
MOST_NORM = 1e15
# The mean of the parameters is over about this many updates, so that no single one spoils it.
AVERAGED_UPDATES = 30


class Rates(NamedTuple):
    """What changes from update to update, by schedules and running figures."""

    learning_rate: float
    entropy_cost: float
    reward_factor: float = 1.0  # of the rewards, where they are normalised


class Step(NamedTuple):
    """What a try to take a step has come to."""

    figures: dict[str, float]  # losses, norm of the gradient before the clip, figures of the batch
    # transfer_s, then forward_s, backward_s and optimizer_s, or graph_s for all three at once
    stages_s: dict[str, float]
    taken: bool  # False where the gradient was not finite; then nothing has changed


class Engine(ABC):
    """Computes the updates of one network, and holds its parameters and the optimizer's state."""

    where: str  # what it computes with, in words
    layout: Layout
    steps: int  # of the optimizer
    ahead = 0  # how many updates may be under way, besides, when another one begins

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec

    def empty_rows(self, batch_size: int) -> Trajectory:
        """Memory for a batch of `batch_size` columns, from which the engine reads quickly."""
        return empty_trajectory(self.spec, batch_size)

    def stage(self, rows: Trajectory) -> Any:
        """Begins to bring a full batch to where it is computed; `begin` takes what it returns.

        Another thread calls it than the one that computes. Raises DeviceFull.
        """
        return None

    def begin(self, rows: Trajectory, staged: Any, rates: Rates) -> Callable[[], Step]:
        """Begins a step on a full batch; what it returns waits for what the step has come to.

        The rows may be filled again when it has. Steps are taken in the order in which they begin.
        Raises DeviceFull, as does the call that waits.
        """
        step = self.step(rows, rates)
        return lambda: step

    @abstractmethod
    def step(self, rows: Trajectory, rates: Rates) -> Step:
        """Takes one step on a batch of any number of columns, and waits. Raises DeviceFull."""

    @abstractmethod
    def allows_step(self, rows: Trajectory, rates: Rates) -> bool:
        """Whether the gradient of such rows is finite, and far from not being so."""

    @abstractmethod
    def flat(self) -> Floats:
        """A copy of all parameters as one vector on the host, cut as `layout` says."""

    def begin_flat(self) -> Callable[[], Floats]:
        """Begins to make such a copy; what it returns waits for it, on any thread."""
        flat = self.flat()
        return lambda: flat

    def begin_statistics(self) -> Callable[[], Arrays]:
        """Begins to copy what an update changes in the network without a gradient.

        What it returns waits for the copies on the host, on any thread.
        """
        return dict

    @abstractmethod
    def load_statistics(self, statistics: Arrays) -> None:
        """Takes over some of them for the updates that begin from now on; all of them fit."""

    def popart(self) -> Statistics:
        """Copies of PopArt's statistics, each [K] float64 by name; empty where there is no PopArt.

        The parameters' baseline is normalised by them.
        """
        return {}

    def load_popart(self, statistics: Statistics) -> Statistics:
        """Takes over such statistics, if there are some; returns those that hold from now on.

        Their deviations are within this run's bounds. Without PopArt none hold.
        """
        return {}

    def memory_bytes(self) -> int | None:
        """How much of a GPU's memory torch holds, in bytes; None on a CPU."""
        return None

    @abstractmethod
    def averaged(self) -> Floats:
        """A copy of the parameters' exponential mean over the last updates, as one such vector.

        With it a network is evaluated (Polyak and Juditsky 1992): the last update may be a bad one.
        """

    @abstractmethod
    def slots(self) -> Arrays:
        """Copies of the optimizer's state."""

    @abstractmethod
    def load(self, parameters: Arrays, averaged: Arrays, slots: Arrays, steps: int) -> None:
        """Takes over the state of another engine; all of it fits."""

    @abstractmethod
    def set_rmsprop_epsilon(self, epsilon: float) -> None:
        """Changes that setting of RMSProp, which is above 0, for the steps from now on."""

    @property
    @abstractmethod
    def random_state(self) -> NDArray[np.uint8]:
        """The state of torch's generator of random numbers, or what it would be."""

    @random_state.setter
    @abstractmethod
    def random_state(self, state: NDArray[np.uint8]) -> None:
        """Raises RuntimeError or TypeError where it is none."""


def averaging_rate(steps: int) -> float:
    """How far the mean moves towards the parameters after that many steps, which are at least 1."""
    return 1.0 / min(steps, AVERAGED_UPDATES)
