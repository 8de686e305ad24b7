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
    low, high = (0, 1) if dtype.kind == "b" else (-50, 50)
    if dtype.kind in "iu" and dtype.itemsize < 8:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return spaces.Box(low, high, draw(SHAPES), dtype)  # type: ignore[arg-type]


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
