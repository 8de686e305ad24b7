"""What a hidden layer does to its sums, and the slope of that: tanh and relu, in place.

A layer's weights and biases are multiplied by the activation's factor before the products, so that
no pass over the sums is needed for it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Activation(NamedTuple):
    """One function of the hidden layers."""

    factor: float  # the sums that `apply` gets are those of the layer, times this
    apply: Callable[[Floats], None]  # makes outputs of the sums, in place
    # Multiplies gradients by the slope at the outputs of the same shape, which it overwrites.
    multiply_by_slope: Callable[[Floats, Floats], None]


def _tanh(sums: Floats) -> None:
    np.tanh(sums, out=sums)


def _tanh_of_half(sums: Floats) -> None:
    """tanh(x) = 1 - 2 / (1 + exp(2x)), where the sums are 2x; an infinite exp makes it 1."""
    np.exp(sums, out=sums)
    np.add(sums, 1, out=sums)
    np.divide(-2, sums, out=sums)
    np.add(sums, 1, out=sums)


def _by_tanhs_slope(gradients: Floats, outputs: Floats) -> None:
    np.square(outputs, out=outputs)
    np.subtract(1, outputs, out=outputs)
    np.multiply(gradients, outputs, out=gradients)


def _relu(sums: Floats) -> None:
    # A row of zeros, because numpy takes four times as long with a single one.
    np.maximum(sums, np.zeros(sums.shape[1], np.float32), out=sums)


def _by_relus_slope(gradients: Floats, outputs: Floats) -> None:
    np.greater(outputs, 0, out=outputs, casting="unsafe")
    np.multiply(gradients, outputs, out=gradients)


RELU = Activation(1.0, _relu, _by_relus_slope)
TANH = Activation(1.0, _tanh, _by_tanhs_slope)
TANH_BY_EXP = Activation(2.0, _tanh_of_half, _by_tanhs_slope)


def activation_of(name: str) -> Activation:
    """The activation of that name: "tanh" or "relu"."""
    if name == "relu":
        return RELU
    return TANH if _has_fast_tanh() else TANH_BY_EXP


def _has_fast_tanh() -> bool:
    """Whether numpy computes tanh with the vector instructions that it takes a seventh with."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return "X86_V4" in found or "AVX512_SKX" in found
