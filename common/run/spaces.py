"""Observations and actions, as the spec, the wire and the networks see them.

It needs neither Gymnasium nor numpy: programs that neither play nor learn import it, too.

An observation is one array: a Box as it is, or the index of a Discrete. An observation of several
parts (a Dict, a Tuple) or of categories (MultiDiscrete, MultiBinary, Text) travels as one row of
bytes in which each part has its place; `common.encoding.observations` fills it, the network takes
it apart.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Literal

# The dtypes that numbers of an observation may have, and how many bytes each number takes.
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
# The most numbers, or bytes of a row, in one observation; a run with larger ones is refused.
MAX_OBSERVATION_SIZE = 16_777_216
MAX_PARTS = 64
MAX_DIMENSIONS = 8
# The largest number that a space's bounds allow, and so the largest that numbers are divided by.
MAX_SCALE = 2**64
# The most values that one index or category may have, and the most choices of one action.
MAX_CHOICES = 65_536
# A text is its first words, each as one of so many numbers; 0 stands where there is no word.
TEXT_WORDS, TEXT_BUCKETS = 16, 128

# Numbers that are normalised are clipped to this, of either sign; so are rewards.
MOST_NORMALIZED = 10.0

# Bounds of a Gaussian's log standard deviation; densities lose precision outside them.
LOG_STD_LEAST, LOG_STD_MOST = -5.0, 2.0
HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)

# Up to this many choices, a record has the mean probability of each.
MOST_ACTIONS = 8

# The part of a Dict observation that says which choices are allowed, one number for each: 0 is not.
MASK_NAME = "action_mask"
# What is subtracted from the logit of a choice that is not allowed. Its probability is then exactly
# 0, and so is its gradient; an infinity would make numbers of both that are none.
FORBIDDEN = 1e30


@dataclass(frozen=True)
class ObservationPart:
    """One array of an observation: numbers, or categories if `num_values` is set."""

    name: str  # its place in the space, such as "image" or "hands.left"; empty if it is the whole
    shape: tuple[int, ...]
    dtype: str  # one of OBSERVATION_DTYPES
    num_values: tuple[int, ...] = ()  # one for each flattened element, which is below it
    start: int = 0  # its first byte in the row; a multiple of the size of its items
    # What the network divides the numbers by, as the space's bounds say: one number for all, or one
    # for each flattened element. Empty where they stay as they are.
    scale: tuple[int, ...] = ()

    @property
    def num_features(self) -> int:
        """How many network inputs it makes: one for each number, or each value of each category."""
        return sum(self.num_values) or prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """How many bytes it takes in a row."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def is_text(self) -> bool:
        """Whether it is the words of a text; nothing else travels in this form."""
        form = (self.shape, self.dtype, self.num_values)
        return form == ((TEXT_WORDS,), "uint8", (TEXT_BUCKETS,) * TEXT_WORDS)

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture as most are: bytes in two dimensions, or three with colours."""
        return self.dtype == "uint8" and not self.num_values and len(self.shape) in (2, 3)

    @property
    def has_picture_shape(self) -> bool:
        """Whether it could be a picture: numbers in two dimensions, with colours, or stacked."""
        return not self.num_values and len(self.shape) in (2, 3, 4)


@dataclass(frozen=True)
class ObservationSpec:
    """One environment's observation: an array, an index when `num_values` is set, or parts."""

    shape: tuple[int, ...]  # [] for an index, [bytes] for parts
    dtype: str  # one of OBSERVATION_DTYPES
    num_values: int | None = None  # a Discrete space's size; indices are 0 .. num_values - 1
    parts: tuple[ObservationPart, ...] = ()  # the parts of a row of bytes; empty for one array
    # How many of the episode's last observations (frames) the network sees at once, oldest first.
    frame_stack: int = 1
    scale: tuple[int, ...] = ()  # that of the array; each part has its own
    mask: str = ""  # the name of the part that is the action mask (MASK_NAME); empty if none is

    @cached_property  # it is needed in every step
    def leaves(self) -> tuple[ObservationPart, ...]:
        """What the network sees: its parts without the mask, or the array itself if it has none."""
        if self.parts:
            return tuple(part for part in self.parts if part is not self.mask_part)
        values = () if self.num_values is None else (self.num_values,)
        return (ObservationPart("", self.shape, self.dtype, values, scale=self.scale),)

    @cached_property
    def mask_part(self) -> ObservationPart | None:
        """The action mask: a byte for each choice of an action, 0 if it is not allowed.

        Choices of several follow each other, as the outputs of the policy do. None if all is
        allowed at all times.
        """
        if not self.mask:
            return None
        return next(part for part in self.parts if part.name == self.mask)

    @property
    def num_features(self) -> int:
        """How many inputs a network without convolutions has."""
        return self.frame_stack * sum(leaf.num_features for leaf in self.leaves)

    def scaled_as(self, other: "ObservationSpec") -> "ObservationSpec":
        """The same observation with the other's scales, if the two differ in nothing else.

        Else it is returned as it is. A run keeps the scales that it was begun with, whatever the
        environment's bounds are later: its network was trained with them.
        """
        unscaled = [
            replace(one, scale=(), parts=tuple(replace(part, scale=()) for part in one.parts))
            for one in (self, other)
        ]
        return other if unscaled[0] == unscaled[1] else self

    @property
    def history(self) -> int:
        """How many rows before an unroll's first the network sees together with it."""
        return self.frame_stack - 1


@dataclass(frozen=True)
class ActionSpec:
    """What an action is: one choice, several choices, or numbers."""

    # "continuous": numbers drawn from Gaussians, where -1 .. 1 is the space's low .. high.
    kind: Literal["discrete", "multi_discrete", "continuous"]
    sizes: tuple[int, ...]  # how many choices each has; for continuous, one entry: how many numbers
    # Whether all numbers have both bounds: then the means of the Gaussians are kept between them.
    bounded: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one action in a trajectory."""
        if self.kind == "discrete":
            return ()
        return (len(self.sizes),) if self.kind == "multi_discrete" else self.sizes

    @property
    def dtype(self) -> str:
        """The dtype of actions in a trajectory."""
        return "float32" if self.kind == "continuous" else "int32"

    @property
    def num_outputs(self) -> int:
        """How many outputs the policy has (P): logits, or means, then log standard deviations."""
        return 2 * self.sizes[0] if self.kind == "continuous" else sum(self.sizes)

    @property
    def num_features(self) -> int:
        """How many network inputs the last action makes: one-hot choices, or the numbers."""
        return sum(self.sizes)


def discrete(num_actions: int) -> ActionSpec:
    """An action that is one choice among `num_actions`."""
    return ActionSpec("discrete", (num_actions,))
