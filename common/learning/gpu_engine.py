"""The engine of torch on a GPU: the host asks for whole updates, and never waits in between.

    feeder's thread    a full batch's bytes go to the GPU in one copy, beside the computing
    begin              one CUDA graph: from these bytes to loss, gradients, step and figures; then
                       the figures go back to the host
    the returned call  waits for the figures, when the next update has begun already
    begin_flat         the parameters go to the host, beside the computing

The first updates are computed one operation after the other. That is also the reference that the
graph is compared with, and the way of an update with fewer columns. Given a CPU, the engine does
the same there: for tests.
"""

import functools
import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from impala_redis.common.blocks.trajectory import Trajectory, empty_trajectory
from impala_redis.common.devices.device import enough_memory, fastest_methods, first_words
from impala_redis.common.devices.graph import Capture
from impala_redis.common.devices.pinned import Piece, layout_of, nbytes_of, pinned
from impala_redis.common.devices.stages import Stages
from impala_redis.common.devices.streams import Mark, SideStream
from impala_redis.common.learning.engine import AVERAGED_UPDATES, Floats, Rates, Step
from impala_redis.common.learning.gpu_optimizer import BranchFreeOptimizer
from impala_redis.common.learning.torch_engine import TorchState
from impala_redis.common.learning.torch_inputs import Inputs, Tensors, inputs_of, moved
from impala_redis.common.loss.task_loss import Outcome
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec

log = logging.getLogger(__name__)

# So many updates are computed before one is recorded: libraries choose their methods in the first.
UPDATES_BEFORE_GRAPH = 3
# Told the name of each stage of an update, at its end.
EndStage = Callable[[str], None]


def not_timed(stage: str) -> None:
    """Stands for the end of a stage in a recording, which is done later."""


class Place:
    """Where a batch lies: its rows on the host, and as much memory on the device."""

    def __init__(self, like: Trajectory, device: torch.device) -> None:
        layout = layout_of(like._asdict())
        size = nbytes_of(layout)
        self.on_host = Piece(layout, pinned(size, torch.uint8, device))
        self.on_device = Piece(layout, torch.empty(size, dtype=torch.uint8, device=device))
        self.arrived = Mark(device)
        self.arrived.set()  # the memory may have been used by what the device does now
        self.rows = Trajectory(**{name: t.numpy() for name, t in self.on_host.tensors.items()})


class Graph(NamedTuple):
    """A recorded update: where it reads a batch, and the call that computes it."""

    input: Piece
    compute: Callable[[EndStage], None]


class Pending:
    """One update that was begun: its clock, and where its figures go."""

    def __init__(self, device: torch.device) -> None:
        self.stages = Stages(device)
        self._device, self._fetched = device, Mark(device)
        self._figures: Tensor | None = None  # on the host

    def fetch(self, figures: Tensor) -> None:
        """Begins to copy the figures to the host."""
        if self._figures is None:
            self._figures = pinned(len(figures), figures.dtype, self._device)
        self._figures.copy_(figures, non_blocking=True)
        self._fetched.set()

    def figures(self) -> list[float]:
        """The figures; waits for them."""
        assert self._figures is not None, "no figures were asked for"
        self._fetched.wait()
        numbers: list[float] = self._figures.tolist()
        return numbers


