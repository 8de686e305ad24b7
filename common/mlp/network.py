"""A plain network's forward pass, and the gradients of its parameters, for one piece of a batch.

`common.networks.network` computes the same in torch, with gradients by autograd.

Features come first: arrays are [F, R], where R = (T+1) * C rows are those of C columns, time first.
Then sums over few features, as those of a policy's choices, run along the rows, which is fast. The
last C rows are the observations after the unroll: only their baselines count, and they carry no
gradient, so the backward pass is made for the first N = T * C.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.mlp.activations import Activation
from impala_redis.common.mlp.layers import Gradients, Layer, Matrices

Floats = NDArray[np.float32]


class PieceNetwork:
    """The network for pieces of one size; its memory is kept from piece to piece."""

    def __init__(
        self, layers: Sequence[Layer], activation: Activation, num_rows: int, num_learned: int
    ) -> None:
        """Makes room for R = `num_rows`, of which the first N = `num_learned` have gradients."""
        self._activation, self._learned = activation, num_learned
        # [in + 1, R] what each layer gets; the last feature is the 1 that its biases belong to
        self._inputs = [np.ones((layer.inputs + 1, num_rows), np.float32) for layer in layers]
        self._outputs = np.empty((layers[-1].outputs, num_rows), np.float32)
        self.gradient = np.empty((layers[-1].outputs, num_learned), np.float32)  # by the outputs
        # [in, N] that by each hidden layer's outputs
        self._gradients = [
            np.empty((layer.inputs, num_learned), np.float32) for layer in layers[1:]
        ]

    def forward(self, features: Floats, matrices: Matrices) -> Floats:
        """What the heads make [P + 1, R] of features [R, F]: the policy's, then the baseline.

        The array is overwritten by the next piece.
        """
        np.copyto(self._inputs[0][:-1], features.T)
        for inputs, matrix, outputs in zip(
            self._inputs[:-1], matrices.forward[:-1], self._inputs[1:], strict=True
        ):
            sums = outputs[:-1]  # [F, R]
            np.dot(matrix, inputs, out=sums)
            self._activation.apply(sums)
        return np.dot(matrices.forward[-1], self._inputs[-1], out=self._outputs)

    def backward(self, matrices: Matrices, gradients: Gradients) -> None:
        """Writes the gradients by the matrices, given `gradient` [P + 1, N] by the outputs.

        It uses up what the forward pass has left.
        """
        gradient = self.gradient
        for index in reversed(range(len(self._inputs))):
            inputs = self._inputs[index][:, : self._learned]
            np.dot(inputs, gradient.T, out=gradients.matrices[index])
            if index:
                before = self._gradients[index - 1]
                np.dot(matrices.backward[index].T, gradient, out=before)
                self._activation.multiply_by_slope(before, inputs[:-1])
                gradient = before
