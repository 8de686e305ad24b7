"""RMSProp as in the paper, and Adam, in numpy, on all parameters as one vector.

`common.learning.torch_optimizer` takes the same steps in torch, with the same state.
"""

import math

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.mlp.parameters import Layout, views, zeros
from impala_redis.common.run.groups import OptimizerSettings

Floats = NDArray[np.float32]


class Optimizer:
    """Gradient clipping, then one step over all parameters."""

    def __init__(self, layout: Layout, settings: OptimizerSettings) -> None:
        self._layout, self._settings = layout, settings
        self.rmsprop_epsilon = settings.rmsprop_epsilon  # may change between two steps
        self.steps = 0
        self.flat, self.gradient, self._spare, self._other = (zeros(layout) for _ in range(4))
        slots = ("average", "square") if settings.optimizer == "adam" else ("square", "momentum")
        self._slots = {slot: zeros(layout) for slot in slots}
        if settings.optimizer == "rmsprop":
            # TensorFlow starts the squared average at one: the first steps are small, not large.
            self._slots["square"].fill(1.0)

    def step(self, learning_rate: float) -> float:
        """Clips `gradient`, steps, and returns the norm before the clip.

        A norm that is not finite leaves everything as it was.
        """
        norm = self.norm()
        if math.isfinite(norm):
            bound = self._settings.grad_norm_clipping
            if bound is not None and norm > bound:
                self.gradient *= bound / norm
            self.steps += 1
            if self._settings.optimizer == "adam":
                self._adam(learning_rate)
            else:
                self._rmsprop(learning_rate)
        return norm

    def norm(self) -> float:
        """The norm of `gradient`, in float32: infinite above 1.8e19, where squares are."""
        return math.sqrt(np.dot(self.gradient, self.gradient))

    def state(self) -> dict[str, Floats]:
        """Every state array by its name, such as "square.policy.weight"; views."""
        return {
            f"{slot}.{name}": view
            for slot, vector in self._slots.items()
            for name, view in views(self._layout, vector).items()
        }

    def _adam(self, learning_rate: float) -> None:
        """Kingma and Ba 2015, algorithm 1."""
        s, (average, square) = self._settings, self._slots.values()
        change, denominator = self._spare, self._other
        np.subtract(self.gradient, average, out=change)
        change *= 1 - s.adam_beta1
        average += change
        self._average_squares(square, s.adam_beta2)
        np.sqrt(square, out=denominator)
        denominator /= (1 - s.adam_beta2**self.steps) ** 0.5
        denominator += s.adam_epsilon
        np.divide(average, denominator, out=change)
        change *= learning_rate / (1 - s.adam_beta1**self.steps)
        self.flat -= change

    def _rmsprop(self, learning_rate: float) -> None:
        """Tieleman and Hinton 2012, with epsilon inside the root and the rate in the momentum."""
        s, (square, momentum) = self._settings, self._slots.values()
        change, root = self._spare, self._other
        self._average_squares(square, s.rmsprop_decay)
        np.add(square, self.rmsprop_epsilon, out=root)
        np.sqrt(root, out=root)
        np.divide(self.gradient, root, out=change)
        change *= learning_rate
        momentum *= s.rmsprop_momentum
        momentum += change
        self.flat -= momentum

    def _average_squares(self, square: Floats, decay: float) -> None:
        """Moves the running average of squared gradients on."""
        square *= decay
        np.square(self.gradient, out=self._spare)
        self._spare *= 1 - decay
        square += self._spare
