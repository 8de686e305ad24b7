"""The linear maps of a plain network, as matrices that its products take.

A matrix holds a layer's weights, and its biases as a further column: its inputs have a feature that
is always 1. The heads of policy and baseline are one layer, the last.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.run.architecture import NetworkSpec

Floats = NDArray[np.float32]


class Layer(NamedTuple):
    """One linear map."""

    names: tuple[str, ...]  # the parameters are called `name.weight` and `name.bias`
    sizes: tuple[int, ...]  # how many outputs those of each name make
    inputs: int

    @property
    def outputs(self) -> int:
        """How many outputs it has."""
        return sum(self.sizes)

    def parts(self) -> Iterator[tuple[str, slice]]:
        """Each name, and its part of the outputs."""
        start = 0
        for name, size in zip(self.names, self.sizes, strict=True):
            yield name, slice(start, start + size)
            start += size


def layers_of(spec: NetworkSpec) -> list[Layer]:
    """The hidden layers of a plain network, then its heads."""
    inputs, layers = spec.observation.num_features, list[Layer]()
    for index, size in enumerate(spec.hidden_sizes):
        layers.append(Layer((f"torso.{index}",), (size,), inputs))
        inputs = size
    return [*layers, Layer(("policy", "baseline"), (sum(spec.action.sizes), 1), inputs)]


class Matrices:
    """The parameters for the products of an update; `take` brings them up to date."""

    def __init__(
        self, layers: Sequence[Layer], parameters: Mapping[str, Floats], factor: float
    ) -> None:
        """`parameters` are kept. Those of hidden layers are multiplied by `factor` forward."""
        # [out, in + 1] each
        self.forward = [np.empty((layer.outputs, layer.inputs + 1), np.float32) for layer in layers]
        # [out, in] each, without bias and factor
        self.backward = [parameters[f"{layer.names[0]}.weight"] for layer in layers[:-1]]
        self.backward.append(self.forward[-1][:, :-1])
        self._copies: list[tuple[Floats, Floats, float]] = []  # from, to, factor
        for layer, matrix in zip(layers, self.forward, strict=True):
            times = 1.0 if layer is layers[-1] else factor
            for name, part in layer.parts():
                self._copies += [
                    (parameters[f"{name}.weight"], matrix[part, :-1], times),
                    (parameters[f"{name}.bias"], matrix[part, -1], times),
                ]

    def take(self) -> None:
        """Takes over what the parameters are now."""
        for source, target, factor in self._copies:
            np.multiply(source, factor, out=target)


class Gradients:
    """A vector of gradients: the layers' matrices, transposed, then `others` more numbers."""

    def __init__(self, layers: Sequence[Layer], others: int = 0) -> None:
        sizes = [(layer.inputs + 1) * layer.outputs for layer in layers]
        self._layers = layers
        self.vector = np.zeros(sum(sizes) + others, np.float32)
        *cut, self.others = np.split(self.vector, np.cumsum(sizes))
        # [in + 1, out] each: where one of them is small, products are faster this way round.
        self.matrices = [
            part.reshape(layer.inputs + 1, layer.outputs)
            for part, layer in zip(cut, layers, strict=True)
        ]

    def pairs(self, gradients: Mapping[str, Floats]) -> list[tuple[Floats, Floats]]:
        """Views of this vector, and the places of `gradients` by parameter that they belong to."""
        pairs = []
        for layer, matrix in zip(self._layers, self.matrices, strict=True):
            for name, part in layer.parts():
                pairs += [
                    (matrix[:-1, part].T, gradients[f"{name}.weight"]),
                    (matrix[-1, part], gradients[f"{name}.bias"]),
                ]
        return pairs
