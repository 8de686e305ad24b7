"""A plain network's parameters, as the products of its passes take them.

The numbers that a layer gets end with one that is always 1. So biases are columns of the matrices,
and neither they nor their gradients need a pass of their own over the rows.

The heads of policy and baseline are one product: their matrices lie below each other.
"""

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.mlp.activations import activation_of
from impala_redis.common.run.architecture import NetworkSpec

Floats = NDArray[np.float32]
Arrays = dict[str, Floats]

HEADS = ("policy", "baseline")


class Products:
    """The matrices of an update; `refresh` brings them up to date."""

    def __init__(self, spec: NetworkSpec, parameters: Arrays) -> None:
        """Keeps the parameters, which are brought up to date by others."""
        self.activation = activation_of(spec.activation)
        self._parameters = parameters
        self.layers = [(f"torso.{index}",) for index in range(len(spec.hidden_sizes))]
        # [out, in + 1] each, as the backward pass takes them
        self.hidden = [_matrix_of(names, parameters) for names in self.layers]
        self.heads = _matrix_of(HEADS, parameters)  # [P + 1, in + 1]
        # [in + 1, out + 1] each, for the sums that the activation gets, of which the last is none;
        # products of many rows are fastest with matrices that lie in memory in this order
        self.to_hidden = [np.zeros((m.shape[1], len(m) + 1), np.float32) for m in self.hidden]
        self.to_heads = np.empty(self.heads.shape[::-1], np.float32)

    def refresh(self) -> None:
        """Takes over what the parameters are now."""
        for names, matrix, forward in zip(self.layers, self.hidden, self.to_hidden, strict=True):
            join(names, self._parameters, matrix)
            np.multiply(matrix.T, self.activation.factor, out=forward[:, :-1])
        join(HEADS, self._parameters, self.heads)
        self.to_heads[...] = self.heads.T


def join(names: tuple[str, ...], arrays: Arrays, matrix: Floats) -> None:
    """Writes some layers below each other into one matrix [out, in + 1], biases in its end."""
    row = 0
    for name in names:
        bias = arrays[f"{name}.bias"]
        part = matrix[row : row + len(bias)]
        part[:, :-1], part[:, -1] = arrays[f"{name}.weight"], bias
        row += len(bias)


def split(names: tuple[str, ...], matrix: Floats, arrays: Arrays) -> None:
    """Writes one matrix [out, in + 1] into the layers that it joins."""
    row = 0
    for name in names:
        bias = arrays[f"{name}.bias"]
        part = matrix[row : row + len(bias)]
        arrays[f"{name}.weight"][...], bias[...] = part[:, :-1], part[:, -1]
        row += len(bias)


def _matrix_of(names: tuple[str, ...], arrays: Arrays) -> Floats:
    weights = [arrays[f"{name}.weight"] for name in names]
    return np.empty((sum(map(len, weights)), weights[0].shape[1] + 1), np.float32)
