"""The engine of torch: every network, on a CPU or a GPU.

The loss is in `common.loss.impala`, the network in `common.networks.network`, the step in
`common.learning.torch_optimizer`.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from impala_redis.common.blocks.trajectory import Trajectory, empty_trajectory
from impala_redis.common.devices.device import enough_memory
from impala_redis.common.devices.pinned import pinned_if_possible
from impala_redis.common.devices.stages import Stages
from impala_redis.common.learning.engine import (
    MOST_ACTIONS,
    MOST_NORM,
    Arrays,
    Engine,
    Floats,
    Rates,
    Step,
    averaging_rate,
)
from impala_redis.common.learning.torch_inputs import Inputs, Tensors, inputs_of, moved
from impala_redis.common.learning.torch_optimizer import Optimizer
from impala_redis.common.loss.impala import Figures, Losses, impala_loss
from impala_redis.common.networks.network import NetworkOutput, make_network
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec


class TorchEngine(Engine):
    """Computes in torch, by its automatic gradients."""

    @enough_memory()
    def __init__(self, spec: RunSpec, config: Config, device: torch.device) -> None:
        """A fresh network on the device. Raises DeviceFull."""
        super().__init__(spec)
        torch.manual_seed(config.training.seed)
        # "float32" means it: cuDNN would round the factors of convolutions to ten bits. For the
        # whole process, since the gradients are computed on a thread of torch's own.
        torch.backends.cudnn.allow_tf32 = False
        self.device, self.where = device, f"{device}, by torch"
        self.network = make_network(spec, config.training.seed).to(device)
        self._config = config
        self._parameters = dict(self.network.named_parameters())
        self._optimizer = Optimizer(
            self._parameters.items(), config.optimizer, branch_free=device.type != "cpu"
        )
        self.layout = [
            (name, self._optimizer.parts[name], tuple(p.shape))
            for name, p in self._parameters.items()
        ]
        self._averaged = self._optimizer.flat.clone()
        self._copying: torch.cuda.Stream | None = None  # the stream on which `stage` copies

    @property
    def steps(self) -> int:  # type: ignore[override]
        """How many steps the optimizer has taken."""
        return self._optimizer.steps

    def empty_rows(self, batch_size: int) -> Trajectory:
        """Memory for a batch, pinned for a GPU, if the system gives any such."""
        rows = empty_trajectory(self.spec, batch_size)
        if self.device.type != "cuda":
            return rows
        tensors = {name: torch.from_numpy(array) for name, array in rows._asdict().items()}
        pinned = pinned_if_possible(tensors)
        return Trajectory(**{name: tensor.numpy() for name, tensor in pinned.items()})

    @enough_memory()
    def stage(self, rows: Trajectory) -> Tensors | None:
        """Begins to copy a batch to a GPU while that computes; None on a CPU.

        The rows may be filled again when the figures of their update have been fetched: the update
        waits for the copy, and the figures for the update. Raises DeviceFull.
        """
        if self.device.type != "cuda":
            return None
        if self._copying is None:
            self._copying = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._copying):
            return moved(rows, self.device)

    @enough_memory()
    def step(self, rows: Trajectory, staged: Any, rates: Rates) -> Step:
        """Takes one step; a GPU is waited for once, when the figures are fetched."""
        stages = Stages(self.device)
        inputs = self._inputs(rows, staged)
        stages.end("transfer_s")
        losses, figures = self._loss(inputs, rates)
        stages.end("forward_s")
        losses.total.backward(_one_if_finite(losses.total))  # type: ignore[no-untyped-call]
        stages.end("backward_s")
        grad_norm = self._optimizer.step(rates.learning_rate)
        self.network.confine()
        stages.end("optimizer_s")
        numbers = _as_numbers(losses, figures, grad_norm)
        taken = self._optimizer.count(numbers["grad_norm"])
        if taken:
            self._averaged.lerp_(self._optimizer.flat, averaging_rate(self.steps))
        return Step(numbers, stages.seconds(), taken)

    @enough_memory()
    def allows_step(self, rows: Trajectory, rates: Rates) -> bool:
        """Whether the gradient of such rows is finite, and far from not being so."""
        total = self._loss(self._inputs(rows, None), rates)[0].total
        gradients = torch.autograd.grad(
            total, [*self._parameters.values()], grad_outputs=_one_if_finite(total)
        )
        norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
        return bool(torch.linalg.vector_norm(norms).item() <= MOST_NORM)

    def flat(self) -> Floats:
        """A copy of all parameters as one vector on the host."""
        return np.asarray(self._optimizer.flat.to("cpu", copy=True).numpy(), np.float32)

    def averaged(self) -> Floats:
        """A copy of the parameters' mean over the last updates, on the host."""
        return np.asarray(self._averaged.to("cpu", copy=True).numpy(), np.float32)

    def slots(self) -> Arrays:
        """Copies of the optimizer's state."""
        return {name: t.to("cpu", copy=True).numpy() for name, t in self._optimizer.state().items()}

    def load(self, parameters: Arrays, averaged: Arrays, slots: Arrays, steps: int) -> None:
        """Takes over the state of another engine."""
        own = {name: p.data for name, p in self._parameters.items()}
        mean, state = self._optimizer.views(self._averaged), self._optimizer.state()
        for tensors, arrays in ((own, parameters), (mean, averaged), (state, slots)):
            for name, tensor in tensors.items():
                tensor.copy_(torch.from_numpy(arrays[name].copy()))
        self._optimizer.steps = steps

    @property
    def random_state(self) -> NDArray[np.uint8]:
        """The state of torch's generator of random numbers."""
        return np.asarray(torch.get_rng_state().numpy(), np.uint8)

    @random_state.setter
    def random_state(self, state: NDArray[np.uint8]) -> None:
        torch.set_rng_state(torch.from_numpy(state.copy()))

    def _inputs(self, rows: Trajectory, staged: Tensors | None) -> Inputs:
        if staged is None or self._copying is None:
            return inputs_of(moved(rows, self.device))
        torch.cuda.current_stream(self.device).wait_stream(self._copying)
        return inputs_of(staged)

    def _loss(self, inputs: Inputs, rates: Rates) -> tuple[Losses, Figures]:
        network_input, loss_input = inputs
        with self._precision():
            output: NetworkOutput = self.network(network_input)  # [T+1, B, ...]
        settings = self._config.loss
        policy, baseline = output.policy[:-1], output.baseline
        return impala_loss(
            self.spec.action, policy, baseline, loss_input, settings, rates.entropy_cost
        )

    def _precision(self) -> AbstractContextManager[None]:
        """Lets the network compute products as precisely as the settings say."""
        if self._config.training.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def _one_if_finite(total: Tensor) -> Tensor:
    """The factor of all gradients: not a number where the loss is not finite, else 1.

    An action whose density is 0 has an infinite loss, and may have finite gradients.
    """
    return total.detach() * 0 + 1


def _as_numbers(losses: Losses, figures: Figures, grad_norm: Tensor) -> dict[str, float]:
    """Losses, figures and norm as numbers by name, in one transfer from the device."""
    several = figures._asdict()
    shares: Tensor | None = several.pop("pi_mean")
    scalars = {
        "total_loss": losses.total.detach(),
        "policy_loss": losses.policy,
        "baseline_loss": losses.baseline,
        "entropy": losses.entropy,
        "grad_norm": grad_norm,
        **{name: value for name, value in several.items() if value is not None},
    }
    if shares is not None and len(shares) <= MOST_ACTIONS:
        scalars |= {f"pi_mean_{a}": share for a, share in enumerate(shares)}
    return dict(zip(scalars, torch.stack(list(scalars.values())).tolist(), strict=True))
