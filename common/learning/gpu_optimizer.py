"""The steps of `torch_optimizer` for a GPU: the host is told nothing, and decides nothing.

Where the gradient is not finite, factors of 0 leave everything as it was. Whatever changes from
step to step, the learning rate and the number of steps too, is a tensor, so that all of it can be
recorded once (`common.devices.graph`).
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from impala_redis.common.learning.torch_optimizer import FlatState
from impala_redis.common.run.groups import OptimizerSettings


class BranchFreeOptimizer(FlatState):
    """Gradient clipping, then one step over all parameters, without a look at any number."""

    def __init__(
        self, parameters: Iterable[tuple[str, Tensor]], settings: OptimizerSettings
    ) -> None:
        super().__init__(parameters, settings, channels_last=True)
        # float64, as it is an exponent of numbers close to 1.
        self._steps = torch.zeros((), dtype=torch.float64, device=self.flat.device)
        self._rmsprop_epsilon: Tensor = self.flat.new_tensor(settings.rmsprop_epsilon)

    @property
    def steps(self) -> int:
        """How many steps were taken; the host waits for those under way."""
        return int(self._steps.item())

    @steps.setter
    def steps(self, steps: int) -> None:
        self._steps.fill_(steps)

    @property
    def steps_on_device(self) -> Tensor:
        """The same as a float64 scalar on the device."""
        return self._steps

    def set_rmsprop_epsilon(self, epsilon: float) -> None:
        """Changes what the steps from now on add inside the root, recorded ones, too."""
        self._rmsprop_epsilon.fill_(epsilon)

    def step(self, gradient: Tensor, learning_rate: Tensor) -> Tensor:
        """Clips the gradient, a vector like `flat`, and steps; the norm before the clip.

        `learning_rate` is a float32 scalar on the device. A norm that is not finite leaves
        everything as it was, but for the vector.
        """
        norm: Tensor = torch.linalg.vector_norm(gradient)
        bound = self._settings.grad_norm_clipping
        if bound is not None:
            gradient *= (bound / norm).clamp_(max=1.0)
        finite = norm.isfinite()
        # Not multiplied by 0: what is not a number would stay so.
        gradient = torch.where(finite, gradient, 0.0)
        self._steps += finite
        taken = finite.float()  # 1 or 0
        change = self._adam if self._settings.optimizer == "adam" else self._rmsprop
        self.flat.sub_(torch.where(finite, change(gradient, learning_rate, taken), 0.0))
        return norm

    def _adam(self, gradient: Tensor, learning_rate: Tensor, taken: Tensor) -> Tensor:
        """Kingma and Ba 2015, algorithm 1."""
        s, (average, square) = self._settings, self._slots.values()
        average.lerp_(gradient, (1 - s.adam_beta1) * taken)
        square.lerp_(gradient.square(), (1 - s.adam_beta2) * taken)
        correction = (1 - s.adam_beta2**self._steps).sqrt().float()
        size = learning_rate / (1 - s.adam_beta1**self._steps).float()
        return average / square.sqrt().div_(correction).add_(s.adam_epsilon) * size

    def _rmsprop(self, gradient: Tensor, learning_rate: Tensor, taken: Tensor) -> Tensor:
        """Tieleman and Hinton 2012, with epsilon inside the root and the rate in the momentum."""
        s, (square, momentum) = self._settings, self._slots.values()
        square.lerp_(gradient.square(), (1 - s.rmsprop_decay) * taken)
        root = (square + self._rmsprop_epsilon).sqrt_()
        momentum.mul_(1 - (1 - s.rmsprop_momentum) * taken).add_(gradient / root * learning_rate)
        return momentum
