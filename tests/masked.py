"""Observations with an action mask, and rows of them whose masks leave something of each choice."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.encoding.masks import mask_bytes, offsets
from impala_redis.common.run.spaces import ActionSpec, ObservationPart, ObservationSpec
from small_networks import some_observations

ONE_CHOICE = ActionSpec("discrete", (5,))
SEVERAL_CHOICES = ActionSpec("multi_discrete", (3, 2))  # 5 in all, too


def masked(frame_stack: int = 1) -> ObservationSpec:
    """The mask of 5 choices before three numbers."""
    mask = ObservationPart("action_mask", (5,), "uint8", start=0)
    numbers = ObservationPart("numbers", (3,), "float32", start=8)
    return ObservationSpec(
        (24,), "uint8", parts=(mask, numbers), frame_stack=frame_stack, mask="action_mask"
    )


def some_masked_rows(
    observation: ObservationSpec, action: ActionSpec, *leading: int, seed: int = 0
) -> NDArray[Any]:
    """Random rows [*leading, bytes], of whose masks about a half is 0."""
    rows = some_observations(observation, *leading, seed=seed)
    rng = np.random.default_rng(seed)
    masks = mask_bytes(observation, rows)
    masks[...] = rng.integers(0, 2, masks.shape)
    for first, size in zip(offsets(action.sizes), action.sizes, strict=True):
        chosen = first + rng.integers(0, size, (*leading, 1))
        np.put_along_axis(masks, chosen, 1, axis=-1)
    return rows
