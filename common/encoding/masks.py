"""Action masks in numpy: which choices observations allow, and what that makes of a policy.

A mask has a number for each choice of an action, those of several choices one behind the other, as
the policy's outputs [..., P] are. `common.networks.network` does the same in torch.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.run.spaces import FORBIDDEN, ObservationSpec

Flags = NDArray[np.bool_]


def allowed(observation: ObservationSpec, rows: NDArray[Any]) -> Flags:
    """Whether each choice is allowed [..., P], from observations [..., bytes] that have a mask."""
    return np.asarray(mask_bytes(observation, rows) != 0)


def mask_bytes(observation: ObservationSpec, rows: NDArray[Any]) -> NDArray[np.uint8]:
    """The masks in observations [..., bytes], as a view [..., P]: 0 if it is not allowed."""
    part = observation.mask_part
    assert part is not None
    return rows[..., part.start : part.start + part.num_bytes]


def penalties(observation: ObservationSpec, rows: NDArray[Any]) -> NDArray[np.float32]:
    """What is subtracted from a policy's outputs [..., P]: 0, or FORBIDDEN."""
    forbidden = mask_bytes(observation, rows) == 0
    return np.where(forbidden, np.float32(FORBIDDEN), np.float32(0))


def nothing_left(masks: Flags, sizes: tuple[int, ...]) -> Flags:
    """Whether nothing of each of an action's K choices is allowed [..., K], by masks [..., P]."""
    return ~np.logical_or.reduceat(masks, offsets(sizes), axis=-1)


def empty_choice(masks: Flags, sizes: tuple[int, ...]) -> str:
    """Words for a choice of which some mask [N, P] leaves nothing, such as " for choice 2 of 3".

    They are empty where an action is one choice.
    """
    choice = int(np.argwhere(nothing_left(masks, sizes))[0, 1]) + 1
    return f" for choice {choice} of {len(sizes)}" if len(sizes) > 1 else ""


def offsets(sizes: tuple[int, ...]) -> NDArray[np.int64]:
    """The place [K] of each choice's first number in a mask, for choices of these sizes."""
    return np.cumsum((0, *sizes[:-1]), dtype=np.int64)
