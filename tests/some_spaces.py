"""Strategies that draw Gymnasium's spaces of every kind."""

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

from impala_redis.common.run.spaces import OBSERVATION_DTYPES

Space = spaces.Space[Any]

SHAPES = st.lists(st.integers(1, 3), max_size=3).map(tuple)
DTYPES = st.sampled_from([*OBSERVATION_DTYPES, "bool", "uint16", "uint32", "float16"])


@st.composite
def boxes(draw: st.DrawFn) -> Space:
    dtype = np.dtype(draw(DTYPES))
    shape = draw(SHAPES)
    if dtype.kind not in "iu":
        low, high = (0, 1) if dtype.kind == "b" else (-50, 50)
        return spaces.Box(low, high, shape, dtype)  # type: ignore[arg-type]
    # Whole numbers have bounds of their own, or those of the type, or some of each.
    ends = np.iinfo(dtype if dtype.itemsize < 8 else np.int32)  # Gymnasium draws no larger ones
    lows = st.sampled_from([0, -3, -50, ends.min]).map(lambda low: max(low, ends.min))
    highs = st.sampled_from([0, 1, 20, 100, ends.max])
    size = math.prod(shape)
    low, high = (
        np.array([draw(one) for _ in range(size)], dtype).reshape(shape) for one in (lows, highs)
    )
    return spaces.Box(low, high, shape, dtype)  # type: ignore[arg-type]


@st.composite
def choices(draw: st.DrawFn) -> Space:
    shape = draw(SHAPES)
    sizes = np.array([draw(st.integers(1, 300)) for _ in range(math.prod(shape))], np.int64)
    starts = np.array([draw(st.integers(-9, 9)) for _ in range(math.prod(shape))], np.int64)
    if not shape:
        return spaces.Discrete(int(sizes[0]), start=int(starts[0]))
    return spaces.MultiDiscrete(sizes.reshape(shape), start=starts.reshape(shape))


BITS = st.lists(st.integers(1, 3), min_size=1, max_size=2).map(spaces.MultiBinary)
NUMERIC = st.one_of(boxes(), choices(), BITS)
