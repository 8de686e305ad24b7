"""The engine of torch on a CPU, for every network; `common.learning.gpu_engine` is that of a GPU.

The loss is in `common.loss.impala`, the network in `common.networks.network`, the step in
`common.learning.torch_optimizer`.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from impala_redis.common.blocks.trajectory import Trajectory
from impala_redis.common.devices.device import enough_memory, round_factors
from impala_redis.common.devices.pinned import pinned
from impala_redis.common.devices.stages import Stages
from impala_redis.common.learning.engine import (
    MOST_NORM,
    Arrays,
    Engine,
    Floats,
    Rates,
    Step,
    averaging_rate,
)
from impala_redis.common.learning.gpu_optimizer import BranchFreeOptimizer
from impala_redis.common.learning.torch_inputs import Inputs, inputs_of, moved
from impala_redis.common.learning.torch_optimizer import Optimizer
from impala_redis.common.loss.impala import Normalize, normalized
from impala_redis.common.loss.popart import Head
from impala_redis.common.loss.task_loss import Outcome, TaskLoss
from impala_redis.common.networks.network import NetworkOutput, make_network
from impala_redis.common.networks.own_buffers import OwnBuffers
from impala_redis.common.normalizing.value_scales import BIAS, WEIGHT, Statistics
from impala_redis.common.run.architecture import NORMALIZER
from impala_redis.common.run.config import Config
from impala_redis.common.run.groups import LossSettings
from impala_redis.common.run.spec import RunSpec


class TorchState(Engine):
    """The network, the optimizer's state and the loss, in torch on any device."""

    _optimizer: Optimizer | BranchFreeOptimizer

    def __init__(
        self,
        spec: RunSpec,
        config: Config,
        device: torch.device,
        make_optimizer: type[Optimizer] | type[BranchFreeOptimizer],
    ) -> None:
        """A fresh network on the device, and its optimizer."""
        super().__init__(spec)
        torch.manual_seed(config.training.seed)
        round_factors(config.training.precision == "tf32")  # "float32" means it
        self.device, self.where = device, f"{device}, by torch"
        self.network = make_network(spec, config.training.seed, config.model.initial_std).to(device)
        self._config, self._buffers = config, OwnBuffers(self.network, spec)
        self._parameters = dict(self.network.named_parameters())
        travelling = self.network.travelling()
        self._normalizer = {name: t for name, t in travelling.items() if name in NORMALIZER}
        self._optimizer = optimizer = make_optimizer(self._parameters.items(), config.optimizer)
        self.layout = [
            (name, optimizer.parts[name], tuple(p.shape)) for name, p in self._parameters.items()
        ]
        self._averaged = optimizer.flat.clone()
        self._task_loss = TaskLoss(spec, config.loss, device)
        self._popart = self._task_loss.popart
        # The parameters have a last layer of the baseline, and so has their mean.
        views = [optimizer.views(flat) for flat in (optimizer.flat, self._averaged)]
        self._heads = [Head(named[WEIGHT], named[BIAS]) for named in views]

    @property
    def steps(self) -> int:  # type: ignore[override]
        """How many steps the optimizer has taken."""
        return self._optimizer.steps

    @enough_memory()
    def allows_step(self, rows: Trajectory, rates: Rates) -> bool:
        """Whether the gradient of such rows is finite, and far from not being so."""
        before = self._buffers.copies()
        inputs = inputs_of(moved(rows, self.device))
        total = self._loss(inputs, rates.entropy_cost, rates.reward_factor).total
        gradients = self._gradients(total)
        self._buffers.put_back(before)
        norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
        return bool(torch.linalg.vector_norm(norms).item() <= MOST_NORM)

    @enough_memory()
    def slots(self) -> Arrays:
        """Copies of the optimizer's state."""
        return {
            name: t.to("cpu", copy=True).contiguous().numpy()
            for name, t in self._optimizer.state().items()
        }

    @enough_memory()
    def load(self, parameters: Arrays, averaged: Arrays, slots: Arrays, steps: int) -> None:
        """Takes over the state of another engine."""
        own = {name: p.data for name, p in self._parameters.items()}
        mean, state = self._optimizer.views(self._averaged), self._optimizer.state()
        for tensors, arrays in ((own, parameters), (mean, averaged), (state, slots)):
            for name, tensor in tensors.items():
                tensor.copy_(torch.from_numpy(arrays[name].copy()))
        self._optimizer.steps = steps

    @enough_memory()
    def set_rmsprop_epsilon(self, epsilon: float) -> None:
        """Changes it for the steps from now on; a GPU has it when the next one begins there."""
        self._optimizer.set_rmsprop_epsilon(epsilon)

    @enough_memory()
    def begin_statistics(self) -> Callable[[], Arrays]:
        """Begins to copy the buffers of a network of the user's own; nothing waits here."""
        return self._buffers.begin_copies()

    @enough_memory()
    def load_statistics(self, statistics: Arrays) -> None:
        """Takes over statistics by name; a GPU has them when the next update begins there."""
        for name, tensor in self._normalizer.items():
            if name in statistics:
                array = statistics[name]
                on_host = pinned(array.size, torch.float32, self.device).view(array.shape)
                on_host.numpy()[...] = array
                tensor.copy_(on_host, non_blocking=True)
        self._buffers.load(statistics)

    @enough_memory()
    def popart(self) -> Statistics:
        """Copies of PopArt's statistics; a GPU finishes its updates before."""
        if self._popart is None:
            return {}
        return {name: t.to("cpu", copy=True).numpy() for name, t in self._popart.tensors().items()}

    @enough_memory()
    def load_popart(self, statistics: Statistics) -> Statistics:
        """Takes over other statistics, if there are some; returns those that hold from now on."""
        if self._popart is not None and statistics:
            self._popart.load({name: torch.from_numpy(a.copy()) for name, a in statistics.items()})
        return self.popart()

    @property
    def random_state(self) -> NDArray[np.uint8]:
        """The state of torch's generator of random numbers."""
        return np.asarray(torch.get_rng_state().numpy(), np.uint8)

    @random_state.setter
    def random_state(self, state: NDArray[np.uint8]) -> None:
        torch.set_rng_state(torch.from_numpy(state.copy()))

    def _gradients(self, total: Tensor) -> list[Tensor]:
        """A gradient for each parameter: 0 for those that are frozen or have no part in the loss.

        It is not a number where the loss is not finite.
        """
        trained = [p for p in self._parameters.values() if p.requires_grad]
        with self._backward():
            found = torch.autograd.grad(
                total,
                trained,
                grad_outputs=one_if_finite(total),
                allow_unused=True,
                materialize_grads=True,
            )
        gradients = iter(found)
        return [
            next(gradients) if p.requires_grad else torch.zeros_like(p)
            for p in self._parameters.values()
        ]

    def _backward(self) -> AbstractContextManager[None]:
        """Names the user's own network, if there is one, where a backward pass fails."""
        if self.spec.own is None:
            return nullcontext()
        from impala_redis.common.networks.own_module import failing

        return failing(self.spec.network, "its backward pass")

    def _loss(
        self,
        inputs: Inputs,
        entropy_cost: float | Tensor,
        reward_factor: float | Tensor,
        settings: LossSettings | None = None,
        normalize: Normalize = normalized,
    ) -> Outcome:
        """The loss of a batch, by the run's settings or by others."""
        network_input, loss_input = inputs
        with self._precision():
            output: NetworkOutput = self.network(network_input)  # [T+1, B, ...]
        outcome = self._task_loss.of(
            output.policy[:-1],
            output.baseline,
            loss_input,
            entropy_cost,
            reward_factor,
            settings,
            normalize,
        )
        return outcome._replace(total=outcome.total + self._buffers.zero_if_finite())

    def _learn_scales(self, sums: Tensor | None, taken: Tensor | bool) -> None:
        """Lets PopArt learn from a batch, if its step was taken; all values stay the same."""
        if self._popart is not None and sums is not None:
            self._popart.update(sums, self._heads, taken)

    def _precision(self) -> AbstractContextManager[None]:
        """Lets the network compute products as precisely as the settings say."""
        if self._config.training.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


