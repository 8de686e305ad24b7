"""What the bounds of a Box say about its numbers: by what the network divides them."""

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


def scales_of(box: spaces.Box) -> NDArray[np.float64]:
    """What each of a Box's numbers is divided by, flattened [E]; one number [1] if all agree.

    Whole numbers are divided by the largest magnitude that their bounds allow. A bound that is the
    end of what the dtype can hold says nothing, and leaves them as they are; only bytes up to 255
    are taken for pixels. Other numbers stay as they are, but for pixels that are kept in floats.
    """
    low, high = np.ravel(box.low), np.ravel(box.high)
    if box.dtype is None or box.dtype.kind not in "iu":
        are_pixels = len(box.shape) > 1 and (low == 0).all() and (high == 255).all()
        return np.array([255.0 if are_pixels else 1.0])
    if (low == low[0]).all() and (high == high[0]).all():
        low, high = low[:1], high[:1]
    scales = np.maximum(np.abs(low.astype(np.float64)), np.abs(high.astype(np.float64)))
    if box.dtype != np.uint8:
        ends = np.iinfo(np.dtype(box.dtype).name)
        scales[(high == ends.max) | ((low == ends.min) & (ends.min < 0))] = 1.0
    scales = np.maximum(scales, 1.0)
    return scales[:1] if (scales == scales[0]).all() else scales
