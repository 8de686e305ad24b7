"""A network's parameters as they travel: by name, with the version that an update gave them."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Every parameter and statistic by its name, in the order of `NetworkSpec.weight_shapes`.
Weights = Mapping[str, NDArray[np.float32]]


class ArrivingWeights(Mapping[str, NDArray[np.float32]]):
    """Weights that may still be on their way: whoever looks at them first waits for them."""

    def __init__(self, receive: Callable[[], Weights]) -> None:
        self._receive = receive

    @cached_property
    def _weights(self) -> Weights:
        return self._receive()

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """A parameter; raises what `receive` raises."""
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


class VersionedWeights(NamedTuple):
    """Weights and their version, which grows by one with every update and never goes back."""

    version: int
    weights: Weights
    progress: float = 0.0  # the share of the training that was done, 0 .. 1
