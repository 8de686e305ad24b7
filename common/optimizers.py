"""RMSProp as in the paper, and Adam, as multi-tensor steps with named state.

Not torch.optim: making its first optimizer imports the compiler and costs 0.9 s at start-up (the
command that measures it is in the README, "Decisions"), and its RMSProp adds epsilon outside the
square root, where the paper's (TensorFlow's) adds it inside.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from common.config import OptimizerSettings


class Optimizer:
    """Gradient clipping, then one step over all parameters; its state is plain tensors."""

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], settings: OptimizerSettings):
        named = list(parameters)
        self._names = [name for name, _ in named]
        self._parameters = [parameter.data for _, parameter in named]
        self._sources = [parameter for _, parameter in named]
        self._settings = settings
        self.steps = 0
        slots = ("average", "square") if settings.optimizer == "adam" else ("square", "momentum")
        self._slots = {slot: [torch.zeros_like(p) for p in self._parameters] for slot in slots}
        if settings.optimizer == "rmsprop":
            # TensorFlow starts the squared average at one: the first steps are small, not large.
            torch._foreach_add_(self._slots["square"], 1.0)

    def step(self, learning_rate: float) -> Tensor:
        """Clips the gradients, steps, clears them; returns the norm before the clip, a scalar.

        A norm that is not finite leaves everything as it was.
        """
        gradients = [source.grad for source in self._sources if source.grad is not None]
        assert len(gradients) == len(self._parameters), "a parameter has no gradient"
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if torch.isfinite(norm):
            bound = self._settings.grad_norm_clipping
            if bound is not None and norm > bound:
                torch._foreach_mul_(gradients, bound / norm)
            self.steps += 1
            if self._settings.optimizer == "adam":
                self._adam(gradients, learning_rate)
            else:
                self._rmsprop(gradients, learning_rate)
        for source in self._sources:
            source.grad = None
        return norm

    def state(self) -> dict[str, Tensor]:
        """Every state tensor by its name, such as "square.policy.weight"."""
        return {
            f"{slot}.{name}": tensor
            for slot, tensors in self._slots.items()
            for name, tensor in zip(self._names, tensors, strict=True)
        }

    def _adam(self, gradients: list[Tensor], learning_rate: float) -> None:
        """Kingma and Ba 2015, algorithm 1."""
        s, (average, square) = self._settings, self._slots.values()
        torch._foreach_lerp_(average, gradients, 1 - s.adam_beta1)
        torch._foreach_mul_(square, s.adam_beta2)
        torch._foreach_addcmul_(square, gradients, gradients, 1 - s.adam_beta2)
        correction = (1 - s.adam_beta2**self.steps) ** 0.5
        denominator = torch._foreach_sqrt(square)
        torch._foreach_div_(denominator, correction)
        torch._foreach_add_(denominator, s.adam_epsilon)
        size = learning_rate / (1 - s.adam_beta1**self.steps)
        torch._foreach_addcdiv_(self._parameters, average, denominator, -size)

    def _rmsprop(self, gradients: list[Tensor], learning_rate: float) -> None:
        """Tieleman and Hinton 2012, with epsilon inside the root and the rate in the momentum."""
        s, (square, momentum) = self._settings, self._slots.values()
        torch._foreach_mul_(square, s.rmsprop_decay)
        torch._foreach_addcmul_(square, gradients, gradients, 1 - s.rmsprop_decay)
        root = torch._foreach_add(square, s.rmsprop_epsilon)
        torch._foreach_sqrt_(root)
        torch._foreach_mul_(momentum, s.rmsprop_momentum)
        torch._foreach_addcdiv_(momentum, gradients, root, learning_rate)
        torch._foreach_sub_(self._parameters, momentum)


def scheduled(value: float, schedule: str, frames: int, total_frames: int) -> float:
    """`value` now: "constant", or "linear" to 0 at `total_frames`."""
    if schedule == "constant":
        return value
    return value * max(0.0, 1.0 - frames / total_frames)
