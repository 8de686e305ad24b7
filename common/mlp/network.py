"""A plain network's forward pass, and the gradients of its parameters, for one piece of a batch.

`common.networks.network` computes the same in torch, with gradients by autograd.

A piece has R = (T+1) * C rows, time first, for C columns. Hidden layers make [R, F] of them, which
is what products are fastest with. What the heads make has the features first, [P+1, R]: then sums
over the few choices of a policy run along the rows. The last C rows are the observations after the
unroll. Only their baselines count, and without a gradient, so that the backward pass is made for
the first N = T * C rows.
"""

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.mlp.parameters import Products

Floats = NDArray[np.float32]


class PieceNetwork:
    """The network for pieces of one size; its memory is kept from piece to piece."""

    def __init__(self, products: Products, num_rows: int, num_learned: int) -> None:
        """Makes room for R = `num_rows`, of which the first N = `num_learned` have gradients."""
        self._products = products
        widths = [len(bias) for bias in products.biases]
        outputs = len(products.heads)
        # [R, F] what the first layer gets, and what each hidden one makes
        self._inputs = [np.empty((num_rows, width), np.float32) for width in (0, *widths)]
        self._outputs = np.empty((outputs, num_rows), np.float32)
        self.gradient = np.empty((outputs, num_learned), np.float32)  # by the first N outputs
        # [N, F] that by what each hidden layer makes
        self._gradients = [np.empty((num_learned, width), np.float32) for width in widths]
        self._ones = np.ones(num_learned, np.float32)

    def forward(self, features: Floats) -> Floats:
        """What the heads make [P+1, R] of features [R, F]: the policy's, then the baseline.

        The array is overwritten by the next piece, and the features are kept until `backward`.
        """
        self._inputs[0], products = features, self._products
        for index, (weight, bias) in enumerate(zip(products.forward, products.biases, strict=True)):
            sums = self._inputs[index + 1]
            np.dot(self._inputs[index], weight.T, out=sums)
            np.add(sums, bias, out=sums)
            products.activation.apply(sums)
        np.dot(products.heads, self._inputs[-1].T, out=self._outputs)
        return np.add(self._outputs, products.head_biases, out=self._outputs)

    def backward(self, gradients: dict[str, Floats]) -> None:
        """Writes the gradients by name, given `gradient` [P+1, N] by what the heads have made.

        It uses up what the forward pass has left.
        """
        num_learned, activation = len(self._ones), self._products.activation
        made = self._inputs[-1][:num_learned]
        weights, biases = np.dot(self.gradient, made), np.dot(self.gradient, self._ones)
        gradients["policy.weight"][...], gradients["policy.bias"][...] = weights[:-1], biases[:-1]
        gradients["baseline.weight"][...], gradients["baseline.bias"][...] = weights[-1], biases[-1]
        following, weight = self.gradient.T, self._products.heads
        for index in reversed(range(len(self._gradients))):
            gradient = np.dot(following, weight, out=self._gradients[index])  # [N, F]
            activation.multiply_by_slope(gradient, self._inputs[index + 1][:num_learned])
            inputs = self._inputs[index][:num_learned]
            np.dot(gradient.T, inputs, out=gradients[f"torso.{index}.weight"])
            np.dot(self._ones, gradient, out=gradients[f"torso.{index}.bias"])
            following, weight = gradient, self._products.hidden[index]