class GpuEngine(TorchState):
    """Computes in torch on a device that works by itself."""

    ahead = 1
    _optimizer: BranchFreeOptimizer

    @enough_memory()
    def __init__(
        self, spec: RunSpec, config: Config, device: torch.device, capture: Capture | None = None
    ) -> None:
        """A fresh network on the device; `capture` records an update, None leaves it unrecorded.

        Raises DeviceFull.
        """
        super().__init__(spec, config, device, BranchFreeOptimizer)
        if device.type == "cuda":
            self.where = f"{device} ({torch.cuda.get_device_name(device)}), by torch"
        self._rates = torch.zeros(len(Rates._fields), device=device).unbind()
        self._names: list[str] = []  # of the figures
        self._figures = torch.empty(0, device=device)  # of the last update, in that order
        self._spare: list[Pending] = []  # whose figures were read
        self._places: dict[int, Place] = {}  # by the identity of the rows
        self._arriving, self._leaving = SideStream(device), SideStream(device)
        # A copy of the parameters, which leaves while updates change them.
        self._copy, self._copied = torch.empty_like(self._optimizer.flat), Mark(device)
        self._left = Mark(device)
        self._capture, self._until_graph = capture, UPDATES_BEFORE_GRAPH
        self._branch_free = True
        self._graph: Graph | None = None

    def memory_bytes(self) -> int | None:
        """What torch holds of a GPU's memory."""
        return torch.cuda.memory_reserved(self.device) if self.device.type == "cuda" else None

    @enough_memory()
    def empty_rows(self, batch_size: int) -> Trajectory:
        """Memory for a batch, from which the device copies by itself. Raises DeviceFull."""
        place = Place(empty_trajectory(self.spec, batch_size), self.device)
        self._places[id(place.rows)] = place
        return place.rows

    @enough_memory()
    def stage(self, rows: Trajectory) -> Place:
        """Begins to copy a batch, which `empty_rows` made, to the device while that computes."""
        place = self._places[id(rows)]
        with self._arriving.working():
            place.arrived.follow()
            place.on_device.memory.copy_(place.on_host.memory, non_blocking=True)
            place.arrived.set()
        return place

    @enough_memory()
    def begin(self, rows: Trajectory, staged: Place | None, rates: Rates) -> Callable[[], Step]:
        """Asks for a step on a batch; what it returns waits for the figures. Raises DeviceFull."""
        update = self._spare.pop() if self._spare else Pending(self.device)
        for tensor, rate in zip(self._rates, rates, strict=True):
            tensor.fill_(rate)
        if staged is not None:
            self._record_if_due(staged)
        update.stages.begin()
        if staged is None:
            self._compute(moved(rows, self.device), update.stages.end)
        else:
            staged.arrived.follow()
            self._compute_whole(staged.on_device, update.stages.end)
        update.fetch(self._figures)
        return functools.partial(self._result, update)

    def step(self, rows: Trajectory, rates: Rates) -> Step:
        """Takes one step on a batch of any number of columns, and waits. Raises DeviceFull."""
        return self.begin(rows, None, rates)()

    def flat(self) -> Floats:
        """A copy of all parameters as one vector on the host."""
        return self.begin_flat()()

    @enough_memory()
    def begin_flat(self) -> Callable[[], Floats]:
        """Begins to copy all parameters to the host; what it returns waits for it."""
        self._left.follow()  # the copy before this one
        self._optimizer.travelling(self._optimizer.flat, out=self._copy)
        self._copied.set()
        on_host = pinned(len(self._copy), self._copy.dtype, self.device)
        self._left = left = Mark(self.device)
        with self._leaving.working():
            self._copied.follow()
            on_host.copy_(self._copy, non_blocking=True)
            left.set()

        def read() -> Floats:
            left.wait()
            return np.asarray(on_host.numpy(), np.float32)

        return read

    @enough_memory()
    def averaged(self) -> Floats:
        """A copy of the parameters' mean over the last updates, on the host."""
        mean = torch.empty_like(self._averaged)
        self._optimizer.travelling(self._averaged, out=mean)
        return np.asarray(mean.to("cpu").numpy(), np.float32)

    def _compute_whole(self, piece: Piece, end_stage: EndStage) -> None:
        """An update of a whole batch: as a graph, once there is one."""
        if self._graph is None:
            self._until_graph -= 1
            with fastest_methods():
                self._compute(piece.tensors, end_stage)
            return
        self._graph.input.memory.copy_(piece.memory)
        end_stage("transfer_s")
        self._graph.compute(end_stage)

    def _record_if_due(self, staged: Place) -> None:
        """Records an update of a batch like this one, after the first ones; tries it once."""
        if self._capture is None or self._until_graph > 0:
            return
        capture, self._capture = self._capture, None
        try:
            staged.arrived.follow()
            piece = staged.on_device.copy()
            with fastest_methods():
                self._graph = Graph(piece, self._recorded(capture, piece.tensors))
        except RuntimeError as error:
            self._buffers.reinstate()
            log.warning(
                "updates are computed one operation after the other, since they cannot be recorded "
                "as a CUDA graph (%s)",
                first_words(error),
            )

    def _recorded(self, capture: Capture, tensors: Tensors) -> Callable[[EndStage], None]:
        """An update of the batch that lies in these tensors, as a graph."""
        replay = capture(lambda: self._compute(tensors, not_timed))

        def compute(end_stage: EndStage) -> None:
            replay()
            end_stage("graph_s")

        return compute

    def _compute(self, tensors: Tensors, end_stage: EndStage) -> None:
        """An update, from a batch's tensors to its figures; no result is looked at."""
        before = self._buffers.copies()
        gradients, (_, scalars, sums) = self._find(tensors, end_stage)
        scalars["grad_norm"] = self._take(self._optimizer.joined(gradients), before, sums)
        if not self._names:
            self._names = list(scalars)
            self._figures = torch.empty(len(scalars), device=self.device)
        torch.stack(list(scalars.values()), out=self._figures)
        end_stage("optimizer_s")

    def _find(self, tensors: Tensors, end_stage: EndStage) -> tuple[list[Tensor], Outcome]:
        """A gradient for each parameter, and what the batch has come to."""
        inputs = inputs_of(tensors, self._branch_free)
        end_stage("transfer_s")
        outcome = self._loss_of_update(inputs)
        end_stage("forward_s")
        gradients = self._gradients(outcome.total)
        self._buffers.settle()
        end_stage("backward_s")
        return gradients, outcome

    def _loss_of_update(self, inputs: Inputs) -> Outcome:
        _, entropy_cost, reward_factor = self._rates
        return self._loss(inputs, entropy_cost, reward_factor)

    def _take(self, gradient: Tensor, before: list[Tensor], sums: Tensor | None) -> Tensor:
        """Takes a step along a vector of all parameters; its norm before the clip.

        `before` is what the buffers held: where no step is taken, they hold it again. `sums` are
        what PopArt learns from.
        """
        optimizer, (learning_rate, *_) = self._optimizer, self._rates
        norm = optimizer.step(gradient, learning_rate)
        self.network.confine()
        self._buffers.put_back(before, unless=norm.isfinite())
        rate = optimizer.steps_on_device.clamp(1, AVERAGED_UPDATES).reciprocal() * norm.isfinite()
        self._averaged.lerp_(optimizer.flat, rate.float())
        self._learn_scales(sums, norm.isfinite())
        return norm

    def _told(self, numbers: list[float]) -> dict[str, float]:
        """The figures of an update by name."""
        return dict(zip(self._names, numbers, strict=True))

    @enough_memory()
    def _result(self, update: Pending) -> Step:
        figures = self._told(update.figures())
        seconds = update.stages.seconds()
        self._spare.append(update)
        return Step(figures, seconds, math.isfinite(figures["grad_norm"]))
