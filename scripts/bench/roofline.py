"""What a network's updates cost in operations, and the matrix product that bounds them here.

Counted are the products of the layers, a multiplication and an addition as two operations (FLOP):
forward, the gradients of the weights, and those of the inputs, which the layers that see the
observation itself do not need. Everything else (activations, the loss, the step) is left out: it
is little beside them, and a computation without it is the limit that is meant. The limit is a
measured one: the rate of numpy's product of the network's largest layer, one thread, on as many
rows as a batch has, or a piece of it that stays in the cache.
"""

import itertools
from collections.abc import Callable, Iterator
from math import prod
from typing import NamedTuple

import numpy as np

from impala_redis.common.run.architecture import NetworkSpec, convolved_parts, picture_of
from impala_redis.common.run.kinds import NETWORKS

# A product of more rows than these is no faster; with 64 inputs, these stay in the cache of a core.
MOST_ROWS = 1344


class Layer(NamedTuple):
    """The products of a layer for one row of one environment: `places` times a weight."""

    outputs: int
    inputs: int
    places: int  # where a convolution's window stands; 1 for other layers
    sees_observation: bool  # so that no gradient of its inputs is needed

    @property
    def forward_flop(self) -> int:
        """Operations of the layer's outputs, which are those of either gradient too."""
        return 2 * self.outputs * self.inputs * self.places

    @property
    def flop(self) -> int:
        """Operations of the layer in an update."""
        return self.forward_flop * (2 if self.sees_observation else 3)


def layers_of(spec: NetworkSpec) -> list[Layer]:
    """Every layer with weights, in the order of `spec.parameter_shapes()`."""
    weights = [
        (name, shape) for name, shape in spec.parameter_shapes().items() if ".weight" in name
    ]
    places = list(_places(spec))
    first = {f"convolutions.{part}.0.weight" for part in range(len(places))}
    layers, windows = [], itertools.chain.from_iterable(places)
    for index, (name, (outputs, *inputs)) in enumerate(weights):
        convolved = name.startswith("convolutions.")
        sees = name in first if places else index == 0
        layers.append(Layer(outputs, prod(inputs), next(windows) if convolved else 1, sees))
    return layers


def _places(spec: NetworkSpec) -> Iterator[list[int]]:
    """The number of places of each convolution, picture by picture."""
    kind = NETWORKS[spec.network]
    for part in convolved_parts(spec.network, spec.observation):
        picture, places = picture_of(part, spec.observation.frame_stack), []
        sides = [picture.height, picture.width]
        for index, layer in enumerate(kind.convolutions):
            sides = [
                (side + 2 * layer.padding - layer.kernel) // layer.stride + 1 for side in sides
            ]
            places.append(prod(sides))
            # In residual networks a section's first convolution is followed by the pool.
            if kind.residual_blocks and index % (1 + 2 * kind.residual_blocks) == 0:
                sides = [(side + 1) // 2 for side in sides]
        yield places


def flop_a_frame(spec: NetworkSpec, unroll_length: int) -> float:
    """Operations for a frame that is trained on: T + 1 rows are computed for T frames."""
    flop_a_row = sum(layer.flop for layer in layers_of(spec))
    return flop_a_row * (unroll_length + 1) / unroll_length


class Product(NamedTuple):
    """A matrix product to call, and its operations."""

    call: Callable[[], object]
    flop: int


def product_of(spec: NetworkSpec, rows: int) -> Product:
    """numpy's product [R, inputs] x [inputs, outputs] of the layer that costs most, in float32.

    R is `rows` times the layer's places. More than MOST_ROWS are multiplied piece by piece, always
    the same one, so that a call takes about as long as the layer of an update, and is disturbed by
    other programs as much.
    """
    layer = max(layers_of(spec), key=lambda layer: layer.flop)
    piece = min(rows * layer.places, MOST_ROWS)
    pieces = max(1, rows * layer.places // piece)
    draw = np.random.default_rng(0)
    left = draw.standard_normal((piece, layer.inputs), np.float32)
    right = draw.standard_normal((layer.inputs, layer.outputs), np.float32)
    out = np.empty((piece, layer.outputs), np.float32)

    def multiply() -> None:
        for _ in range(pieces):
            np.matmul(left, right, out)

    return Product(multiply, 2 * pieces * left.size * layer.outputs)
