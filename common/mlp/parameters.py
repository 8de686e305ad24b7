"""A plain network's parameters as one vector, and as its products take them.

The heads of policy and baseline are one product: their weights lie below each other.
"""

from math import prod

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.mlp.activations import activation_of
from impala_redis.common.run.architecture import NetworkSpec, Shapes

Floats = NDArray[np.float32]
# Each parameter's name, its part of the vector of all, and its shape.
Layout = list[tuple[str, slice, tuple[int, ...]]]

# A parameter begins at a multiple of this many floats, as in torch's vector.
ALIGNMENT = 16


def layout_of(shapes: Shapes) -> Layout:
    """Where each parameter lies in the vector of all; what lies between them stays 0."""
    layout: Layout = []
    start = 0
    for name, shape in shapes.items():
        layout.append((name, slice(start, start + prod(shape)), shape))
        start += _aligned(prod(shape))
    return layout


def zeros(layout: Layout) -> Floats:
    """A vector of zeros for all parameters."""
    return np.zeros(layout[-1][1].start + _aligned(prod(layout[-1][2])), np.float32)


def views(layout: Layout, vector: Floats) -> dict[str, Floats]:
    """The vector, cut into the shapes of the parameters, by name."""
    return {name: vector[part].reshape(shape) for name, part, shape in layout}


class Products:
    """What the products of an update take; `refresh` brings it up to date."""

    def __init__(self, spec: NetworkSpec, parameters: dict[str, Floats]) -> None:
        """Keeps the parameters, which are brought up to date by others."""
        self.activation = activation_of(spec.activation)
        self._parameters = parameters
        names = [f"torso.{index}" for index in range(len(spec.hidden_sizes))]
        self._names = names
        self.hidden = [parameters[f"{name}.weight"] for name in names]  # [out, in] each
        # The same, and the biases [out], multiplied by the activation's factor.
        self.forward = [np.empty(weight.shape, np.float32) for weight in self.hidden]
        self.biases = [np.empty(len(weight), np.float32) for weight in self.hidden]
        outputs, inputs = parameters["policy.weight"].shape
        self.heads = np.empty((outputs + 1, inputs), np.float32)  # the last row is the baseline's
        self.head_biases = np.empty((outputs + 1, 1), np.float32)

    def refresh(self) -> None:
        """Takes over what the parameters are now."""
        for name, weight, bias in zip(self._names, self.forward, self.biases, strict=True):
            np.multiply(self._parameters[f"{name}.weight"], self.activation.factor, out=weight)
            np.multiply(self._parameters[f"{name}.bias"], self.activation.factor, out=bias)
        self.heads[:-1] = self._parameters["policy.weight"]
        self.heads[-1] = self._parameters["baseline.weight"]
        self.head_biases[:-1, 0] = self._parameters["policy.bias"]
        self.head_biases[-1] = self._parameters["baseline.bias"]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