class TorchEngine(TorchState):
    """Computes in torch on a CPU, which has done each thing when the call for it returns."""

    _optimizer: Optimizer

    def __init__(self, spec: RunSpec, config: Config) -> None:
        """A fresh network."""
        super().__init__(spec, config, torch.device("cpu"), Optimizer)

    def step(self, rows: Trajectory, rates: Rates) -> Step:
        """Takes one step on a batch of any number of columns."""
        stages, before = Stages(self.device), self._buffers.copies()
        stages.begin()
        inputs = inputs_of(moved(rows, self.device))
        stages.end("transfer_s")
        total, scalars, sums = self._loss(inputs, rates.entropy_cost, rates.reward_factor)
        stages.end("forward_s")
        with self._backward():
            total.backward(one_if_finite(total))  # type: ignore[no-untyped-call]
        self._buffers.settle()
        stages.end("backward_s")
        norm = self._optimizer.step(rates.learning_rate)
        self.network.confine()
        taken = math.isfinite(norm)
        if taken:
            self._averaged.lerp_(self._optimizer.flat, averaging_rate(self.steps))
            self._learn_scales(sums, taken)
        else:
            self._buffers.put_back(before)
        stages.end("optimizer_s")
        numbers = torch.stack(list(scalars.values())).tolist()
        figures = dict(zip(scalars, numbers, strict=True)) | {"grad_norm": norm}
        return Step(figures, stages.seconds(), taken)

    def flat(self) -> Floats:
        """A copy of all parameters as one vector."""
        return np.asarray(self._optimizer.flat.clone().numpy(), np.float32)

    def averaged(self) -> Floats:
        """A copy of the parameters' mean over the last updates."""
        return np.asarray(self._averaged.clone().numpy(), np.float32)


def one_if_finite(total: Tensor) -> Tensor:
    """The factor of all gradients: not a number where the loss is not finite, else 1.

    An action whose density is 0 has an infinite loss, and may have finite gradients.
    """
    return total.detach() * 0 + 1
