"""RMSProp as in the paper, and Adam, on all parameters as one flat vector, with named state.

A small network's step is then a dozen operations, and its weights are copied by one.

Not torch.optim: making its first optimizer imports the compiler and costs 0.9 s at start-up (the
command that measures it is in the README, "Decisions"), and its RMSProp adds epsilon outside the
square root, where the paper's (TensorFlow's) adds it inside.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from common.config import OptimizerSettings


class Optimizer:
    """Gradient clipping, then one step over all parameters; its state is plain tensors."""

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], settings: OptimizerSettings):
        """Takes the parameters over: from now on they are views of `self.flat`."""
        self._parameters = dict(parameters)
        self._settings = settings
        self.steps = 0
        self.flat = torch.cat([p.data.reshape(-1) for p in self._parameters.values()])
        for name, view in self.views(self.flat).items():
            self._parameters[name].data = view
        slots = ("average", "square") if settings.optimizer == "adam" else ("square", "momentum")
        self._slots = {slot: torch.zeros_like(self.flat) for slot in slots}
        if settings.optimizer == "rmsprop":
            # TensorFlow starts the squared average at one: the first steps are small, not large.
            self._slots["square"].fill_(1.0)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """A vector like `flat`, cut into the shapes of the parameters, by name."""
        parts = torch.split(flat, [p.numel() for p in self._parameters.values()])
        named = zip(self._parameters.items(), parts, strict=True)
        return {name: part.view(p.shape) for (name, p), part in named}

    def step(self, learning_rate: float) -> float:
        """Clips the gradients, steps, clears them; returns the norm before the clip.

        A norm that is not finite leaves everything as it was.
        """
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        assert len(gradients) == len(self._parameters), "a parameter has no gradient"
        gradient = torch.cat([g.reshape(-1) for g in gradients])
        norm = float(torch.linalg.vector_norm(gradient))
        if math.isfinite(norm):
            bound = self._settings.grad_norm_clipping
            if bound is not None and norm > bound:
                gradient *= bound / norm
            self.steps += 1
            if self._settings.optimizer == "adam":
                self._adam(gradient, learning_rate)
            else:
                self._rmsprop(gradient, learning_rate)
        for parameter in self._parameters.values():
            parameter.grad = None
        return norm

    def state(self) -> dict[str, Tensor]:
        """Every state tensor by its name, such as "square.policy.weight"."""
        return {
            f"{slot}.{name}": view
            for slot, flat in self._slots.items()
            for name, view in self.views(flat).items()
        }

    def _adam(self, gradient: Tensor, learning_rate: float) -> None:
        """Kingma and Ba 2015, algorithm 1."""
        s, (average, square) = self._settings, self._slots.values()
        average.lerp_(gradient, 1 - s.adam_beta1)
        square.mul_(s.adam_beta2).addcmul_(gradient, gradient, value=1 - s.adam_beta2)
        correction = (1 - s.adam_beta2**self.steps) ** 0.5
        denominator = square.sqrt().div_(correction).add_(s.adam_epsilon)
        size = learning_rate / (1 - s.adam_beta1**self.steps)
        self.flat.addcdiv_(average, denominator, value=-size)

    def _rmsprop(self, gradient: Tensor, learning_rate: float) -> None:
        """Tieleman and Hinton 2012, with epsilon inside the root and the rate in the momentum."""
        s, (square, momentum) = self._settings, self._slots.values()
        square.mul_(s.rmsprop_decay).addcmul_(gradient, gradient, value=1 - s.rmsprop_decay)
        root = (square + s.rmsprop_epsilon).sqrt_()
        momentum.mul_(s.rmsprop_momentum).addcdiv_(gradient, root, value=learning_rate)
        self.flat.sub_(momentum)


def scheduled(value: float, schedule: str, frames: int, total_frames: int) -> float:
    """`value` now: "constant", or "linear" to 0 at `total_frames`."""
    if schedule == "constant":
        return value
    return value * max(0.0, 1.0 - frames / total_frames)
