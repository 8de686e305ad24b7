"""What is observed and what is done, as the spec, the wire and the networks see it.

Without Gymnasium and numpy: programs that neither play nor learn import it, too.

An observation is one array: a Box as it is, or the index of a Discrete. What has several parts (a
Dict, a Tuple), or parts that are categories (MultiDiscrete, MultiBinary, Text), travels as one row
of bytes in which each part has its place; `common.envs.encoding` fills it, the network takes it
apart.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

# What numbers of an observation are, and the bytes that each takes.
ITEM_BYTES = {
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "float32": 4,
    "float64": 8,
}
OBSERVATION_DTYPES = tuple(ITEM_BYTES)
# A run with larger observations than this is refused rather than tried.
MAX_OBSERVATION_SIZE = 16_777_216
MAX_PARTS = 64
# The largest space of choices: values of an index, actions, or one of several of either.
MAX_CHOICES = 65_536

# Bounds of a Gaussian's log standard deviation; densities lose precision outside them.
LOG_STD_LEAST, LOG_STD_MOST = -5.0, 2.0
HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class ObservationPart:
    """One array of an observation: numbers, or categories if `num_values` says how many of each."""

    name: str  # where it is in the space, such as "image" or "hands.left"; empty for all of it
    shape: tuple[int, ...]
    dtype: str  # one of OBSERVATION_DTYPES
    num_values: tuple[int, ...] = ()  # one for each element, flattened: each is 0 .. that - 1
    start: int = 0  # its first byte in the row; a multiple of its items' size

    @property
    def num_features(self) -> int:
        """Inputs of a network: one for each number, or for each value of each category."""
        return sum(self.num_values) or prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """What it takes in a row."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def is_picture(self) -> bool:
        """Whether convolutions make sense of it: bytes in two dimensions, or three with colours."""
        return self.dtype == "uint8" and not self.num_values and len(self.shape) in (2, 3)


@dataclass(frozen=True)
class ObservationSpec:
    """One environment's observation: an array, an index when `num_values` is set, or parts."""

    shape: tuple[int, ...]  # [] for an index, [bytes] for parts
    dtype: str  # one of OBSERVATION_DTYPES
    num_values: int | None = None  # a Discrete space's size; indices are 0 .. num_values - 1
    parts: tuple[ObservationPart, ...] = ()  # of a row of bytes
    # The network sees so many of the last observations (frames) of the episode, oldest first.
    frame_stack: int = 1

    @cached_property  # asked for in every step
    def leaves(self) -> tuple[ObservationPart, ...]:
        """Its parts; the array itself where it has none."""
        if self.parts:
            return self.parts
        values = () if self.num_values is None else (self.num_values,)
        return (ObservationPart("", self.shape, self.dtype, values),)

    @property
    def num_features(self) -> int:
        """Inputs of a network without convolutions."""
        return self.frame_stack * sum(leaf.num_features for leaf in self.leaves)

    @property
    def history(self) -> int:
        """Rows before an unroll's first that are needed to see what the network sees there."""
        return self.frame_stack - 1


@dataclass(frozen=True)
class ActionSpec:
    """What an action is: one choice, several choices, or numbers."""

    # "continuous": numbers drawn from Gaussians, where -1 .. 1 is the space's low .. high.
    kind: Literal["discrete", "multi_discrete", "continuous"]
    sizes: tuple[int, ...]  # choices of each; for continuous, one entry: how many numbers
    # Of numbers that all have both bounds, the Gaussians' means are kept between them.
    bounded: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one action in a trajectory."""
        if self.kind == "discrete":
            return ()
        return (len(self.sizes),) if self.kind == "multi_discrete" else self.sizes

    @property
    def dtype(self) -> str:
        """Of actions in a trajectory."""
        return "float32" if self.kind == "continuous" else "int32"

    @property
    def num_outputs(self) -> int:
        """Of the network's policy head: logits, or means and then logarithms of deviations."""
        return 2 * self.sizes[0] if self.kind == "continuous" else sum(self.sizes)

    @property
    def num_features(self) -> int:
        """Inputs of a network that is told the last action: one-hot choices, or the numbers."""
        return sum(self.sizes)


def discrete(num_actions: int) -> ActionSpec:
    """One of so many."""
    return ActionSpec("discrete", (num_actions,))


def shown(observation: ObservationSpec, action: ActionSpec) -> str:
    """Both in a few words, for a person."""
    seen = [
        f"{leaf.name or 'observation'} {leaf.dtype}{list(leaf.shape)}"
        + (f" of {sum(leaf.num_values)} values" if leaf.num_values else "")
        for leaf in observation.leaves
    ]
    bounded = " between bounds" if action.bounded else ""
    return f"{', '.join(seen)[:400]} and {action.kind} actions {list(action.sizes[:8])}{bounded}"
