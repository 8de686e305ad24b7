"""What a network without convolutions is told of observations: one row of numbers for each."""

from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.blocks.trajectory import taken_out
from impala_redis.common.run.spaces import ObservationPart, ObservationSpec

Floats = NDArray[np.float32]


def features(spec: ObservationSpec, observations: NDArray[Any]) -> Floats:
    """Inputs [N, F] of a network without convolutions, from observations [N, ...] or stacks."""
    n = len(observations)
    if not spec.parts:
        return _features(spec.leaves[0], observations.reshape(n, -1))
    return np.hstack(
        [_features(part, taken_out(part, observations).reshape(n, -1)) for part in spec.leaves]
    )


def _features(part: ObservationPart, values: NDArray[Any]) -> Floats:
    """Values [N, E] as [N, F]: categories one-hot, numbers divided by the part's scale."""
    if part.num_values:
        sizes = np.tile(part.num_values, values.shape[1] // len(part.num_values))
        first = np.cumsum(sizes) - sizes
        one_hot = np.zeros((len(values), sizes.sum()), np.float32)
        np.put_along_axis(one_hot, first + values.astype(np.int64), 1.0, axis=1)
        return one_hot
    numbers = cast(Floats, values.astype(np.float32, copy=False))
    if len(part.scale) > 1:  # E is a multiple: the frames of a stack follow each other
        return (numbers.reshape(len(numbers), -1, len(part.scale)) / _table(part.scale)).reshape(
            numbers.shape
        )
    return numbers / np.float32(part.scale[0]) if part.scale else numbers


@lru_cache(maxsize=64)  # it takes longer to make than to use
def _table(scale: tuple[int, ...]) -> Floats:
    return np.array([float(number) for number in scale], np.float32)
