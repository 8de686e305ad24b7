"""Rows that a task could have sent: random, for zeros can be computed sooner than numbers."""

import numpy as np

from impala_redis.common.blocks.trajectory import Trajectory
from impala_redis.common.run.spec import RunSpec

# The mean length of an episode, in steps.
EPISODE_STEPS = 50
# So many different bytes of pictures are drawn; larger batches repeat them.
DRAWN_BYTES = 1 << 22


def fill(rows: Trajectory, spec: RunSpec, seed: int) -> int:
    """Fills the rows [T, B, ...] of a run with one choice an action; returns the frames.

    Pictures are bytes, other observations are drawn from a Gaussian. Episodes end at random, and a
    fake row follows the last one of each.
    """
    rng = np.random.default_rng(seed)
    (num_actions,) = spec.action.sizes
    shape = rows.actions.shape  # [T, B]
    if rows.observations.dtype == np.uint8:
        drawn = rng.integers(256, size=min(rows.observations.size, DRAWN_BYTES), dtype=np.uint8)
        rows.observations[:] = np.resize(drawn, rows.observations.shape)
    else:
        rows.observations[:] = rng.standard_normal(rows.observations.shape)
    rows.is_first[:] = rng.random(rows.is_first.shape) < 1 / EPISODE_STEPS
    rows.mask[:] = ~rows.is_first[1:]
    rows.actions[:] = rng.integers(num_actions, size=shape)
    rows.rewards[:] = rng.standard_normal(shape)
    rows.discounts[:] = 1.0
    rows.discounts[:-1][~rows.mask[1:]] = 0.0  # the row before a fake one ended its episode
    rows.behaviour_log_probs[:] = rng.uniform(-1.5, -0.5, shape) * np.log(num_actions)
    rows.memory[:] = 0.1 * rng.standard_normal(rows.memory.shape)
    return rows.frames
