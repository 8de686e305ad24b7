"""Numbers as bfloat16: the upper half of a float32, rounded to the nearest."""

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.errors import NotFinite

# The bits, without the sign, of the smallest float32 that bfloat16 would round to an infinity.
# Larger bits would become one, too, or are infinities and NaNs already.
TOO_LARGE_FOR_BFLOAT16 = 0x7F7F_8000


def rounded(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of each value's nearest bfloat16, ties to even. Raises NotFinite."""
    bits = values.view("<u4")
    if (bits & 0x7FFF_FFFF).max(initial=0) >= TOO_LARGE_FOR_BFLOAT16:
        raise NotFinite(
            "the network's weights are too large for bfloat16, or not finite; lower "
            "--learning-rate, then go on from the last checkpoint with --resume"
        )
    rounded = bits >> 16
    rounded &= 1  # an odd last bit: a tie goes up
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    return rounded.astype("<u2")


def widened(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 values of these bits of bfloat16, exactly."""
    bits = halves.astype("<u4")
    bits <<= 16
    return bits.view("<f4")
