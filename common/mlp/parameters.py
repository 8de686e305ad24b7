"""A plain network's parameters as one vector."""

from math import prod

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.run.architecture import Shapes

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


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
