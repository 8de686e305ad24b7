"""The random numbers that torch draws on a CPU after `manual_seed`, without torch.

Its generator is the Mersenne Twister MT19937 (Matsumoto and Nishimura 1998), which Python's
`random` has, too; numpy's is not taken because its import takes 18 ms. How torch makes floats of
the generator's words is in its ATen sources: `core/DistributionsHelper.h` and
`native/cpu/DistributionTemplates.h`.
"""

import math
from random import Random

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

STATE_WORDS = 624
# The words are asked for in pieces: Python's generator draws 2^31 bits at most at once.
MOST_WORDS = 2**20
# From this many numbers on, normal numbers are made in blocks of so many.
BLOCK = 16


class TorchRandom:
    """Draws what torch's CPU generator draws after `torch.manual_seed(seed)`, in the same order."""

    def __init__(self, seed: int) -> None:
        """Takes a seed from 0 to 2^63 - 1; as in torch, its lower 32 bits decide."""
        self._words_of = Random(0)
        self._words_of.setstate((3, (*_first_words(seed), STATE_WORDS), None))
        self._cached: float | None = None  # torch keeps the second number of a pair

    def skip(self, count: int) -> None:
        """Leaves out as many numbers as `uniform_` of that many float32 numbers draws."""
        while count > 0:
            self._words_of.getrandbits(32 * min(count, MOST_WORDS))
            count -= MOST_WORDS

    def normal(self, count: int) -> Floats:
        """The standard normal numbers [count] that `normal_` draws for a float32 tensor.

        They are equal but for the last digits, in which torch's own vary from processor to
        processor.
        """
        if count < BLOCK:
            return np.array([self._one_normal() for _ in range(count)], np.float32)
        numbers = np.empty(count, np.float32)
        whole = count - count % BLOCK
        uniform = self._uniform(count)
        numbers[:whole] = _box_muller(uniform[:whole])
        if whole < count:  # the last block overlaps the one before, and is drawn a second time
            numbers[-BLOCK:] = _box_muller(self._uniform(BLOCK))
        return numbers

    def _words(self, count: int) -> NDArray[np.uint32]:
        pieces = [
            self._words_of.randbytes(4 * min(count - start, MOST_WORDS))
            for start in range(0, count, MOST_WORDS)
        ]
        return np.frombuffer(b"".join(pieces), "<u4")

    def _uniform(self, count: int) -> Floats:
        """Numbers [count] from 0 to 1, without 1: 24 bits of a word each."""
        return (self._words(count) & (2**24 - 1)) * np.float32(2**-24)

    def _one_normal(self) -> float:
        """One normal number in double precision, which uses 53 of 64 bits."""
        if self._cached is not None:
            number, self._cached = self._cached, None
            return number
        turn, share = (self._one_double() for _ in range(2))
        radius = math.sqrt(-2.0 * math.log1p(-share))
        self._cached = radius * math.sin(2.0 * math.pi * turn)
        return radius * math.cos(2.0 * math.pi * turn)

    def _one_double(self) -> float:
        high, low = self._words(2).tolist()
        return float((high << 32 | low) & (2**53 - 1)) * 2.0**-53


def rng_state(seed: int) -> NDArray[np.uint8]:
    """What `torch.get_rng_state()` is after `torch.manual_seed(seed)`: bytes [5056].

    The seed is from 0 to 2^63 - 1. The state's layout is `CPUGeneratorImplState` in torch's
    `aten/src/ATen/CPUGeneratorImpl.cpp`: the generator has one word left of an empty store, and no
    normal number is kept.
    """
    state = np.zeros(1, _STATE)
    state["seed"], state["left"], state["seeded"] = seed, 1, 1
    state["words"] = _first_words(seed)
    return state.view(np.uint8)


def is_rng_state(state: NDArray[np.uint8]) -> bool:
    """Whether `torch.set_rng_state` takes these bytes, of any shape.

    They are as many as a state has, and its counters lie within the generator's words.
    """
    if state.shape != (_STATE.itemsize,):
        return False
    found = np.ascontiguousarray(state).view(_STATE)[0]
    within = 0 < found["left"] <= STATE_WORDS and found["next"] <= STATE_WORDS
    return bool(found["seeded"] and within)


_STATE = np.dtype(
    [
        ("seed", "<u8"),
        ("left", "<i4"),
        ("seeded", "<i4"),
        ("next", "<u8"),
        ("words", "<u8", STATE_WORDS),
        ("kept normal numbers", "u1", 40),
    ]
)


def _first_words(seed: int) -> list[int]:
    """The generator's state after a seed, as Matsumoto and Nishimura's `init_genrand` makes it."""
    words = [seed & 0xFFFFFFFF]
    for index in range(1, STATE_WORDS):
        last = words[-1]
        words.append((1812433253 * (last ^ last >> 30) + index) & 0xFFFFFFFF)
    return words


def _box_muller(uniform: Floats) -> Floats:
    """Normal numbers [blocks * 16]: a block's first eight numbers give radii, the others angles."""
    share, turn = uniform.reshape(-1, 2, BLOCK // 2).swapaxes(0, 1)  # [blocks, 8] each
    radius = np.sqrt(-2.0 * np.log(1.0 - share))  # 1 - share is never 0
    angle = np.float32(2.0 * math.pi) * turn
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)
