"""What the loss in numpy makes of rows, held to the loss in torch."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from impala_redis.common.loss import corrections, impala
from impala_redis.common.mlp import loss
from impala_redis.common.mlp.loss import counted_rows, prepared, shape_rewards
from impala_redis.common.run.groups import LossSettings

REWARDS = np.array([[-9.0, -0.5, 0.0, 0.3, 7.0, 1e9]], np.float32)


def test_the_constants_are_those_of_torch() -> None:
    assert loss.MAX_LOG_RHO == impala.MAX_LOG_RHO
    assert math.exp(loss.LOG_EPSILON) == pytest.approx(corrections.EPSILON)


@pytest.mark.parametrize("clipping", ["none", "abs_one", "soft_asymmetric"])
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_rewards_are_shaped_as_in_torch(clipping: Any, scale: float) -> None:
    settings = LossSettings(reward_clipping=clipping, reward_scale=scale)
    expected = impala.shape_rewards(torch.from_numpy(REWARDS), settings).numpy()
    found = shape_rewards(REWARDS, settings)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("floats", [True, False])
def test_rows_that_do_not_count_are_zero_whatever_stands_in_them(floats: bool) -> None:
    # given two rows, the second of which is fake
    bad = np.array([[1.0], [np.nan]], np.float32)
    actions = bad[..., None] if floats else np.array([[1], [99]], np.int32)
    counted = counted_rows(bad, np.array([[True], [False]]), LossSettings())

    # when
    rows = prepared(actions, bad, bad, bad, counted, LossSettings(discounting=0.5))

    # then
    assert rows.weights.tolist() == rows.rewards.tolist() == [[1.0], [0.0]]
    assert rows.behaviour_log_probs.tolist() == [[1.0], [0.0]]
    assert rows.discounts.tolist() == [[0.5], [0.0]]
    assert np.isfinite(rows.actions).all()
