"""V-trace and the other corrections in numpy, held to those in torch."""

from typing import Any

import numpy as np
import pytest
import torch

from impala_redis.common.loss import corrections
from impala_redis.common.mlp.targets import corrected_returns, whole_returns
from impala_redis.common.run.groups import LossSettings

T, B = 7, 4


def test_a_target_is_the_sum_of_equation_one() -> None:
    # given ratios, one episode's end and one row that does not count
    rng = np.random.default_rng(0)
    rhos = rng.uniform(0.2, 3.0, (T, B)).astype(np.float32)
    rhos[3, 1] = 0.0
    rewards, values = rng.normal(0, 1, (T, B)), rng.normal(0, 1, (T + 1, B))
    discounts = np.full((T, B), 0.9)
    discounts[2, 2] = 0.0
    settings = LossSettings(clip_rho=2.0, clip_c=1.5, clip_pg_rho=1.2, lambda_=0.8)

    # when
    arrays = [np.float32(array) for array in ((rhos > 0), discounts, rewards, values)]
    errors, advantages, pg_rhos = corrected_returns(rhos, *arrays, settings)

    # then
    vs = values.copy()
    for t in range(T):
        for b in range(B):
            trace = 1.0
            for k in range(t, T):
                delta = rewards[k, b] + discounts[k, b] * values[k + 1, b] - values[k, b]
                vs[t, b] += trace * min(rhos[k, b], 2.0) * delta
                trace *= discounts[k, b] * 0.8 * min(rhos[k, b], 1.5)
    one_step = rewards + discounts * vs[1:] - values[:-1]
    np.testing.assert_allclose(errors, (vs - values)[:-1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(advantages, np.minimum(rhos, 1.2) * one_step, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(pg_rhos, np.minimum(rhos, np.float32(1.2)))


@pytest.mark.parametrize("correction", ["vtrace", "one_step", "epsilon", "none"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"clip_rho": None, "clip_c": None, "clip_pg_rho": None},
        {"clip_rho": 2.5, "clip_c": 0.5, "clip_pg_rho": 1.5, "lambda_": 0.7},
        {"clip_pg_rho": None, "lambda_": 0.0},
    ],
    ids=str,
)
def test_the_returns_of_each_correction_are_torchs(
    correction: Any, changes: dict[str, Any]
) -> None:
    # given
    settings = LossSettings(correction=correction, **changes)
    rng = np.random.default_rng(1)
    counted = rng.random((T, B)) < 0.8
    log_rhos = np.where(counted, rng.normal(0, 1, (T, B)), -np.inf).astype(np.float32)
    discounts = (0.9 * (rng.random((T, B)) < 0.8)).astype(np.float32)
    rewards = rng.normal(0, 1, (T, B)).astype(np.float32)
    values = rng.normal(0, 1, (T + 1, B)).astype(np.float32)

    # when
    weights = counted.astype(np.float32)
    found = corrected_returns(np.exp(log_rhos), weights, discounts, rewards, values, settings)

    # then
    tensors = [torch.from_numpy(array) for array in (log_rhos, discounts, rewards, values)]
    expected = corrections.corrected_returns(*tensors, settings)
    targets = found.errors + values[:-1]
    np.testing.assert_allclose(targets, expected.vs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.pg_advantages, expected.pg_advantages, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_rows_of_whole_returns_are_torchs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    discounts = (rng.random((T, B)) < 0.8).astype(np.float32)
    mask = rng.random((T, B)) < 0.8
    expected = corrections.whole_returns(torch.from_numpy(discounts), torch.from_numpy(mask))
    assert np.array_equal(whole_returns(discounts, mask), expected.numpy())
