"""A plain network's forward pass, and the gradients of its parameters, for a number of rows.

`common.networks.network` computes the same in torch, with gradients by autograd.

A learner's rows are a piece of a batch: R = (T+1) * C of them, time first, for C columns. The last
C rows are the observations after the unroll. Only their baselines count, and without a gradient, so
that the backward pass is made for the first N = T * C rows. An actor's rows have no backward pass.

Layers get [R, F+1] numbers, the last of which is 1 (`common.mlp.products`). What the heads make is
turned to have the outputs first, [P+1, R]: then sums over the few choices of a policy run along the
rows.
"""

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.mlp.products import HEADS, Products, split

Floats = NDArray[np.float32]


class PlainNetwork:
    """The network for a fixed number of rows; its memory is kept from pass to pass."""

    def __init__(self, products: Products, num_rows: int, num_learned: int) -> None:
        """Makes room for R = `num_rows`, of which the first N = `num_learned` have gradients."""
        self._products, self.num_rows, self._num_learned = products, num_rows, num_learned
        outputs = len(products.heads)
        widths = [len(matrix) for matrix in (*products.to_hidden, products.to_heads)]
        # [R, F + 1] what each layer gets, the heads last, and [N, F + 1] the gradients by that, but
        # for the first. A gradient lies where the layer above has what it gets, if there is one:
        # that is used up by then, and memory that was used shortly before is in the cache.
        pairs = zip((*widths, 0), (0, 0, *widths[1:]), strict=True)
        memory = [
            np.empty(max(num_rows * width, num_learned * below), np.float32)
            for width, below in pairs
        ]
        self._inputs = [
            _rows(part, num_rows, width) for part, width in zip(memory[:-1], widths, strict=True)
        ]
        self._gradients = [
            _rows(part, num_learned, width)
            for part, width in zip(memory[2:], widths[1:], strict=True)
        ]
        self._inputs[0][:, -1] = 1
        self._made = np.empty((num_rows, outputs), np.float32)
        self._outputs = np.empty((outputs, num_rows), np.float32)
        self.gradient = np.empty((outputs, num_learned), np.float32)  # by the first N outputs

    def forward(self, features: Floats) -> Floats:
        """What the heads make [P+1, R] of features [R, F]: the policy's, then the baseline.

        The array is overwritten by the next pass.
        """
        products = self._products
        inputs, *made = self._inputs
        inputs[:, :-1] = features
        for matrix, sums in zip(products.to_hidden, made, strict=True):
            np.dot(inputs, matrix, out=sums)
            products.activation.apply(sums)
            sums[:, -1] = 1  # whatever came of it: 0 times infinity is no number
            inputs = sums
        np.dot(inputs, products.to_heads, out=self._made)
        np.copyto(self._outputs, self._made.T)
        return self._outputs

    def backward(self, gradients: dict[str, Floats]) -> None:
        """Writes the gradients by name, given `gradient` [P+1, N] by what the heads have made.

        It uses up what the forward pass has left.
        """
        products = self._products
        inputs = [rows[: self._num_learned] for rows in self._inputs]
        split(HEADS, np.dot(self.gradient, inputs[-1]), gradients)
        following, matrix = self.gradient.T, products.heads
        for index in reversed(range(len(products.layers))):
            # `matmul`, and not `dot`, which would copy the rows that are cut.
            gradient = np.matmul(following, matrix, out=self._gradients[index])  # [N, F + 1]
            products.activation.multiply_by_slope(gradient, inputs[index + 1])
            following, matrix = gradient[:, :-1], products.hidden[index]  # the 1 was no layer's
            split(products.layers[index], np.matmul(following.T, inputs[index]), gradients)


def _rows(memory: Floats, number: int, width: int) -> Floats:
    return memory[: number * width].reshape(number, width)
