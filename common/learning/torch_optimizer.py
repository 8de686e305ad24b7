"""RMSProp as in the paper, and Adam, on all parameters as one flat vector, with named state.

A small network's step is then a dozen operations, and its weights are copied by one.

Not torch.optim: making its first optimizer imports the compiler and costs 0.9 s at start-up
(`scripts/bench_choices.py` measures it), and its RMSProp adds epsilon outside the square root,
where the paper's (TensorFlow's) adds it inside.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from impala_redis.common.run.architecture import OWN_PREFIX
from impala_redis.common.run.groups import OptimizerSettings

# A parameter begins at a multiple of this many floats, as a GPU's faster kernels (cublasLt) need.
ALIGNMENT = 16


class FlatState:
    """All parameters, and the optimizer's state, as flat vectors with named views."""

    def __init__(
        self,
        parameters: Iterable[tuple[str, Tensor]],
        settings: OptimizerSettings,
        channels_last: bool = False,
    ) -> None:
        """Takes the parameters over: from now on they are views of `self.flat`.

        With `channels_last` the weights of our convolutions lie in the vectors as those of a GPU
        take them. They travel in the order of their shapes (`travelling`) all the same. A module
        of the user's own may need its tensors as it made them.
        """
        self._parameters, self._settings = dict(parameters), settings
        self._rmsprop_epsilon: float | Tensor = settings.rmsprop_epsilon
        self._channels_last = {
            name
            for name, parameter in self._parameters.items()
            if channels_last and parameter.dim() == 4 and not name.startswith(OWN_PREFIX)
        }
        # Each parameter's part of `flat`; what lies between them stays 0.
        self.parts: dict[str, slice] = {}
        self._gaps: list[Tensor] = []
        start = 0
        for name, parameter in self._parameters.items():
            self.parts[name] = slice(start, start + parameter.numel())
            gap = -parameter.numel() % ALIGNMENT
            self._gaps.append(parameter.data.new_zeros(gap))
            start = self.parts[name].stop + gap
        self.flat = self.joined(p.data for p in self._parameters.values())
        for name, view in self.views(self.flat).items():
            self._parameters[name].data = view
        slots = ("average", "square") if settings.optimizer == "adam" else ("square", "momentum")
        self._slots = {slot: torch.zeros_like(self.flat) for slot in slots}
        if settings.optimizer == "rmsprop":
            # TensorFlow starts the squared average at one: the first steps are small, not large.
            self._slots["square"].fill_(1.0)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """A vector like `flat`, cut into the shapes of the parameters, by name."""
        return {name: self._view(flat[part], name) for name, part in self.parts.items()}

    def joined(self, tensors: Iterable[Tensor], out: Tensor | None = None) -> Tensor:
        """One tensor for each parameter, as a vector like `flat`: in `out`, if that is given."""
        return torch.cat(self._pieces(map(self._as_it_lies, self._parameters, tensors)), out=out)

    def travelling(self, flat: Tensor, out: Tensor) -> None:
        """Writes a vector like `flat` to `out`, each parameter in the order of its own shape."""
        torch.cat(self._pieces(self.views(flat).values()), out=out)

    def state(self) -> dict[str, Tensor]:
        """Every state tensor by its name, such as "square.policy.weight"."""
        return {
            f"{slot}.{name}": view
            for slot, flat in self._slots.items()
            for name, view in self.views(flat).items()
        }

    def _view(self, part: Tensor, name: str) -> Tensor:
        shape = self._parameters[name].shape
        if name not in self._channels_last:
            return part.view(shape)
        outputs, inputs, height, width = shape
        return part.view(outputs, height, width, inputs).permute(0, 3, 1, 2)

    def _as_it_lies(self, name: str, tensor: Tensor) -> Tensor:
        """A parameter's tensor with its axes in the order in which they lie in `flat`."""
        return tensor.permute(0, 2, 3, 1) if name in self._channels_last else tensor

    def _pieces(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        pairs = zip((t.reshape(-1) for t in tensors), self._gaps, strict=True)
        return [piece for pair in pairs for piece in pair]


class Optimizer(FlatState):
    """Gradient clipping, then one step over all parameters; its state is plain tensors."""

    def __init__(
        self, parameters: Iterable[tuple[str, Tensor]], settings: OptimizerSettings
    ) -> None:
        super().__init__(parameters, settings)
        self.steps = 0

    def set_rmsprop_epsilon(self, epsilon: float) -> None:
        """Changes what the steps from now on add inside the root."""
        self._rmsprop_epsilon = epsilon

    def step(self, learning_rate: float) -> float:
        """Clips the gradients, steps, clears them; returns the norm before the clip.

        A norm that is not finite leaves everything as it was. A parameter without a gradient, as
        those that a network of the user's own has frozen, has one of 0.
        """
        gradient = self.joined(
            torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters.values()
        )
        norm: float = torch.linalg.vector_norm(gradient).item()
        if math.isfinite(norm):
            bound = self._settings.grad_norm_clipping
            if bound is not None and norm > bound:
                gradient *= bound / norm
            self._step(gradient, learning_rate)
            self.steps += 1
        for parameter in self._parameters.values():
            parameter.grad = None
        return norm

    def _step(self, gradient: Tensor, learning_rate: float) -> None:
        if self._settings.optimizer == "adam":
            self._adam(gradient, learning_rate)
        else:
            self._rmsprop(gradient, learning_rate)

    def _adam(self, gradient: Tensor, learning_rate: float) -> None:
        """Kingma and Ba 2015, algorithm 1."""
        s, (average, square) = self._settings, self._slots.values()
        average.lerp_(gradient, 1 - s.adam_beta1)
        square.mul_(s.adam_beta2).addcmul_(gradient, gradient, value=1 - s.adam_beta2)
        steps = self.steps + 1  # this one included
        correction = (1 - s.adam_beta2**steps) ** 0.5
        denominator = square.sqrt().div_(correction).add_(s.adam_epsilon)
        size = learning_rate / (1 - s.adam_beta1**steps)
        self.flat.addcdiv_(average, denominator, value=-size)

    def _rmsprop(self, gradient: Tensor, learning_rate: float) -> None:
        """Tieleman and Hinton 2012, with epsilon inside the root and the rate in the momentum."""
        s, (square, momentum) = self._settings, self._slots.values()
        square.mul_(s.rmsprop_decay).addcmul_(gradient, gradient, value=1 - s.rmsprop_decay)
        root = (square + self._rmsprop_epsilon).sqrt_()
        momentum.mul_(s.rmsprop_momentum).addcdiv_(gradient, root, value=learning_rate)
        self.flat.sub_(momentum)
